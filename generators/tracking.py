"""A training's metrics sent to wandb, TensorBoard or SwanLab as well, through their own libraries: a recipe's `training.report_to`.

The libraries are imported only when they are asked for. Each sitting of a run is a run there; its steps go on where the last one ended.
What such a service does wrong while a model is trained ends the reporting, never the training.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from generators.errors import UserError

# What `pip install` brings each module. TensorBoard's own package writes scalars only with a framework beside it; tensorboardX does alone.
_MODULES = {"wandb": "wandb", "tensorboard": "tensorboardX", "swanlab": "swanlab"}
_PROJECT = "ownvoice"  # under which the runs stand there


class Tracker(Protocol):
    """log: figures by name, at a step."""

    def log(self, figures: dict[str, float], step: int) -> None: ...
    def close(self, failed: bool) -> None: ...


class _Wandb:
    """docs.wandb.ai/ref/python: `init`, `Run.log`, `Run.finish`."""

    def __init__(self, module: Any, folder: Path, name: str, settings: dict[str, Any]):
        quiet = {"console": "off", "silent": True}  # the terminal is the live panel's
        self._run = module.init(project=_PROJECT, name=name, config=settings, dir=str(folder), settings=quiet)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _TensorBoard:
    """tensorboardx.readthedocs.io: `SummaryWriter`."""

    def __init__(self, module: Any, folder: Path, name: str, settings: dict[str, Any]):
        self._writer = module.SummaryWriter(logdir=str(folder))
        lines = "\n".join(f"    {key}: {value}" for key, value in settings.items())  # Markdown's code block
        self._writer.add_text("recipe", f"{name}\n\n{lines}", global_step=0)

    def log(self, figures: dict[str, float], step: int) -> None:
        for tag, value in figures.items():
            self._writer.add_scalar(tag, value, global_step=step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        self._writer.close()


class _SwanLab:
    """docs.swanlab.cn: `init`, `log`, `finish`."""

    def __init__(self, module: Any, folder: Path, name: str, settings: dict[str, Any]):
        self._module = module
        module.init(project=_PROJECT, experiment_name=name, config=settings, logdir=str(folder))

    def log(self, figures: dict[str, float], step: int) -> None:
        self._module.log(figures, step=step)

    def close(self, failed: bool) -> None:
        self._module.finish()


_TRACKERS: dict[str, Callable[..., Tracker]] = {"wandb": _Wandb, "tensorboard": _TensorBoard, "swanlab": _SwanLab}


class _Tracked:
    """A watcher that sends each line of metrics on, and is the watcher given in everything else."""

    def __init__(self, watcher: Any, tracker: Tracker, service: str):
        self._watcher, self._tracker, self._service = watcher, tracker, service
        self.say, self.step = watcher.say, watcher.step
        self._works = True

    def measured(self, metrics: dict[str, Any]) -> None:
        self._watcher.measured(metrics)
        if self._works:
            figures = {key: float(value) for key, value in metrics.items() if key not in ("step", "steps") and value is not None}
            self._attempt(lambda: self._tracker.log(figures, metrics["step"]))

    def close(self, failed: bool) -> None:
        if self._works:
            self._attempt(lambda: self._tracker.close(failed))

    def _attempt(self, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception as error:  # of a service's library: of any kind
            self._works = False
            self.say(f"WARNING: {self._service} stopped ({_in_a_line(error)}); training goes on without it")


@contextmanager
def tracked(watcher: Any, report_to: str | None, folder: Path, name: str, settings: dict[str, Any]) -> Iterator[Any]:
    """`watcher`, or one that also sends each line of metrics to the service `report_to`, which writes its own files to `folder`/report_to.

    settings: of the recipe, shown with the run there. Raises UserError when the library is not installed or cannot start a run.
    """
    if report_to is None:
        yield watcher
        return
    both = _Tracked(watcher, _start(report_to, folder / report_to, name, settings), report_to)
    failed = True
    try:
        yield both
        failed = False
    finally:
        both.close(failed)


def _start(service: str, folder: Path, name: str, settings: dict[str, Any]) -> Tracker:
    package = _MODULES[service]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"training.report_to is {service}, and {package} cannot be imported ({error}); run: pip install {package}, or set it to null"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _TRACKERS[service](module, folder, name, settings)
    except Exception as error:  # no account, no network: each library has its own errors
        raise UserError(
            f"training.report_to is {service}, and it cannot start a run ({_in_a_line(error)}); mend that, or set it to null"
        ) from error


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
