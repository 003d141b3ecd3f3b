"""How a stage tells what it does: live bars on a terminal, plain lines in a pipe.

Everything is written to the real standard output: a bar that is captured and shown afterwards is no bar.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from generators.files import human_bytes, human_seconds

Advance = Callable[[int], None]
_LINE_EVERY_S = 20.0  # in a pipe, a line of progress at most so often


def _stream() -> TextIO:
    real = sys.__stdout__
    return real if real is not None and real.isatty() else sys.stdout


def on_terminal() -> bool:
    return bool(sys.__stdout__ is not None and sys.__stdout__.isatty())


def console() -> Any:
    """rich's console on the terminal, or one that writes plain text, as wide as it needs, into a pipe."""
    from rich.console import Console

    return Console(file=_stream(), highlight=False, width=None if on_terminal() else 160)


def say(line: str) -> None:
    """One indented line below the stage's name."""
    _stream().write(f"   {line}\n")
    _stream().flush()


@contextmanager
def bar(what: str, total: int) -> Iterator[Advance]:
    """`with bar("requests", 100) as advance: advance(1)`"""
    if on_terminal():
        with _rich_bar(what, total) as advance:
            yield advance
        return
    done, started, last = 0, time.monotonic(), time.monotonic()

    def advance_plain(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S and done < total:
            last = now
            left = (now - started) / max(1, done) * (total - done)
            say(f"{what}: {done} of {total}, {human_seconds(left)} left")

    yield advance_plain


@contextmanager
def _rich_bar(what: str, total: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("   {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, advance=count)


class TrainingWatcher:
    """A run told in plain lines: one for each line of metrics.jsonl."""

    def say(self, line: str) -> None:
        say(line)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Nothing: the lines of metrics are enough in a pipe."""

    def measured(self, metrics: dict[str, Any]) -> None:
        say(describe_metrics(metrics))

    def __enter__(self) -> TrainingWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class TrainingPanel(TrainingWatcher):
    """A run in one live panel: bar, time left, the curve of the loss, pace, memory and use."""

    def __init__(self) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(TextColumn("   training"), BarColumn(bar_width=40), MofNCompleteColumn(), console=console())
        self._task = self._progress.add_task("steps", total=None)
        self._losses: list[float] = []
        self._last: dict[str, Any] = {}
        self._validation: dict[str, Any] = {}
        self._live = Live(self._render(), console=console(), refresh_per_second=4)

    def __enter__(self) -> TrainingPanel:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(self._render())
        self._live.stop()

    def say(self, line: str) -> None:
        self._live.console.print("   " + line, markup=False)

    def step(self, step: int, steps: int, loss: float) -> None:
        self._losses.append(loss)
        self._progress.update(self._task, completed=step, total=steps)
        self._live.update(self._render())

    def measured(self, metrics: dict[str, Any]) -> None:
        if "validation_loss" in metrics:
            self._validation = metrics
        else:
            self._last = metrics
        self._live.update(self._render())

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        lines: list[Any] = [self._progress]
        if self._losses:
            lines.append(Text(f"   loss {self._losses[-1]:.3f}  {sparkline(self._losses, 48)}"))
        if self._validation:
            lines.append(Text("   " + describe_metrics(self._validation)))
        if self._last:
            lines.append(Text("   " + describe_metrics(self._last)))
        return Group(*lines)


def training_watcher() -> TrainingWatcher:
    return TrainingPanel() if on_terminal() else TrainingWatcher()


def describe_metrics(metrics: dict[str, Any]) -> str:
    """A line of metrics.jsonl in words."""
    if "validation_loss" in metrics:
        return f"step {metrics['step']}: validation loss {metrics['validation_loss']:.4f} (best at step {metrics['best_step']})"
    busy = metrics.get("utilisation")
    parts = [
        f"step {metrics['step']} of {metrics['steps']}",
        f"loss {metrics['loss']:.4f}",
        f"{metrics['samples_per_s']:.2f} samples/s",
        f"{human_seconds(metrics['elapsed_s'])} gone",
        f"{human_seconds(metrics['eta_s'])} left",
        f"{human_bytes(metrics['memory_bytes'])} (peak {human_bytes(metrics['peak_memory_bytes'])})",
    ]
    return ", ".join(parts + ([f"{busy:.0%} used"] if busy is not None else []))


def sparkline(values: list[float], width: int) -> str:
    """The curve of `values` in `width` characters, each the mean of its share."""
    if not values:
        return ""
    width = min(width, len(values))
    means = []
    for index in range(width):
        part = values[index * len(values) // width : (index + 1) * len(values) // width]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(blocks[round((mean - low) / (high - low or 1) * (len(blocks) - 1))] for mean in means)
