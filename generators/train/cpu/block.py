"""One layer of a decoder on slices of its rows: forward, and backward from what the forward pass kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generators.train.cpu import kernels
from generators.train.cpu.decoder import Decoder, Norm
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


class Block:
    """A layer at work on a batch. Its methods take a slice of rows, and touch those rows only.

    Rows are all tokens until keys and values are there, and the asking ones from the queries on; in all layers but the last these are
    the same. Kept for the backward pass: x, what came in; q, k, v, as projected; mixed, what attention gave; attended, its projection;
    middle, the sum of that and x; gate, up; fed, what the MLP gave; and x A of every projection. Not kept layers share one set of buffers.
    """

    def __init__(self, decoder: Decoder, index: int, tables: tuple[Tables, Tables], asking: Array | None, tokens: int, arena: Arena, keep: bool):
        """tables: for queries and for keys. asking: the rows that ask, or None for all."""
        self.decoder, self.layer, self.asking = decoder, decoder.layers[index], asking
        self.query_tables, self.key_tables = tables
        self.result: Array = np.empty(0, np.float32)  # (asking, width): where `leave` puts what goes on
        layer, width = self.layer, decoder.width
        heads, asked = layer.heads, tokens if asking is None else len(asking)
        queries, keys = heads.heads * heads.size, heads.groups * heads.size

        def kept(name: str, rows: int, columns: int) -> Array:
            return arena.get(f"{index if keep else 'passing'}.{name}", rows, columns)

        self.x = kept("x", tokens, width) if keep else arena.get(f"x.{index % 2}", tokens, width)
        self.q, self.k, self.v = kept("q", asked, queries), kept("k", tokens, keys), kept("v", tokens, keys)
        self.mixed = kept("mixed", asked, queries)
        self.attended, self.middle, self.fed = (kept(name, asked, width) for name in ("attended", "middle", "fed"))
        self.gate, self.up = kept("gate", asked, decoder.inner), kept("up", asked, decoder.inner)
        self.low_enter = kept("low_enter", tokens, layer.enter.rank)
        self.low_ask = kept("low_ask", asked, layer.ask.rank if layer.ask else 0)
        self.low_output, self.low_gate_up, self.low_down = (
            kept(f"low_{name}", asked, projection.rank)
            for name, projection in (("output", layer.output), ("gate_up", layer.gate_up), ("down", layer.down))
        )
        self.residual = self.x if asking is None else kept("asking", asked, width)
        self.q_turned, self.k_turned = arena.get("q_turned", asked, queries), arena.get("k_turned", tokens, keys)
        self._arena, self._shapes = arena, (asked, queries, tokens, keys)

    # Only the backward pass needs these.

    @property
    def d_mixed(self) -> Array:
        return self._arena.get("d_mixed", *self._shapes[:2])

    @property
    def dq(self) -> Array:
        return self._arena.get("dq", *self._shapes[:2])

    @property
    def dk(self) -> Array:
        return self._arena.get("dk", *self._shapes[2:])

    @property
    def dv(self) -> Array:
        return self._arena.get("dv", *self._shapes[2:])

    # --- forward

    def enter(self, rows: slice) -> None:
        """x to keys and values, and to queries where all rows ask."""
        normed = self._normed(self.layer.before_attention, self.x[rows])
        outputs = [self.k[rows], self.v[rows]]
        if self.asking is None:
            outputs.insert(0, self.q[rows])
        self.layer.enter.forward(normed, outputs, self.low_enter[rows])
        self.turn_keys(rows)
        if self.asking is None:
            self.turn_queries(rows)

    def ask(self, rows: slice) -> None:
        """The last layer's queries."""
        assert self.layer.ask is not None and self.asking is not None
        np.take(self.x, self.asking[rows], axis=0, out=self.residual[rows])
        self.layer.ask.forward(self._normed(self.layer.before_attention, self.residual[rows]), [self.q[rows]], self.low_ask[rows])
        self.turn_queries(rows)

    def turn_queries(self, rows: slice) -> None:
        self._turn(self.q[rows], self.layer.q_norm, self.query_tables, rows, self.q_turned[rows])

    def turn_keys(self, rows: slice) -> None:
        """The scale of the softmax goes with the keys, as there are fewer of them."""
        self._turn(self.k[rows], self.layer.k_norm, self.key_tables, rows, self.k_turned[rows])
        self.k_turned[rows] *= np.float32(self.layer.scale)

    def _turn(self, x: Array, norm: Norm | None, tables: Tables, rows: slice, out: Array) -> None:
        size = self.layer.heads.size
        by_head = x.reshape(-1, size) if norm is None else self._normed(norm, x.reshape(-1, size))
        shape = (len(x), -1, size)
        traditional = self.decoder.ropes[self.layer.rope].traditional
        kernels.rotate(by_head.reshape(shape), tables.cos[rows], tables.sin[rows], traditional, out.reshape(shape))

    def leave(self, rows: slice) -> None:
        """From attention's output to the layer's."""
        layer, middle, result = self.layer, self.middle[rows], self.result[rows]
        layer.output.forward(self.mixed[rows], [self.attended[rows]], self.low_output[rows])
        np.add(self.residual[rows], self._maybe_normed(layer.after_attention, self.attended[rows]), out=middle)
        layer.gate_up.forward(self._normed(layer.before_mlp, middle), [self.gate[rows], self.up[rows]], self.low_gate_up[rows])
        hidden = scratch("hidden", *self.gate[rows].shape)
        kernels.gated(self.decoder.activation, self.gate[rows], self.up[rows], hidden)
        layer.down.forward(hidden, [self.fed[rows]], self.low_down[rows])
        np.add(middle, self._maybe_normed(layer.after_mlp, self.fed[rows]), out=result)

    def _normed(self, norm: Norm, x: Array) -> Array:
        out = scratch("normed", *x.shape)
        norm.forward(x, out)
        return out

    def _maybe_normed(self, norm: Norm | None, x: Array) -> Array:
        return x if norm is None else self._normed(norm, x)

    # --- backward

    def leave_backward(self, d: Array, rows: slice) -> Gradients:
        """d: (asking, width), the gradient of the layer's output; that of its residual input takes its place. Fills `d_mixed`."""
        layer, d = self.layer, d[rows]
        found = self._mlp_backward(d, rows)
        d_attended = self._norm_backward(layer.after_attention, d, self.attended[rows])
        d_low = layer.output.backward([d_attended], self.d_mixed[rows])
        return found | layer.output.gradients(self.mixed[rows], self.low_output[rows], d_low, [d_attended])

    def _mlp_backward(self, d: Array, rows: slice) -> Gradients:
        """Adds to `d`, the gradient of the layer's output, what comes through the MLP."""
        layer, middle, gate, up = self.layer, self.middle[rows], self.gate[rows], self.up[rows]
        hidden, d_hidden, d_up = (scratch(name, *gate.shape) for name in ("hidden", "d_hidden", "d_up"))
        d_fed = self._norm_backward(layer.after_mlp, d, self.fed[rows])
        d_low = layer.down.backward([d_fed], d_hidden)
        kernels.gated_backward(self.decoder.activation, gate, up, d_hidden, hidden, d_hidden, d_up)
        found = layer.down.gradients(hidden, self.low_down[rows], d_low, [d_fed])
        d_normed = scratch("d_normed", *middle.shape)
        d_low = layer.gate_up.backward([d_hidden, d_up], d_normed)
        found |= layer.gate_up.gradients(self._normed(layer.before_mlp, middle), self.low_gate_up[rows], d_low, [d_hidden, d_up])
        layer.before_mlp.backward(d_normed, middle, d_normed)
        d += d_normed
        return found

    def _norm_backward(self, norm: Norm | None, d: Array, x: Array) -> Array:
        if norm is None:
            return d
        out = scratch("d_normed", *x.shape)
        norm.backward(d, x, out)
        return out

    def ask_backward(self, d: Array, rows: slice) -> Gradients:
        """d: (asking, width), the gradient of the last layer's residual; what comes through its queries is added."""
        assert self.layer.ask is not None
        slopes = [self._turn_backward(self.dq, self.q, self.layer.q_norm, self.query_tables, rows, "dq")]
        return self._project_backward(self.layer.ask, slopes, self.residual[rows], self.low_ask[rows], d[rows])

    def enter_backward(self, d: Array | None, rows: slice) -> Gradients:
        """d: (tokens, width), the gradient of the residual; what comes through keys, values and queries is added. None: nobody needs it."""
        layer = self.layer
        self.dk[rows] *= np.float32(layer.scale)
        slopes = [self._turn_backward(self.dk, self.k, layer.k_norm, self.key_tables, rows, "dk"), self.dv[rows]]
        if self.asking is None:
            slopes.insert(0, self._turn_backward(self.dq, self.q, layer.q_norm, self.query_tables, rows, "dq"))
        return self._project_backward(layer.enter, slopes, self.x[rows], self.low_enter[rows], None if d is None else d[rows])

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
