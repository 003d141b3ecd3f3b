"""Promises of the trainer: every row once, best weights kept, never losing a step. That losses are exact: see test_exactness.py."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_hf
from training_jobs import SETTINGS, Silent, random_rows, tiny_job

from generators.device import load_mlx
from generators.errors import UserError
from generators.train import checkpoint, data, loop, lora, optimise
from generators.train.forward import MlxEngine

mx = load_mlx()
IDS = mx.array([[2, 5, 7, 11, 13]])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "gemma3"
    write_hf(folder, "gemma3")
    return folder


@given(count=st.integers(1, 60), batch_size=st.integers(1, 9), epoch=st.integers(0, 5), seed=st.integers(0, 99))
def test_every_row_is_seen_exactly_once_an_epoch(count: int, batch_size: int, epoch: int, seed: int) -> None:
    rows = random_rows(count, 50, seed)
    batches = data.epoch_batches(rows, batch_size, seed, epoch)
    seen = [row.id for batch in batches for group in batch for row in group.rows]
    assert sorted(seen) == sorted(row.id for row in rows)
    sizes = [sum(len(group.rows) for group in batch) for batch in batches]
    assert all(size == batch_size for size in sizes[:-1]) and sizes[-1] <= batch_size


@given(count=st.integers(2, 12), seed=st.integers(0, 99))
def test_a_shared_prefix_is_shared_by_all_and_holds_no_target(count: int, seed: int) -> None:
    for group in data.group_rows(random_rows(count, 12, seed)):
        length = len(group.prefix)
        assert all(row.ids[:length] == group.prefix and row.targets[0] > length for row in group.rows)


def test_frames_take_turns_over_the_epochs() -> None:
    rows = [data.Row("a", "s", "k", frame, (1, 2, 3), (2,)) for frame in range(3)]
    shown = [[row.frame for row in data.rows_of_epoch(rows, epoch, "one")] for epoch in range(4)]
    assert shown == [[0], [1], [2], [0]]
    assert len(data.rows_of_epoch(rows, 1, "all")) == 3


def test_too_long_samples_are_named_and_never_cut(tmp_path: Path) -> None:
    class Words:
        def encode_sample(self, messages):
            from generators.tokens import Encoded

            return Encoded(list(range(len(messages[0]["content"].split()))), [False] * 3)

    row = {"messages": [{"role": "user", "content": "one two three"}],
           "metadata": {"id": "x", "source": "specs/a.yaml:4", "framing": "none", "frame": 0}}  # fmt: skip
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"specs/a.yaml:4: 3 tokens in the framing none, 2 are allowed"):
        data.load_rows(tmp_path / "train.jsonl", Words(), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "wanted"), [("constant", [0.5, 1, 1, 1]), ("linear", [0.5, 1, 2 / 3, 1 / 3]), ("cosine", [0.5, 1, 0.75, 0.25])]
)
def test_learning_rate_warms_up_and_follows_its_schedule(schedule: str, wanted: list[float]) -> None:
    settings = SETTINGS | {"learning_rate": 1.0, "warmup_steps": 1, "schedule": schedule}
    assert [optimise.learning_rate(settings, step, 4) for step in range(4)] == pytest.approx(wanted)


def test_training_lowers_the_loss_and_writes_what_it_saw(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path, {"epochs": 4})
    summary = loop.run(job, Silent())
    lines = [json.loads(line) for line in job.metrics.read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert summary["steps"] == 16 and summary["stop_reason"] == "all 16 steps done"
    assert [line["step"] for line in lines if "validation_loss" in line] == [0, 3, 6, 9, 12, 15, 16]
    logged = next(line for line in lines if "loss" in line)
    assert {"epoch", "learning_rate", "gradient_norm", "samples_per_s", "target_tokens_per_s", "elapsed_s", "eta_s",
            "memory_bytes", "peak_memory_bytes", "utilisation"} <= logged.keys()  # fmt: skip


def test_the_best_adapter_is_exported_not_the_last(tiny: Path, tmp_path: Path) -> None:
    """With a min_delta that nothing reaches, the best is what it was before the first step."""
    job = tiny_job(tiny, tmp_path, {"min_delta": 100.0})
    summary = loop.run(job, Silent())
    exported = dict(mx.load(str(job.adapter / "adapters.safetensors")))
    assert summary["best_step"] == 0 and summary["steps"] == 8
    fresh = tiny_job(tiny, tmp_path / "again")
    fresh.model.load_weights(list(exported.items()), strict=False)
    engine, batches = MlxEngine(fresh.model), data.validation_batches(fresh.valid, 4)
    mean = sum(map(engine.loss, batches)) / sum(map(data.target_count, batches))
    assert mean == pytest.approx(summary["best_validation_loss"], rel=1e-4)


def test_a_run_stops_when_patience_is_over(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path, {"learning_rate": 0.9, "validate_every": 1, "patience": 2, "epochs": 9})
    summary = loop.run(job, Silent())
    assert summary["stop_reason"].startswith("no better validation loss for")
    assert summary["steps"] == summary["best_step"] + 2


class _Killed(BaseException):
    """Stands for the end of the process: nothing of the run catches it."""


def _train_with_ends_at(tiny: Path, target: Path, ends: list[int]) -> bytes:
    """Run, end abruptly after each of the given steps, start anew each time; return the adapter's bytes."""
    waiting = list(ends)

    def at_step(step: int) -> None:
        if waiting and step >= waiting[0]:
            waiting.pop(0)
            raise _Killed

    while True:
        try:
            loop.run(tiny_job(tiny, target), Silent(at_step))
        except _Killed:
            continue
        return (target / "adapter" / "adapters.safetensors").read_bytes()


