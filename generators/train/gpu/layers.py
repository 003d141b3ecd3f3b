"""The parts of a layer that have weights: frozen linear layers with their adapters, norms, rotary positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generators.device import load_mlx
from generators.errors import UserError
from generators.train.blocks import Architecture, Named

mx = load_mlx()
Gradients = dict[str, Any]


@dataclass(frozen=True)
class Linear:
    """A frozen layer, plain or quantised, and its adapter: mlx-lm's layer with the values, or None."""

    name: str
    frozen: Any
    lora: Any

    @property
    def _quantised(self) -> dict[str, Any]:
        frozen = self.frozen
        return {"scales": frozen.scales, "biases": frozen.biases, "group_size": frozen.group_size, "bits": frozen.bits}

    def times(self, x: Any, onto: Any = None) -> Any:
        """x: (rows, inputs). (rows, outputs): x Wᵀ + bias, and `onto`, if there is one, in the same product."""
        frozen = self.frozen
        if "scales" in frozen:
            y = mx.quantized_matmul(x, frozen.weight, transpose=True, **self._quantised)
            y = y if onto is None else y + onto
        else:
            y = x @ frozen.weight.T if onto is None else mx.addmm(onto, x, frozen.weight.T)
        return y + frozen.bias if "bias" in frozen else y

    def back(self, d: Any, onto: Any = None) -> Any:
        """The gradient of x from that of y, `onto` added."""
        if "scales" in self.frozen:
            dx = mx.quantized_matmul(d, self.frozen.weight, transpose=False, **self._quantised)
            return dx if onto is None else dx + onto
        return d @ self.frozen.weight if onto is None else mx.addmm(onto, d, self.frozen.weight)


class Projection:
    """Linear layers of one input. Their As stand side by side, so that one thin product serves all of them."""

    def __init__(self, linears: Sequence[Linear]):
        self.linears = tuple(linears)
        self._adapted = [linear for linear in linears if linear.lora is not None]
        edges = [0]
        for linear in self._adapted:
            edges.append(edges[-1] + linear.lora.lora_a.shape[1])
        self._columns = {linear.name: slice(*pair) for linear, pair in zip(self._adapted, zip(edges, edges[1:], strict=False), strict=True)}
        self._a: Any = None
        self._b: dict[str, Any] = {}

    @property
    def adapters(self) -> list[str]:
        return [linear.name for linear in self._adapted]

    def refresh(self, dtype: Any) -> None:
        """Read the adapters' values as they are now, in the dtype of the activations."""
        if self._adapted:
            parts = [linear.lora.lora_a.astype(dtype) for linear in self._adapted]
            self._a = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)
        self._b = {linear.name: (linear.lora.scale * linear.lora.lora_b).astype(dtype) for linear in self._adapted}

    def forward(self, x: Any, onto: Any = None) -> tuple[list[Any], Any]:
        """x: (rows, inputs). Each layer's (rows, outputs), `onto` added; and x A, (rows, sum of ranks), which the backward pass wants."""
        low = None if self._a is None else x @ self._a
        outputs = []
        for linear in self.linears:
            y = linear.times(x, onto)
            if linear.name in self._b:
                y = mx.addmm(y, low[:, self._columns[linear.name]], self._b[linear.name])
            outputs.append(y)
        return outputs, low

    def back(self, slopes: Sequence[Any], wanted: bool = True) -> tuple[Any, Any]:
        """slopes: (rows, outputs), the gradients of the outputs. That of x, (rows, inputs), or None unless `wanted`; and that of x A."""
        d_low = None
        if self._adapted:
            slope_of = {linear.name: slope for linear, slope in zip(self.linears, slopes, strict=True)}
            parts = [slope_of[linear.name] @ self._b[linear.name].T for linear in self._adapted]
            d_low = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)
        if not wanted:
            return None, d_low
        dx = None
        for linear, slope in zip(self.linears, slopes, strict=True):
            dx = linear.back(slope, dx)
        return dx if d_low is None else mx.addmm(dx, d_low, self._a.T), d_low

    def gradients(self, x: Any, low: Any, d_low: Any, slopes: Sequence[Any]) -> Gradients:
        """Those of the adapters, float32, by the names of the model's parameters."""
        if not self._adapted:
            return {}
        d_a = (x.T @ d_low).astype(mx.float32)
        found = {}
        for linear, slope in zip(self.linears, slopes, strict=True):
            if linear.name in self._columns:
                columns = self._columns[linear.name]
                found[f"{linear.name}.lora_a"] = d_a[:, columns]
                found[f"{linear.name}.lora_b"] = linear.lora.scale * (low[:, columns].T @ slope).astype(mx.float32)
        return found


@dataclass(frozen=True)
class Norm:
    """weight: with the architecture's offset."""

    weight: Any
    eps: float

    def forward(self, x: Any) -> Any:
        return mx.fast.rms_norm(x, self.weight, self.eps)

    def back(self, d: Any, x: Any) -> Any:
        """The gradient of x. Without a weight, as MLX would sum the gradient of that too."""
        _, found = mx.vjp(lambda x: mx.fast.rms_norm(x, None, self.eps), [x], [d * self.weight])
        return found[0]


@dataclass(frozen=True)
class Rope:
    """A rotary embedding of mlx-lm that takes an offset for each row of (rows, heads, 1, size)."""

    module: Any

    def turn(self, x: Any, positions: Any) -> Any:
        """x: (tokens, heads, size); positions: (tokens,) int32."""
        return self.module(x[:, :, None], offset=positions)[:, :, 0]

    def back(self, d: Any, positions: Any) -> Any:
        _, found = mx.vjp(lambda x: self.turn(x, positions), [d], [d])
        return found[0]


def linear_of(named: Named) -> Linear:
    """Raises UserError for a layer or an adapter that the engine does not compute."""
    import mlx.nn as nn
    from mlx_lm.tuner.lora import LoRALinear

    lora = named.module if isinstance(named.module, LoRALinear) else None
    frozen = named.module.linear if lora is not None else named.module
    if type(frozen) not in (nn.Linear, nn.QuantizedLinear):
        raise UserError(f"the GPU engine does not compute the {type(frozen).__name__} at {named.name}")
    return Linear(named.name, frozen, lora)


def norm_of(module: Any, architecture: Architecture) -> Norm:
    return Norm(module.weight + architecture.norm_offset if architecture.norm_offset else module.weight, float(module.eps))


def rope_of(named: Named, size: int) -> Rope:
    import mlx.nn as nn
    from mlx_lm.models.rope_utils import Llama3RoPE

    if type(named.module) not in (nn.RoPE, Llama3RoPE) or named.module.dims != size:
        kind = f"{type(named.module).__name__}({named.module.dims})"
        raise UserError(f"the GPU engine does not compute the rotary embedding {kind} at {named.name}")
    return Rope(named.module)
