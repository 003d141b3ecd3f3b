"""A batch through a decoder, forward and backward, written out by hand.

MLX's own differentiation would do, with three times the kernels: it knows neither that the weights are frozen in pairs of products nor
what is cheap to compute again. A layer keeps what its backward pass cannot have cheaper; with `recompute` it keeps its input alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from generators.device import load_mlx
from generators.train.blocks import Heads, architecture_of, parts_of
from generators.train.cross_entropy import Head
from generators.train.gpu.attention import Attention, rounded
from generators.train.fused import gated, gated_backward
from generators.train.gpu.layers import Gradients, Norm, Projection, Rope, linear_of, norm_of, rope_of
from generators.train.layout import Layout

mx = load_mlx()


@dataclass(frozen=True)
class Layer:
    """One block. after_attention, after_mlp, q_norm, k_norm: None where the architecture has none."""

    enter: Projection
    output: Projection
    gate_up: Projection
    down: Projection
    before_attention: Norm
    after_attention: Norm | None
    before_mlp: Norm
    after_mlp: Norm | None
    q_norm: Norm | None
    k_norm: Norm | None
    heads: Heads
    scale: float
    rope: Rope
    activation: str

    def projections(self) -> tuple[Projection, ...]:
        return self.enter, self.output, self.gate_up, self.down

    def adapters(self) -> list[str]:
        return [name for projection in self.projections() for name in projection.adapters]


@dataclass
class Kept:
    """What a layer leaves for its backward pass, (T, ...) each. x: its input. q_in, k_in: (T, heads, size), as projected, where they are
    normed. q, k, v: as attention takes them. weights: of the softmax. mixed: what attention gave. attended, fed: the outputs of attention and
    MLP, where they are normed. middle: the sum between the two. low_*: x A of the projections."""

    x: Any
    q_in: Any = None
    k_in: Any = None
    q: Any = None
    k: Any = None
    v: Any = None
    weights: Any = None
    mixed: Any = None
    attended: Any = None
    middle: Any = None
    gate: Any = None
    up: Any = None
    fed: Any = None
    low_enter: Any = None
    low_output: Any = None
    low_gate_up: Any = None
    low_down: Any = None


def layer_of(model: Any, index: int) -> Layer:
    """Raises UserError for what the engine does not compute."""
    parts, architecture = parts_of(model, index), architecture_of(model)

    def norm(module: Any) -> Norm | None:
        return None if module is None else norm_of(module, architecture)

    return Layer(
        enter=Projection([linear_of(named) for named in (parts.query, parts.key, parts.value)]),
        output=Projection([linear_of(parts.output)]),
        gate_up=Projection([linear_of(parts.gate), linear_of(parts.up)]), down=Projection([linear_of(parts.down)]),
        before_attention=norm_of(parts.before_attention, architecture), after_attention=norm(parts.after_attention),
        before_mlp=norm_of(parts.before_mlp, architecture), after_mlp=norm(parts.after_mlp),
        q_norm=norm(parts.q_norm), k_norm=norm(parts.k_norm),
        heads=parts.heads, scale=parts.scale, rope=rope_of(parts.rope, parts.heads.size), activation=architecture.activation,
    )  # fmt: skip


class _Pace:
    """Has the GPU begin with what is already known of a step, and lets the rest of it be no more than some layers ahead: what is ahead
    holds memory."""

    _AHEAD = 2

    def __init__(self) -> None:
        self._under_way: deque[Any] = deque()

    def __call__(self, *arrays: Any) -> None:
        mx.async_eval(*arrays)
        self._under_way.append(arrays[0])
        if len(self._under_way) > self._AHEAD:
            mx.eval(self._under_way.popleft())


class Decoder:
    """An mlx-lm model in the parts that the passes take. recompute: keep a layer's input alone."""

    def __init__(self, model: Any, recompute: bool):
        """Raises UserError for what the engine does not compute."""
        architecture = architecture_of(model)
        self.layers = [layer_of(model, index) for index in range(len(model.layers))]
        self.embed, self.head = model.model.embed_tokens, Head(model)
        self.scale = architecture.embedding_scale(model.args.hidden_size)
        self.norm = norm_of(model.model.norm, architecture)
        self.recompute = recompute
        adapted = [index for index, layer in enumerate(self.layers) if layer.adapters()]
        self.lowest = min(adapted, default=len(self.layers))

    def step(self, layout: Layout) -> Step:
        return Step(self, layout)


