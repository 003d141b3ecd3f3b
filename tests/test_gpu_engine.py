"""The GPU engine against the plain way, on the CPU in float32: each row alone and whole, all its logits, MLX's own autograd."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cpu_engine import VARIANTS, tiny
from test_exactness import CAPS, TOLERANCE, model_of, reference
from tiny_models import ARCHITECTURES, write_hf
from training_jobs import LORA, Silent, random_rows, tiny_job

from generators import device
from generators.device import Device, current, load_mlx
from generators.errors import UserError
from generators.train import accelerator, data, fused, gpu_engine, loop, lora, trial
from generators.train.engine import choose_engine
from generators.train.forward import MlxEngine
from generators.train.gpu import block, sight
from generators.train.gpu_engine import GpuEngine
from generators.train.layout import layout_of
from generators.train.vector import Vector

mx = load_mlx()
pytestmark = pytest.mark.skipif(current().kind != "cpu", reason="a GPU computes in bfloat16, which is exact to three digits")


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches of a few rows are cut into pieces, as large ones are on a GPU."""
    monkeypatch.setattr(sight, "ROUND", 8)
    with sight.in_pieces(8):
        yield


def assert_exact(model: Any, rows: list[data.Row], lora_block: dict[str, Any] = LORA, **settings: Any) -> None:
    wanted_loss, wanted = reference(model, rows)
    batch = data.group_rows(rows)
    engine = GpuEngine(model, lora_block, settings)
    loss, gradients = engine.loss_and_gradients(batch)
    assert loss.item() == pytest.approx(wanted_loss, rel=TOLERANCE)
    assert engine.loss(batch) == pytest.approx(wanted_loss, rel=TOLERANCE)
    assert set(gradients) == set(wanted) == set(lora.parameters(model))
    for name, array in wanted.items():
        assert gradients[name].shape == array.shape
        assert np.linalg.norm(np.array(gradients[name]) - array) <= TOLERANCE * (np.linalg.norm(array) or 1), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_equal_the_plain_way(architecture: str) -> None:
    """Three prefixes, ragged rows, targets in several runs, windows shorter than the prefixes."""
    model = model_of(architecture)
    assert_exact(model, random_rows(6, model.args.vocab_size, seed=1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_in_pieces_equals_the_plain_way(architecture: str, in_pieces: None) -> None:
    model = model_of(architecture)
    rows = random_rows(9, model.args.vocab_size, seed=1)
    layout = layout_of(data.group_rows(rows))
    cut = sight.cheapest_cut(layout)
    assert cut and len(cut.keys) > 2 and len(cut.prefixes) and cut.reach > 2
    assert_exact(model, rows)


@pytest.mark.parametrize("prefixes", [(0,), (0, 0, 0), (20,)])
def test_pieces_with_and_without_a_prefix_give_the_same(prefixes: tuple[int, ...], in_pieces: None) -> None:
    """A single row has no prefix; nor has a batch of single rows of different beginnings."""
    model = model_of("gemma3")
    for count in (1, 3):
        assert_exact(model, random_rows(count, model.args.vocab_size, seed=count, prefixes=prefixes))


def _rows_of(*lengths: int, prefix: int = 90) -> list[data.Row]:
    """Under one prefix; the last tokens are targets."""
    shared = tuple(range(1, prefix + 1))
    ids = [(*shared, *(3 + (index + place) % 250 for place in range(length))) for index, length in enumerate(lengths)]
    return [data.Row(f"row/{index}", "", "key", 0, all_, tuple(range(len(all_) - 5, len(all_)))) for index, all_ in enumerate(ids)]


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ((60,) * 20, None),  # few tokens
        ((60,) * 80, 64),
        ((4100,), None),  # cut, all its pieces would see nearly all others
        (((60,) * 63) + (1500,), 256),  # pieces of 64 tokens would copy each key 25 times
    ],
    ids=("few", "short rows", "one long row", "one long row among short ones"),
)
def test_a_batch_is_cut_as_costs_least(lengths: tuple[int, ...], wanted: int | None) -> None:
    cut = sight.cheapest_cut(layout_of(data.group_rows(_rows_of(*lengths))))
    assert (cut and cut.length) == wanted


def test_a_large_batch_is_cut_by_itself_and_equals_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "_WHOLE", 128)
    monkeypatch.setattr(sight, "LENGTHS", (16, 24, 48))
    model, rows = model_of("gemma3"), _rows_of(*range(20, 50), prefix=30)
    assert sight.cheapest_cut(layout_of(data.group_rows(rows)))
    assert_exact(model, rows)


