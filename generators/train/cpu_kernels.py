"""Kernels for a CPU without a GPU, and only there: MLX's element-wise loops are single-threaded and slow on it, numpy's are not.

`install(model)` swaps two things in a loaded model: the gated activation of its MLP blocks, and the attention that its module calls.
The arithmetic is the same, in float32; the gradients are written out. Work is split over rows among the cores; numpy releases the GIL.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Callable

import numpy as np

from generators.device import load_mlx

mx = load_mlx()

Array = Any  # numpy float32
_WORKERS = min(8, os.cpu_count() or 1)
_ROWS_AT_ONCE = 64  # rows of an activation that fit the cache of a core together with the temporaries


def install(model: Any) -> None:
    """Replace what is slow in `model`. Raises nothing: an architecture that is built otherwise keeps MLX's own operations."""
    module = sys.modules[type(model).__module__]
    if getattr(module, "scaled_dot_product_attention", None) is not None:
        module.scaled_dot_product_attention = _attention_or_mlx  # type: ignore[attr-defined]
    activation = _ACTIVATION_OF.get(module.__name__.rsplit(".", 1)[-1])
    for layer in model.layers:
        if activation is not None and hasattr(layer, "mlp"):
            layer.mlp = _gated(layer.mlp, activation)


@cache
def pool() -> ThreadPoolExecutor:
    """Threads for numpy's work, with numpy's own BLAS at one thread each; MLX's BLAS is another library and keeps all cores."""
    from threadpoolctl import ThreadpoolController

    numpys = ThreadpoolController().select(user_api="blas").lib_controllers
    for library in numpys:
        if "numpy" in library.filepath:
            library.set_num_threads(1)
    return ThreadPoolExecutor(_WORKERS)