class Step:
    """One batch."""

    def __init__(self, decoder: Decoder, layout: Layout):
        self.decoder = decoder
        tokens, targets = rounded(layout.tokens + 1), rounded(len(layout.targets))

        def padded(values: Any, count: int, with_what: int) -> Any:
            return mx.array(np.pad(values, (0, count - len(values)), constant_values=with_what).astype(np.int32))

        self.ids, self.positions = padded(layout.ids, tokens, 0), padded(layout.positions, tokens, 0)
        self.predicting, self.targets = padded(layout.predicting, targets, tokens - 1), padded(layout.targets, targets, 0)
        self.counts = mx.array((np.arange(targets) < len(layout.targets)).astype(np.float32))
        self.pace = _Pace()
        x = self._embedded()
        self.attention = Attention(layout, tokens, x.dtype)
        for layer in decoder.layers:
            for projection in layer.projections():
                projection.refresh(x.dtype)
        self.x = x

    def _embedded(self) -> Any:
        x = self.decoder.embed(self.ids)
        return x if self.decoder.scale == 1 else x * self.decoder.scale

    def loss(self) -> Any:
        """The summed cross-entropy of the targets, in nats, a scalar."""
        x = self.x
        for layer in self.decoder.layers:
            x, _ = self._forward(layer, x)
            self.pace(x)
        return self._head(x[self.predicting], False)[0]

    def loss_and_gradients(self) -> tuple[Any, Gradients]:
        """The loss, and its gradients by the names of the model's parameters."""
        decoder, x, kept = self.decoder, self.x, list[Kept]()
        for index, layer in enumerate(decoder.layers):
            result, found = self._forward(layer, x)
            if index >= decoder.lowest:
                kept.append(Kept(x) if decoder.recompute else found)
            x = result
            self.pace(x)
        asking = x[self.predicting]
        loss, slope = self._head(asking, True)
        d = mx.zeros_like(x).at[self.predicting].add(decoder.norm.back(slope, asking))
        self.pace(d, loss)
        gradients: Gradients = {}
        for index in range(len(decoder.layers) - 1, decoder.lowest - 1, -1):
            layer, found = decoder.layers[index], kept.pop()
            if decoder.recompute:
                _, found = self._forward(layer, found.x)
            d, new = self._backward(layer, found, d, index > decoder.lowest)
            del found
            self.pace(*([] if d is None else [d]), *new.values())
            gradients |= new
        return loss, gradients

    def _head(self, asking: Any, with_gradient: bool) -> tuple[Any, Any]:
        return self.decoder.head.loss(self.decoder.norm.forward(asking), self.targets, self.counts, with_gradient)

    def _forward(self, layer: Layer, x: Any) -> tuple[Any, Kept]:
        """x: (T, width), what comes into the layer; what goes out of it."""
        kept, heads = Kept(x), layer.heads
        (q, k, v), kept.low_enter = layer.enter.forward(layer.before_attention.forward(x))
        q, k, kept.v = (part.reshape(len(x), -1, heads.size) for part in (q, k, v))
        if layer.q_norm and layer.k_norm:
            kept.q_in, kept.k_in = q, k
            q, k = layer.q_norm.forward(q), layer.k_norm.forward(k)
        kept.q, kept.k = layer.rope.turn(q, self.positions), layer.rope.turn(k, self.positions)
        kept.mixed, kept.weights = self.attention.forward(heads, layer.scale, kept.q, kept.k, kept.v)
        kept.middle, kept.attended, kept.low_output = self._added(layer.output, layer.after_attention, kept.mixed, x)
        (kept.gate, kept.up), kept.low_gate_up = layer.gate_up.forward(layer.before_mlp.forward(kept.middle))
        hidden = gated(layer.activation)(kept.gate, kept.up)
        result, kept.fed, kept.low_down = self._added(layer.down, layer.after_mlp, hidden, kept.middle)
        return result, kept

    def _added(self, projection: Projection, norm: Norm | None, x: Any, residual: Any) -> tuple[Any, Any, Any]:
        """residual + norm(projection(x)); what was normed, or None; x A."""
        if norm is None:
            (total,), low = projection.forward(x, residual)
            return total, None, low
        (y,), low = projection.forward(x)
        return residual + norm.forward(y), y, low

    def _backward(self, layer: Layer, kept: Kept, d: Any, further: bool) -> tuple[Any, Gradients]:
        """d: (T, width), the gradient of the layer's result. That of its input, or None unless it is needed `further` down; and those of
        its adapters."""
        d, found = self._mlp_backward(layer, kept, d)
        slope = layer.after_attention.back(d, kept.attended) if layer.after_attention else d
        d_mixed, d_low = layer.output.back([slope])
        found |= layer.output.gradients(kept.mixed, kept.low_output, d_low, [slope])
        heads, arrays = layer.heads, (kept.q, kept.k, kept.v, kept.weights, kept.mixed, d_mixed)
        dq, dk, dv = self.attention.back(heads, layer.scale, *arrays)
        dq, dk = layer.rope.back(dq, self.positions), layer.rope.back(dk, self.positions)
        if layer.q_norm and layer.k_norm:
            dq, dk = layer.q_norm.back(dq, kept.q_in), layer.k_norm.back(dk, kept.k_in)
        slopes = [part.reshape(len(d), -1) for part in (dq, dk, dv)]
        d_normed, d_low = layer.enter.back(slopes, further)
        found |= layer.enter.gradients(layer.before_attention.forward(kept.x), kept.low_enter, d_low, slopes)
        return d + layer.before_attention.back(d_normed, kept.x) if further else None, found

    def _mlp_backward(self, layer: Layer, kept: Kept, d: Any) -> tuple[Any, Gradients]:
        """d with what comes through the MLP added, which is the gradient of the sum in the layer's middle."""
        slope = layer.after_mlp.back(d, kept.fed) if layer.after_mlp else d
        d_hidden, d_low = layer.down.back([slope])
        d_gate, d_up, hidden = gated_backward(layer.activation)(kept.gate, kept.up, d_hidden)
        found = layer.down.gradients(hidden, kept.low_down, d_low, [slope])
        d_normed, d_low = layer.gate_up.back([d_gate, d_up])
        found |= layer.gate_up.gradients(layer.before_mlp.forward(kept.middle), kept.low_gate_up, d_low, [d_gate, d_up])
        return d + layer.before_mlp.back(d_normed, kept.middle), found
