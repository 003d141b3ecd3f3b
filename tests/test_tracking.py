"""Promises of `report_to`: the metrics reach the library that was asked for, and nothing that it does ends a training.

The modules here say of themselves that they are stand-ins for tests: they keep what they are given, and speak to nobody.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from generators.errors import UserError
from generators.tracking import tracked

METRICS = {"step": 10, "steps": 40, "epoch": 1, "loss": 2.5, "utilisation": None}
VALIDATION = {"step": 10, "epoch": 1, "validation_loss": 2.25, "best_step": 10}
SETTINGS = {"rank": 16, "learning_rate": 1e-4}
SERVICES = {"wandb": "wandb", "tensorboard": "tensorboardX", "swanlab": "swanlab"}


class Watcher:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.metrics: list[dict[str, Any]] = []
        self.steps: list[int] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, step: int, steps: int, loss: float) -> None:
        self.steps.append(step)

    def measured(self, metrics: dict[str, Any]) -> None:
        self.metrics.append(metrics)


class StandIn(ModuleType):
    """Has the functions of all three libraries, and keeps the calls. `fails`: names of those that raise."""

    def __init__(self, name: str, fails: tuple[str, ...] = ()):
        super().__init__(name, "A stand-in for tests, not the library of this name.")
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.fails = fails

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Any:
            if name in self.fails:
                raise ConnectionError(f"no way to {name}\nand a second line")
            self.calls.append((name, arguments, named))
            return self  # a run or a writer has the same functions here

        return call

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(arguments, named) for called, arguments, named in self.calls if called == name]


def stand_in(monkeypatch: pytest.MonkeyPatch, service: str, *fails: str) -> StandIn:
    module = StandIn(SERVICES[service], fails)
    monkeypatch.setitem(sys.modules, SERVICES[service], module)
    return module


def report(service: str, folder: Path) -> Watcher:
    watcher = Watcher()
    with tracked(watcher, service, folder, "jessy-mini", SETTINGS) as both:
        both.step(10, 40, 2.5)
        both.measured(METRICS)
        both.measured(VALIDATION)
    assert watcher.metrics == [METRICS, VALIDATION] and watcher.steps == [10]
    return watcher


def test_nothing_is_imported_when_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in SERVICES.values():
        monkeypatch.setitem(sys.modules, module, None)  # an import would fail
    watcher = Watcher()
    with tracked(watcher, None, tmp_path, "x", SETTINGS) as same:
        assert same is watcher
    assert list(tmp_path.iterdir()) == []


def test_wandb_gets_settings_figures_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in(monkeypatch, "wandb")
    report("wandb", tmp_path)
    (_, started), *_ = module.named("init")
    assert started["name"] == "jessy-mini" and started["config"] == SETTINGS and started["dir"] == str(tmp_path / "wandb")
    assert module.named("log") == [
        (({"epoch": 1.0, "loss": 2.5},), {"step": 10}),
        (({"epoch": 1.0, "validation_loss": 2.25, "best_step": 10.0},), {"step": 10}),
    ]
    assert module.named("finish") == [((), {"exit_code": 0})]


def test_swanlab_gets_settings_figures_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in(monkeypatch, "swanlab")
    report("swanlab", tmp_path)
    (_, started), *_ = module.named("init")
    assert started["experiment_name"] == "jessy-mini" and started["config"] == SETTINGS and started["logdir"] == str(tmp_path / "swanlab")
    assert module.named("log")[0] == (({"epoch": 1.0, "loss": 2.5},), {"step": 10})
    assert module.named("finish") == [((), {})]


def test_tensorboard_gets_each_figure_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in(monkeypatch, "tensorboard")
    report("tensorboard", tmp_path)
    assert module.named("SummaryWriter") == [((), {"logdir": str(tmp_path / "tensorboard")})]
    assert (("loss", 2.5), {"global_step": 10}) in module.named("add_scalar")
    assert (("validation_loss", 2.25), {"global_step": 10}) in module.named("add_scalar")
    assert len(module.named("close")) == 1


def test_tensorboards_own_files_are_written_where_the_library_is_there(tmp_path: Path) -> None:
    report("tensorboard", tmp_path)
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"validation_loss" in events.read_bytes()


@pytest.mark.parametrize("service", SERVICES)
def test_a_library_that_is_missing_is_one_line_with_the_command(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, SERVICES[service], None)
    with pytest.raises(UserError) as refused:
        report(service, tmp_path)
    assert f"run: pip install {SERVICES[service]}, or set it to null" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("service", "start"), [("wandb", "init"), ("tensorboard", "SummaryWriter"), ("swanlab", "init")])
def test_a_service_that_cannot_start_is_one_line(service: str, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, service, start)
    with pytest.raises(
        UserError, match=rf"^training.report_to is {service}, and it cannot start a run \(ConnectionError: no way to {start}\);"
    ):
        report(service, tmp_path)


def test_a_service_that_stops_ends_the_reporting_and_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in(monkeypatch, "wandb", "log")
    watcher = report("wandb", tmp_path)
    assert watcher.lines == ["WARNING: wandb stopped (ConnectionError: no way to log); training goes on without it"]
    assert module.named("finish") == []


def test_a_training_that_fails_is_told_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in(monkeypatch, "wandb")
    with pytest.raises(UserError, match="interrupted"), tracked(Watcher(), "wandb", tmp_path, "x", SETTINGS):
        raise UserError("interrupted")
    assert module.named("finish") == [((), {"exit_code": 1})]


def test_the_trainer_reports_where_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` hands every line of metrics.jsonl on."""
    import json

    from tiny_models import write_hf
    from training_jobs import Silent, tiny_job

    from generators import train as training
    from generators.paths import RecipePaths

    module, outputs = stand_in(monkeypatch, "swanlab"), RecipePaths(tmp_path / "jessy-mini")
    job = tiny_job(write_hf(tmp_path / "model", "gemma"), outputs.root)
    monkeypatch.setattr(training, "prepare", lambda *_: training.Prepared(job.model, {"train": job.train, "valid": job.valid}))
    settings = job.settings | {"report_to": "swanlab", "hosts": [], "backend": None}
    recipe = {"training": settings, "lora": job.lora, "framings": {"each_epoch": job.each_epoch}}
    training.train(recipe, tmp_path / "model", tmp_path, {}, 512, 1, outputs, Silent())
    lines = [json.loads(line) for line in outputs.metrics.read_text().splitlines()]
    assert [named["step"] for _, named in module.named("log")] == [line["step"] for line in lines] and len(lines) > 4