def test_every_batch_size_gives_the_same() -> None:
    model = model_of("gemma3")
    for size in range(1, 10):
        assert_exact(model, random_rows(size, model.args.vocab_size, seed=size, longest=12))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_the_architectures_equal_the_plain_way(variant: str, tmp_path: Path) -> None:
    architecture, config = VARIANTS[variant]
    model = tiny(tmp_path, architecture, **config)
    assert_exact(model, random_rows(4, model.args.vocab_size, seed=8))


def test_caps_that_bite_give_the_same_in_pieces(in_pieces: None) -> None:
    model = model_of("gemma2", **CAPS)
    assert_exact(model, random_rows(6, model.args.vocab_size, seed=2))


def test_gelu_and_its_derivative_are_as_exact_as_float32() -> None:
    x = np.linspace(-9, 9, 20_001)
    cumulative = np.array([0.5 * math.erfc(-number / math.sqrt(2)) for number in x])
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    found = fused._gelu_erf(mx.array(x.astype(np.float32)))
    for array, wanted in zip(found, (x * cumulative, cumulative + x * density), strict=True):
        assert np.abs(np.array(array) - wanted).max() < 1e-6


@pytest.mark.parametrize("architecture", ("gemma3", "qwen2"))
def test_gradient_checkpointing_gives_the_same(architecture: str) -> None:
    model = model_of(architecture)
    assert_exact(model, random_rows(3, model.args.vocab_size, seed=5), gradient_checkpointing=True)


@pytest.mark.parametrize("bits", (4, 8))
def test_a_base_in_few_bits_gives_the_same(bits: int) -> None:
    model = model_of("gemma3", LORA, bits, intermediate_size=128)
    assert_exact(model, random_rows(3, model.args.vocab_size, seed=4))


@pytest.mark.parametrize("targets", (["q_proj"], ["k_proj", "v_proj"], ["o_proj"], ["gate_proj"], ["down_proj", "q_proj"]), ids="+".join)
def test_adapters_on_some_layers_only_give_the_same(targets: list[str]) -> None:
    block = LORA | {"targets": targets, "layers": 2}
    model = model_of("gemma3", block, num_hidden_layers=3)
    assert_exact(model, random_rows(4, model.args.vocab_size, seed=6), block)


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU with g++")
@pytest.mark.parametrize("architecture", ("gemma", "gemma3"))
def test_compiled_as_on_a_gpu_it_gives_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(architecture, num_hidden_layers=3)
    for made in (fused.fused, fused.gated, fused.gate_gradient):
        made.cache_clear()
    monkeypatch.setattr(device, "current", lambda: Device("cuda", "pretended", "none"))
    rows = random_rows(5, model.args.vocab_size, seed=9)
    assert_exact(model, rows)
    assert_exact(model, rows[:3])  # other shapes than were compiled
    for made in (fused.fused, fused.gated, fused.gate_gradient):
        made.cache_clear()


def test_the_adapters_are_read_anew_from_whatever_vector_they_are_parts_of() -> None:
    model = model_of("gemma3")
    vector = Vector(lora.parameters(model))
    engine, batch = GpuEngine(model, LORA, {}, vector), data.group_rows(random_rows(3, model.args.vocab_size, seed=7))
    from mlx.utils import tree_unflatten

    before = engine.loss(batch)
    model.update(tree_unflatten(list(vector.taken_apart(vector.joined(lora.parameters(model)) * 1.5).items())))
    after = engine.loss(batch)
    assert after != before
    model.layers[0].mlp.up_proj.lora_b = model.layers[0].mlp.up_proj.lora_b + 0.1  # now the parts are of no vector
    assert engine.loss(batch) != after
    assert engine.loss(batch) == pytest.approx(reference(model, [row for group in batch for row in group.rows])[0], rel=TOLERANCE)


def test_a_batch_that_was_announced_is_begun_once_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gemma3")
    engine, laid_out = GpuEngine(model, LORA, {}, Vector(lora.parameters(model))), list[int]()
    plan = gpu_engine.Plan
    monkeypatch.setattr(gpu_engine, "Plan", lambda layout, dtype: laid_out.append(layout.tokens) or plan(layout, dtype))
    first, second = (data.group_rows(random_rows(3, model.args.vocab_size, seed=seed)) for seed in (1, 2))
    wanted = _numbers(engine.loss_and_gradients(second))
    engine.soon(second)
    assert _numbers(engine.loss_and_gradients(second)) == wanted and len(laid_out) == 2
    engine.soon(second)
    assert _numbers(engine.loss_and_gradients(first)) != wanted and len(laid_out) == 4


