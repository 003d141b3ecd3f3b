"""Each field of a recipe's `lora` and `training` does what its help says. Not here: schedules, patience, accumulation (test_train.py),
gradient_checkpointing (test_exactness.py), hosts (test_peers.py), report_to (test_tracking.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_hf
from training_jobs import LORA, SETTINGS, Silent, tiny_job

from generators.device import current, load_mlx
from generators.specs.schema import LINEAR_LAYERS, OPTIMISERS
from generators.train import data, load_model, loop, lora, optimise
from generators.train.engine import choose_engine
from generators.train.forward import MlxEngine
from generators.train.gpu_engine import GpuEngine
from generators.train.vector import Vector

mx = load_mlx()
RATE, DECAY = 0.1, 0.5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf(tmp_path_factory.mktemp("tiny") / "gemma3", "gemma3")


# --- optimiser, learning_rate, weight_decay: against the papers' formulas


def _adam(w: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    """Kingma & Ba 2015, with bias correction; decay: Loshchilov & Hutter 2019, apart from the gradient."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w * (1 - RATE * decay) - RATE * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return w


def _sgd(w: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    for g in gradients:
        w = w - RATE * (g + decay * w)
    return w


def _lion(w: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    """Chen et al. 2023."""
    m = np.zeros_like(w)
    for g in gradients:
        w = w * (1 - RATE * decay) - RATE * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return w


# `weight_decay` is of adamw, lion and sgd.
FORMULAS = {
    "adam": lambda w, g, decay: _adam(w, g, 0.0),
    "adamw": _adam,
    "sgd": _sgd,
    "lion": _lion,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_an_optimiser_updates_as_its_paper_says(name: str, decay: float) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(5), [rng.standard_normal(5) for _ in range(3)]
    optimiser = optimise.make_optimiser(SETTINGS | {"optimiser": name, "learning_rate": RATE, "weight_decay": decay})
    weights = {"w": mx.array(start)}
    for gradient in gradients:
        weights = optimiser.apply_gradients({"w": mx.array(gradient)}, weights)
    assert np.array(weights["w"]) == pytest.approx(FORMULAS[name](start, gradients, decay), rel=1e-4, abs=1e-5)


def _five_updates(name: str, as_one: bool, then: bool | None = None) -> tuple[dict[str, np.ndarray], list[float]]:
    """Of weights in a tree with a gap, at another learning rate each; the weights, and the norms of the gradients. as_one: by an `Update` that sees a
    vector. then: by another one, restored from it, from the third on."""
    draws = np.random.default_rng(0)
    shapes = {"layers.1.a": (8, 4), "layers.1.b": (4, 6), "layers.2.a": (8, 4)}
    trained = {key: mx.array(draws.normal(size=shape), dtype=mx.float32) for key, shape in shapes.items()}
    settings = {"optimiser": name, "learning_rate": RATE, "weight_decay": DECAY, "clip": 1.0}

    def made(as_one: bool) -> optimise.Update:
        return optimise.Update(settings, trained, Vector(trained) if as_one else None)

    update, norms = made(as_one), list[float]()
    for step in range(5):
        if then is not None and step == 2:
            state = update.state
            update = made(then)
            update.restore(state)
        sums = {key: mx.array(draws.normal(size=shape), dtype=mx.float32) for key, shape in shapes.items()}
        trained, norm = update(trained, sums, 3 + step, RATE / (step + 1))
        norms.append(norm.item())
    return {key: np.array(array) for key, array in trained.items()}, norms


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU with g++")
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize(("as_one", "then"), [(True, None), (True, True), (True, False), (False, True)])
def test_as_one_vector_as_on_a_gpu_an_update_is_the_same_and_so_is_its_state(name: str, as_one: bool, then: bool | None) -> None:
    (plain, norms), (other, norms_of_other) = _five_updates(name, False), _five_updates(name, as_one, then)
    assert norms == pytest.approx(norms_of_other, rel=1e-6) and plain.keys() == other.keys()
    assert all(np.allclose(plain[key], other[key], rtol=1e-5, atol=1e-6) for key in plain)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_lowers_the_loss_and_is_resumed_to_the_same_bytes(name: str, tiny: Path, tmp_path: Path) -> None:
    """With adapters on the last block only, so that the optimiser's state is a tree with gaps."""

    class Ends(Exception):
        pass

    def end_at(step: int) -> Any:
        def at_step(now: int) -> None:
            if now == step:
                raise Ends

        return at_step

    def job(where: str) -> loop.Job:
        rate = {"sgd": 1.0, "lion": 1e-3}.get(name, 5e-3)
        changed = {"optimiser": name, "learning_rate": rate, "weight_decay": 0.01, "epochs": 1, "checkpoint_every": 2}
        return tiny_job(tiny, tmp_path / where, changed, lora_block={"layers": 1})

    whole = loop.run(job("whole"), Silent())
    assert whole["best_validation_loss"] < whole["first_validation_loss"]
    with pytest.raises(Ends):
        loop.run(job("ended"), Silent(end_at(3)))
    loop.run(job("ended"), Silent())
    files = [tmp_path / where / "adapter" / "adapters.safetensors" for where in ("whole", "ended")]
    assert files[0].read_bytes() == files[1].read_bytes()


# --- clip


@pytest.mark.parametrize(("clip", "longest"), [(0.01, 0.01), (0.0, None)])
def test_clip_bounds_the_step_and_zero_does_not(clip: float, longest: float | None, tiny: Path, tmp_path: Path) -> None:
    """With SGD at a rate of 1 the step is the gradient."""
    job = tiny_job(tiny, tmp_path, {"optimiser": "sgd", "learning_rate": 1.0, "clip": clip, "max_steps": 1, "log_every": 1})
    before = lora.parameters(job.model)
    watcher = Silent()
    loop.run(job, watcher)
    step = np.sqrt(sum(float(((array - before[name]) ** 2).sum()) for name, array in lora.parameters(job.model).items()))
    norm = next(line["gradient_norm"] for line in watcher.metrics if "gradient_norm" in line)
    assert norm > 0.1  # as it was before it was clipped
    assert step == pytest.approx(longest or norm, rel=1e-3)


# --- dropout


def test_dropout_is_of_training_only_and_seeded(tiny: Path, tmp_path: Path) -> None:
    jobs = {name: tiny_job(tiny, tmp_path / name, {"max_steps": 3}, lora_block={"dropout": share})
            for name, share in (("none", 0.0), ("half", 0.5), ("again", 0.5))}  # fmt: skip
    watchers = {name: Silent() for name in jobs}
    for name, job in jobs.items():
        loop.run(job, watchers[name])
    first = {name: watcher.metrics[0]["validation_loss"] for name, watcher in watchers.items()}
    assert first["none"] == pytest.approx(first["half"], rel=1e-5)
    adapters = {name: (job.adapter / "adapters.safetensors").read_bytes() for name, job in jobs.items()}
    assert adapters["half"] == adapters["again"] != adapters["none"]


# --- targets, layers, rank, alpha


@pytest.mark.parametrize(
    ("changed", "modules"),
    [
        ({}, {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in lora._keys(list(LINEAR_LAYERS))}),
        (
            {"targets": ["v_proj", "up_proj"]},
            {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in ("self_attn.v_proj", "mlp.up_proj")},
        ),
        ({"targets": ["o_proj"], "layers": 1}, {"model.layers.1.self_attn.o_proj"}),
    ],
    ids=["all", "targets", "layers"],
)
def test_adapters_are_on_the_targets_of_the_last_layers_and_nothing_else_is_trained(
    changed: dict[str, Any], modules: set[str], tiny: Path
) -> None:
    model = load_model(tiny)
    lora.attach(model, LORA | changed | {"rank": 3, "alpha": 12}, 0)
    assert set(lora.parameters(model)) == {f"{module}.lora_{part}" for module in modules for part in "ab"}
    assert {array.shape[name.endswith("a")] for name, array in lora.parameters(model).items()} == {3}
    adapted = [module for _, module in model.named_modules() if hasattr(module, "lora_a")]
    assert {module.scale for module in adapted} == {4.0}


def test_training_touches_the_adapter_only(tiny: Path, tmp_path: Path) -> None:
    from mlx.utils import tree_flatten

    job = tiny_job(tiny, tmp_path, {"max_steps": 2})
    trained = set(lora.parameters(job.model))
    before = {name: np.array(array) for name, array in tree_flatten(job.model.parameters())}
    loop.run(job, Silent())
    changed = {name for name, array in tree_flatten(job.model.parameters()) if not np.array_equal(before[name], np.array(array))}
    assert changed == trained


# --- batch_size, epochs, max_steps, log_every, validate_every


def test_an_epoch_shows_every_row_once_and_the_last_batch_may_be_smaller(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """14 rows in batches of 4."""
    job = tiny_job(tiny, tmp_path, {"epochs": 2})
    kind = type(choose_engine(job.model, job.lora, job.settings))
    seen: list[list[str]] = []
    computed = kind.loss_and_gradients

    def noting(self: Any, batch: data.Batch) -> Any:
        seen.append([row.id for group in batch for row in group.rows])
        return computed(self, batch)

    monkeypatch.setattr(kind, "loss_and_gradients", noting)
    loop.run(job, Silent())
    del seen[:-8]  # on a GPU some rows are tried out before the run
    for epoch in (seen[:4], seen[4:]):
        assert [len(batch) for batch in epoch] == [4, 4, 4, 2]
        assert sorted(id for batch in epoch for id in batch) == sorted(row.id for row in job.train)
    assert seen[:4] != seen[4:]


@pytest.mark.parametrize(
    ("changed", "steps"),
    [({"epochs": 1}, 4), ({"epochs": 3, "max_steps": 5}, 5), ({"epochs": 1, "max_steps": 9}, 4), ({"accumulation": 3}, 4)],
)
def test_epochs_or_max_steps_end_the_run_whichever_comes_first(changed: dict[str, Any], steps: int, tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path, changed | {"log_every": 1, "validate_every": 2, "learning_rate": 1e-4})
    watcher = Silent()
    summary = loop.run(job, watcher)
    assert summary["steps"] == steps and summary["stop_reason"] == f"all {steps} steps done"
    assert [line["step"] for line in watcher.metrics if "loss" in line] == list(range(1, steps + 1))
    assert [line["step"] for line in watcher.metrics if "validation_loss" in line] == sorted({*range(0, steps + 1, 2), steps})


def test_the_logged_learning_rate_is_that_of_warm_up_and_schedule(tiny: Path, tmp_path: Path) -> None:
    watcher = Silent()
    job = tiny_job(tiny, tmp_path, {"warmup_steps": 2, "schedule": "linear", "epochs": 1, "log_every": 1, "learning_rate": 0.3})
    loop.run(job, watcher)
    assert [line["learning_rate"] for line in watcher.metrics if "loss" in line] == pytest.approx([0.1, 0.2, 0.3, 0.15])


# --- base_bits, memory_budget_gb


@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_in_few_bits_is_held_in_so_many_and_trains(bits: int, tmp_path: Path) -> None:
    base = write_hf(tmp_path / "base", "gemma3", intermediate_size=128)
    job = tiny_job(base, tmp_path, {"epochs": 1}, bits=bits)
    layer = job.model.layers[0].mlp.up_proj.linear
    assert layer.bits == bits and layer.weight.dtype == mx.uint32
    assert layer.weight.nbytes * 8 == bits * 128 * 64
    summary = loop.run(job, Silent())
    assert summary["best_validation_loss"] < summary["first_validation_loss"]
    assert isinstance(choose_engine(job.model, job.lora, job.settings), MlxEngine if current().kind == "cpu" else GpuEngine)


def test_a_run_above_its_memory_budget_warns(tiny: Path, tmp_path: Path) -> None:
    watcher = Silent()
    loop.run(tiny_job(tiny, tmp_path, {"max_steps": 2, "memory_budget_gb": 1e-6}), watcher)
    assert any(line.startswith("WARNING: ") and "the recipe's budget is 1.0 kB" in line for line in watcher.lines)
