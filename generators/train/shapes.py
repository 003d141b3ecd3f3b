"""A few array sizes that hold every batch of a run, so that a compiled engine compiles few functions.

Where a function is compiled once for each size of its arguments, every new size costs time, and memory that is never given back: on CUDA
graphs, plans and buffers. Nearly every batch has a size of its own. So the sizes of a whole run are looked at before it begins, and each
batch is padded to the smallest of a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from generators.train.data import Batch, target_count

# Sizes of a run. On CUDA each keeps graphs, plans and buffers; on Metal a compiled size costs little and padding much.
MOST = {"cuda": 8, "metal": 24}
LENGTHS = (32, 64, 128, 256)  # of a row; short ones pad little, long ones attend to fewer copies of the same keys
_TARGETS = 64  # their number is a multiple
_CLASSES = 64
# What attending to one more row of keys adds to the cost of a token, and what a target costs, where a token's pass through the blocks is 1.
_CONTEXT, _TARGET = 0.01, 0.5


@dataclass(frozen=True)
class Size:
    """rows: of `length` tokens. context: rows before a row in its conversation, at most. targets: at most."""

    length: int
    rows: int
    context: int
    targets: int

    def joined(self, other: Size) -> Size:
        """The smallest that holds both."""
        return Size(self.length, max(self.rows, other.rows), max(self.context, other.context), max(self.targets, other.targets))

    def holds(self, other: Size) -> bool:
        return self.length == other.length and self.joined(other) == self

    @property
    def cost(self) -> float:
        """In passes of a token."""
        return self.rows * self.length * (1 + _CONTEXT * (self.context + 1)) + _TARGET * self.targets


def rows_of(tokens: int, length: int) -> int:
    return -(-tokens // length)


def size_of(batch: Batch, length: int) -> Size:
    """What the batch takes in rows of `length`."""
    rows = context = 0
    for group in batch:
        shared = rows_of(len(group.prefix), length)
        own = [rows_of(len(row.ids) - 1 - len(group.prefix), length) for row in group.rows]
        rows += shared + sum(own)
        context = max(context, shared + max(own) - 1)
    return Size(length, rows, context, -(-target_count(batch) // _TARGETS) * _TARGETS)


def choose(batches: Iterable[Batch], most: int, lengths: Sequence[int] = LENGTHS) -> list[Size]:
    """At most `most` sizes of one row length, rising, such that every batch fits into one of them; those that pad least in all."""
    known = list(batches)
    if not known:
        return []
    return min((_best_parts([size_of(batch, length) for batch in known], most) for length in lengths), key=lambda found: found[0])[1]


def _best_parts(sizes: Sequence[Size], most: int) -> tuple[float, list[Size]]:
    """(cost, sizes) of the best cut of `sizes`, ordered by their rows, into at most `most` parts: each is padded to what holds all of it."""
    merged, counts = _classes(sizes)
    joint: list[list[Size]] = []  # [start][end - start - 1]: what holds merged[start:end]
    for start, first in enumerate(merged):
        held = [first]
        for size in merged[start + 1 :]:
            held.append(held[-1].joined(size))
        joint.append(held)
    count_before = [sum(counts[:end]) for end in range(len(counts) + 1)]
    # best[end]: the cheapest (cost, parts) of merged[:end] with the number of parts so far.
    best: list[tuple[float, list[Size]]] = [(0.0, []), *[(inf, [])] * len(merged)]
    for _ in range(min(most, len(merged))):
        longer = list(best)
        for end in range(1, len(merged) + 1):
            for start in range(end):
                part = joint[start][end - start - 1]
                cost = best[start][0] + (count_before[end] - count_before[start]) * part.cost
                if cost < longer[end][0]:
                    longer[end] = (cost, [*best[start][1], part])
        best = longer
    return best[-1]


def _classes(sizes: Sequence[Size]) -> tuple[list[Size], list[int]]:
    """Sizes of nearly the same number of rows as one, rising; and how many each stands for. No more than `_CLASSES`, since the search takes
    the square of their number."""
    top = max(size.rows for size in sizes)
    merged: dict[int, Size] = {}
    counts: dict[int, int] = {}
    for size in sizes:
        key = -(-size.rows * _CLASSES // top)
        merged[key] = merged[key].joined(size) if key in merged else size
        counts[key] = counts.get(key, 0) + 1
    order = sorted(merged)
    return [merged[key] for key in order], [counts[key] for key in order]


def smallest(sizes: Iterable[Size], batch: Batch) -> Size | None:
    """The cheapest of `sizes` that holds the batch."""
    fitting = [size for size in sizes if size.holds(size_of(batch, size.length))]
    return min(fitting, key=lambda size: size.cost, default=None)
