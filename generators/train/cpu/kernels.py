"""The element-wise parts of a decoder, forward and backward. Callers hand them strips of rows that stay in a core's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Array = np.ndarray
Activation = Callable[[Array, Array, "Array | None"], None]

_STRIP = 64 * 1024  # elements of each array worked on at a time: 256 KB, and a core's second-level cache holds some of them


def strips(rows: slice, width: int) -> Iterator[slice]:
    """`rows` in slices of as many rows of `width` elements as stay in the cache."""
    step = max(1, _STRIP // width)
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(rows.stop, start + step))


# --- root mean square norm (Zhang & Sennrich 2019, eq. 4): y = x / sqrt(mean(x²) + eps) * weight


def inverse_size(x: Array, eps: float) -> Array:
    """(rows, 1): 1 / sqrt(mean(x²) + eps)"""
    mean = np.einsum("ij,ij->i", x, x)[:, None]
    mean *= np.float32(1 / x.shape[1])
    mean += np.float32(eps)
    np.sqrt(mean, out=mean)
    return np.reciprocal(mean, out=mean)


def rms_norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """x, out: (rows, width)."""
    np.multiply(x, inverse_size(x, eps), out=out)
    out *= weight


def rms_norm_backward(dy: Array, x: Array, weight: Array, eps: float, out: Array) -> Array:
    """Gradient of x from that of y; `out` may be `dy`. Returns (rows, 1): what the rows of x were multiplied with."""
    inverse = inverse_size(x, eps)
    weighted = dy * weight
    along = np.einsum("ij,ij->i", weighted, x)[:, None]
    along *= inverse * inverse * inverse
    along *= np.float32(1 / x.shape[1])
    weighted *= inverse
    np.subtract(weighted, x * along, out=out)
    return inverse


# --- rotary positions (Su et al. 2021)


def halves(x: Array, traditional: bool) -> tuple[Array, Array]:
    """The two members of every rotated pair: neighbours, or one from each half of the head."""
    if traditional:
        return x[..., 0::2], x[..., 1::2]
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def rotate(x: Array, cos: Array, sin: Array, traditional: bool, out: Array) -> None:
    """x, out: (rows, heads, size), not the same array; cos, sin: (rows, 1, size / 2). With -sin it turns back."""
    first, second = halves(x, traditional)
    to_first, to_second = halves(out, traditional)
    np.multiply(first, cos, out=to_first)
    to_first -= second * sin
    np.multiply(first, sin, out=to_second)
    to_second += second * cos


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


ACTIVATIONS: dict[str, Activation] = {"gelu_erf": gelu_erf, "gelu_tanh": gelu_tanh, "silu": silu}


def gated(activation: Activation, gate: Array, up: Array, out: Array) -> None:
    """out = act(gate) * up; all (rows, width)."""
    activation(gate, out, None)
    out *= up


def gated_backward(activation: Activation, gate: Array, up: Array, d: Array, hidden: Array, d_up: Array) -> None:
    """From `d`, the gradient of act(gate) * up: that of up into `d_up`, that of gate into `d`, and the product itself into `hidden`."""
    slope = np.empty_like(gate)
    activation(gate, hidden, slope)
    np.multiply(d, hidden, out=d_up)
    slope *= up
    d *= slope
    hidden *= up
