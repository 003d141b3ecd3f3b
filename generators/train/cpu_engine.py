"""Loss and adapter gradients of a batch on a machine whose MLX device is the CPU, in numpy.

MLX computes element-wise operations there in one slow thread and retains every intermediate for its autograd. This engine writes the
backward pass of a frozen decoder with LoRA on its linear layers out by hand: exact, in float32, with no padding, each group's prefix
once, logits at targets only and never more than a tile of them. Never used on Metal or CUDA.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from generators.errors import UserError
from generators.train.data import Batch

if TYPE_CHECKING:
    import numpy as np

_KEPT_BYTES = 1_600_000_000  # of a step, from the forward pass to the backward; larger batches are computed in parts


class CpuEngine:
    """Computes with the model's own weights, which are viewed and not copied; the adapters' values are read anew at each call."""

    def __init__(self, model: Any, lora: dict[str, Any]):
        """model: of mlx-lm, in float32, with `lora.attach` done. lora: the recipe's block. Raises UserError for what is not supported."""
        from generators.train.blocks import check_adapters
        from generators.train.cpu import decoder
        from generators.train.cpu.passes import kept_per_token
        from generators.train.cpu.workers import Arena, Workers
        from generators.train.lora import parameters

        if lora["dropout"] or lora["dora"]:
            raise UserError("the CPU engine computes plain LoRA, without dropout and DoRA")
        self._decoder = decoder.read(model)
        layers = self._decoder.layers
        check_adapters("CPU", (name for layer in layers for name in layer.adapters()), parameters(model))
        self._lowest = next(index for index, layer in enumerate(layers) if layer.adapters())
        self._workers, self._arena = Workers(), Arena()
        self._refresh()
        self._most_tokens = max(1, _KEPT_BYTES // (4 * kept_per_token(self._decoder)))

    @staticmethod
    def supports(model: Any, lora: dict[str, Any], settings: dict[str, Any]) -> bool:
        """Whether this engine computes what `lora` and `settings`, the recipe's blocks, ask for. If not, MLX does."""
        from generators import device

        if device.current().kind != "cpu" or settings.get("base_bits"):
            return False
        try:
            CpuEngine(model, lora)
        except UserError:
            return False
        return True

    def expect(self, batches: Iterable[Batch]) -> None:
        """Nothing to prepare: no batch is padded."""

    def soon(self, batch: Batch) -> None:
        """Nothing to prepare."""

    def loss(self, batch: Batch) -> float:
        """The summed cross-entropy of the batch's targets, in nats."""
        with self._workers.at_work():
            return self._step(batch).loss()

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, np.ndarray]]:
        """The loss as `loss` has it, and its gradients, float32, by the names that `lora.parameters` gives."""
        from generators.train.layout import divided

        total, sums = 0.0, dict[str, Any]()
        with self._workers.at_work():
            for part in divided(batch, self._most_tokens):
                loss, gradients = self._step(part).loss_and_gradients()
                total += loss
                sums = {name: gradient + sums[name] for name, gradient in gradients.items()} if sums else gradients
        return total, sums

    def _refresh(self) -> None:
        for layer in self._decoder.layers:
            for projection in layer.projections():
                projection.refresh()

    def _step(self, batch: Batch) -> Any:
        from generators.train.cpu.passes import Step
        from generators.train.layout import layout_of

        self._refresh()
        self._arena.restart()
        return Step(self._decoder, self._lowest, layout_of(batch), self._workers, self._arena)
