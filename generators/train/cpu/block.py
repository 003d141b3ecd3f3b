"""One layer of a decoder on slices of its rows: forward, and backward from what the forward pass kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generators.train.cpu import kernels
from generators.train.cpu.decoder import Decoder, Layer, Norm
from generators.train.cpu.projection import Gradients
from generators.train.cpu.workers import Arena, scratch

Array = np.ndarray


@dataclass(frozen=True)
class Tables:
    """Rotary tables, (rows, size / 2) each."""

    cos: Array
    sin: Array

    @classmethod
    def of(cls, by_position: tuple[Array, Array], positions: Array) -> Tables:
        return cls(by_position[0][positions], by_position[1][positions])


class Buffers:
    """What a layer leaves for its backward pass, (rows, columns) each; a layer that needs none shares them with others.

    Rows are all tokens for x, k and v, and the asking ones for the rest. q, k, v: as projected. mixed: what attention gave. low_*: x A of
    the projections. With norms around attention and MLP, what they gave is kept (attended, fed), and the sum in the middle of the layer
    is made again; without, that sum is kept (middle) and they are not.
    """

    def __init__(self, decoder: Decoder, layer: Layer, tokens: int, asking: int, arena: Arena):
        around, width = layer.after_attention is not None, decoder.width
        queries, keys = layer.heads.heads * layer.heads.size, layer.heads.groups * layer.heads.size
        self.q, self.k, self.v = arena.take(asking, queries), arena.take(tokens, keys), arena.take(tokens, keys)
        self.mixed = arena.take(asking, queries)
        self.attended, self.fed = (arena.take(asking, width), arena.take(asking, width)) if around else (None, None)
        self.middle = None if around else arena.take(asking, width)
        self.gate, self.up = arena.take(asking, decoder.inner), arena.take(asking, decoder.inner)
        self.low_enter = arena.take(tokens, layer.enter.rank)
        self.low_ask = arena.take(asking, layer.ask.rank if layer.ask else 0)
        self.low_output, self.low_gate_up, self.low_down = (
            arena.take(asking, projection.rank) for projection in (layer.output, layer.gate_up, layer.down)
        )


class Passing:
    """What is needed around one attention only, and shared by all layers: queries and keys after rotation, and in the backward pass
    (`backward`) the gradients of attention's output, of these, and of the values."""

    def __init__(self, layer: Layer, tokens: int, asking: int, arena: Arena, backward: bool):
        queries, keys = layer.heads.heads * layer.heads.size, layer.heads.groups * layer.heads.size
        self.q, self.k = arena.take(asking, queries), arena.take(tokens, keys)
        if backward:
            self.d_mixed, self.dq = arena.take(asking, queries), arena.take(asking, queries)
            self.dk, self.dv = arena.take(tokens, keys), arena.take(tokens, keys)


