"""Where the tokens of a batch stand: no padding, each group's prefix once.

All tokens of a batch are rows of one matrix. A *segment* is a run of them that attends to itself and to the segment before it (its
prefix), if it has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.train.data import Batch, Group, Row

Array = np.ndarray


@dataclass(frozen=True)
class Segment:
    """rows: its rows in the matrix of tokens. prefix: the rows of the prefix it continues, or None. offset: the length of that prefix."""

    rows: slice
    prefix: slice | None

    @property
    def offset(self) -> int:
        return 0 if self.prefix is None else self.prefix.stop - self.prefix.start

    @property
    def length(self) -> int:
        return self.rows.stop - self.rows.start


@dataclass(frozen=True)
class Layout:
    """ids, positions: (T,) int64, of every token. segments: in the order of rows. predicting: (N,) int64, the rows, rising, from which
    the targets are predicted. targets: (N,) int64, those tokens."""

    ids: Array
    positions: Array
    segments: tuple[Segment, ...]
    predicting: Array
    targets: Array

    @property
    def tokens(self) -> int:
        return len(self.ids)


def layout_of(batch: Batch) -> Layout:
    """What follows a row's last predicting token is left out: nothing depends on it."""
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    predicting: list[int] = []
    targets: list[int] = []

    def add(tokens: tuple[int, ...], offset: int, prefix: slice | None) -> slice:
        rows = slice(len(ids), len(ids) + len(tokens))
        ids.extend(tokens)
        positions.extend(range(offset, offset + len(tokens)))
        segments.append(Segment(rows, prefix))
        return rows

    for group in batch:
        start = len(group.prefix)
        prefix = add(group.prefix, 0, None) if start else None
        for row in group.rows:
            rows = add(row.ids[start : row.targets[-1]], start, prefix)
            predicting += [rows.start + position - 1 - start for position in row.targets]
            targets += [row.ids[position] for position in row.targets]
    as_array = [np.array(values, np.int64) for values in (ids, positions, predicting, targets)]
    return Layout(as_array[0], as_array[1], tuple(segments), as_array[2], as_array[3])


def divided(batch: Batch, most_tokens: int) -> list[Batch]:
    """The batch in as few parts as keep each to `most_tokens` tokens, about alike in size; for memory. A longer row is a part by itself,
    and a group that is divided computes its prefix in each part."""
    parts = _filled(batch, most_tokens)
    even = layout_of(batch).tokens // len(parts)
    while even < most_tokens and len(parts) > 1:
        alike = _filled(batch, even)
        if len(alike) == len(parts):
            return alike
        even += even // 20 + 1
    return parts


def _filled(batch: Batch, most_tokens: int) -> list[Batch]:
    """Rows in their order, into one part until the next would not fit."""
    parts: list[list[Group]] = [[]]
    filled = 0
    for group in batch:
        rows: list[Row] = []
        for row in group.rows:
            own = row.targets[-1] - len(group.prefix)
            if filled and filled + own + (0 if rows else len(group.prefix)) > most_tokens:
                if rows:
                    parts[-1].append(Group(group.prefix, tuple(rows)))
                parts.append([])
                rows, filled = [], 0
            filled += own + (0 if rows else len(group.prefix))
            rows.append(row)
        parts[-1].append(Group(group.prefix, tuple(rows)))
    return [tuple(part) for part in parts]
