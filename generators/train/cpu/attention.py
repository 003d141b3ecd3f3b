"""Attention of ragged segments, forward and backward, a block of queries at a time.

The queries of the heads that share a key head are rows of one product. A block sees only the keys between the start of its window and
its last query, so the masked half is hardly computed. Keys come multiplied with the softmax scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from generators.train.blocks import Heads
from generators.train.cpu.workers import Arena, scratch, slices
from generators.train.layout import Layout, Segment

Array = np.ndarray

_ROWS = 256  # query rows (tokens times heads of a group) in a block: scores of some hundred keys stay in the cache


@dataclass(frozen=True)
class Run:
    """A segment and those of its tokens that ask. queries: their rows in the matrix of queries. positions: (n,) rising."""

    segment: Segment
    queries: slice
    positions: Array


def runs(layout: Layout, asking: Array | None) -> list[Run]:
    """asking: (N,) rising rows of the tokens that ask, or None for all. The costly runs first, so that no worker is left with one at the end."""
    found = []
    for segment in layout.segments:
        rows = segment.rows
        if asking is None:
            found.append(Run(segment, rows, layout.positions[rows]))
        else:
            start, end = np.searchsorted(asking, (rows.start, rows.stop))
            found.append(Run(segment, slice(int(start), int(end)), layout.positions[asking[start:end]]))
    return sorted(found, key=lambda run: -len(run.positions) * (run.segment.offset + run.segment.length))


@dataclass(frozen=True)
class _Block:
    """queries: among those of the run. keys: among those the segment can see."""

    queries: slice
    keys: slice
    positions: Array


def _blocks(run: Run, heads: Heads) -> Iterator[_Block]:
    for queries in slices(len(run.positions), 1, max(1, _ROWS // heads.shared)):
        positions = run.positions[queries]
        first = 0 if heads.window is None else max(0, int(positions[0]) - heads.window + 1)
        yield _Block(queries, slice(first, int(positions[-1]) + 1), positions)


def scores_of(run: Run, heads: Heads) -> int:
    """How many scores are computed for a run."""
    blocks = ((block.queries, block.keys) for block in _blocks(run, heads))
    return heads.heads * sum((queries.stop - queries.start) * (keys.stop - keys.start) for queries, keys in blocks)


class Memory:
    """The softmax weights of a layer, from its forward pass to its backward. Without an arena nothing is kept, and the backward pass
    computes them again."""

    def __init__(self, arena: Arena | None):
        self._arena = arena
        self._kept: dict[tuple[int, int, int], Array] = {}

    def place(self, run: Run, group: int, block: _Block, *shape: int) -> Array:
        """Where the forward pass puts those of a block."""
        if self._arena is None:
            return scratch("weights", *shape)
        return self._kept.setdefault((run.queries.start, group, block.queries.start), self._arena.take(*shape))

    def find(self, run: Run, group: int, block: _Block) -> Array | None:
        return self._kept.get((run.queries.start, group, block.queries.start))


def forward(run: Run, heads: Heads, q: Array, k: Array, v: Array, out: Array, memory: Memory) -> None:
    """q, out: (queries, heads * size); k, v: (tokens, groups * size). Fills the run's rows of `out`."""
    for group in range(heads.groups):
        keys, values = _context(k, run.segment, heads, group, "keys"), _context(v, run.segment, heads, group, "values")
        for block in _blocks(run, heads):
            asked, seen = _rows(q, run, block, heads, group), keys[block.keys]
            weights = memory.place(run, group, block, len(asked), len(seen))
            _weigh(asked, seen, block, heads, weights, None)
            _put(out, run, block, heads, group, weights @ values[block.keys])


