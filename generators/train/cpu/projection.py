"""Frozen linear layers with low-rank adapters: y = x Wᵀ + bias + s (x A) B (Hu et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from generators.train.cpu.kernels import strips
from generators.train.cpu.workers import scratch

Array = np.ndarray
Gradients = dict[str, Array]


@dataclass(frozen=True)
class Linear:
    """name: as the model's parameters are called. weight: (outputs, inputs). lora: mlx-lm's layer with the adapter's values, or None."""

    name: str
    weight: Array
    bias: Array | None
    lora: Any

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])


class Projection:
    """Linear layers of one input. Their As stand side by side, so that one thin product serves all of them.

    `low`, (rows, sum of ranks), is x A: what the forward pass keeps for the backward.
    """

    def __init__(self, linears: Sequence[Linear]):
        self.linears = tuple(linears)
        self.rank = 0
        self._a: Array | None = None  # (inputs, sum of ranks)
        self._b: list[Array | None] = []  # (rank, outputs) each, times the scale
        self._columns: list[slice] = []

    def refresh(self) -> None:
        """Read the adapters' values as they are now."""
        a_parts, self._b, self._columns, self.rank = [], [], [], 0
        for linear in self.linears:
            if linear.lora is None:
                self._b.append(None)
                self._columns.append(slice(self.rank, self.rank))
                continue
            a, b = np.array(linear.lora.lora_a, copy=False), np.array(linear.lora.lora_b, copy=False)
            a_parts.append(a)
            self._b.append(b * np.float32(linear.lora.scale))
            self._columns.append(slice(self.rank, self.rank + a.shape[1]))
            self.rank += a.shape[1]
        self._a = np.concatenate(a_parts, axis=1) if a_parts else None

    def forward(self, x: Array, outputs: Sequence[Array], low: Array) -> None:
        """x: (rows, inputs); outputs: one (rows, outputs) a layer; low: (rows, rank). Fills the last two."""
        if self._a is not None:
            np.matmul(x, self._a, out=low)
        for linear, b, columns, out in zip(self.linears, self._b, self._columns, outputs, strict=True):
            np.matmul(x, linear.weight.T, out=out)
            if linear.bias is not None:
                out += linear.bias
            if b is not None:
                for strip in strips(*out.shape):
                    out[strip] += low[strip, columns] @ b

    def backward(self, slopes: Sequence[Array], dx: Array | None) -> Array:
        """The gradient of x into `dx` from those of the outputs. Returns (rows, rank): that of x A."""
        d_low = np.empty((len(slopes[0]), self.rank), np.float32)
        for number, (linear, b, columns, slope) in enumerate(zip(self.linears, self._b, self._columns, slopes, strict=True)):
            if b is not None:
                np.matmul(slope, b.T, out=d_low[:, columns])
            if dx is None:
                continue
            if number == 0:
                np.matmul(slope, linear.weight, out=dx)
            else:
                dx += np.matmul(slope, linear.weight, out=scratch("projection", *dx.shape))
        if dx is not None and self._a is not None:
            dx += np.matmul(d_low, self._a.T, out=scratch("projection", *dx.shape))
        return d_low

    def gradients(self, x: Array, low: Array, d_low: Array, slopes: Sequence[Array]) -> Gradients:
        """Those of the adapters, by the names of the model's parameters."""
        if self._a is None:
            return {}
        d_a = x.T @ d_low
        found = {}
        for linear, columns, slope in zip(self.linears, self._columns, slopes, strict=True):
            if linear.lora is not None:
                found[f"{linear.name}.lora_a"] = d_a[:, columns]
                found[f"{linear.name}.lora_b"] = (low[:, columns].T @ slope) * np.float32(linear.lora.scale)
        return found
