"""Promises of `doit watch`, of the live panel, and of what a pause or a resumption may be told as."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_hf
from training_jobs import Silent, tiny_job

from generators import progress
from generators.errors import UserError
from generators.files import held, is_held
from generators.progress import TrainingPanel, TrainingWatcher
from generators.train import loop
from generators.train.accelerator import Meter, Use
from generators.watch import Run, follow, how_it_ended, watch

ROOT = Path(__file__).parents[1]
LINE = {
    "step": 10, "steps": 40, "epoch": 0, "loss": 2.5, "gradient_norm": 1.0, "samples_per_s": 3.0, "target_tokens_per_s": 90.0,
    "learning_rate": 1e-4, "elapsed_s": 27.0, "eta_s": 81.0, "memory_bytes": 2_000_000_000, "peak_memory_bytes": 3_000_000_000,
    "utilisation": 0.93,
}  # fmt: skip
VALIDATION = {"step": 10, "epoch": 0, "validation_loss": 2.25, "best_step": 10}


class Told(TrainingWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, Any]] = []
        self.steps: list[int] = []

    def step(self, step: int, steps: int, loss: float) -> None:
        self.steps.append(step)

    def measured(self, metrics: dict[str, Any]) -> None:
        self.metrics.append(metrics)


def run_in(folder: Path) -> Run:
    return Run(folder / "metrics.jsonl", folder / "training.json", folder / "checkpoints")


def write_lines(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- who trains -------------------------------------------------------------------------------------------------------------------


def test_a_run_is_held_while_it_lasts_and_by_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert not is_held(path)
    with held(path, "training of x"):
        assert is_held(path)
        with (
            pytest.raises(UserError, match="^training of x goes on already, in another process; doit watch follows it$"),
            held(path, "training of x"),
        ):
            raise AssertionError("held twice")
    assert not is_held(path)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    program = (
        "import sys, time; from pathlib import Path; from generators.files import held\nwith held(Path(sys.argv[1]), 'x'): time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT)
    until(lambda: is_held(path))
    process.kill()
    process.wait()
    assert not is_held(path)


# --- following --------------------------------------------------------------------------------------------------------------------


def test_lines_of_before_and_of_now_are_told_until_the_run_ends(tmp_path: Path) -> None:
    metrics, watcher = tmp_path / "metrics.jsonl", Told()
    write_lines(metrics, LINE)
    following = threading.Thread(target=follow, args=(metrics, watcher, 0.01))
    with held(metrics, "x"):
        following.start()
        until(lambda: len(watcher.metrics) == 1)
        with metrics.open("a") as out:
            out.write('{"step": 10, "epoch": 0, "validation_loss": 2.25,')
            out.flush()
            time.sleep(0.1)
            assert len(watcher.metrics) == 1  # half a line is none
            out.write(' "best_step": 10}\n')
        until(lambda: len(watcher.metrics) == 2)
        assert following.is_alive()
        write_lines(metrics, LINE | {"step": 20})
    following.join(30)
    assert not following.is_alive()
    assert watcher.metrics == [LINE, VALIDATION, LINE | {"step": 20}] and watcher.steps == [10, 20]


def test_a_run_that_starts_afresh_is_followed_from_its_beginning(tmp_path: Path) -> None:
    metrics, watcher = tmp_path / "metrics.jsonl", Told()
    write_lines(metrics, LINE, LINE)
    following = threading.Thread(target=follow, args=(metrics, watcher, 0.01))
    with held(metrics, "x"):
        following.start()
        until(lambda: len(watcher.metrics) == 2)
        metrics.write_text("")
        time.sleep(0.1)
        write_lines(metrics, LINE | {"loss": 1.0})
    following.join(30)
    assert watcher.metrics[2:] == [LINE | {"loss": 1.0}]


def watched(runs: dict[str, Run], recipe: str = "", watcher: TrainingWatcher | None = None) -> list[str]:
    lines: list[str] = []
    watch(runs, recipe, lambda: watcher or Told(), lines.append)
    return lines


def test_where_none_goes_on_it_says_so_and_how_the_last_ended(tmp_path: Path) -> None:
    assert watched({"a": run_in(tmp_path)}) == ["no training is going on; doit train starts one"]
    write_lines(tmp_path / "metrics.jsonl", LINE)
    assert watched({"a": run_in(tmp_path)}, "a") == [
        "no training is going on of a; doit train starts one",
        "the last of a ended early, after step 10; without a checkpoint; the next doit starts it afresh",
    ]
    (tmp_path / "checkpoints" / "step-000008").mkdir(parents=True)
    assert how_it_ended(run_in(tmp_path)).endswith("the next doit goes on from step 8")


def test_a_finished_run_is_told_by_its_summary(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", LINE)
    summary = {"stop_reason": "all 40 steps done", "best_validation_loss": 2.25, "best_step": 30, "seconds": 108.0}
    (tmp_path / "training.json").write_text(json.dumps(summary))
    assert how_it_ended(run_in(tmp_path)) == "is finished: all 40 steps done; best validation loss 2.2500 at step 30; 1 min 48 s"
    os.utime(tmp_path / "training.json", ns=(0, 0))  # of a run before the one that these metrics are of
    assert how_it_ended(run_in(tmp_path)).startswith("ended early")


def test_an_unknown_recipe_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe 'jesy'; there are jessy; did you mean 'jessy'?"):
        watched({"jessy": run_in(tmp_path)}, "jesy")


def test_a_real_run_is_followed_to_its_end(tmp_path: Path) -> None:
    from generators.train import train  # noqa: F401  loads MLX before the threads do

    tiny = write_hf(tmp_path / "model", "gemma")
    job, watcher, lines = tiny_job(tiny, tmp_path), Told(), []
    with held(job.metrics, "x"):
        following = threading.Thread(target=watch, args=({"a": run_in(tmp_path)}, "", lambda: watcher, lines.append))
        following.start()
        loop.run(job, Silent())
    following.join(30)
    assert watcher.metrics == [json.loads(line) for line in job.metrics.read_text().splitlines()] and watcher.steps == [2, 4, 6, 8]
    assert lines[0].startswith("following a;") and lines[-1].startswith("a ")


# --- the panel --------------------------------------------------------------------------------------------------------------------


def test_the_panel_shows_bar_time_left_curve_memory_and_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = Console(file=io.StringIO(), force_terminal=True, width=160, highlight=False)
    monkeypatch.setattr(progress, "console", lambda: screen)
    with TrainingPanel() as panel:
        for step in range(1, 11):
            panel.step(step, 40, 5.0 - step / 4)
        panel.measured(VALIDATION)
        panel.measured(LINE)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "━" in shown and "10/40" in shown  # the bar
    assert "█▇" in shown and "▂▁" in shown  # the curve of the loss, falling
    for part in ("1 min 21 s left", "2.0 GB (peak 3.0 GB)", "93% used", "validation loss 2.2500"):
        assert part in shown


def test_in_a_pipe_each_line_of_metrics_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingWatcher() as watcher:
        watcher.measured(LINE)
    line = capsys.readouterr().out
    assert line.startswith("   step 10 of 40, loss 2.5000") and "1 min 21 s left" in line and "\x1b" not in line


# --- what a pause is told as ------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """A sitting ends."""


def idle_warnings(lines: list[str]) -> int:
    return sum("the accelerator is 10% used" in line for line in lines)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meter, "read", lambda self: Use(1, 1, 0.1))


class Noting(Silent):
    """Notes after how many lines of metrics each warning came."""

    def __init__(self, at_step: Any = None):
        super().__init__(at_step)
        self.warned_after: list[int] = []

    def say(self, line: str) -> None:
        super().say(line)
        if line.startswith("WARNING: the accelerator is"):
            self.warned_after.append(sum("loss" in metrics for metrics in self.metrics))


def test_low_use_is_warned_of_once_and_not_where_the_run_was_paused(idle: None, tmp_path: Path) -> None:
    tiny = write_hf(tmp_path / "model", "gemma")
    usual, paused = Noting(), Noting(lambda step: os.kill(os.getpid(), signal.SIGCONT) if step == 3 else None)
    loop.run(tiny_job(tiny, tmp_path / "usual"), usual)  # lines at the steps 2, 4, 6 and 8, the first of them with the start in it
    loop.run(tiny_job(tiny, tmp_path / "paused"), paused)
    assert (usual.warned_after, paused.warned_after) == ([2], [3])


def test_low_use_that_comes_again_is_warned_of_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shares = iter([0.9, 0.9, 0.1, 0.9, 0.1, 0.1])  # when the run begins, at its four lines, and when it ends
    monkeypatch.setattr(Meter, "read", lambda self: Use(1, 1, next(shares)))
    watcher = Noting()
    loop.run(tiny_job(write_hf(tmp_path / "model", "gemma"), tmp_path), watcher)
    assert watcher.warned_after == [2, 4]


def test_the_first_line_after_a_resumption_warns_of_no_low_use(idle: None, tmp_path: Path) -> None:
    def end(step: int) -> None:
        if step == 5:
            raise Stop

    tiny, resumed = write_hf(tmp_path / "model", "gemma"), Silent()
    with pytest.raises(Stop):
        loop.run(tiny_job(tiny, tmp_path), Silent(end))
    loop.run(tiny_job(tiny, tmp_path), resumed)  # from the checkpoint of step 4: lines at 6 and 8
    assert any(line.startswith("resuming at step 4") for line in resumed.lines)
    assert idle_warnings(resumed.lines) == 1


def test_a_pause_leaves_the_signal_as_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGCONT)
    loop.run(tiny_job(write_hf(tmp_path / "model", "gemma"), tmp_path), Silent())
    assert signal.getsignal(signal.SIGCONT) == before
