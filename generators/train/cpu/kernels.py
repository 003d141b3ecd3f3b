"""The element-wise parts of a decoder, forward and backward, in strips that stay in a core's cache with their temporaries."""

from __future__ import annotations

from typing import Callable, Iterator

import numpy as np

Array = np.ndarray
Activation = Callable[[Array, Array, "Array | None"], None]

_STRIP = 64 * 1024  # elements of each array worked on at a time


def strips(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _STRIP // width)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


# --- root mean square norm (Zhang & Sennrich 2019, eq. 4): y = x / sqrt(mean(x²) + eps) * weight


def _inverse_size(x: Array, eps: float) -> Array:
    """(rows, 1): 1 / sqrt(mean(x²) + eps)"""
    mean = np.einsum("ij,ij->i", x, x)[:, None]
    mean *= np.float32(1 / x.shape[1])
    mean += np.float32(eps)
    np.sqrt(mean, out=mean)
    return np.reciprocal(mean, out=mean)


def rms_norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """x, out: (rows, width), not the same array."""
    for strip in strips(*x.shape):
        np.multiply(x[strip], _inverse_size(x[strip], eps), out=out[strip])
        out[strip] *= weight


def rms_norm_backward(dy: Array, x: Array, weight: Array, eps: float, out: Array) -> None:
    """Gradient of x from that of y; `out` may be `dy`."""
    for strip in strips(*x.shape):
        inverse = _inverse_size(x[strip], eps)
        weighted = dy[strip] * weight
        along = np.einsum("ij,ij->i", weighted, x[strip])[:, None]
        along *= inverse * inverse * inverse
        along *= np.float32(1 / x.shape[1])
        weighted *= inverse
        np.subtract(weighted, x[strip] * along, out=out[strip])


# --- rotary positions (Su et al. 2021)


def halves(x: Array, traditional: bool) -> tuple[Array, Array]:
    """The two members of every rotated pair: neighbours, or one from each half of the head."""
    if traditional:
        return x[..., 0::2], x[..., 1::2]
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def rotate(x: Array, cos: Array, sin: Array, traditional: bool, out: Array, backward: bool = False) -> None:
    """x, out: (rows, heads, size), not the same array; cos, sin: (rows, size / 2). `backward` turns the other way."""
    for strip in strips(len(x), x.shape[1] * x.shape[2]):
        first, second = halves(x[strip], traditional)
        to_first, to_second = halves(out[strip], traditional)
        c, s = cos[strip, None], sin[strip, None]
        if backward:
            s = -s
        np.multiply(first, c, out=to_first)
        to_first -= second * s
        np.multiply(first, s, out=to_second)
        to_second += second * c


# --- activations: out = act(gate), slope = act'(gate)


def gelu_tanh(gate: Array, out: Array, slope: Array | None) -> None:
    """GELU by tanh (Hendrycks & Gimpel 2016, section 2)."""
    square = gate * gate
    inner = square * np.float32(0.044715)
    inner += 1
    inner *= gate
    inner *= np.float32(0.7978845608028654)  # sqrt(2 / pi)
    tanh = np.tanh(inner, out=inner)
    if slope is not None:
        square *= np.float32(3 * 0.044715 * 0.7978845608028654)
        square += np.float32(0.7978845608028654)
        square *= gate
        np.multiply(tanh, tanh, out=slope)
        np.subtract(1, slope, out=slope)
        slope *= square
        slope += tanh
        slope += 1
        slope *= 0.5
    tanh += 1
    tanh *= gate
    np.multiply(tanh, np.float32(0.5), out=out)


def gelu_erf(gate: Array, out: Array, slope: Array | None) -> None:
    """GELU by the error function, gate * Phi(gate); erf by Abramowitz & Stegun 1964, 7.1.26 (absolute error below 1.5e-7)."""
    bell = gate * gate
    bell *= np.float32(-0.5)
    np.exp(bell, out=bell)
    t = np.abs(gate)
    t *= np.float32(0.3275911 * 0.7071067811865476)
    t += 1
    np.reciprocal(t, out=t)
    series = t * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series += np.float32(coefficient)
        series *= t
    series *= bell
    np.subtract(1, series, out=series)
    cumulative = np.copysign(series, gate, out=series)
    cumulative += 1
    cumulative *= np.float32(0.5)
    if slope is not None:
        np.multiply(bell, gate, out=slope)
        slope *= np.float32(0.3989422804014327)  # 1 / sqrt(2 pi)
        slope += cumulative
    np.multiply(gate, cumulative, out=out)


def silu(gate: Array, out: Array, slope: Array | None) -> None:
    """gate * sigmoid(gate)."""
    sigmoid = np.negative(gate)
    np.minimum(sigmoid, 88, out=sigmoid)  # exp(88) is the last that float32 holds
    np.exp(sigmoid, out=sigmoid)
    sigmoid += 1
    np.reciprocal(sigmoid, out=sigmoid)
    if slope is not None:
        np.subtract(1, sigmoid, out=slope)
        slope *= gate
        slope += 1
        slope *= sigmoid
    np.multiply(gate, sigmoid, out=out)


def gated(activation: Activation, gate: Array, up: Array, out: Array) -> None:
    """out = act(gate) * up; all (rows, width)."""
    for strip in strips(*gate.shape):
        activation(gate[strip], out[strip], None)
        out[strip] *= up[strip]


def gated_backward(activation: Activation, gate: Array, up: Array, d: Array, hidden: Array, d_gate: Array, d_up: Array) -> None:
    """Gradients of gate and up from `d`, that of their gated product, which is written to `hidden` again. `d_gate` may be `d`."""
    for strip in strips(*gate.shape):
        slope = np.empty_like(gate[strip])
        activation(gate[strip], hidden[strip], slope)
        np.multiply(d[strip], hidden[strip], out=d_up[strip])
        slope *= up[strip]
        np.multiply(d[strip], slope, out=d_gate[strip])
        hidden[strip] *= up[strip]
