"""Attention of all tokens of a batch at once: who sees whom is a matrix, the same for every layer.

A batch of chat samples is so short that one dense product of all its queries with all its keys costs less than the launches that would
spare the masked part. A larger batch is cut into *pieces* of whole segments; the queries of a piece see the keys of every prefix, and
those of the piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from generators.device import load_mlx
from generators.train.blocks import Heads
from generators.train.fused import capped, fused, product, scores_backward, through_cap
from generators.train.gpu.layers import Arrays
from generators.train.layout import Layout, Segment

mx = load_mlx()
View = Mapping[str, Any]
"""bias: (C, 1, Lq * shared, Lk), 0 where a query may look and -inf elsewhere; without pieces C is 1, and Lq and Lk are T, the number of
tokens with padding. With pieces, all int32 and padded with the last token, which is padding itself:
queries: (C, Lq), the tokens of each piece. keys: (C, P + Lq), those of all prefixes and those of the piece. back: (T,), where in (C * Lq) a
token is. to_prefix: (T,), where among the P it is; P, one behind the last, if it is nowhere there."""

ROUND = 64  # numbers of tokens are rounded up to a multiple: matrix units like that, and fewer shapes have to be prepared
PIECES = (255, 383, 511, 767, 1023)  # tokens of a piece, at most, unless a segment is longer; one place more is padding
_WHOLE = 2048  # a batch of more tokens is cut into pieces
_whole = ContextVar("whole", default=_WHOLE)
_NOBODY = -1  # the group of padding


@contextmanager
def in_pieces() -> Iterator[None]:
    """Batches of any size are cut into pieces, each as small as its longest segment."""
    before = _whole.set(0)
    try:
        yield
    finally:
        _whole.reset(before)


def is_whole(tokens: int) -> bool:
    return tokens <= _whole.get()


def rounded(count: int) -> int:
    return -(-count // ROUND) * ROUND


class Sight:
    """Who sees whom in a batch of T tokens, padding included, of which the last is padding."""

    def __init__(self, layout: Layout, tokens: int, dtype: Any):
        """tokens: T, more than the layout's."""
        group, row = np.full(tokens, _NOBODY, np.int32), np.full(tokens, len(layout.segments) + 1, np.int32)
        position = np.zeros(tokens, np.int32)
        position[: layout.tokens] = layout.positions
        prefixes = {segment.prefix.start for segment in layout.segments if segment.prefix is not None}
        number_of_group = 0
        for number, segment in enumerate(layout.segments, 1):
            number_of_group += segment.prefix is None
            group[segment.rows] = number_of_group
            row[segment.rows] = 0 if segment.rows.start in prefixes else number  # 0 is seen by all of its group
        self._of_tokens = mx.array(np.stack([group, row, position]))
        self._dtype = dtype
        self.pieces = {} if is_whole(tokens) else pieces_of(layout.segments, tokens)
        self._biases: dict[tuple[int | None, int], Any] = {}

    def view(self, heads: Heads) -> dict[str, Any]:
        key = (heads.window, heads.shared)
        if key not in self._biases:
            self._biases[key] = mx.repeat(self._bias(heads.window), heads.shared, axis=1)[:, None]
        return {"bias": self._biases[key], **self.pieces}

    def _bias(self, window: int | None) -> Any:
        """(C, Lq, Lk)"""
        queries = keys = self._of_tokens[:, None]
        shared = mx.zeros((1, 1, 1), mx.bool_)
        if self.pieces:  # a prefix is among the keys that all pieces have, and must not count twice
            queries, keys = self._of_tokens[:, self.pieces["queries"]], self._of_tokens[:, self.pieces["keys"]]
            shared = (mx.arange(keys.shape[2]) < keys.shape[2] - queries.shape[2])[None, None]
        seen = fused(_seen_in_pieces if self.pieces else _seen)(*queries[..., None], *keys[:, :, None], shared, mx.array(window or 2**30))
        return mx.where(seen, mx.array(0, self._dtype), mx.array(-mx.inf, self._dtype))


def _near(group: Any, position: Any, group_of_key: Any, position_of_key: Any, window: Any) -> Any:
    distance = position - position_of_key
    return (group == group_of_key) & (distance >= 0) & (distance < window)


def _seen(group: Any, row: Any, position: Any, key_group: Any, key_row: Any, key_position: Any, shared: Any, window: Any) -> Any:
    return _near(group, position, key_group, key_position, window) & ((row == key_row) | (key_row == 0))


def _seen_in_pieces(group: Any, row: Any, position: Any, key_group: Any, key_row: Any, key_position: Any, shared: Any, window: Any) -> Any:
    """shared: which keys are those of the prefixes."""
    own = (row == key_row) & (key_row > 0)
    return _near(group, position, key_group, key_position, window) & mx.where(shared, key_row == 0, own)


# --- between tokens and pieces


def _queries(x: Any, heads: Heads, view: View) -> Any:
    """(T, heads, n) to (C, groups, Lq * shared, n)."""
    x = x[view["queries"]] if "queries" in view else x[None]
    count, length, _, size = x.shape
    by_group = x.reshape(count, length, heads.groups, heads.shared, size).transpose(0, 2, 1, 3, 4)
    return by_group.reshape(count, heads.groups, length * heads.shared, size)