def test_a_run_ended_at_random_steps_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    whole = _train_with_ends_at(tiny, tmp_path / "whole", [])
    assert _train_with_ends_at(tiny, tmp_path / "ended", [chance.randint(1, 8) for _ in range(6)]) == whole


def test_resuming_says_so_and_goes_on_in_the_metrics(tiny: Path, tmp_path: Path) -> None:
    def at_step(step: int) -> None:
        if step == 5:
            raise _Killed

    with pytest.raises(_Killed):
        loop.run(tiny_job(tiny, tmp_path), Silent(at_step))
    watcher = Silent()
    loop.run(tiny_job(tiny, tmp_path), watcher)
    assert any(line.startswith("resuming at step 4 of 8") for line in watcher.lines)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert steps == [2, 4, 6, 8]


def test_an_interrupt_writes_a_checkpoint_and_is_one_clear_line(tiny: Path, tmp_path: Path) -> None:
    def at_step(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(loop.Interrupted, match="interrupted at step 3; the checkpoint is written") as raised:
        loop.run(tiny_job(tiny, tmp_path), Silent(at_step))
    assert raised.value.exit_code == 128 + signal.SIGTERM
    assert (tmp_path / "checkpoints" / "step-000003").is_dir()


def test_an_interrupt_in_the_middle_of_a_validation_loses_nothing_of_it(tiny: Path, tmp_path: Path) -> None:
    """The signal comes between the line of metrics and the validation after the same step."""

    class Interrupting(Silent):
        def measured(self, metrics: dict[str, Any]) -> None:
            if metrics["step"] == 6 and "loss" in metrics:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(loop.Interrupted, match="at step 6"):
        loop.run(tiny_job(tiny, tmp_path / "interrupted"), Interrupting())
    summaries = [loop.run(tiny_job(tiny, tmp_path / name), Silent()) for name in ("interrupted", "whole")]
    validations = [_validations(tmp_path / name / "metrics.jsonl") for name in ("interrupted", "whole")]
    assert validations[0] == validations[1] and [step for step, _ in validations[0]] == [0, 3, 6, 8]
    assert summaries[0]["best_validation_loss"] == summaries[1]["best_validation_loss"]


def _validations(metrics: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]


def _stopped_at(tiny: Path, target: Path, step: int, stamp: str = "same") -> None:
    def at_step(now: int) -> None:
        if now == step:
            raise _Killed

    with pytest.raises(_Killed):
        loop.run(tiny_job(tiny, target, stamp=stamp), Silent(at_step))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tiny: Path, tmp_path: Path) -> None:
    _stopped_at(tiny, tmp_path, 5)
    damaged = tmp_path / "checkpoints" / "step-000004" / "adapter.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"damaged!")
    watcher = Silent()
    loop.run(tiny_job(tiny, tmp_path), watcher)
    assert any("step-000004 is damaged" in line for line in watcher.lines)
    assert any(line.startswith("resuming at step 2") for line in watcher.lines)


def test_a_checkpoint_of_other_specs_is_set_aside(tiny: Path, tmp_path: Path) -> None:
    _stopped_at(tiny, tmp_path, 5, stamp="other")
    watcher = Silent()
    loop.run(tiny_job(tiny, tmp_path), watcher)
    assert any("set aside" in line for line in watcher.lines)
    assert (tmp_path / "checkpoints-set-aside" / "step-000004").is_dir()


