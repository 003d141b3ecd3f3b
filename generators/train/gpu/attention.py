"""Attention of all tokens of a batch at once, forward and backward; who sees whom is a matrix, the same for every layer."""

from __future__ import annotations

from typing import Any

from generators.device import load_mlx
from generators.train.blocks import Heads
from generators.train.fused import capped, fused, product, scores_backward, through_cap
from generators.train.gpu.layers import Arrays
from generators.train.gpu.sight import View

mx = load_mlx()

# --- between tokens and pieces


def _queries(x: Any, heads: Heads, view: View) -> Any:
    """(T, heads, n) to (C, groups, Lq * shared, n)."""
    count = view["bias"].shape[0]
    by_group = x.reshape(count, -1, heads.groups, heads.shared, x.shape[-1]).transpose(0, 2, 1, 3, 4)
    return by_group.reshape(count, heads.groups, -1, x.shape[-1])


def _from_queries(x: Any, heads: Heads) -> Any:
    """(C, groups, Lq * shared, n) to (T, heads, n)."""
    count, groups, _, size = x.shape
    return x.reshape(count, groups, -1, heads.shared, size).transpose(0, 2, 1, 3, 4).reshape(-1, heads.heads, size)


def _taken(x: Any, index: Any) -> Any:
    """x[index] for x: (rows, n) with n a multiple of 4. MLX's kernel moves number by number, and each may be of 8 bytes."""
    return x.view(mx.uint64)[index].view(x.dtype)


def _keys(x: Any, heads: Heads, view: View) -> Any:
    """(T, groups, size) to (C, groups, Lk, size)."""
    if "keys" in view:
        x = _taken(x.reshape(-1, heads.keys), view["keys"])
    return x.reshape(view["bias"].shape[0], -1, heads.groups, heads.size).transpose(0, 2, 1, 3)


def _from_keys(x: Any, heads: Heads, view: View) -> Any:
    """Gradients: (C, groups, Lk, size) to (T, groups, size); those of a token are summed over the pieces that see it."""
    x = x.transpose(0, 2, 1, 3)
    if "keys" not in view:
        return x[0]
    own = _taken(x.reshape(-1, heads.keys), view["windows"]).sum(axis=1)  # of a few numbers; a prefix is seen by all pieces
    of_prefixes = x[:, : len(view["prefixes"])].astype(mx.float32).sum(axis=0).astype(x.dtype)
    return own.at[view["prefixes"]].add(of_prefixes.reshape(-1, heads.keys)).reshape(-1, heads.groups, heads.size)


# --- the passes


def forward(heads: Heads, scale: float, q: Any, k: Any, v: Any, view: View) -> tuple[Any, Any]:
    """q: (T, heads, size); k, v: (T, groups, size). Returns (T, heads * size), and the softmax weights for the backward pass."""
    asked, keys = _queries(q, heads, view), _keys(k, heads, view).swapaxes(-1, -2)
    if heads.soft_cap is None:
        scores = _addmm(view["bias"], asked, keys, scale)
    else:
        scores = fused(capped)(asked @ keys, mx.array(scale), mx.array(heads.soft_cap)) + view["bias"]
    weights = mx.softmax(scores, axis=-1, precise=True)
    return _from_queries(_mm(weights, _keys(v, heads, view)), heads).reshape(len(q), -1), weights


def back(heads: Heads, scale: float, kept: Arrays, d_mixed: Any, view: View) -> tuple[Any, Any, Any]:
    """The gradients of q, k and v. kept: q, k, v, weights, and mixed, which is what `forward` gave. d_mixed: its gradient."""
    by_head = (len(d_mixed), heads.heads, heads.size)
    along = fused(product)(kept["mixed"], d_mixed).reshape(by_head).sum(axis=-1, keepdims=True)
    along, slope = _queries(along, heads, view), _queries(d_mixed.reshape(by_head), heads, view)
    asked, keys, values = _queries(kept["q"], heads, view), _keys(kept["k"], heads, view), _keys(kept["v"], heads, view)
    weights = kept["weights"]
    d_values = _mm(weights.swapaxes(-1, -2), slope)
    d_scores = fused(scores_backward)(weights, _mm(slope, values.swapaxes(-1, -2)), along, mx.array(scale))
    if heads.soft_cap is not None:
        cap = mx.array(heads.soft_cap)
        d_scores = fused(through_cap)(d_scores, fused(capped)(_mm(asked, keys.swapaxes(-1, -2)), mx.array(scale), cap), cap)
    dq = _from_queries(_mm(d_scores, keys), heads)
    return dq, _from_keys(_mm(d_scores.swapaxes(-1, -2), asked), heads, view), _from_keys(d_values, heads, view)


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
