"""The parts of a layer that have weights: frozen linear layers with their adapters, norms, rotary positions.

What they are is static; the arrays that they compute with come as arguments, so that one compiled function serves all layers that are
alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from generators.device import load_mlx
from generators.errors import UserError
from generators.train.blocks import Named

mx = load_mlx()
Arrays = Mapping[str, Any]


def _onto(onto: Any, a: Any, b: Any) -> Any:
    """a b, and `onto`, if there is one, in the same kernel."""
    return a @ b if onto is None else mx.addmm(onto, a, b)


@dataclass(frozen=True)
class Linear:
    """A frozen layer. role: in its block, `q` or `down`. bits: with the group size, of a quantised one. rank, scale: of its adapter; rank 0
    without one. Its arrays: those of mlx-lm's module."""

    role: str
    quantised: tuple[int, int] | None
    rank: int
    scale: float

    def times(self, frozen: Arrays, x: Any, onto: Any = None) -> Any:
        """x: (rows, inputs). (rows, outputs): x Wᵀ + bias, and `onto`, if there is one, in the same product."""
        weight = frozen["weight"]
        if self.quantised:
            y = self._product(frozen, x, transpose=True)
            y = y if onto is None else y + onto
        else:
            y = _onto(onto, x, weight.T)
        return y + frozen["bias"] if "bias" in frozen else y

    def back(self, frozen: Arrays, d: Any, onto: Any = None) -> Any:
        """The gradient of x from that of y, `onto` added."""
        if self.quantised:
            dx = self._product(frozen, d, transpose=False)
            return dx if onto is None else dx + onto
        return _onto(onto, d, frozen["weight"])

    def _product(self, frozen: Arrays, x: Any, transpose: bool) -> Any:
        assert self.quantised
        bits, group_size = self.quantised
        return mx.quantized_matmul(x, frozen["weight"], frozen["scales"], frozen["biases"], transpose, group_size, bits)


@dataclass(frozen=True)
class Projection:
    """Linear layers of one input. The As of their adapters, transposed, stand one above the other, so that one thin product serves all of
    them, and what is of one layer are rows, which need not be copied.

    In its arrays the frozen ones of a layer stand under its role, the Bs (rank, outputs), times the scale, under `b.` and the role, the As
    (sum of ranks, inputs) under `a`, and what the forward pass leaves for the backward, (x A)ᵀ of shape (sum of ranks, rows), under `low`.
    """

    name: str
    linears: tuple[Linear, ...]

    def adapters(self, of_role: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
        """The arrays of the adapters, from A (inputs, rank) and B times its scale by role."""
        parts = [of_role[linear.role][0].T for linear in self._adapted]
        found = {f"b.{linear.role}": of_role[linear.role][1] for linear in self._adapted}
        return found | ({"a": parts[0] if len(parts) == 1 else mx.concatenate(parts)} if parts else {})

    @property
    def _adapted(self) -> list[Linear]:
        return [linear for linear in self.linears if linear.rank]

    @property
    def _rows(self) -> dict[str, slice]:
        """Of each role with an adapter, in `a` and `low`."""
        edges = list(accumulate((linear.rank for linear in self._adapted), initial=0))
        return {linear.role: slice(*pair) for linear, *pair in zip(self._adapted, edges, edges[1:], strict=False)}

    def forward(self, arrays: Arrays, x: Any, onto: Any = None) -> tuple[list[Any], dict[str, Any]]:
        """x: (rows, inputs). Each layer's (rows, outputs), `onto` added; and `low`, by this name, if there is one."""
        low: Any = arrays["a"] @ x.T if self._adapted else None
        rows = self._rows
        outputs = []
        for linear in self.linears:  # the thin product comes first: so it writes what it would otherwise read and write
            start = _onto(onto, low[rows[linear.role]].T, arrays[f"b.{linear.role}"]) if linear.rank else onto
            outputs.append(linear.times(arrays[linear.role], x, start))
        return outputs, {} if low is None else {"low": low}

    def back(self, arrays: Arrays, slopes: Mapping[str, Any], wanted: bool = True) -> tuple[Any, dict[str, Any]]:
        """slopes: (rows, outputs) by role, the gradients of the outputs. That of x, (rows, inputs), or None unless `wanted`; and that of
        `low`, by the name `d_low`, if there is one."""
        parts = [arrays[f"b.{linear.role}"] @ slopes[linear.role].T for linear in self._adapted]
        d_low = (parts[0] if len(parts) == 1 else mx.concatenate(parts)) if parts else None
        found = {} if d_low is None else {"d_low": d_low}
        if not wanted:
            return None, found
        dx = None if d_low is None else d_low.T @ arrays["a"]
        for linear in self.linears:
            dx = linear.back(arrays[linear.role], slopes[linear.role], dx)
        return dx, found

    def gradients(self, arrays: Arrays, x: Any, lows: Arrays, slopes: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the adapters, by role and part, `q.lora_a`. lows: what `forward` and `back` gave by name."""
        if not self._adapted:
            return {}
        d_a, found = lows["d_low"] @ x, {}
        for linear in self._adapted:
            rows, b = self._rows[linear.role], arrays[f"b.{linear.role}"]
            found[f"{linear.role}.lora_a"] = d_a[rows].T
            # b adds nothing: only a product that is added to something can be scaled in the same kernel
            found[f"{linear.role}.lora_b"] = mx.addmm(b, lows["low"][rows], slopes[linear.role], alpha=linear.scale, beta=0.0)
        return found


def norm(x: Any, weight: Any, eps: float) -> Any:
    return mx.fast.rms_norm(x, weight, eps)


def norm_back(d: Any, x: Any, weight: Any, eps: float) -> Any:
    """The gradient of x. Without a weight, as MLX would sum the gradient of that too."""
    _, found = mx.vjp(lambda x: mx.fast.rms_norm(x, None, eps), [x], [d * weight])
    return found[0]


def turn(rope: Any, x: Any, positions: Any) -> Any:
    """rope: a rotary embedding of mlx-lm. x: (tokens, heads, size); positions: (tokens,) int32."""
    return rope(x[:, :, None], offset=positions)[:, :, 0]


def turn_back(rope: Any, d: Any, positions: Any) -> Any:
    _, found = mx.vjp(lambda x: turn(rope, x, positions), [d], [d])
    return found[0]


def spread(rows: Any, index: Any, count: int) -> Any:
    """(count, n), zeros but for `rows` (N, n), which are added where `index` (N,) says."""
    return mx.zeros((count, rows.shape[1]), rows.dtype).at[index].add(rows)


def linear_of(role: str, named: Named) -> tuple[Linear, dict[str, Any]]:
    """What it is, and its frozen arrays. Raises UserError for a layer or an adapter that the engine does not compute."""
    import mlx.nn as nn
    from mlx_lm.tuner.lora import LoRALinear

    lora = named.module if isinstance(named.module, LoRALinear) else None
    frozen = named.module.linear if lora is not None else named.module
    if type(frozen) not in (nn.Linear, nn.QuantizedLinear):
        raise UserError(f"the GPU engine does not compute the {type(frozen).__name__} at {named.name}")
    quantised = (frozen.bits, frozen.group_size) if type(frozen) is nn.QuantizedLinear else None
    rank, scale = (lora.lora_a.shape[1], float(lora.scale)) if lora is not None else (0, 0.0)
    return Linear(role, quantised, rank, scale), {name: frozen[name] for name in ("weight", "scales", "biases", "bias") if name in frozen}
