"""Who computes loss and gradients. The one place that chooses by device and by what the recipe asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from generators import device
from generators.train.data import Batch
from generators.train.vector import Vector


class Engine(Protocol):
    """expect: told all batches of a run before it begins. soon: told, while a GPU is busy with a step, which batch comes next.
    loss: summed cross-entropy of a batch's targets, nats. loss_and_gradients: the same with the gradients of that sum, by parameter name;
    on a GPU it may be on its way yet."""

    def expect(self, batches: Iterable[Batch]) -> None: ...
    def soon(self, batch: Batch) -> None: ...
    def loss(self, batch: Batch) -> float: ...
    def loss_and_gradients(self, batch: Batch) -> tuple[Any, dict[str, Any]]: ...


def choose_engine(model: Any, lora: dict[str, Any], settings: dict[str, Any], vector: Vector | None = None) -> Engine:
    """An engine made for the device knows plain LoRA on the supported architectures; the model's own code does everything else.

    vector: of the adapter, on a GPU."""
    if device.current().kind == "cpu":
        from generators.train.cpu_engine import CpuEngine

        if CpuEngine.supports(model, lora, settings):
            return CpuEngine(model, lora)
    else:
        from generators.train.gpu_engine import GpuEngine

        if GpuEngine.supports(model, lora, settings):
            return GpuEngine(model, lora, settings, vector)
    from generators.train.forward import MlxEngine

    return MlxEngine(model)