class Block:
    """A layer at work on a batch. Its methods take a slice of rows, and touch those rows only.

    Rows are all tokens until keys and values are there, and the asking ones from the queries on; in all layers but the last these are
    the same.
    """

    def __init__(
        self, decoder: Decoder, layer: Layer, tables: tuple[Tables, Tables], asking: Array | None, x: Array, result: Array, kept: Buffers,
        passing: Passing,
    ):  # fmt: skip
        """tables: for queries and for keys. asking: the rows that ask, or None for all. x: (tokens, width), what comes in.
        result: (asking, width), where what goes on is put."""
        self.decoder, self.layer, self.asking, self.x, self.result, self.kept, self.passing = decoder, layer, asking, x, result, kept, passing
        self.query_tables, self.key_tables = tables
        self.residual = x if asking is None else np.empty((len(asking), decoder.width), np.float32)

    # --- forward

    def enter(self, rows: slice) -> None:
        """x to keys and values, and to queries where all rows ask."""
        normed = self._normed(self.layer.before_attention, self.x[rows])
        outputs = [self.kept.k[rows], self.kept.v[rows]]
        if self.asking is None:
            outputs.insert(0, self.kept.q[rows])
        self.layer.enter.forward(normed, outputs, self.kept.low_enter[rows])
        self.turn_keys(rows)
        if self.asking is None:
            self.turn_queries(rows)

    def ask(self, rows: slice) -> None:
        """The last layer's queries."""
        assert self.layer.ask is not None and self.asking is not None
        np.take(self.x, self.asking[rows], axis=0, out=self.residual[rows])
        self.layer.ask.forward(self._normed(self.layer.before_attention, self.residual[rows]), [self.kept.q[rows]], self.kept.low_ask[rows])
        self.turn_queries(rows)

    def turn_queries(self, rows: slice) -> None:
        self._turn(self.kept.q[rows], self.layer.q_norm, self.query_tables, rows, self.passing.q[rows])

    def turn_keys(self, rows: slice) -> None:
        """The scale of the softmax goes with the keys, as there are fewer of them."""
        self._turn(self.kept.k[rows], self.layer.k_norm, self.key_tables, rows, self.passing.k[rows])
        self.passing.k[rows] *= np.float32(self.layer.scale)

    def _turn(self, x: Array, norm: Norm | None, tables: Tables, rows: slice, out: Array) -> None:
        size = self.layer.heads.size
        by_head = x.reshape(-1, size) if norm is None else self._normed(norm, x.reshape(-1, size))
        shape = (len(x), -1, size)
        traditional = self.decoder.ropes[self.layer.rope].traditional
        kernels.rotate(by_head.reshape(shape), tables.cos[rows], tables.sin[rows], traditional, out.reshape(shape))

    def leave(self, rows: slice) -> None:
        """From attention's output to the layer's."""
        layer, kept, result = self.layer, self.kept, self.result[rows]
        attended, fed = self._place(kept.attended, rows, "attended"), self._place(kept.fed, rows, "fed")
        layer.output.forward(kept.mixed[rows], [attended], kept.low_output[rows])
        middle = self._add_attended(attended, rows)
        layer.gate_up.forward(self._normed(layer.before_mlp, middle), [kept.gate[rows], kept.up[rows]], kept.low_gate_up[rows])
        hidden = scratch("hidden", *kept.gate[rows].shape)
        kernels.gated(self.decoder.activation, kept.gate[rows], kept.up[rows], hidden)
        layer.down.forward(hidden, [fed], kept.low_down[rows])
        np.add(middle, self._maybe_normed(layer.after_mlp, fed), out=result)

    def _place(self, kept: Array | None, rows: slice, name: str) -> Array:
        """The rows of a kept array, or a place for what is not kept."""
        return scratch(name, *self.result[rows].shape) if kept is None else kept[rows]

    def _add_attended(self, attended: Array, rows: slice) -> Array:
        """The sum in the middle of the layer."""
        middle = self._place(self.kept.middle, rows, "middle")
        return np.add(self.residual[rows], self._maybe_normed(self.layer.after_attention, attended), out=middle)

    def _normed(self, norm: Norm, x: Array) -> Array:
        out = scratch("normed", *x.shape)
        norm.forward(x, out)
        return out

    def _maybe_normed(self, norm: Norm | None, x: Array) -> Array:
        return x if norm is None else self._normed(norm, x)

    # --- backward

    def leave_backward(self, d: Array, rows: slice) -> Gradients:
        """d: (asking, width), the gradient of the layer's output; that of its residual input takes its place. Fills `d_mixed`."""
        layer, kept, d = self.layer, self.kept, d[rows]
        found = self._mlp_backward(d, rows)
        d_attended = self._norm_backward(layer.after_attention, d, kept.attended, rows)
        d_low = layer.output.backward([d_attended], self.passing.d_mixed[rows])
        return found | layer.output.gradients(kept.mixed[rows], kept.low_output[rows], d_low, [d_attended])

    def _mlp_backward(self, d: Array, rows: slice) -> Gradients:
        """Adds to `d`, the gradient of the layer's output, what comes through the MLP."""
        layer, kept = self.layer, self.kept
        middle = kept.middle[rows] if kept.attended is None else self._add_attended(kept.attended[rows], rows)
        hidden, d_hidden, d_up = (scratch(name, *kept.gate[rows].shape) for name in ("hidden", "d_hidden", "d_up"))
        d_fed = self._norm_backward(layer.after_mlp, d, kept.fed, rows)
        d_low = layer.down.backward([d_fed], d_hidden)
        kernels.gated_backward(self.decoder.activation, kept.gate[rows], kept.up[rows], d_hidden, hidden, d_hidden, d_up)
        found = layer.down.gradients(hidden, kept.low_down[rows], d_low, [d_fed])
        d_normed = scratch("d_normed", *middle.shape)
        d_low = layer.gate_up.backward([d_hidden, d_up], d_normed)
        found |= layer.gate_up.gradients(self._normed(layer.before_mlp, middle), kept.low_gate_up[rows], d_low, [d_hidden, d_up])
        layer.before_mlp.backward(d_normed, middle, d_normed)
        d += d_normed
        return found

    def _norm_backward(self, norm: Norm | None, d: Array, x: Array | None, rows: slice) -> Array:
        """Through a norm that may not be there; x: what was normed, if it is."""
        if norm is None or x is None:
            return d
        out = scratch("d_normed", *d.shape)
        norm.backward(d, x[rows], out)
        return out

    def ask_backward(self, d: Array, rows: slice) -> Gradients:
        """d: (asking, width), the gradient of the last layer's residual; what comes through its queries is added."""
        assert self.layer.ask is not None
        slopes = [self._turn_backward(self.passing.dq, self.kept.q, self.layer.q_norm, self.query_tables, rows, "dq")]
        return self._project_backward(self.layer.ask, slopes, self.residual[rows], self.kept.low_ask[rows], d[rows])

    def enter_backward(self, d: Array | None, rows: slice) -> Gradients:
        """d: (tokens, width), the gradient of the residual; what comes through keys, values and queries is added. None: nobody needs it."""
        layer = self.layer
        self.passing.dk[rows] *= np.float32(layer.scale)
        slopes = [self._turn_backward(self.passing.dk, self.kept.k, layer.k_norm, self.key_tables, rows, "dk"), self.passing.dv[rows]]
        if self.asking is None:
            slopes.insert(0, self._turn_backward(self.passing.dq, self.kept.q, layer.q_norm, self.query_tables, rows, "dq"))
        return self._project_backward(layer.enter, slopes, self.x[rows], self.kept.low_enter[rows], None if d is None else d[rows])

    def _project_backward(self, projection: Any, slopes: list[Array], x: Array, low: Array, d: Array | None) -> Gradients:
        norm = self.layer.before_attention
        d_normed = None if d is None else scratch("d_normed", *x.shape)
        d_low = projection.backward(slopes, d_normed)
        found: Gradients = projection.gradients(self._normed(norm, x), low, d_low, slopes)
        if d is not None and d_normed is not None:
            norm.backward(d_normed, x, d_normed)
            d += d_normed
        return found

    def _turn_backward(self, d: Array, x: Array, norm: Norm | None, tables: Tables, rows: slice, name: str) -> Array:
        """The gradient of the projected queries or keys from `d`, that of the turned ones."""
        size = self.layer.heads.size
        shape = (len(d[rows]), -1, size)
        out = scratch(name, *d[rows].shape)
        traditional = self.decoder.ropes[self.layer.rope].traditional
        kernels.rotate(d[rows].reshape(shape), tables.cos[rows], tables.sin[rows], traditional, out.reshape(shape), backward=True)
        if norm is not None:
            by_head = out.reshape(-1, size)
            norm.backward(by_head, x[rows].reshape(-1, size), by_head)
        return out
