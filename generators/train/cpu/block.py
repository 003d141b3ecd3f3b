"""One layer of a decoder on slices of its rows: forward, and backward from what the forward pass kept.

Matrix products take a whole slice; what is element-wise between two of them goes through the cache in strips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.train.cpu import kernels
from generators.train.cpu.attention import Memory
from generators.train.cpu.decoder import Decoder, Layer, Norm
from generators.train.cpu.kernels import strips
from generators.train.cpu.projection import Gradients, Projection
from generators.train.cpu.workers import Arena, scratch

Array = np.ndarray


@dataclass(frozen=True)
class Tables:
    """Rotary tables, (rows, 1, size / 2) each."""

    cos: Array
    sin: Array

    @classmethod
    def of(cls, by_position: tuple[Array, Array], positions: Array) -> Tables:
        return cls(by_position[0][positions, None], by_position[1][positions, None])


class Kept:
    """What a layer leaves for its backward pass, (rows, columns) each; layers without one share theirs.

    Rows are all tokens for k, v and keys, and the asking ones for the rest. q, k: as projected, where they are normed. v; queries, keys: as
    attention needs them. mixed: what it gave. low_*: x A of the projections. With norms around attention and MLP, what they gave is kept
    (attended, fed), and the sum in the middle of the layer is made again; without, that sum is kept (middle) and they are not.
    weights: of the softmax, if `keep_weights`; a soft cap's derivative needs more than them, so there they are computed again.
    """

    def __init__(self, decoder: Decoder, layer: Layer, tokens: int, asking: int, arena: Arena, keep_weights: bool):
        around, width = layer.after_attention is not None, decoder.width
        heads = layer.heads
        self.queries, self.keys, self.v = arena.take(asking, heads.queries), arena.take(tokens, heads.keys), arena.take(tokens, heads.keys)
        self.q = arena.take(asking, heads.queries) if layer.q_norm else None
        self.k = arena.take(tokens, heads.keys) if layer.k_norm else None
        self.weights = Memory(arena if keep_weights and heads.soft_cap is None else None)
        self.mixed = arena.take(asking, heads.queries)
        self.attended, self.fed = (arena.take(asking, width), arena.take(asking, width)) if around else (None, None)  # type: ignore[var-annotated]
        self.middle = None if around else arena.take(asking, width)
        self.gate, self.up = arena.take(asking, decoder.inner), arena.take(asking, decoder.inner)
        self.low_enter = arena.take(tokens, layer.enter.rank)
        self.low_ask = arena.take(asking, layer.ask.rank if layer.ask else 0)
        self.low_output, self.low_gate_up, self.low_down = (
            arena.take(asking, projection.rank) for projection in (layer.output, layer.gate_up, layer.down)
        )


class Passing:
    """What lives within one layer's pass, and is shared by all layers: what `Kept` may leave out, and d_*, gradients."""

    def __init__(self, decoder: Decoder, layer: Layer, tokens: int, asking: int, arena: Arena, backward: bool):
        heads, width = layer.heads, decoder.width
        self.q, self.k = arena.take(asking, heads.queries), arena.take(tokens, heads.keys)
        self.normed = arena.take(tokens, width)
        self.attended, self.middle, self.fed = arena.take(asking, width), arena.take(asking, width), arena.take(asking, width)
        self.hidden = arena.take(asking, decoder.inner)
        if backward:
            self.d_mixed, self.dq = arena.take(asking, heads.queries), arena.take(asking, heads.queries)
            self.dk, self.dv = arena.take(tokens, heads.keys), arena.take(tokens, heads.keys)
            self.d_hidden, self.d_up = arena.take(asking, decoder.inner), arena.take(asking, decoder.inner)
            self.d_inner = arena.take(asking, width)
            self.d_parts = [arena.take(tokens, width) for _ in range(3)]