def test_a_batch_that_was_begun_with_other_weights_is_begun_anew() -> None:
    model = model_of("gemma3")
    engine, batch = GpuEngine(model, LORA, {}, Vector(lora.parameters(model))), data.group_rows(random_rows(3, 300, seed=2))
    engine.soon(batch)
    model.layers[0].mlp.up_proj.lora_b = model.layers[0].mlp.up_proj.lora_b + 0.1
    found = _numbers(engine.loss_and_gradients(batch))
    assert found == _numbers(engine.loss_and_gradients(batch))


def _numbers(found: tuple[Any, dict[str, Any]]) -> list[Any]:
    loss, gradients = found
    return [loss.item(), *(array.tolist() for array in gradients.values())]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pieces", [False, True])
def test_in_bfloat16_nothing_is_held_in_more(architecture: str, pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(architecture)
    model.set_dtype(mx.bfloat16)
    lora_parameters = {name: array.astype(mx.float32) for name, array in lora.parameters(model).items()}
    model.load_weights(list(lora_parameters.items()), strict=False)
    kept: list[Any] = []
    forward = block.Block.forward

    def noting(*arguments: Any) -> Any:
        result, found = forward(*arguments)
        kept.extend([result, *found.values()])
        return result, found

    monkeypatch.setattr(block.Block, "forward", noting)
    rows = random_rows(4, model.args.vocab_size, seed=1)
    wanted_loss, wanted = trial._plainly(model, rows)
    with sight.in_pieces() if pieces else nullcontext():
        loss, gradients = GpuEngine(model, LORA, {}).loss_and_gradients(data.group_rows(rows))
    assert {array.dtype for array in [*kept, *gradients.values()]} == {mx.bfloat16}
    assert loss.item() == pytest.approx(wanted_loss, rel=0.02)
    whole = [np.concatenate([np.array(found[name].astype(mx.float32)).ravel() for name in wanted]) for found in (gradients, wanted)]
    assert np.linalg.norm(whole[0] - whole[1]) < trial.GRADIENT * np.linalg.norm(whole[1])


@pytest.mark.parametrize("changed", ({"dropout": 0.1}, {"dora": True}), ids=str)
def test_dropout_and_dora_are_left_to_the_model_s_own_code(changed: dict[str, Any]) -> None:
    model = model_of("gemma3", LORA | changed)
    assert not GpuEngine.supports(model, LORA | changed, {})
    with pytest.raises(UserError, match="plain LoRA, without dropout and DoRA"):
        GpuEngine(model, LORA | changed, {})


def test_parameters_that_are_no_adapters_of_linear_layers_are_refused() -> None:
    model = model_of("llama")
    model.model.norm.unfreeze()
    with pytest.raises(UserError, match="model.norm.weight is trained here"):
        GpuEngine(model, LORA, {})


def test_a_rotary_embedding_it_does_not_know_is_refused() -> None:
    import mlx.nn as nn

    model = model_of("llama")
    model.layers[1].self_attn.rope = nn.SinusoidalPositionalEncoding(16)
    model.layers[1].self_attn.rope.dims = 16
    with pytest.raises(UserError, match=r"rotary embedding SinusoidalPositionalEncoding\(16\) at model.layers.1"):
        GpuEngine(model, LORA, {})


# --- a run, as on a GPU


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "current", lambda: Device("cuda", "pretended", "none"))
    monkeypatch.setattr("generators.train.loop.current", device.current)
    monkeypatch.setattr("generators.train.loop.Meter", lambda here: accelerator.Meter(Device("cpu", "pretended", "none")))
    monkeypatch.setattr("generators.train.gpu.block._compiled", lambda function: function)
    monkeypatch.setattr("generators.train.forward.MlxEngine._compiled", lambda self, function: function)
    monkeypatch.setattr("generators.train.gpu_engine.leave_room", lambda here: None)
    for where in ("generators.train.fused.mx", "generators.train.optimise.mx"):
        monkeypatch.setattr(f"{where}.compile", lambda function, **state: function)


