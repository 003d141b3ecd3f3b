"""Cross-entropy of the next token and its gradient, a tile of the vocabulary at a time: no logit outlives its tile.

With a shift c of each row, fixed after the first tile, sum exp(l - c) and sum exp(l - c) W grow from tile to tile, as in FlashAttention
(Dao et al. 2022); the loss is log(sum) + c - l[target], the gradient sum(exp(l - c) W) / sum - W[target]. A tile of W serves both
products while it is in the cache. Each worker takes every other tile, so the result does not depend on who is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.train.cpu.kernels import strips
from generators.train.cpu.workers import Workers, scratch

Array = np.ndarray

_TILE = 2 * 1024 * 1024  # logits in a tile: 8 MB
_NARROWEST, _WIDEST = 512, 8192  # columns of a tile
_LARGEST = 1e30  # a sum of exponentials above this is near the end of float32: the shift is raised


@dataclass
class _Part:
    """What a worker's tiles add up to. shift, sums: (rows,) float32, float64. gradient: (rows, width) or None."""

    shift: Array
    sums: Array
    gradient: Array | None


def cross_entropy(workers: Workers, hidden: Array, targets: Array, weight: Array, soft_cap: float | None, gradient: Array | None) -> float:
    """hidden: (rows, width) float32; targets: (rows,); weight: (vocabulary, width). Returns the sum in nats and fills `gradient`, if
    given, with that of hidden."""
    at_target = _capped(np.einsum("ij,ij->i", hidden, weight[targets]), soft_cap)
    tiles = _tiles(len(hidden), len(weight))
    tasks = [
        lambda number=number: _part(hidden, weight, tiles[number :: workers.count], soft_cap, at_target, gradient is not None)
        for number in range(min(workers.count, len(tiles)))
    ]
    return _combine(workers.run(tasks), at_target, weight, targets, soft_cap, gradient)


def _tiles(rows: int, vocabulary: int) -> list[slice]:
    columns = min(_WIDEST, max(_NARROWEST, _TILE // rows))
    return [slice(start, min(start + columns, vocabulary)) for start in range(0, vocabulary, columns)]


def _capped(logits: Array, soft_cap: float | None) -> Array:
    return logits if soft_cap is None else np.tanh(logits / np.float32(soft_cap)) * np.float32(soft_cap)


def _part(hidden: Array, weight: Array, tiles: list[slice], soft_cap: float | None, at_target: Array, with_gradient: bool) -> _Part:
    rows, width = hidden.shape
    part = _Part(at_target, np.zeros(rows), np.zeros((rows, width), np.float32) if with_gradient else None)
    for number, tile in enumerate(tiles):
        logits, slope = _logits(hidden, weight[tile], soft_cap, with_gradient)
        if number == 0:
            _raise_shift(part, logits)
        sums = _exponentials(logits, part.shift)
        if not (sums < _LARGEST).all():
            logits, slope = _logits(hidden, weight[tile], soft_cap, with_gradient)
            _raise_shift(part, logits)
            sums = _exponentials(logits, part.shift)
        part.sums += sums
        if part.gradient is None:
            continue
        if slope is not None:
            logits *= slope
        part.gradient += np.matmul(logits, weight[tile], out=scratch("products", rows, width))
    return part


def _logits(hidden: Array, tile: Array, soft_cap: float | None, with_slope: bool) -> tuple[Array, Array | None]:
    """(rows, columns) each: the capped logits, and the derivative of the cap where there is one and it is wanted."""
    logits = np.matmul(hidden, tile.T, out=scratch("logits", len(hidden), len(tile)))
    if soft_cap is None:
        return logits, None
    slope = scratch("slope", *logits.shape) if with_slope else None
    for strip in strips(slice(0, len(logits)), logits.shape[1]):
        logits[strip] *= np.float32(1 / soft_cap)
        np.tanh(logits[strip], out=logits[strip])
        if slope is not None:
            np.multiply(logits[strip], logits[strip], out=slope[strip])
            np.subtract(1, slope[strip], out=slope[strip])
        logits[strip] *= np.float32(soft_cap)
    return logits, slope


def _raise_shift(part: _Part, logits: Array) -> None:
    """To the largest logit of each row, if that is larger; what was summed so far is scaled to the new shift."""
    shift = np.maximum(part.shift, logits.max(axis=1))
    factor = np.exp(part.shift - shift)
    part.sums *= factor
    if part.gradient is not None:
        part.gradient *= factor[:, None]
    part.shift = shift


def _exponentials(logits: Array, shift: Array) -> Array:
    """(rows,): the sums of exp(logits - shift), which take the place of the logits. Too large a logit makes an infinite sum."""
    sums = np.empty(len(logits), np.float32)
    with np.errstate(over="ignore"):
        for strip in strips(slice(0, len(logits)), logits.shape[1]):
            logits[strip] -= shift[strip, None]
            np.exp(logits[strip], out=logits[strip])
            logits[strip].sum(axis=1, out=sums[strip])
    return sums


def _combine(parts: list[_Part], at_target: Array, weight: Array, targets: Array, soft_cap: float | None, gradient: Array | None) -> float:
    shift = np.max([part.shift for part in parts], axis=0)
    factors = [np.exp(part.shift.astype(np.float64) - shift) for part in parts]
    sums = np.sum([part.sums * factor for part, factor in zip(parts, factors, strict=True)], axis=0)
    if gradient is not None:
        np.multiply(weight[targets], -1 if soft_cap is None else (np.square(at_target / np.float32(soft_cap)) - 1)[:, None], out=gradient)
        for part, factor in zip(parts, factors, strict=True):
            gradient += part.gradient * (factor / sums).astype(np.float32)[:, None]
    return float((np.log(sums) + shift - at_target).sum())
