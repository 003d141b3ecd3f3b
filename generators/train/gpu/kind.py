"""What layers that are alike compute, forward and backward, written out by hand: functions of arrays.

MLX's own differentiation would do, with more kernels: it knows neither that the weights are frozen in pairs of products nor what is cheap
to compute again. Between the functions here are those of generators.train.fused; inside one compiled function MLX would join their
common parts, and write those to memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from generators.device import load_mlx
from generators.train.blocks import Heads
from generators.train.gpu import attention
from generators.train.gpu.layers import Arrays, Projection, norm, norm_back, spread, turn, turn_back
from generators.train.gpu.sight import View

mx = load_mlx()


@dataclass(frozen=True, eq=False)
class Rope:
    """A rotary embedding of mlx-lm; each is equal to itself alone, see `Known`."""

    module: Any

    @cached_property
    def probe(self) -> Any:
        """What it makes of three positions."""
        return np.array(self.module(mx.ones((1, 1, 3, self.module.dims))))


@dataclass(frozen=True)
class Kind:
    """What layers have in common for which one compiled function serves. norms: the names of those that there are, and their eps.
    scale: of the softmax. The arrays of a layer: a mapping for each projection, and `norms` with the weights."""

    enter: Projection
    output: Projection
    gate_up: Projection
    down: Projection
    norms: tuple[tuple[str, float], ...]
    heads: Heads
    scale: float
    rope: Rope
    activation: str

    def projections(self) -> tuple[Projection, ...]:
        return self.enter, self.output, self.gate_up, self.down

    @cached_property
    def _eps(self) -> dict[str, float]:
        return dict(self.norms)

    def _normed(self, name: str, arrays: Arrays, x: Any) -> Any:
        return norm(x, arrays["norms"][name], self._eps[name]) if name in self._eps else x

    def _norm_back(self, name: str, arrays: Arrays, d: Any, x: Any) -> Any:
        return norm_back(d, x, arrays["norms"][name], self._eps[name])

    # --- forward

    def to_gate(self, arrays: Arrays, x: Any, positions: Any, view: View) -> dict[str, Any]:
        """x: (T, width), what comes into the layer. What is kept of it: q_in, k_in, (T, heads, size), as projected, where they are normed;
        q, k, v, as attention takes them; weights, of the softmax; mixed, what attention gave; and, of the view's `rows` if it has any:
        attended, that of `output` where it is normed; middle, the sum between attention and MLP; gate, up. And the `low` of the
        projections."""
        (q, k, v), low = self.enter.forward(arrays["enter"], self._normed("before_attention", arrays, x))
        q, k, v = (part.reshape(len(x), -1, self.heads.size) for part in (q, k, v))
        kept = {"v": v, **_named(self.enter, low)}
        if "q" in self._eps:
            kept |= {"q_in": q, "k_in": k}
        kept["q"] = turn(self.rope.module, self._normed("q", arrays, q), positions)
        kept["k"] = turn(self.rope.module, self._normed("k", arrays, k), positions)
        kept["mixed"], kept["weights"] = attention.forward(self.heads, self.scale, kept["q"], kept["k"], v, view)
        mixed, x = (_asked(part, view) for part in (kept["mixed"], x))
        kept |= self._added(self.output, "after_attention", arrays, mixed, x, "middle", "attended")
        (kept["gate"], kept["up"]), low = self.gate_up.forward(arrays["gate_up"], self._normed("before_mlp", arrays, kept["middle"]))
        return kept | _named(self.gate_up, low)

    def from_hidden(self, arrays: Arrays, hidden: Any, middle: Any) -> dict[str, Any]:
        """result: what goes out of the layer, as many rows as `hidden` has; fed, where the output of the MLP is normed; and the `low`."""
        return self._added(self.down, "after_mlp", arrays, hidden, middle, "result", "fed")

    def _added(self, projection: Projection, name: str, arrays: Arrays, x: Any, residual: Any, total: str, before: str) -> dict[str, Any]:
        """residual + norm(projection(x)), by the name `total`; what was normed, if it is, by that of `before`."""
        own = arrays[projection.name]
        if name not in self._eps:
            (y,), low = projection.forward(own, x, residual)
            return {total: y, **_named(projection, low)}
        (y,), low = projection.forward(own, x)
        return {total: residual + self._normed(name, arrays, y), before: y, **_named(projection, low)}

    # --- backward

    def to_hidden(self, arrays: Arrays, d: Any, fed: Any) -> dict[str, Any]:
        """d: the gradient of the layer's result, in its rows. slope: that of what `down` gave; d_hidden; and the `d_low`."""
        slope = self._norm_back("after_mlp", arrays, d, fed) if "after_mlp" in self._eps else d
        d_hidden, lows = self.down.back(arrays["down"], {"down": slope})
        return {"slope": slope, "d_hidden": d_hidden, **_named(self.down, lows)}

    def from_gate(
        self, arrays: Arrays, x: Any, kept: Arrays, later: Arrays, d: Any, positions: Any, view: View, further: bool = True
    ) -> tuple[list[Any], dict[str, Any]]:
        """later: what `to_hidden` gave, hidden, d_gate and d_up. d: the gradient of the layer's result. That of x alone in a list, which is
        empty unless it is needed `further` down; and those of the adapters, by role and part."""
        d, found = self._mlp_back(arrays, kept, later, d)
        slope = self._norm_back("after_attention", arrays, d, kept["attended"]) if "after_attention" in self._eps else d
        d_mixed, lows = self.output.back(arrays["output"], {"o": slope})
        mixed = _asked(kept["mixed"], view)
        found |= self.output.gradients(arrays["output"], mixed, lows | _own(self.output, kept), {"o": slope})
        if "rows" in view:
            d, d_mixed = (spread(part, view["rows"], len(x)) for part in (d, d_mixed))
        slopes = self._attention_back(arrays, kept, d_mixed, positions, view)
        d_normed, lows = self.enter.back(arrays["enter"], slopes, further)
        normed = self._normed("before_attention", arrays, x)
        found |= self.enter.gradients(arrays["enter"], normed, lows | _own(self.enter, kept), slopes)
        return [d + self._norm_back("before_attention", arrays, d_normed, x)] if further else [], found

    def from_lowest_gate(
        self, arrays: Arrays, x: Any, kept: Arrays, later: Arrays, d: Any, positions: Any, view: View
    ) -> tuple[list[Any], dict[str, Any]]:
        return self.from_gate(arrays, x, kept, later, d, positions, view, further=False)

    def _mlp_back(self, arrays: Arrays, kept: Arrays, later: Arrays, d: Any) -> tuple[Any, dict[str, Any]]:
        """d with what comes through the MLP added, which is the gradient of `middle`."""
        slopes = {"gate": later["d_gate"], "up": later["d_up"]}
        d_normed, lows = self.gate_up.back(arrays["gate_up"], slopes)
        normed = self._normed("before_mlp", arrays, kept["middle"])
        found = self.down.gradients(arrays["down"], later["hidden"], _own(self.down, later), {"down": later["slope"]})
        found |= self.gate_up.gradients(arrays["gate_up"], normed, lows | _own(self.gate_up, kept), slopes)
        return d + self._norm_back("before_mlp", arrays, d_normed, kept["middle"]), found

    def _attention_back(self, arrays: Arrays, kept: Arrays, d_mixed: Any, positions: Any, view: View) -> dict[str, Any]:
        dq, dk, dv = attention.back(self.heads, self.scale, kept, d_mixed, view)
        dq, dk = turn_back(self.rope.module, dq, positions), turn_back(self.rope.module, dk, positions)
        if "q" in self._eps:
            dq, dk = self._norm_back("q", arrays, dq, kept["q_in"]), self._norm_back("k", arrays, dk, kept["k_in"])
        return {"q": dq.reshape(len(dq), -1), "k": dk.reshape(len(dk), -1), "v": dv.reshape(len(dv), -1)}


def _asked(x: Any, view: View) -> Any:
    return x[view["rows"]] if "rows" in view else x


def _named(projection: Projection, lows: Arrays) -> dict[str, Any]:
    return {f"{projection.name}.{name}": array for name, array in lows.items()}


def _own(projection: Projection, arrays: Arrays) -> dict[str, Any]:
    """The opposite of `_named`."""
    return {name: arrays[f"{projection.name}.{name}"] for name in ("low", "d_low") if f"{projection.name}.{name}" in arrays}
