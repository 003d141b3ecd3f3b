"""The element-wise parts of a layer, each one kernel on a GPU.

They compute in float32 and round once. Each gives one array: what two results of a compiled function share, MLX writes to memory and
reads again. They are compiled for each shape; for any shape, MLX would put a broadcast at every operation, and cut what then is deeper
than its eleven operations into several kernels. On a CPU, where compiling would need a C++ compiler on the user's machine, they are the
functions as they stand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from generators import device
from generators.device import load_mlx

mx = load_mlx()


@cache
def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as one kernel, where that pays."""
    return function if device.current().kind == "cpu" else mx.compile(function)


def _gelu_erf(x: Any) -> tuple[Any, Any]:
    """GELU by the error function (Hendrycks & Gimpel 2016), and its derivative."""
    cumulative = 0.5 * (1 + mx.erf(x * 0.7071067811865476))
    return x * cumulative, cumulative + x * mx.exp(-0.5 * x * x) * 0.3989422804014327  # 1 / sqrt(2 pi)


def _gelu_tanh(x: Any) -> tuple[Any, Any]:
    """GELU by tanh (Hendrycks & Gimpel 2016, section 2), and its derivative."""
    root = 0.7978845608028654  # sqrt(2 / pi)
    tanh = mx.tanh(root * x * (1 + 0.044715 * x * x))
    return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * root * (1 + 3 * 0.044715 * x * x)


def _silu(x: Any) -> tuple[Any, Any]:
    sigmoid = mx.sigmoid(x)
    return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))


_ACTIVATIONS = {"gelu_erf": _gelu_erf, "gelu_tanh": _gelu_tanh, "silu": _silu}


@cache
def gated(activation: str) -> Callable[[Any, Any], Any]:
    """(gate, up) to act(gate) * up; also (gate, d) to the gradient of up."""

    def forward(gate: Any, up: Any) -> Any:
        return (_ACTIVATIONS[activation](gate.astype(mx.float32))[0] * up).astype(gate.dtype)

    return fused(forward)


@cache
def gate_gradient(activation: str) -> Callable[[Any, Any, Any], Any]:
    """(gate, up, d) to the gradient of gate. d: that of act(gate) * up."""

    def backward(gate: Any, up: Any, d: Any) -> Any:
        return (_ACTIVATIONS[activation](gate.astype(mx.float32))[1] * up * d).astype(gate.dtype)

    return fused(backward)


def scores_backward(weights: Any, d_weights: Any, along: Any, scale: Any) -> Any:
    """The gradient of what a softmax was taken of, times `scale`. along: (..., 1) float32, the sums of weights * d_weights."""
    return ((d_weights.astype(mx.float32) - along) * weights * scale).astype(weights.dtype)


def capped(scores: Any, scale: Any, cap: Any) -> Any:
    return (mx.tanh(scores.astype(mx.float32) * (scale / cap)) * cap).astype(scores.dtype)


def through_cap(d: Any, capped: Any, cap: Any) -> Any:
    """The gradient of what was capped, from that of `capped`."""
    share = capped.astype(mx.float32) / cap
    return (d * (1 - share * share)).astype(d.dtype)


def product(x: Any, y: Any) -> Any:
    """float32"""
    return x.astype(mx.float32) * y.astype(mx.float32)
