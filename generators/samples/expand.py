"""More samples than were authored: slots filled in every combination, users' spelling varied; sampled with a seed, without repeats."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, prod
from typing import Any

from generators.errors import UserError
from generators.samples.spelling import effective
from generators.samples.texts import Text, parse, prepare

# One sample to be rendered: the index of its example, the position of the value of each of the example's slots and then a 0 (see
# texts.Piece), and how its user texts are respelt ("" for as they are written).
Draw = tuple[int, Sequence[int], str]


@dataclass(frozen=True)
class Example:
    """An authored example made ready. said: user and persona in turn. other: texts beside the conversation that may have slots (mood, then
    thoughts). names: its slots. sizes: their numbers of values. spellings: variants that change what its user says."""

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


def prepare_example(example: dict[str, Any], category: dict[str, Any], tables: dict[str, Sequence[str]] | None = None) -> Example:
    """tables: shared by the examples of a category, see `texts.prepare`.

    Raises UserError when one of its texts refers to a slot that is not there or cannot be read as a template.
    """
    tables = {} if tables is None else tables
    slots, spelling = category["slots"], category.get("spelling") or {}
    turns = example.get("turns") or [example]
    said = [turn.get(who, "") for turn in turns for who in ("user", "jessy")]
    other = [example.get("mood", ""), *(seen["text"] for seen in example.get("thoughts", []))]
    parsed = [parse(text, slots) for text in (*said, *other)]
    names = tuple(name for name in slots if any(name in text.names for text in parsed))
    texts = [prepare(text, slots, names, tables) for text in parsed]
    users = [text.literal for text in texts[: len(said) : 2]]
    variants = effective(users, spelling.get("variants", []), example.get("language", category["language"]))
    sizes = tuple(len(slots[name]) for name in names)
    return Example(tuple(texts[: len(said)]), tuple(texts[len(said) :]), names, sizes, tuple(variants), "\0".join(said))


def first_question(example: dict[str, Any], category: dict[str, Any]) -> str:
    """What the user says first, with the first value in each slot. Raises UserError as `prepare_example`."""
    ready = prepare_example(example, category)
    return ready.said[0].fill([0] * (len(ready.names) + 1))


@dataclass(frozen=True)
class Survey:
    """Of a category. possible: how many different samples it can yield, an example that cannot be filled counted as one. problems: (index of
    the example, message) for each of those."""

    possible: int
    problems: tuple[tuple[int, str], ...]


def survey(category: dict[str, Any]) -> Survey:
    tables: dict[str, Sequence[str]] = {}
    total, problems = 0, []
    for index, example in enumerate(category["examples"]):
        try:
            total += prepare_example(example, category, tables).possible
        except UserError as error:
            total += 1
            problems.append((index, str(error)))
    return Survey(total, tuple(problems))


def expand(category: dict[str, Any], examples: Sequence[Example], seed: int) -> Iterator[Draw]:
    """The category's samples, in the order of its examples.

    With no `count` above the authored number every example comes once. Otherwise `count` is shared out as evenly as the examples
    allow, and each yields different combinations. Which ones depends on the seed, the example's own text and its share, so that
    adding an example elsewhere draws nothing anew. Memory does not grow with `count`.
    Raises UserError when `count` is above what is possible.
    """
    sizes = [example.possible for example in examples]
    count = category.get("count", len(examples))
    if count > sum(sizes):
        most = f"{len(examples)} examples with these slots and spellings can yield {sum(sizes)}"
        raise UserError(f"count: {count} samples are asked for, and {most}")
    respelt_share = (category.get("spelling") or {}).get("share", 0.0)
    for index, (example, share) in enumerate(zip(examples, _shares(sizes, count), strict=True)):
        yield from _draws(index, example, share, respelt_share, random.Random(_digest(f"{seed}\0{example.key}")))


def _draws(index: int, example: Example, count: int, respelt_share: float, dice: random.Random) -> Iterator[Draw]:
    variants, combinations, sizes = example.spellings, example.combinations, tuple(reversed(example.sizes))
    respelt = min(floor(respelt_share * count + dice.random()), combinations * len(variants))
    respelt += max(0, count - respelt - combinations)  # more than can be had as written
    for number in _spread(combinations, count - respelt, dice):
        yield index, _positions(number, sizes), ""
    for number in _spread(combinations * len(variants), respelt, dice):
        yield index, _positions(number // len(variants), sizes), variants[number % len(variants)]


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
    start, draw = 0, dice.random
    for number in range(1, count + 1):
        end = number * size // count
        yield min(start + int(draw() * (end - start)), end - 1)
        start = end


def _positions(number: int, sizes: tuple[int, ...]) -> list[int]:
    """Combination `number` of the product of the slots, as the digits of a number in a mixed base, and a 0. sizes: the last slot first."""
    digits = [0]
    for size in sizes:
        number, digit = divmod(number, size)
        digits.append(digit)
    digits.reverse()
    return digits


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
