"""More samples than were authored: slots filled in every combination, sampled with a seed and without repeats."""

from __future__ import annotations

import hashlib
import random
from math import prod
from typing import Any, Iterator


def slots_of(example: dict[str, Any], slots: dict[str, list[str]]) -> list[str]:
    """Names of the slots that an example uses, in the order in which the category declares them."""
    text = repr(example)
    return [name for name in slots if f"slots.{name}" in text]


def possible(category: dict[str, Any]) -> int:
    """How many different samples the category can yield."""
    return sum(prod(len(category["slots"][name]) for name in slots_of(example, category["slots"])) for example in category["examples"])


def expand(category: dict[str, Any], seed: int) -> Iterator[tuple[int, dict[str, str]]]:
    """(index of the example, values of its slots) for each of the category's samples.

    Without slots, or with no `count` above the authored number, every example comes once, in order. Otherwise `count`
    combinations, each at most once, every example at least once where `count` allows, in the order of examples.
    """
    examples, slots = category["examples"], category["slots"]
    count = category.get("count", len(examples))
    sizes = [prod(len(slots[name]) for name in slots_of(example, slots)) for example in examples]
    shares = _shares(sizes, count)
    for index, (example, size, share) in enumerate(zip(examples, sizes, shares, strict=True)):
        names = slots_of(example, slots)
        numbers = range(size) if share >= size else sorted(_sample(size, share, f"{seed}:{index}"))
        for number in numbers:
            yield index, _combination(number, names, slots)


def _shares(sizes: list[int], count: int) -> list[int]:
    """Split `count` over examples as evenly as their sizes allow."""
    shares = [0] * len(sizes)
    left, open_indices = count, [index for index, size in enumerate(sizes) if size]
    while left and open_indices:
        each, extra = divmod(left, len(open_indices))
        for position, index in enumerate(open_indices):
            taken = min(sizes[index] - shares[index], each + (position < extra))
            shares[index] += taken
            left -= taken
        open_indices = [index for index in open_indices if shares[index] < sizes[index]]
    return shares


def _sample(size: int, count: int, key: str) -> list[int]:
    return random.Random(hashlib.sha256(key.encode()).digest()).sample(range(size), count)


def _combination(number: int, names: list[str], slots: dict[str, list[str]]) -> dict[str, str]:
    """The values of combination `number` of the product of the slots: a number in a mixed base."""
    values: dict[str, str] = {}
    for name in reversed(names):
        number, position = divmod(number, len(slots[name]))
        values[name] = slots[name][position]
    return values
