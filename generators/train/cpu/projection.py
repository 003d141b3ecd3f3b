"""Frozen linear layers with low-rank adapters: y = x Wᵀ + bias + s (x A) B (Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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

    def multiply(self, x: Array, outputs: Sequence[Array], low: Array) -> None:
        """x: (rows, inputs). Fills `low` with x A and each layer's (rows, outputs) with x Wᵀ; what is missing there `correct` adds."""
        if self._a is not None:
            np.matmul(x, self._a, out=low)
        for linear, out in zip(self.linears, outputs, strict=True):
            np.matmul(x, linear.weight.T, out=out)

    def correct(self, outputs: Sequence[Array], low: Array) -> None:
        """Adds bias and adapter. For a strip of rows that is about to be used, so that it comes into the cache once."""
        for linear, b, columns, out in zip(self.linears, self._b, self._columns, outputs, strict=True):
            if linear.bias is not None:
                out += linear.bias
            if b is not None:
                out += low[:, columns] @ b

    def backward(self, slopes: Sequence[Array], parts: Sequence[Array] | None) -> Array:
        """From the gradients of the outputs: (rows, rank), that of x A; and into `parts`, one (rows, inputs) a layer, those of x through
        each W, which `collect` sums. None: nobody needs them."""
        d_low = np.empty((len(slopes[0]), self.rank), np.float32)
        for b, columns, slope in zip(self._b, self._columns, slopes, strict=True):
            if b is not None:
                np.matmul(slope, b.T, out=d_low[:, columns])
        if parts is not None:
            for linear, slope, part in zip(self.linears, slopes, parts, strict=True):
                np.matmul(slope, linear.weight, out=part)
        return d_low

    def collect(self, parts: Sequence[Array], d_low: Array) -> Array:
        """The gradient of x, in the place of the first part; for a strip of rows."""
        total = parts[0]
        for part in parts[1:]:
            total += part
        if self._a is not None:
            total += d_low @ self._a.T
        return total

    def gradients(self, x: Array, low: Array, d_low: Array, slopes: Sequence[Array], weight: Array | None = None) -> Gradients:
        """Those of the adapters, by the names of the model's parameters. weight: (inputs,), by which the columns of x are still to be
        multiplied: that of a norm, if x is what it had before it."""
        if self._a is None:
            return {}
        d_a = x.T @ d_low
        if weight is not None:
            d_a *= weight[:, None]
        found = {}
        for linear, columns, slope in zip(self.linears, self._columns, slopes, strict=True):
            if linear.lora is not None:
                found[f"{linear.name}.lora_a"] = d_a[:, columns]
                found[f"{linear.name}.lora_b"] = (low[:, columns].T @ slope) * np.float32(linear.lora.scale)
        return found
