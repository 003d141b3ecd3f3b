"""Attention of all tokens of a batch at once: who sees whom is a matrix, the same for every layer.

A batch of chat samples is so short that one dense product of all its queries with all its keys costs less than the launches that would
spare the masked part. A larger batch is cut into *pieces* of whole segments; the queries of a piece see the keys of every prefix, and
those of the piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generators.device import load_mlx
from generators.train.blocks import Heads
from generators.train.fused import capped, fused, product, scores_backward, through_cap
from generators.train.layout import Layout, Segment

mx = load_mlx()
Array = np.ndarray

ROUND = 64  # numbers of tokens are rounded up to a multiple: matrix units like that, and fewer shapes have to be prepared
WHOLE = 2048  # a batch of more tokens is cut into pieces
PIECE = 512  # tokens of a piece, at most, unless a segment is longer
_NOBODY = -1  # the group of padding


def rounded(count: int) -> int:
    return -(-count // ROUND) * ROUND


@dataclass(frozen=True)
class Pieces:
    """queries: (C, Lq) int32, the tokens of each piece. keys: (C, P + Lq), those of all prefixes and those of the piece. Both are padded
    with the last token, which is padding itself. back: (T,) int32, where in (C * Lq) a token is. to_prefix: (T,) int32, where among the P
    it is; P, one behind the last, if it is nowhere there."""

    queries: Any
    keys: Any
    back: Any
    to_prefix: Any
    prefixes: int


class Attention:
    """Who sees whom in a batch of T tokens, padding included, of which the last is padding."""

    def __init__(self, layout: Layout, tokens: int, dtype: Any):
        """tokens: T, more than the layout's."""
        self.tokens, self._dtype = tokens, dtype
        self._group = np.full(tokens, _NOBODY)
        self._row = np.full(tokens, len(layout.segments) + 1)  # 0 in a prefix
        self._position = np.zeros(tokens, np.int64)
        self._position[: layout.tokens] = layout.positions
        group = 0
        for number, segment in enumerate(layout.segments, 1):
            continues = segment.prefix is not None
            group += not continues
            self._group[segment.rows] = group
            is_prefix = any(other.prefix == segment.rows for other in layout.segments)
            self._row[segment.rows] = 0 if is_prefix else number
        self.pieces = _pieces(layout.segments, tokens) if tokens > WHOLE else None
        self._biases: dict[tuple[int | None, int], Any] = {}

    def bias(self, heads: Heads) -> Any:
        """(C, 1, Lq * shared, Lk): 0 where a query may look and -inf elsewhere; C is 1 and Lq, Lk are T without pieces."""
        key = (heads.window, heads.shared)
        if key not in self._biases:
            seen = self._seen(heads.window)
            bias = mx.where(mx.array(seen), mx.array(0, self._dtype), mx.array(-mx.inf, self._dtype))
            self._biases[key] = mx.repeat(bias, heads.shared, axis=1)[:, None]
        return self._biases[key]

    def _seen(self, window: int | None) -> Array:
        """(C, Lq, Lk), true where a query may look."""
        if self.pieces is None:
            queries = keys = np.arange(self.tokens)[None]
            shared = np.zeros(0, bool)
        else:
            queries, keys = np.array(self.pieces.queries), np.array(self.pieces.keys)
            shared = np.arange(keys.shape[1]) < self.pieces.prefixes
        row, position = self._row, self._position
        asked, looked = row[queries][:, :, None], row[keys][:, None]
        own = asked == looked
        if self.pieces is None:
            own |= looked == 0
        else:  # a prefix is among the keys that all pieces have, and must not count twice
            own = np.where(shared, looked == 0, own & (looked > 0))
        distance = position[queries][:, :, None] - position[keys][:, None]
        seen = own & (distance >= 0) & (self._group[queries][:, :, None] == self._group[keys][:, None])
        return seen if window is None else seen & (distance < window)

    # --- between tokens and pieces

    def _queries(self, x: Any, heads: Heads) -> Any:
        """(T, heads, n) to (C, groups, Lq * shared, n)."""
        x = x[None] if self.pieces is None else x[self.pieces.queries]
        count, length, _, size = x.shape
        by_group = x.reshape(count, length, heads.groups, heads.shared, size).transpose(0, 2, 1, 3, 4)
        return by_group.reshape(count, heads.groups, length * heads.shared, size)

    def _from_queries(self, x: Any, heads: Heads) -> Any:
        """(C, groups, Lq * shared, n) to (T, heads, n)."""
        count, groups, rows, size = x.shape
        by_token = x.reshape(count, groups, rows // heads.shared, heads.shared, size).transpose(0, 2, 1, 3, 4)
        flat = by_token.reshape(-1, heads.heads, size)
        return flat if self.pieces is None else flat[self.pieces.back]

    def _keys(self, x: Any) -> Any:
        """(T, groups, size) to (C, groups, Lk, size)."""
        x = x[None] if self.pieces is None else x[self.pieces.keys]
        return x.transpose(0, 2, 1, 3)

    def _from_keys(self, x: Any) -> Any:
        """Gradients: (C, groups, Lk, size) to (T, groups, size); those of a prefix are summed over the pieces."""
        x = x.transpose(0, 2, 1, 3)
        if self.pieces is None:
            return x[0]
        count = self.pieces.prefixes
        own = x[:, count:].reshape(-1, *x.shape[2:])[self.pieces.back]
        shared = x[:, :count].astype(mx.float32).sum(axis=0).astype(x.dtype)
        return own + mx.concatenate([shared, mx.zeros_like(shared[:1])])[self.pieces.to_prefix]

    # --- the passes

    def forward(self, heads: Heads, scale: float, q: Any, k: Any, v: Any) -> tuple[Any, Any]:
        """q: (T, heads, size); k, v: (T, groups, size). Returns (T, heads * size), and the softmax weights for the backward pass."""
        asked, keys = self._queries(q, heads), self._keys(k).swapaxes(-1, -2)
        if heads.soft_cap is None:
            scores = _addmm(self.bias(heads), asked, keys, scale)
        else:
            scores = fused(capped)(asked @ keys, mx.array(scale), mx.array(heads.soft_cap)) + self.bias(heads)
        weights = mx.softmax(scores, axis=-1, precise=True)
        return self._from_queries(_mm(weights, self._keys(v)), heads).reshape(self.tokens, -1), weights

    def back(self, heads: Heads, scale: float, q: Any, k: Any, v: Any, weights: Any, mixed: Any, d_mixed: Any) -> tuple[Any, Any, Any]:
        """The gradients of q, k and v. mixed, d_mixed: (T, heads * size), what `forward` gave, and its gradient."""
        by_head = (self.tokens, heads.heads, heads.size)
        along = fused(product)(mixed, d_mixed).reshape(by_head).sum(axis=-1, keepdims=True)
        along, slope = self._queries(along, heads), self._queries(d_mixed.reshape(by_head), heads)
        asked, keys, values = self._queries(q, heads), self._keys(k), self._keys(v)
        d_values = _mm(weights.swapaxes(-1, -2), slope)
        d_scores = fused(scores_backward)(weights, _mm(slope, values.swapaxes(-1, -2)), along, mx.array(scale))
        if heads.soft_cap is not None:
            cap = mx.array(heads.soft_cap)
            d_scores = fused(through_cap)(d_scores, fused(capped)(_mm(asked, keys.swapaxes(-1, -2)), mx.array(scale), cap), cap)
        dq = self._from_queries(_mm(d_scores, keys), heads)
        return dq, self._from_keys(_mm(d_scores.swapaxes(-1, -2), asked)), self._from_keys(d_values)


def _mm(a: Any, b: Any) -> Any:
    """The product over the last two axes; as one of matrices, where there is but one."""
    if a.shape[0] * a.shape[1] > 1:
        return a @ b
    return (a[0, 0] @ b[0, 0])[None, None]


def _addmm(c: Any, a: Any, b: Any, scale: float) -> Any:
    """c + scale * (a b)"""
    if a.shape[0] * a.shape[1] > 1:
        return mx.addmm(mx.broadcast_to(c, (*a.shape[:2], *c.shape[2:])), a, b, alpha=scale)
    return mx.addmm(c[0, 0], a[0, 0], b[0, 0], alpha=scale)[None, None]


def _pieces(segments: tuple[Segment, ...], tokens: int) -> Pieces:
    """Segments of like length come together, so that the pieces are filled; a piece holds whole segments."""
    prefixes = sorted({(segment.prefix.start, segment.prefix.stop) for segment in segments if segment.prefix is not None})
    held: list[list[int]] = []
    most = max(PIECE, max(segment.length for segment in segments))
    for segment in sorted(segments, key=lambda segment: -segment.length):
        fitting = next((piece for piece in held if len(piece) + segment.length <= most), None)
        if fitting is None:
            held.append(fitting := [])
        fitting.extend(range(segment.rows.start, segment.rows.stop))
    padding, length = tokens - 1, rounded(max(map(len, held)) + 1)  # so that the last place of every piece is padding
    of_prefixes = [token for start, end in prefixes for token in range(start, end)]
    of_prefixes += [padding] * (rounded(len(of_prefixes)) - len(of_prefixes))
    queries = np.array([piece + [padding] * (length - len(piece)) for piece in held], np.int32)
    back, to_prefix = np.full(tokens, length - 1, np.int32), np.full(tokens, len(of_prefixes), np.int32)
    back[queries.reshape(-1)] = np.arange(queries.size)
    to_prefix[[token for token in of_prefixes if token != padding]] = [place for place, token in enumerate(of_prefixes) if token != padding]
    keys = np.concatenate([np.broadcast_to(np.array(of_prefixes, np.int32), (len(held), len(of_prefixes))), queries], axis=1)
    return Pieces(mx.array(queries), mx.array(keys), mx.array(back), mx.array(to_prefix), len(of_prefixes))