class _Ends(Exception):
    pass


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_on_a_gpu_that_ends_goes_on_to_the_same_adapter(
    accumulation: int, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The GPU's engine with a vector, batches announced, in sittings of some steps each."""
    folder, laid_out = write_hf(tmp_path / "base", "gemma3"), list[int]()
    plan = gpu_engine.Plan
    monkeypatch.setattr(gpu_engine, "Plan", lambda layout, dtype: laid_out.append(layout.tokens) or plan(layout, dtype))

    def job(where: str) -> loop.Job:
        return tiny_job(folder, tmp_path / where, {"accumulation": accumulation, "checkpoint_every": 1, "epochs": 2})

    def end(step: int) -> None:
        if step in (2, 3):
            raise _Ends

    whole = loop.run(job("whole"), Silent())
    assert whole["best_validation_loss"] < whole["first_validation_loss"]
    in_training, validations = 2 * 4, {1: 4, 2: 3}[accumulation]  # at the steps 0, 3, 6 and 8, or at 0, 3 and 4
    assert len(laid_out) == 2 + in_training + 2 * validations  # two for the trial; what was begun is laid out once
    for _ in range(2):
        with pytest.raises(_Ends):
            loop.run(job("ended"), Silent(end))
    loop.run(job("ended"), Silent())
    first, second = (mx.load(str(tmp_path / where / "adapter" / "adapters.safetensors")) for where in ("whole", "ended"))
    assert all(np.array_equal(np.array(array), np.array(second[name])) for name, array in first.items())


# --- the trial before a run


def _chosen(model: Any, lines: list[str]) -> Any:
    return choose_engine(model, LORA, {}, None, random_rows(6, model.args.vocab_size, seed=1), lines.append)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_engine_that_agrees_with_the_model_s_own_code_is_taken_and_the_adapter_is_as_it_was(
    architecture: str, as_on_a_gpu: None
) -> None:
    model, lines = model_of(architecture), list[str]()
    before = {name: np.array(array) for name, array in lora.parameters(model).items()}
    assert isinstance(_chosen(model, lines), GpuEngine) and lines == []
    assert all(np.array_equal(before[name], np.array(array)) for name, array in lora.parameters(model).items())


def _fails(*arguments: Any) -> Any:
    raise RuntimeError("[metal::Device] Unable to build metal library")


def _one_window(cut: sight.Cut, view: Any = sight.Cut.view) -> dict[str, Any]:
    """As if each token were seen by its own piece only."""
    found = view(cut)
    return found | {"windows": mx.concatenate([found["windows"][:, :1], mx.full(found["windows"][:, 1:].shape, cut.keys.size - 1)], axis=1)}


def _no_earlier_keys(cut: sight.Cut, view: Any = sight.Cut.view) -> dict[str, Any]:
    found = view(cut)
    before = len(cut.prefixes) + cut.length * (cut.reach - 1)
    places = mx.arange(found["keys"].shape[1])[None]
    return found | {"keys": mx.where((places >= len(cut.prefixes)) & (places < before), cut.tokens - 1, found["keys"])}


def _thirty_times(*arguments: Any) -> Any:
    return 30 * next(argument for argument in arguments if isinstance(argument, mx.array))


@pytest.mark.parametrize(
    ("wrong", "by", "said"),
    [
        ("generators.train.gpu.passes.norm", _thirty_times, "its loss of "),
        ("generators.train.gpu.kind.turn_back", _thirty_times, "its gradients differ from those of the model's own code by"),
        ("generators.train.gpu.attention.forward", _fails, "it fails with [metal::Device] Unable to build metal library"),
        ("generators.train.gpu.attention._taken", _fails, "it fails with [metal::Device] Unable to build metal library"),
        ("generators.train.gpu.sight.Cut.view", _one_window, "its gradients differ"),
        ("generators.train.gpu.sight.Cut.view", _no_earlier_keys, ""),
    ],
)
def test_an_engine_that_computes_something_else_or_fails_is_left_out_and_said(
    wrong: str, by: Any, said: str, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lines = model_of("gemma3"), list[str]()
    monkeypatch.setattr(wrong, by)
    assert isinstance(_chosen(model, lines), MlxEngine)
    assert len(lines) == 1 and lines[0].startswith("WARNING: the GPU engine is left out, training takes longer: ") and said in lines[0]


def test_the_rows_of_the_trial_are_short_and_begin_alike() -> None:
    rows = random_rows(12, 300, seed=3)
    tried = trial.rows_to_try(rows)
    assert len({row.key for row in tried}) == 1 and len(tried) == 2
    assert data.group_rows(tried)[0].prefix
    assert trial.rows_to_try(rows[:1]) == rows[:1]
