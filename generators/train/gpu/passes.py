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
from generators.train.gpu.block import Block, Known
from generators.train.gpu.layers import norm, norm_back
from generators.train.gpu.sight import Sight, rounded
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
        self.ahead = _AHEAD[device.current().kind]

    def __call__(self, *arrays: Any) -> None:
        mx.async_eval(*arrays)
        self._under_way.append(arrays[0])
        if len(self._under_way) > self.ahead:
            mx.eval(self._under_way.popleft())


class Decoder:
    """An mlx-lm model in the parts that the passes take."""

    def __init__(self, model: Any, recompute: bool, vector: Vector | None):
        """recompute: keep a layer's input alone, and compute the rest again for the backward pass. Raises UserError for what the engine does
        not compute."""
        architecture, known = architecture_of(model), Known()
        self.recompute = recompute
        self.blocks = [Block(model, index, architecture, known) for index in range(len(model.layers))]
        self.embed, self.head = model.model.embed_tokens, Head(model)
        self.scale = architecture.embedding_scale(model.args.hidden_size)
        self.norm, self.eps = model.model.norm.weight + architecture.norm_offset, float(model.model.norm.eps)
        self.lowest = next((index for index, block in enumerate(self.blocks) if block.adapters()), len(self.blocks))
        self._trained = lora.Trained(model)
        self._vector = vector or Vector(self._trained.arrays())
        scales = {f"{name}.lora_b": scale for block in self.blocks for name, scale in block.adapters().items()}
        self._scales = self._vector.filled(scales)

    def adapters(self) -> Any:
        """As one array, the same one as long as they are the same."""
        return self._vector.of(self._trained.arrays())

    def arrays(self, adapters: Any, dtype: Any) -> list[dict[str, Any]]:
        """Those of each block. adapters: as one array. dtype: of the activations."""
        parts = self._vector.split((adapters * self._scales).astype(dtype))
        return [block.arrays(parts) for block in self.blocks]


class Plan:
    """A batch as arrays, padded: everything about it that does not depend on the adapters. T tokens, the last of them padding; N targets.

    ids, positions: (T,) int32. predicting: (N,) int32, the tokens from which targets are predicted. targets: (N,) int32. counts: (N,)
    float32, 1 for a target and 0 for padding. sight: who sees whom."""

    def __init__(self, layout: Layout, dtype: Any):
        self.sight = Sight(layout, dtype)
        tokens, targets = self.sight.tokens, rounded(len(layout.targets))

        def padded(values: Any, count: int, with_what: int) -> Any:
            return mx.array(np.pad(values, (0, count - len(values)), constant_values=with_what).astype(np.int32))

        self.ids, self.positions = padded(layout.ids, tokens, 0), padded(layout.positions, tokens, 0)
        self.predicting, self.targets = padded(layout.predicting, targets, tokens - 1), padded(layout.targets, targets, 0)
        self.counts = mx.array((np.arange(targets) < len(layout.targets)).astype(np.float32))


class Step:
    """One batch with the adapters as they are."""

    def __init__(self, decoder: Decoder, plan: Plan):
        self._decoder, self._plan, self._pace = decoder, plan, _Pace()
        x = decoder.embed(plan.ids)
        self._inputs = [x if decoder.scale == 1 else x * decoder.scale]  # of each layer; at last, what goes out of the last one
        self._kept: list[dict[str, Any]] = []  # of each layer, what its backward pass takes
        self._adapters = decoder.adapters()
        self._arrays = decoder.arrays(self._adapters, x.dtype)

    def is_of_now(self) -> bool:
        """Whether the adapters are still as this step took them."""
        return self._decoder.adapters() is self._adapters

    def begin(self) -> None:
        """Have the GPU compute as many layers as may wait for it."""
        for _ in range(min(self._pace.ahead, len(self._decoder.blocks))):
            self._forward(True)

    def loss(self) -> Any:
        """The summed cross-entropy of the targets, in nats, a scalar."""
        while len(self._inputs) <= len(self._decoder.blocks):
            self._forward(False)
        return self._head(self._inputs.pop(), False)[0]

    def loss_and_gradients(self) -> tuple[Any, dict[str, Any]]:
        """The loss, and its gradients by the names of the model's parameters."""
        decoder, gradients = self._decoder, dict[str, Any]()
        while len(self._inputs) <= len(decoder.blocks):
            self._forward(True)
        asking = self._inputs.pop()
        loss, slope = self._head(asking, True)
        d = norm_back(slope, asking, decoder.norm, decoder.eps)
        self._pace(d, loss)
        for index in range(len(decoder.blocks) - 1, decoder.lowest - 1, -1):
            d, new = self._back(index, d)
            self._pace(*([] if d is None else [d]), *new.values())
            gradients |= new
        return loss, gradients

    def _view(self, index: int) -> dict[str, Any]:
        found = self._plan.sight.view(self._decoder.blocks[index].kind.heads)
        return found | {"rows": self._plan.predicting} if index == len(self._decoder.blocks) - 1 else found

    def _forward(self, backward_too: bool) -> None:
        """The next layer."""
        index, decoder = len(self._inputs) - 1, self._decoder
        x, found = decoder.blocks[index].forward(self._arrays[index], self._inputs[-1], self._plan.positions, self._view(index))
        if backward_too:
            self._kept.append({} if decoder.recompute or index < decoder.lowest else found)
        else:
            self._inputs[-1] = None
        self._inputs.append(x)
        self._pace(x)

    def _back(self, index: int, d: Any) -> tuple[Any, dict[str, Any]]:
        block, arrays, view = self._decoder.blocks[index], self._arrays[index], self._view(index)
        x, kept = self._inputs.pop(), self._kept.pop()
        if not kept:
            _, kept = block.forward(arrays, x, self._plan.positions, view)
        return block.backward(arrays, x, kept, d, self._plan.positions, view, index > self._decoder.lowest)

    def _head(self, asking: Any, with_gradient: bool) -> tuple[Any, Any]:
        final = norm(asking, self._decoder.norm, self._decoder.eps)
        return self._decoder.head.loss(final, self._plan.targets, self._plan.counts, with_gradient)
