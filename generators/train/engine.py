"""Who computes loss and gradients. The one place that chooses by device and by what the recipe asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from generators import device
from generators.train.data import Batch, Row
from generators.train.vector import Vector

Say = Callable[[str], None]


class Engine(Protocol):
    """expect: told all batches of a run before it begins. soon: told which batch comes next, once the model has the adapter for it.
    loss: summed cross-entropy of a batch's targets, nats. loss_and_gradients: the same with the gradients of that sum, by parameter name;
    on a GPU it may be on its way yet."""

    def expect(self, batches: Iterable[Batch]) -> None: ...
    def soon(self, batch: Batch) -> None: ...
    def loss(self, batch: Batch) -> float: ...
    def loss_and_gradients(self, batch: Batch) -> tuple[Any, dict[str, Any]]: ...


def choose_engine(
    model: Any, lora: dict[str, Any], settings: dict[str, Any], vector: Vector | None = None, rows: Sequence[Row] = (), say: Say = print
) -> Engine:
    """An engine made for the device knows plain LoRA on the supported architectures; the model's own code does everything else.

    vector: of the adapter, on a GPU. rows: of the training, on some of which the GPU's engine has to agree with the model's own code; none for
    no trial. say: told if it does not.
    """
    from generators.train.forward import MlxEngine

    if device.current().kind == "cpu":
        from generators.train.cpu_engine import CpuEngine

        return CpuEngine(model, lora) if CpuEngine.supports(model, lora, settings) else MlxEngine(model)
    from generators.train.gpu_engine import GpuEngine
    from generators.train.trial import disagreement, rows_to_try

    if not GpuEngine.supports(model, lora, settings):
        return MlxEngine(model)
    engine = GpuEngine(model, lora, settings, vector)
    if rows and (different := disagreement(engine, model, rows_to_try(rows))):
        say(f"WARNING: the GPU engine is left out, training takes longer: {different}. Please report it, with the output of: doit doctor")
        return MlxEngine(model)
    return engine