def in_parallel(work: Callable[[int, int], None], rows: int) -> None:
    """`work(start, end)` over `rows`, one share a core."""
    edges = [rows * share // _WORKERS for share in range(_WORKERS + 1)]
    list(pool().map(work, edges[:-1], edges[1:]))


# --- the gated activation: act(gate) * up


def _gelu(gate: Array, out: Array, slope: Array | None) -> None:
    """GELU by tanh (Hendrycks & Gimpel 2016, eq. 2) and, where asked for, its derivative."""
    inner = gate * gate
    cubic = inner * 0.044715
    cubic += 1
    cubic *= gate
    cubic *= 0.7978845608028654  # sqrt(2 / pi)
    tanh = np.tanh(cubic, out=cubic)
    if slope is not None:
        inner *= 3 * 0.044715
        inner += 1
        inner *= 0.7978845608028654
        inner *= gate
        np.multiply(tanh, tanh, out=slope)
        np.subtract(1, slope, out=slope)
        slope *= inner
        slope += tanh
        slope += 1
        slope *= 0.5
    tanh += 1
    tanh *= gate
    np.multiply(tanh, 0.5, out=out)


def _silu(gate: Array, out: Array, slope: Array | None) -> None:
    """x * sigmoid(x) and its derivative, sigmoid(x) * (1 + x * (1 - sigmoid(x)))."""
    sigmoid = np.negative(gate)
    np.exp(np.minimum(sigmoid, 88, out=sigmoid), out=sigmoid)
    sigmoid += 1
    np.reciprocal(sigmoid, out=sigmoid)
    np.multiply(gate, sigmoid, out=out)
    if slope is not None:
        np.subtract(1, sigmoid, out=slope)
        slope *= gate
        slope += 1
        slope *= sigmoid


def _gated(mlp: Any, activation: Callable[[Array, Array, Array | None], None]) -> Any:
    """The block's own projections around the numpy activation; same parameters, same names."""

    class GatedMLP(type(mlp)):  # type: ignore[misc]
        def __call__(self, x: Any) -> Any:
            return self.down_proj(_multiply_gate(self.gate_proj(x), self.up_proj(x)))

    @mx.custom_function
    def _multiply_gate(gate: Any, up: Any) -> Any:
        g, u = _rows(gate), _rows(up)
        out = np.empty_like(g)

        def work(start: int, end: int) -> None:
            for row in range(start, end, _ROWS_AT_ONCE):
                part = slice(row, min(end, row + _ROWS_AT_ONCE))
                activation(g[part], out[part], None)
                out[part] *= u[part]

        in_parallel(work, len(g))
        return mx.array(out.reshape(gate.shape))

    @_multiply_gate.vjp
    def _multiply_gate_vjp(primals: Any, cotangent: Any, _: Any) -> Any:
        gate, up = primals
        g, u, c = _rows(gate), _rows(up), _rows(cotangent)
        to_gate, to_up = np.empty_like(g), np.empty_like(g)

        def work(start: int, end: int) -> None:
            slope = np.empty((_ROWS_AT_ONCE, g.shape[1]), np.float32)
            for row in range(start, end, _ROWS_AT_ONCE):
                part = slice(row, min(end, row + _ROWS_AT_ONCE))
                here = slope[: part.stop - part.start]
                activation(g[part], to_up[part], here)
                to_up[part] *= c[part]
                np.multiply(c[part], u[part], out=to_gate[part])
                to_gate[part] *= here

        in_parallel(work, len(g))
        return mx.array(to_gate.reshape(gate.shape)), mx.array(to_up.reshape(up.shape))

    mlp.__class__ = GatedMLP
    return mlp


_ACTIVATION_OF = {"gemma": _gelu, "gemma2": _gelu, "gemma3_text": _gelu, "llama": _silu, "qwen2": _silu, "qwen3": _silu}


def _rows(array: Any) -> Array:
    """(rows, width) view of an evaluated MLX array."""
    return np.array(array, copy=False).reshape(-1, array.shape[-1])


# --- attention


def _attention_or_mlx(queries: Any, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: Any = None) -> Any:
    """What mlx-lm's models call. Decoding, quantised caches and sinks stay with MLX."""
    if queries.shape[2] == 1 or sinks is not None or hasattr(cache, "bits"):
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
    length, span = queries.shape[2], keys.shape[2]
    if isinstance(mask, str) or mask is None:
        allowed = np.tri(length, span, span - length, dtype=bool) if mask == "causal" else None
    else:
        allowed = np.array(mask).reshape(mask.shape[-2:])
    return _attend(scale, allowed)(queries, keys, values)


def _attend(scale: float, allowed: Array | None) -> Any:
    """softmax(scale * Q Kᵀ + mask) V with grouped heads: the queries of one group are rows of one product.

    queries: (B, H, L, D); keys, values: (B, G, S, D) with G dividing H. allowed: (L, S) bool or None."""
    kept: list[Array] = []  # the probabilities of the forward pass, for its gradient

    @mx.custom_function
    def attention(queries: Any, keys: Any, values: Any) -> Any:
        q, k, v = _grouped(queries, keys), np.array(keys, copy=False), np.array(values, copy=False)
        rows, groups, count, size = q.shape
        length = queries.shape[2]
        weights = np.empty((rows, groups, count, k.shape[2]), np.float32)
        out = np.empty((rows, groups, count, v.shape[3]), np.float32)

        def work(start: int, end: int) -> None:
            for item in range(start, end):
                row, group = divmod(item, groups)
                here = np.matmul(q[row, group], k[row, group].T, out=weights[row, group])
                here *= scale
                if allowed is not None:
                    np.copyto(here.reshape(-1, length, here.shape[1]), -np.inf, where=~allowed)
                here -= here.max(axis=1, keepdims=True)
                np.exp(here, out=here)
                here /= here.sum(axis=1, keepdims=True)
                np.matmul(here, v[row, group], out=out[row, group])

        in_parallel(work, rows * groups)
        kept.append(weights)
        return mx.array(out.reshape(queries.shape[:3] + (v.shape[3],)))

    @attention.vjp
    def attention_vjp(primals: Any, cotangent: Any, _: Any) -> Any:
        queries, keys, values = primals
        q, k, v = _grouped(queries, keys), np.array(keys, copy=False), np.array(values, copy=False)
        c = np.array(cotangent, copy=False).reshape(q.shape[:3] + (v.shape[3],))
        weights = kept.pop()
        to_q, to_k, to_v = np.empty_like(q), np.empty(k.shape, np.float32), np.empty(v.shape, np.float32)
        groups = q.shape[1]

        def work(start: int, end: int) -> None:
            for item in range(start, end):
                row, group = divmod(item, groups)
                here = weights[row, group]
                np.matmul(here.T, c[row, group], out=to_v[row, group])
                slope = c[row, group] @ v[row, group].T
                slope -= np.einsum("ij,ij->i", slope, here)[:, None]
                slope *= here
                slope *= scale
                np.matmul(slope, k[row, group], out=to_q[row, group])
                np.matmul(slope.T, q[row, group], out=to_k[row, group])

        in_parallel(work, q.shape[0] * groups)
        return mx.array(to_q.reshape(queries.shape)), mx.array(to_k), mx.array(to_v)

    return attention


def _grouped(queries: Any, keys: Any) -> Array:
    """(B, H, L, D) as (B, G, H / G * L, D)."""
    q = np.array(queries, copy=False)
    rows, heads, length, size = q.shape
    groups = keys.shape[1]
    return np.ascontiguousarray(q).reshape(rows, groups, heads // groups * length, size)