class Block:
    """A layer at work on a batch. Its methods take a slice of rows, and touch those rows only.

    Rows are all tokens until keys and values are there, and the asking ones from the queries on; in all layers but the last these are
    the same.
    """

    def __init__(
        self, decoder: Decoder, layer: Layer, tables: tuple[Tables, Tables], asking: Array | None, x: Array, result: Array, kept: Kept,
        passing: Passing,
    ):  # fmt: skip
        """tables: for queries and for keys. asking: the rows that ask, or None for all. x: (tokens, width), what comes in.
        result: (asking, width), where what goes on is put."""
        self.decoder, self.layer, self.asking, self.x, self.result, self.kept, self.passing = (
            decoder,
            layer,
            asking,
            x,
            result,
            kept,
            passing,
        )
        self.query_tables, self.key_tables = tables
        self.residual = x if asking is None else np.empty((len(asking), decoder.width), np.float32)

    # --- forward

    def enter(self, rows: slice) -> None:
        """x to keys and values, and to queries where all rows ask."""
        layer, low = self.layer, self.kept.low_enter
        q, k, v = self._kept_or("q"), self._kept_or("k"), self.kept.v
        outputs = [k, v] if layer.ask else [q, k, v]
        layer.enter.multiply(self._normed(layer.before_attention, self.x, rows), [out[rows] for out in outputs], low[rows])
        for strip in strips(rows, layer.heads.queries):
            layer.enter.correct([out[strip] for out in outputs], low[strip])
            self._turn(k, layer.k_norm, self.key_tables, strip, self.kept.keys, layer.scale)
            if layer.ask is None:
                self._turn(q, layer.q_norm, self.query_tables, strip, self.kept.queries)

    def ask(self, rows: slice) -> None:
        """The last layer's queries."""
        layer, low, q = self.layer, self.kept.low_ask, self._kept_or("q")
        assert layer.ask is not None and self.asking is not None
        np.take(self.x, self.asking[rows], axis=0, out=self.residual[rows])
        layer.ask.multiply(self._normed(layer.before_attention, self.residual, rows), [q[rows]], low[rows])
        for strip in strips(rows, layer.heads.queries):
            layer.ask.correct([q[strip]], low[strip])
            self._turn(q, layer.q_norm, self.query_tables, strip, self.kept.queries)

    def _turn(self, x: Array, norm: Norm | None, tables: Tables, strip: slice, out: Array, scale: float | None = None) -> None:
        """scale: that of the softmax goes with the keys, as there are fewer of them."""
        by_head = x[strip].reshape(-1, self.layer.heads.size)
        if norm is not None:
            normed = scratch("turn", *by_head.shape)
            norm.forward(by_head, normed)
            by_head = normed
        shape = (strip.stop - strip.start, -1, self.layer.heads.size)
        kernels.rotate(by_head.reshape(shape), tables.cos[strip], tables.sin[strip], self._traditional, out[strip].reshape(shape))
        if scale is not None:
            out[strip] *= np.float32(scale)

    @property
    def _traditional(self) -> bool:
        return self.decoder.ropes[self.layer.rope].traditional

    def leave(self, rows: slice) -> None:
        """From attention's output to the layer's."""
        layer, kept, passing, width = self.layer, self.kept, self.passing, self.decoder.width
        attended, middle = self._kept_or("attended"), self._kept_or("middle")
        layer.output.multiply(kept.mixed[rows], [attended[rows]], kept.low_output[rows])
        for strip in strips(rows, width):
            layer.output.correct([attended[strip]], kept.low_output[strip])
            self._add(self.residual[strip], layer.after_attention, attended[strip], middle[strip])
            layer.before_mlp.forward(middle[strip], passing.normed[strip])
        layer.gate_up.multiply(passing.normed[rows], [kept.gate[rows], kept.up[rows]], kept.low_gate_up[rows])
        for strip in strips(rows, self.decoder.inner):
            layer.gate_up.correct([kept.gate[strip], kept.up[strip]], kept.low_gate_up[strip])
            kernels.gated(self.decoder.activation, kept.gate[strip], kept.up[strip], passing.hidden[strip])
        fed = self._kept_or("fed")
        layer.down.multiply(passing.hidden[rows], [fed[rows]], kept.low_down[rows])
        for strip in strips(rows, width):
            layer.down.correct([fed[strip]], kept.low_down[strip])
            self._add(middle[strip], layer.after_mlp, fed[strip], self.result[strip])

    def _kept_or(self, name: str) -> Array:
        """The kept array of that name, or the passing one where none is kept."""
        kept: Array | None = getattr(self.kept, name)
        passing: Array = getattr(self.passing, name)
        return passing if kept is None else kept

    def _add(self, residual: Array, norm: Norm | None, x: Array, out: Array) -> None:
        """out = residual + norm(x)"""
        if norm is None:
            np.add(residual, x, out=out)
        else:
            norm.forward(x, out)
            out += residual

    def _normed(self, norm: Norm, x: Array, rows: slice) -> Array:
        for strip in strips(rows, self.decoder.width):
            norm.forward(x[strip], self.passing.normed[strip])
        return self.passing.normed[rows]

    # --- backward

    def leave_backward(self, d: Array, rows: slice) -> Gradients:
        """d: (asking, width), the gradient of the layer's output; that of its residual input takes its place. Fills `d_mixed`."""
        layer, kept, passing = self.layer, self.kept, self.passing
        found = self._mlp_backward(d, rows)
        slope = self._norm_backward(layer.after_attention, d, kept.attended, rows)
        d_low = layer.output.backward([slope], [passing.d_mixed[rows]])
        layer.output.collect([passing.d_mixed[rows]], d_low)
        return found | layer.output.gradients(kept.mixed[rows], kept.low_output[rows], d_low, [slope])

    def _mlp_backward(self, d: Array, rows: slice) -> Gradients:
        """Adds to `d`, the gradient of the layer's output, what comes through the MLP."""
        layer, kept, passing = self.layer, self.kept, self.passing
        slope = self._norm_backward(layer.after_mlp, d, kept.fed, rows)
        d_low = layer.down.backward([slope], [passing.d_hidden[rows]])
        for strip in strips(rows, self.decoder.inner):
            d_hidden = layer.down.collect([passing.d_hidden[strip]], d_low[strip.start - rows.start : strip.stop - rows.start])
            arrays = (kept.gate[strip], kept.up[strip], d_hidden, passing.hidden[strip], passing.d_up[strip])
            kernels.gated_backward(self.decoder.activation, *arrays)
        found = layer.down.gradients(passing.hidden[rows], kept.low_down[rows], d_low, [slope])
        slopes = [passing.d_hidden[rows], passing.d_up[rows]]
        if kept.middle is None and kept.attended is not None:
            for strip in strips(rows, self.decoder.width):
                self._add(self.residual[strip], layer.after_attention, kept.attended[strip], passing.middle[strip])
        return found | self._project_backward(layer.gate_up, layer.before_mlp, slopes, self._kept_or("middle"), kept.low_gate_up, d, rows)

    def _norm_backward(self, norm: Norm | None, d: Array, x: Array | None, rows: slice) -> Array:
        """The rows of `d` before a norm that may not be there; x: what was normed, if it is."""
        if norm is None or x is None:
            return d[rows]
        for strip in strips(rows, self.decoder.width):
            norm.backward(d[strip], x[strip], self.passing.d_inner[strip])
        return self.passing.d_inner[rows]

    def ask_backward(self, d: Array, rows: slice) -> Gradients:
        """d: (asking, width), the gradient of the last layer's residual; what comes through its queries is added."""
        layer, kept, passing = self.layer, self.kept, self.passing
        assert layer.ask is not None
        self._turn_backward(passing.dq, kept.q, layer.q_norm, self.query_tables, rows)
        return self._project_backward(layer.ask, layer.before_attention, [passing.dq[rows]], self.residual, kept.low_ask, d, rows)

    def enter_backward(self, d: Array | None, rows: slice) -> Gradients:
        """d: (tokens, width), the gradient of the residual; what comes through keys, values and queries is added. None: nobody needs it."""
        layer, kept, passing = self.layer, self.kept, self.passing
        self._turn_backward(passing.dk, kept.k, layer.k_norm, self.key_tables, rows, layer.scale)
        slopes = [passing.dk[rows], passing.dv[rows]]
        if layer.ask is None:
            self._turn_backward(passing.dq, kept.q, layer.q_norm, self.query_tables, rows)
            slopes.insert(0, passing.dq[rows])
        return self._project_backward(layer.enter, layer.before_attention, slopes, self.x, kept.low_enter, d, rows)

    def _project_backward(
        self, projection: Projection, norm: Norm, slopes: list[Array], x: Array, low: Array, d: Array | None, rows: slice
    ) -> Gradients:
        """Through projections of norm(x). slopes: (rows of the slice, ...), of their outputs. What reaches x is added to `d`."""
        parts = [part[rows] for part in self.passing.d_parts[: len(slopes)]]
        d_low = projection.backward(slopes, None if d is None else parts)
        inverse = np.empty((len(d_low), 1), np.float32)
        for strip in strips(slice(0, len(d_low)), self.decoder.width):
            before = x[rows][strip]
            if d is None:
                inverse[strip] = kernels.inverse_size(before, norm.eps)
            else:
                d_normed = projection.collect([part[strip] for part in parts], d_low[strip])
                inverse[strip] = norm.backward(d_normed, before, d_normed)
                d[rows][strip] += d_normed
        d_low *= inverse
        return projection.gradients(x[rows], low[rows], d_low, slopes, norm.weight)

    def _turn_backward(self, d: Array, x: Array | None, norm: Norm | None, tables: Tables, rows: slice, scale: float | None = None) -> None:
        """The gradient of the projected queries or keys in the place of that of the turned ones."""
        size = self.layer.heads.size
        for strip in strips(rows, d.shape[1]):
            turned = d[strip].reshape(strip.stop - strip.start, -1, size)
            if scale is not None:
                turned *= np.float32(scale)
            back = scratch("turn", *turned.shape)
            kernels.rotate(turned, tables.cos[strip], -tables.sin[strip], self._traditional, back)
            if norm is None or x is None:
                turned[...] = back
            else:
                norm.backward(back.reshape(-1, size), x[strip].reshape(-1, size), turned.reshape(-1, size))