def test_a_loss_that_is_no_number_stops_and_names_the_samples(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path)
    layer = job.model.layers[0].mlp.down_proj.linear
    layer.weight = mx.full(layer.weight.shape, float("nan"))
    with pytest.raises(UserError, match=r"(?s)is nan.*row/\d+ \(specs/x.yaml:\d+\)"):
        loop.run(job, Silent())


def test_a_full_disk_leaves_the_checkpoints_before(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stopped_at(tiny, tmp_path, 3)
    saved = checkpoint.mx.save_safetensors

    def full(path, *rest, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.mx, "save_safetensors", full)
    with pytest.raises(UserError, match="no space left"):
        loop.run(tiny_job(tiny, tmp_path), Silent())
    monkeypatch.setattr(checkpoint.mx, "save_safetensors", saved)
    assert (tmp_path / "checkpoints" / "step-000002" / "state.json").is_file()
    assert loop.run(tiny_job(tiny, tmp_path), Silent())["steps"] == 8


def test_accumulated_batches_weigh_by_their_target_tokens(tiny: Path, tmp_path: Path) -> None:
    """Two batches of two, accumulated, are one step of a batch of four."""
    adapters = []
    for name, settings in (("two", {"batch_size": 2, "accumulation": 2}), ("four", {"batch_size": 4})):
        job = tiny_job(tiny, tmp_path / name, settings | {"max_steps": 1, "optimiser": "sgd", "clip": 0, "learning_rate": 0.1})
        rows = job.train[:4]
        trainer = loop._Trainer(job, Silent())
        trainer.asked_to_stop = []
        size = settings["batch_size"]
        trainer._step([data.group_rows(rows[start : start + size]) for start in range(0, 4, size)])
        adapters.append(lora.parameters(job.model))
    for name, array in adapters[0].items():
        assert mx.allclose(array, adapters[1][name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("changed", [{}, {"dora": True}, {"layers": 1, "targets": ["q_proj", "down_proj"]}], ids=["lora", "dora", "part"])
def test_stock_mlx_lm_loads_the_adapter_with_the_same_logits(changed: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model as stock_load

    job = tiny_job(tiny, tmp_path, lora_block=changed)
    loop.run(job, Silent())
    ours = tiny_job(tiny, tmp_path / "ours", lora_block=changed).model
    untrained = ours(IDS)
    ours.load_weights(str(job.adapter / "adapters.safetensors"), strict=False)
    stock, _ = stock_load(tiny)
    stock.set_dtype(mx.float32)
    stock = load_adapters(stock, str(job.adapter))
    assert mx.allclose(ours(IDS), stock(IDS), rtol=1e-4, atol=1e-4)
    assert not mx.allclose(ours(IDS), untrained, rtol=1e-2, atol=1e-2)


def test_stock_mlx_lm_loads_an_adapter_trained_on_a_base_in_few_bits(tmp_path: Path) -> None:
    """The base it goes onto is in as many bits, as mlx_lm itself makes them."""
    import mlx.nn as nn
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model as stock_load

    base = write_hf(tmp_path / "base", "llama", intermediate_size=128)
    job = tiny_job(base, tmp_path, bits=4)
    loop.run(job, Silent())
    ours = tiny_job(base, tmp_path / "ours", bits=4).model
    ours.load_weights(str(job.adapter / "adapters.safetensors"), strict=False)
    stock, _ = stock_load(base)
    stock.set_dtype(mx.float32)
    nn.quantize(stock, group_size=64, bits=4)
    assert mx.allclose(ours(IDS), load_adapters(stock, str(job.adapter))(IDS), rtol=1e-4, atol=1e-4)


def test_a_killed_process_goes_on_to_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL in earnest, twice, at moments that the clock chooses."""
    program = (
        "import sys; from pathlib import Path; from training_jobs import Silent, tiny_job; from generators.train import loop; import time\n"
        "loop.run(tiny_job(Path(sys.argv[1]), Path(sys.argv[2])), Silent(lambda step: time.sleep(0.2)))"
    )
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}

    def start(target: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, str(tiny), str(target)], env=environment)

    assert start(tmp_path / "whole").wait(timeout=120) == 0
    killed = tmp_path / "killed"
    for checkpoint_name in ("step-000002", "step-000006"):
        process = start(killed)
        deadline = time.monotonic() + 60
        while not (killed / "checkpoints" / checkpoint_name).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert start(killed).wait(timeout=120) == 0
    assert (killed / "adapter" / "adapters.safetensors").read_bytes() == (
        tmp_path / "whole" / "adapter" / "adapters.safetensors"
    ).read_bytes()
    shutil.rmtree(killed)
