"""A batch through a decoder, forward and backward."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from generators import device
from generators.device import load_mlx
from generators.train import lora
from generators.train.blocks import architecture_of
from generators.train.cross_entropy import Head
from generators.train.gpu.attention import Sight, rounded
from generators.train.gpu.block import Block, Known
from generators.train.gpu.layers import norm, norm_back
from generators.train.layout import Layout
from generators.train.vector import Vector

mx = load_mlx()


# Layers that may wait for the GPU. What waits holds memory, and a Mac's is the whole system's; a large GPU is done with a layer in a
# millisecond, and idles if the next one is not there.
_AHEAD = {"cuda": 3, "metal": 1, "cpu": 1}


class _Pace:
    """Has the GPU begin with what is already known of a step, and lets the rest of it be no more than some layers ahead."""

    def __init__(self) -> None:
        self._under_way: deque[Any] = deque()
        self._ahead = _AHEAD[device.current().kind]

    def __call__(self, *arrays: Any) -> None:
        mx.async_eval(*arrays)
        self._under_way.append(arrays[0])
        if len(self._under_way) > self._ahead:
            mx.eval(self._under_way.popleft())


class Decoder:
    """An mlx-lm model in the parts that the passes take."""

    def __init__(self, model: Any, recompute: bool, vector: Vector | None):
        """recompute: keep a layer's input alone, and compute the rest again for the backward pass. Raises UserError for what the engine does
        not compute."""
        architecture, known = architecture_of(model), Known()
        self.model, self.recompute = model, recompute
        self.blocks = [Block(model, index, architecture, known) for index in range(len(model.layers))]
        self.embed, self.head = model.model.embed_tokens, Head(model)
        self.scale = architecture.embedding_scale(model.args.hidden_size)
        self.norm, self.eps = model.model.norm.weight + architecture.norm_offset, float(model.model.norm.eps)
        self.lowest = next((index for index, block in enumerate(self.blocks) if block.adapters()), len(self.blocks))
        self._vector = vector or Vector(lora.parameters(model))

    def arrays(self, dtype: Any) -> list[dict[str, Any]]:
        """Those of each block, with the adapters' values as they are now."""
        adapters = self._vector.split(self._vector.of(lora.parameters(self.model)).astype(dtype))
        return [block.arrays(adapters) for block in self.blocks]


class Plan:
    """A batch as arrays, padded: everything about it that does not depend on the adapters. T tokens, the last of them padding; N targets.

    ids, positions: (T,) int32. predicting: (N,) int32, the tokens from which targets are predicted. targets: (N,) int32. counts: (N,)
    float32, 1 for a target and 0 for padding. sight: who sees whom."""

    def __init__(self, layout: Layout, dtype: Any):
        tokens, targets = rounded(layout.tokens + 1), rounded(len(layout.targets))

        def padded(values: Any, count: int, with_what: int) -> Any:
            return mx.array(np.pad(values, (0, count - len(values)), constant_values=with_what).astype(np.int32))

        self.ids, self.positions = padded(layout.ids, tokens, 0), padded(layout.positions, tokens, 0)
        self.predicting, self.targets = padded(layout.predicting, targets, tokens - 1), padded(layout.targets, targets, 0)
        self.counts = mx.array((np.arange(targets) < len(layout.targets)).astype(np.float32))
        self.sight = Sight(layout, tokens, dtype)


class Step:
    """One batch with the adapters as they are."""

    def __init__(self, decoder: Decoder, plan: Plan):
        self.decoder, self.plan, self.pace = decoder, plan, _Pace()
        x = decoder.embed(plan.ids)
        self.x = x if decoder.scale == 1 else x * decoder.scale
        self.arrays = decoder.arrays(x.dtype)

    def loss(self) -> Any:
        """The summed cross-entropy of the targets, in nats, a scalar."""
        x = self.x
        for block, arrays in zip(self.decoder.blocks, self.arrays, strict=True):
            x = block.forward(arrays, x, self.plan.positions, self.plan.sight.view(block.kind.heads))[0]
            self.pace(x)
        return self._head(x[self.plan.predicting], False)[0]

    def loss_and_gradients(self) -> tuple[Any, dict[str, Any]]:
        """The loss, and its gradients by the names of the model's parameters."""
        decoder, inputs, kept = self.decoder, [self.x], list[dict[str, Any]]()
        for index, (block, arrays) in enumerate(zip(decoder.blocks, self.arrays, strict=True)):
            result, found = block.forward(arrays, inputs[-1], self.plan.positions, self.plan.sight.view(block.kind.heads))
            kept.append({} if decoder.recompute or index < decoder.lowest else found)
            inputs.append(result)
            self.pace(result)
        del found
        x = inputs.pop()
        asking = x[self.plan.predicting]
        loss, slope = self._head(asking, True)
        d = mx.zeros_like(x).at[self.plan.predicting].add(norm_back(slope, asking, decoder.norm, decoder.eps))
        self.pace(d, loss)
        gradients: dict[str, Any] = {}
        for index in range(len(decoder.blocks) - 1, decoder.lowest - 1, -1):
            d, new = self._back(index, inputs.pop(), kept.pop(), d)
            self.pace(*([] if d is None else [d]), *new.values())
            gradients |= new
        return loss, gradients

    def _back(self, index: int, x: Any, kept: dict[str, Any], d: Any) -> tuple[Any, dict[str, Any]]:
        block, arrays = self.decoder.blocks[index], self.arrays[index]
        view = self.plan.sight.view(block.kind.heads)
        if not kept:
            _, kept = block.forward(arrays, x, self.plan.positions, view)
        return block.backward(arrays, x, kept, d, self.plan.positions, view, index > self.decoder.lowest)

    def _head(self, asking: Any, with_gradient: bool) -> tuple[Any, Any]:
        final = norm(asking, self.decoder.norm, self.decoder.eps)
        return self.decoder.head.loss(final, self.plan.targets, self.plan.counts, with_gradient)