def _from_queries(x: Any, heads: Heads, view: View) -> Any:
    """(C, groups, Lq * shared, n) to (T, heads, n)."""
    count, groups, rows, size = x.shape
    by_token = x.reshape(count, groups, rows // heads.shared, heads.shared, size).transpose(0, 2, 1, 3, 4)
    flat = by_token.reshape(-1, heads.heads, size)
    return flat[view["back"]] if "back" in view else flat


def _keys(x: Any, view: View) -> Any:
    """(T, groups, size) to (C, groups, Lk, size)."""
    return (x[view["keys"]] if "keys" in view else x[None]).transpose(0, 2, 1, 3)


def _from_keys(x: Any, view: View) -> Any:
    """Gradients: (C, groups, Lk, size) to (T, groups, size); those of a prefix are summed over the pieces."""
    x = x.transpose(0, 2, 1, 3)
    if "keys" not in view:
        return x[0]
    count = view["keys"].shape[1] - view["queries"].shape[1]
    own = x[:, count:].reshape(-1, *x.shape[2:])[view["back"]]
    shared = x[:, :count].astype(mx.float32).sum(axis=0).astype(x.dtype)
    return own + mx.concatenate([shared, mx.zeros((1, *shared.shape[1:]), shared.dtype)])[view["to_prefix"]]


# --- the passes


def forward(heads: Heads, scale: float, q: Any, k: Any, v: Any, view: View) -> tuple[Any, Any]:
    """q: (T, heads, size); k, v: (T, groups, size). Returns (T, heads * size), and the softmax weights for the backward pass."""
    asked, keys = _queries(q, heads, view), _keys(k, view).swapaxes(-1, -2)
    if heads.soft_cap is None:
        scores = _addmm(view["bias"], asked, keys, scale)
    else:
        scores = fused(capped)(asked @ keys, mx.array(scale), mx.array(heads.soft_cap)) + view["bias"]
    weights = mx.softmax(scores, axis=-1, precise=True)
    return _from_queries(_mm(weights, _keys(v, view)), heads, view).reshape(len(q), -1), weights


def back(heads: Heads, scale: float, kept: Arrays, d_mixed: Any, view: View) -> tuple[Any, Any, Any]:
    """The gradients of q, k and v. kept: q, k, v, weights, and mixed, which is what `forward` gave. d_mixed: its gradient."""
    by_head = (len(d_mixed), heads.heads, heads.size)
    along = fused(product)(kept["mixed"], d_mixed).reshape(by_head).sum(axis=-1, keepdims=True)
    along, slope = _queries(along, heads, view), _queries(d_mixed.reshape(by_head), heads, view)
    asked, keys, values, weights = _queries(kept["q"], heads, view), _keys(kept["k"], view), _keys(kept["v"], view), kept["weights"]
    d_values = _mm(weights.swapaxes(-1, -2), slope)
    d_scores = fused(scores_backward)(weights, _mm(slope, values.swapaxes(-1, -2)), along, mx.array(scale))
    if heads.soft_cap is not None:
        cap = mx.array(heads.soft_cap)
        d_scores = fused(through_cap)(d_scores, fused(capped)(_mm(asked, keys.swapaxes(-1, -2)), mx.array(scale), cap), cap)
    dq = _from_queries(_mm(d_scores, keys), heads, view)
    return dq, _from_keys(_mm(d_scores.swapaxes(-1, -2), asked), view), _from_keys(d_values, view)


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


def pieces_of(segments: tuple[Segment, ...], tokens: int) -> dict[str, Any]:
    """queries, keys, back and to_prefix of a `View`. A piece holds whole segments; of the lengths that it may have, that with the fewest
    scores is taken."""
    prefixes = sorted({(segment.prefix.start, segment.prefix.stop) for segment in segments if segment.prefix is not None})
    of_prefixes = np.array([token for start, end in prefixes for token in range(start, end)], np.int32)
    padding, shared_length = tokens - 1, rounded(len(of_prefixes))
    longest = max(segment.length for segment in segments)
    lengths = {max(longest, piece) for piece in PIECES} if _whole.get() else {longest}
    ways = [_filled(segments, most) for most in sorted(lengths)]
    held, length = min(ways, key=lambda way: len(way[0]) * way[1] * (way[1] + shared_length))
    shared = np.full(shared_length, padding, np.int32)
    shared[: len(of_prefixes)] = of_prefixes
    queries = np.array([piece + [padding] * (length - len(piece)) for piece in held], np.int32)
    back, to_prefix = np.full(tokens, length - 1, np.int32), np.full(tokens, len(shared), np.int32)
    back[queries.reshape(-1)] = np.arange(queries.size)
    to_prefix[of_prefixes] = np.arange(len(of_prefixes))
    keys = np.concatenate([np.broadcast_to(shared, (len(held), len(shared))), queries], axis=1)
    return {"queries": mx.array(queries), "keys": mx.array(keys), "back": mx.array(back), "to_prefix": mx.array(to_prefix)}


def _filled(segments: tuple[Segment, ...], most: int) -> tuple[list[list[int]], int]:
    """The tokens of each piece, none more than `most`, and the length that all are padded to: so that the last place of each is padding."""
    held: list[list[int]] = []
    for segment in sorted(segments, key=lambda segment: -segment.length):
        fitting = next((piece for piece in held if len(piece) + segment.length <= most), None)
        if fitting is None:
            held.append(fitting := [])
        fitting.extend(range(segment.rows.start, segment.rows.stop))
    return held, rounded(max(map(len, held)) + 1)
