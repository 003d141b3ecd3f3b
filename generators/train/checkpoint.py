"""Checkpoints: everything a run needs to go on as if it had never stopped, written whole or not at all.

One directory a checkpoint, `step-000120/`: `adapter.safetensors` (the weights at that step), `best.safetensors` (the best so far),
`optimiser.safetensors`, `state.json` (progress, and the sha256 of the other files). The last two are kept: a damaged one falls back to
the one before. `stamp` is the hash of all that went into the run; a checkpoint with another stamp is set aside, never resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generators.device import load_mlx
from generators.files import atomic_directory, read_json, sha256_file, write_json

mx = load_mlx()

_KEPT = 2
_ARRAYS = ("adapter", "best", "optimiser")


@dataclass
class State:
    """step: finished steps. epoch, batch: the next batch to train on. best_*: of the validation loss. trained_seconds: over all sittings.
    metrics_bytes: length of metrics.jsonl at this point. validated: the step after which the last validation was."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    validated: int = -1
    first_validation_loss: float | None = None
    last_validation_loss: float | None = None
    trained_seconds: float = 0.0
    metrics_bytes: int = 0
    samples: int = 0
    target_tokens: int = 0
    stop_reason: str = ""


@dataclass
class Checkpoint:
    """state, and name to array for the adapter, the best adapter and the optimiser."""

    state: State
    adapter: dict[str, Any]
    best: dict[str, Any]
    optimiser: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, stamp: str) -> None:
    """Raises UserError when the disk is full; the checkpoints before stay."""
    target = folder / f"step-{checkpoint.state.step:06d}"
    with atomic_directory(target) as temporary:
        hashes = {}
        for name in _ARRAYS:
            path = temporary / f"{name}.safetensors"
            mx.save_safetensors(str(path), getattr(checkpoint, name) or {"none": mx.zeros(1)})
            hashes[name] = sha256_file(path)
        write_json(temporary / "state.json", {"stamp": stamp, "sha256": hashes, "state": asdict(checkpoint.state)})
    for old in _steps(folder)[:-_KEPT]:
        shutil.rmtree(old)


def load_latest(folder: Path, stamp: str, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest sound checkpoint of this very run, or None. Says what it passes over and why."""
    for path in reversed(_steps(folder)):
        problem = _problem(path, stamp)
        if problem == "":
            return _read(path)
        if problem == _OTHER_RUN:
            _set_aside(folder, report)
            return None
        report(f"{path.name} is damaged ({problem}); going back to the checkpoint before it")
        shutil.rmtree(path)
    return None


def clear(folder: Path) -> None:
    """A finished run needs none."""
    shutil.rmtree(folder, ignore_errors=True)


_OTHER_RUN = "made from other specs, data or base"


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.name[5:].isdigit())


def _problem(path: Path, stamp: str) -> str:
    try:
        stored = read_json(path / "state.json")
        if stored["stamp"] != stamp:
            return _OTHER_RUN
        State(**stored["state"])
        wrong = [name for name in _ARRAYS if sha256_file(path / f"{name}.safetensors") != stored["sha256"][name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{wrong[0]}.safetensors has other bytes than were written" if wrong else ""


def _read(path: Path) -> Checkpoint:
    state = State(**read_json(path / "state.json")["state"])
    arrays = {name: dict(mx.load(str(path / f"{name}.safetensors"))) for name in _ARRAYS}
    for name in _ARRAYS:
        arrays[name].pop("none", None)
        mx.eval(list(arrays[name].values()))
    return Checkpoint(state, arrays["adapter"], arrays["best"], arrays["optimiser"])


def _set_aside(folder: Path, report: Callable[[str], None]) -> None:
    aside = folder.with_name(folder.name + "-set-aside")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    report(f"the checkpoints here were {_OTHER_RUN}; they are set aside in {aside.name}/ and training starts afresh")
