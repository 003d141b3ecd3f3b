"""More samples than were authored: slots filled in every combination, users' spelling varied; sampled with a seed, without repeats."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from math import floor, prod
from typing import Any, Iterator, NamedTuple

from generators.errors import UserError
from generators.samples.spelling import effective
from generators.samples.texts import Text, prepare


class Draw(NamedTuple):
    """One sample to be rendered. positions: of the values of the example's slots, in the order of `Example.names`.
    spelling: a variant of the user's texts, or "" for as they are written."""

    example: int
    positions: tuple[int, ...]
    spelling: str


@dataclass(frozen=True)
class Example:
    """An authored example made ready. said: user and persona in turn. names: its slots. sizes: their numbers of values.
    spellings: variants that change what its user says. other: texts beside the conversation (mood, thoughts) that have slots."""

    said: tuple[Text, ...]
    other: tuple[Text, ...]
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    spellings: tuple[str, ...]
    key: str

    @property
    def combinations(self) -> int:
        return prod(self.sizes)

    @property
    def possible(self) -> int:
        return self.combinations * (1 + len(self.spellings))


def prepare_example(example: dict[str, Any], category: dict[str, Any]) -> Example:
    """Raises UserError when one of its texts refers to a slot that is not there or cannot be read as a template."""
    slots, spelling = category["slots"], category.get("spelling") or {}
    turns = example.get("turns") or [example]
    written = [turn.get(who, "") for turn in turns for who in ("user", "jessy")]
    said = tuple(prepare(text, slots) for text in written)
    other = tuple(prepare(text, slots) for text in [example.get("mood", ""), *(seen["text"] for seen in example.get("thoughts", []))])
    used = {name for text in (*said, *other) for name in text.names}
    names = tuple(name for name in slots if name in used)
    users = [text.literal for text in said[::2]]
    variants = effective(users, spelling.get("variants", []), example.get("language", category["language"]))
    return Example(said, other, names, tuple(len(slots[name]) for name in names), tuple(variants), "\0".join(written))


def possible(category: dict[str, Any]) -> int:
    """How many different samples the category can yield."""
    return sum(prepare_example(example, category).possible for example in category["examples"])


def expand(category: dict[str, Any], examples: list[Example], seed: int) -> Iterator[Draw]:
    """The category's samples, in the order of its examples.

    With no `count` above the authored number every example comes once. Otherwise `count` is shared out as evenly as the examples
    allow, and each yields different combinations. Which ones depends on the seed, the example's own text and its share, so that
    adding an example elsewhere draws nothing anew. Memory does not grow with `count`.
    Raises UserError when `count` is above what is possible.
    """
    sizes = [example.possible for example in examples]
    count = category.get("count", len(examples))
    if count > sum(sizes):
        raise UserError(f"count: {count} samples are asked for, and {len(examples)} examples with these slots and spellings can yield {sum(sizes)}")
    respelt_share = (category.get("spelling") or {}).get("share", 0.0)
    for index, (example, share) in enumerate(zip(examples, _shares(sizes, count), strict=True)):
        yield from _draws(index, example, share, respelt_share, random.Random(_digest(f"{seed}\0{example.key}")))


def _draws(index: int, example: Example, count: int, respelt_share: float, dice: random.Random) -> Iterator[Draw]:
    variants, combinations = len(example.spellings), example.combinations
    respelt = min(floor(respelt_share * count + dice.random()), combinations * variants) if variants else 0
    respelt += max(0, count - respelt - combinations)  # more than can be had as written
    for number in _spread(combinations, count - respelt, dice):
        yield Draw(index, _positions(number, example.sizes), "")
    for number in _spread(combinations * variants, respelt, dice):
        yield Draw(index, _positions(number // variants, example.sizes), example.spellings[number % variants])


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


def _spread(size: int, count: int, dice: random.Random) -> Iterator[int]:
    """`count` different numbers below `size`, rising: one drawn from each of `count` equal stretches (stratified sampling)."""
    if count == size:
        yield from range(size)
        return
    start = 0
    for number in range(1, count + 1):
        end = number * size // count
        yield min(start + int(dice.random() * (end - start)), end - 1)
        start = end


def _positions(number: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Combination `number` of the product of the slots: the digits of a number in a mixed base."""
    digits = []
    for size in reversed(sizes):
        number, digit = divmod(number, size)
        digits.append(digit)
    digits.reverse()
    return tuple(digits)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
