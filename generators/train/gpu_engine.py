"""Loss and adapter gradients of a batch on Metal and CUDA: every token of the batch once, in a few large products.

A group's prefix is computed once; there is hardly any padding; logits exist at targets only and in chunks. `generators.train.gpu` has
the passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from generators import device
from generators.device import load_mlx
from generators.errors import UserError
from generators.train.accelerator import leave_room
from generators.train.blocks import check_adapters
from generators.train.data import Batch
from generators.train.gpu.passes import Decoder, Plan, Step
from generators.train.layout import layout_of
from generators.train.vector import Vector

mx = load_mlx()


class GpuEngine:
    """Computes with the model's own weights; the adapters' values are read anew at each call."""

    def __init__(self, model: Any, lora: dict[str, Any], settings: dict[str, Any], vector: Vector | None = None):
        """model: of mlx-lm, with `lora.attach` done. lora, settings: the recipe's blocks. vector: as which the optimiser sees the adapter.
        Raises UserError for what is not supported."""
        from generators.train.lora import parameters

        if lora["dropout"] or lora["dora"]:
            raise UserError("the GPU engine computes plain LoRA, without dropout and DoRA")
        self._decoder = Decoder(model, settings.get("gradient_checkpointing", False), vector)
        self._dtype = model.model.norm.weight.dtype
        self._begun: tuple[Batch, Step] | None = None
        check_adapters("GPU", (name for block in self._decoder.blocks for name in block.adapters()), parameters(model))

    @staticmethod
    def supports(model: Any, lora: dict[str, Any], settings: dict[str, Any]) -> bool:
        """Whether this engine computes what `lora` and `settings` ask for. If not, the model's own code does."""
        try:
            GpuEngine(model, lora, settings)
        except UserError:
            return False
        return True

    def expect(self, batches: Iterable[Batch]) -> None:
        """Nothing has to be known of them."""
        leave_room(device.current())

    def soon(self, batch: Batch) -> None:
        """Begin with it, so that the GPU has work while the host sees to what ends a step."""
        step = self._step(batch)
        step.begin()
        self._begun = batch, step

    def loss(self, batch: Batch) -> float:
        """The summed cross-entropy of the batch's targets, in nats."""
        return float(self._step(batch).loss().item())

    def loss_and_gradients(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        """The loss as `loss` has it, a scalar, and its gradients, in the dtype of the activations, by the names that `lora.parameters` gives;
        all on their way."""
        return (self._taken_up(batch) or self._step(batch)).loss_and_gradients()

    def _taken_up(self, batch: Batch) -> Step | None:
        """What was begun, if it is this batch with these weights; it is forgotten in any case."""
        begun, self._begun = self._begun, None
        return begun[1] if begun and begun[0] is batch and begun[1].is_of_now() else None

    def _step(self, batch: Batch) -> Step:
        return Step(self._decoder, Plan(layout_of(batch), self._dtype))
