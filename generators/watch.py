"""Following a training run from another terminal, by the metrics that it writes.

A run holds its metrics.jsonl while it lasts (`generators.files.held`): the system lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import chosen, one_of
from generators.files import human_seconds, is_held, read_json, read_jsonl
from generators.progress import TrainingWatcher

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Run:
    """Where a recipe's run leaves its traces."""

    metrics: Path
    summary: Path
    checkpoints: Path


def watch(runs: Mapping[str, Run], recipe: str, open_watcher: Callable[[], TrainingWatcher], say: Callable[[str], None]) -> None:
    """Follow the run of `recipe`, or whichever goes on, until it ends, and say how. Where none goes on, say so, and how the last ended.

    runs: by recipe. Raises NoSuchName for a recipe that is not among them.
    """
    wanted = {recipe: runs[chosen(runs, recipe, "recipe")]} if recipe else runs
    going_on = [name for name, run in wanted.items() if is_held(run.metrics)]
    if not going_on:
        say(f"no training is going on{f' of {recipe}' if recipe else ''}; doit train starts one")
        for name, run in wanted.items():
            if run.metrics.is_file():
                say(f"the last of {name} {how_it_ended(run)}")
        return
    name = going_on[0]
    if len(going_on) > 1:
        say(f"{one_of(going_on)} are being trained; --recipe NAME chooses")
    say(f"following {name}; Ctrl-C ends this, not the training")
    try:
        with open_watcher() as watcher:
            follow(runs[name].metrics, watcher)
    except KeyboardInterrupt:
        say(f"{name} trains on")
    else:
        say(f"{name} {how_it_ended(runs[name])}")


def follow(metrics: Path, watcher: TrainingWatcher, look_every_s: float = _LOOK_EVERY_S) -> None:
    """Tell `watcher` every line of `metrics`, those of before first, until nobody holds the file any more."""
    lines = _Lines(metrics)
    while True:
        goes_on = is_held(metrics)  # asked before reading: what was written up to the end is told
        for line in lines.new():
            if "loss" in line:
                watcher.step(line["step"], line["steps"], line["loss"])
            watcher.measured(line)
        if not goes_on:
            return
        time.sleep(look_every_s)


class _Lines:
    """Whole lines of a growing file. A run that starts afresh empties it: then from its beginning again."""

    def __init__(self, path: Path):
        self._path, self._read = path, 0

    def new(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            if file.seek(0, 2) < self._read:
                self._read = 0
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)


def how_it_ended(run: Run) -> str:
    """In words, by what it left behind."""
    last = max((line["step"] for line in read_jsonl(run.metrics)), default=0)
    if run.summary.is_file() and run.summary.stat().st_mtime_ns >= run.metrics.stat().st_mtime_ns:
        summary = read_json(run.summary)
        return (
            f"is finished: {summary['stop_reason']}; best validation loss {summary['best_validation_loss']:.4f} at step "
            f"{summary['best_step']}; {human_seconds(summary['seconds'])}"
        )
    kept = sorted(path.name for path in run.checkpoints.glob("step-*") if path.name[5:].isdigit())
    where = f"the next doit goes on from step {int(kept[-1][5:])}" if kept else "without a checkpoint; the next doit starts it afresh"
    return f"ended early, after step {last}; {where}"