def backward(
    run: Run, heads: Heads, q: Array, k: Array, v: Array, d_out: Array, dq: Array, dk: Array, dv: Array, memory: Memory
) -> tuple[slice, Array, Array] | None:
    """Fills the run's rows of dq, and its segment's rows of dk and dv. Returns the rows of its prefix and what it adds to those; None
    without a prefix."""
    segment = run.segment
    shape = (segment.offset + segment.length, heads.groups, heads.size)
    d_keys, d_values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for group in range(heads.groups):
        keys, values = _context(k, segment, heads, group, "keys"), _context(v, segment, heads, group, "values")
        for block in _blocks(run, heads):
            asked, slope = _rows(q, run, block, heads, group), _rows(d_out, run, block, heads, group)
            weights, cap_slope = _weights(run, group, block, heads, asked, keys[block.keys], memory)
            d_values[block.keys, group] += weights.T @ slope
            d_scores = np.matmul(slope, values[block.keys].T, out=scratch("scores", *weights.shape))
            d_scores -= np.einsum("ij,ij->i", d_scores, weights)[:, None]
            d_scores *= weights
            if cap_slope is not None:
                d_scores *= cap_slope
            _put(dq, run, block, heads, group, d_scores @ keys[block.keys])
            d_keys[block.keys, group] += d_scores.T @ asked
    own = slice(segment.offset, None)
    dk[segment.rows] = d_keys[own].reshape(segment.length, -1)
    dv[segment.rows] = d_values[own].reshape(segment.length, -1)
    if segment.prefix is None:
        return None
    return segment.prefix, d_keys[: segment.offset].reshape(segment.offset, -1), d_values[: segment.offset].reshape(segment.offset, -1)


def _context(array: Array, segment: Segment, heads: Heads, group: int, name: str) -> Array:
    """(offset + length, size): the keys or values of one group that a segment can see."""
    columns = slice(group * heads.size, (group + 1) * heads.size)
    if segment.prefix is None:
        return array[segment.rows, columns]
    out = scratch(name, segment.offset + segment.length, heads.size)
    out[: segment.offset] = array[segment.prefix, columns]
    out[segment.offset :] = array[segment.rows, columns]
    return out


def _rows(array: Array, run: Run, block: _Block, heads: Heads, group: int) -> Array:
    """(queries * shared, size): the block's queries of one group, the heads of a token together."""
    width = heads.shared * heads.size
    part = array[run.queries][block.queries, group * width : (group + 1) * width]
    return np.ascontiguousarray(part).reshape(-1, heads.size)


def _put(array: Array, run: Run, block: _Block, heads: Heads, group: int, values: Array) -> None:
    width = heads.shared * heads.size
    array[run.queries][block.queries, group * width : (group + 1) * width] = values.reshape(-1, width)


def _weights(run: Run, group: int, block: _Block, heads: Heads, asked: Array, seen: Array, memory: Memory) -> tuple[Array, Array | None]:
    """The softmax weights, (rows, keys); and the derivative of the cap, where there is one."""
    kept = memory.find(run, group, block)
    if kept is not None:
        return kept, None
    weights = scratch("weights", len(asked), len(seen))
    cap_slope = None if heads.soft_cap is None else scratch("cap", *weights.shape)
    _weigh(asked, seen, block, heads, weights, cap_slope)
    return weights, cap_slope


def _weigh(asked: Array, seen: Array, block: _Block, heads: Heads, weights: Array, cap_slope: Array | None) -> None:
    """weights = softmax(cap(asked seenᵀ)) where a query may look, (rows, keys)."""
    np.matmul(asked, seen.T, out=weights)
    if heads.soft_cap is not None:
        weights *= np.float32(1 / heads.soft_cap)
        np.tanh(weights, out=weights)
        if cap_slope is not None:
            np.subtract(1, np.multiply(weights, weights, out=cap_slope), out=cap_slope)
        weights *= np.float32(heads.soft_cap)
    _hide(weights.reshape(len(block.positions), heads.shared, -1), block, heads.window)
    weights -= weights.max(axis=1, keepdims=True)
    np.exp(weights, out=weights)
    weights *= 1 / weights.sum(axis=1, keepdims=True)


def _hide(scores: Array, block: _Block, window: int | None) -> None:
    """-inf for the keys after a query, and for those before its window. scores: (queries, shared, keys)."""
    first, last = int(block.positions[0]), int(block.positions[-1])
    after = first + 1 - block.keys.start
    if after < scores.shape[2]:
        later = np.arange(first + 1, block.keys.stop)[None] > block.positions[:, None]
        np.copyto(scores[:, :, after:], -np.inf, where=later[:, None])
    if window is not None and last - window >= block.keys.start:
        before = last - window + 1 - block.keys.start
        earlier = np.arange(block.keys.start, last - window + 1)[None] <= block.positions[:, None] - window
        np.copyto(scores[:, :, :before], -np.inf, where=earlier[:, None])
