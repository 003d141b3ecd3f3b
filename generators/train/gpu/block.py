"""One layer of a model: its arrays, and the functions of its kind on them, compiled where that pays."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from generators import device
from generators.device import load_mlx
from generators.train.blocks import Architecture, check_rope, parts_of
from generators.train.fused import gate_gradient, gated
from generators.train.gpu.kind import Kind, Rope
from generators.train.gpu.layers import Arrays, Projection, linear_of
from generators.train.gpu.sight import View

mx = load_mlx()


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return mx.compile(function)


class Known:
    """What the layers of a model that are alike have in common, as one object."""

    def __init__(self) -> None:
        self._ropes: list[Rope] = []
        self._kinds: dict[Kind, Kind] = {}

    def rope(self, module: Any) -> Rope:
        """One that turns as `module` does."""
        new = Rope(module)
        for known in self._ropes:
            if known.module.traditional == module.traditional and np.array_equal(known.probe, new.probe):
                return known
        self._ropes.append(new)
        return new

    def kind(self, kind: Kind) -> Kind:
        return self._kinds.setdefault(kind, kind)


class Block:
    """A layer of a model."""

    def __init__(self, model: Any, index: int, architecture: Architecture, known: Known):
        """known: of the model. Raises UserError for what the engine does not compute."""
        parts = parts_of(model, index)
        roles = {"q": parts.query, "k": parts.key, "v": parts.value, "o": parts.output,
                 "gate": parts.gate, "up": parts.up, "down": parts.down}  # fmt: skip
        self._names = {role: named.name for role, named in roles.items()}
        found = {role: linear_of(role, named) for role, named in roles.items()}
        norms = {"before_attention": parts.before_attention, "after_attention": parts.after_attention, "before_mlp": parts.before_mlp,
                 "after_mlp": parts.after_mlp, "q": parts.q_norm, "k": parts.k_norm}  # fmt: skip
        there = {name: module for name, module in norms.items() if module is not None}

        def projection(name: str, *roles: str) -> Projection:
            return Projection(name, tuple(found[role][0] for role in roles))

        check_rope("GPU", parts.rope, parts.heads.size)
        kind = Kind(
            enter=projection("enter", "q", "k", "v"), output=projection("output", "o"),
            gate_up=projection("gate_up", "gate", "up"), down=projection("down", "down"),
            norms=tuple((name, float(module.eps)) for name, module in there.items()), heads=parts.heads, scale=parts.scale,
            rope=known.rope(parts.rope.module), activation=architecture.activation,
        )  # fmt: skip
        self.kind = known.kind(kind)
        offset = architecture.norm_offset
        self._norms = {name: module.weight + offset if offset else module.weight for name, module in there.items()}
        self._frozen = {role: arrays for role, (_, arrays) in found.items()}

    def adapters(self) -> dict[str, float]:
        """The names of its linear layers that have one, and its scale."""
        linears = [linear for projection in self.kind.projections() for linear in projection.linears]
        return {self._names[linear.role]: linear.scale for linear in linears if linear.rank}

    def arrays(self, adapters: Arrays) -> dict[str, Any]:
        """What the functions of `kind` take. adapters: by the names of the model's parameters, each B times its scale."""
        known = self.adapters()
        parts = {role: tuple(adapters[f"{name}.lora_{part}"] for part in "ab") for role, name in self._names.items() if name in known}
        found: dict[str, Any] = {"norms": self._norms}
        for projection in self.kind.projections():
            found[projection.name] = projection.adapters(parts) | {linear.role: self._frozen[linear.role] for linear in projection.linears}
        return found

    def forward(self, arrays: Arrays, x: Any, positions: Any, view: View) -> tuple[Any, dict[str, Any]]:
        """What goes out of the layer, (T, width) or, with `rows` in the view, (N, width); and what its backward pass takes."""
        kind = self.kind
        kept = self._fast(kind.to_gate, view)(arrays, x, positions, view)
        hidden = gated(kind.activation)(kept["gate"], kept["up"])
        out = self._fast(kind.from_hidden, view)(arrays, hidden, kept["middle"])
        return out.pop("result"), kept | out

    def backward(
        self, arrays: Arrays, x: Any, kept: dict[str, Any], d: Any, positions: Any, view: View, further: bool
    ) -> tuple[Any, dict[str, Any]]:
        """d: the gradient of what `forward` gave. That of x, or None unless it is needed `further` down; and those of the adapters, by the
        names of the model's parameters."""
        kind = self.kind
        gate, up, fed = kept.pop("gate"), kept.pop("up"), kept.pop("fed", d)
        later = self._fast(kind.to_hidden, view)(arrays, d, fed)
        d_hidden = later.pop("d_hidden")
        later |= {"hidden": gated(kind.activation)(gate, up), "d_up": gated(kind.activation)(gate, d_hidden)}
        later["d_gate"] = gate_gradient(kind.activation)(gate, up, d_hidden)
        later |= {name: kept[name] for name in kept if name.startswith(f"{kind.down.name}.")}
        function = self._fast(kind.from_gate if further else kind.from_lowest_gate, view)
        d_x, found = function(arrays, x, kept, later, d, positions, view)
        by_role = ((*name.split("."), array) for name, array in found.items())
        return d_x[0] if d_x else None, {f"{self._names[role]}.{part}": array for role, part, array in by_role}

    def _fast(self, function: Callable[..., Any], view: View) -> Callable[..., Any]:
        """Compiled where launches are what costs, and where the same shapes come again: a batch in pieces keeps a GPU busy as it is, and the
        numbers of tokens and targets are seldom the same together."""
        return function if device.current().kind == "cpu" or "keys" in view or "rows" in view else _compiled(function)
