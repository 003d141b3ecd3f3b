"""The GPU engine against the plain way, on the CPU in float32: each row alone and whole, all its logits, MLX's own autograd."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cpu_engine import VARIANTS, tiny
from test_exactness import CAPS, TOLERANCE, model_of, reference
from tiny_models import ARCHITECTURES
from training_jobs import LORA, random_rows

from generators import device
from generators.device import Device, current, load_mlx
from generators.errors import UserError
from generators.train import data, lora
from generators.train import engine as engine_module
from generators.train.engine import choose_engine
from generators.train.forward import MlxEngine
from generators.train.gpu import attention
from generators.train.gpu_engine import GpuEngine
from generators.train.layout import layout_of
from generators.train.vector import Vector

mx = load_mlx()
pytestmark = pytest.mark.skipif(current().kind != "cpu", reason="a GPU computes in bfloat16, which is exact to three digits")


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few rows are cut into pieces, as large ones are on a GPU."""
    monkeypatch.setattr(attention, "WHOLE", 16)
    monkeypatch.setattr(attention, "PIECES", (30, 41))
    monkeypatch.setattr(attention, "ROUND", 8)


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
    assert len(attention.Sight(layout_of(data.group_rows(rows)), 400, mx.float32).pieces["queries"]) > 2
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
    from generators.train import fused

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


def test_a_batch_that_was_announced_gives_the_same() -> None:
    model = model_of("gemma3")
    engine = GpuEngine(model, LORA, {})
    first, second = (data.group_rows(random_rows(3, model.args.vocab_size, seed=seed)) for seed in (1, 2))
    alone = engine.loss(second)
    engine.soon(second)
    assert engine.loss(second) == alone != engine.loss(first)


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


# --- the trial before a run


def _chosen(model: Any, lines: list[str]) -> Any:
    row = random_rows(1, model.args.vocab_size, seed=1)[0]
    return choose_engine(model, LORA, {}, None, row, lines.append)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module.device, "current", lambda: Device("cuda", "pretended", "none"))
    monkeypatch.setattr("generators.train.gpu.block._compiled", lambda function: function)
    monkeypatch.setattr("generators.train.forward.MlxEngine._compiled", lambda self, function: function)
    monkeypatch.setattr("generators.train.fused.mx.compile", lambda function: function)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_engine_that_agrees_with_the_model_s_own_code_is_taken_and_the_adapter_is_as_it_was(
    architecture: str, as_on_a_gpu: None
) -> None:
    model, lines = model_of(architecture), list[str]()
    before = {name: np.array(array) for name, array in lora.parameters(model).items()}
    assert isinstance(_chosen(model, lines), GpuEngine) and lines == []
    assert all(np.array_equal(before[name], np.array(array)) for name, array in lora.parameters(model).items())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("generators.train.gpu.passes.norm", "its loss of one row is"),
        ("generators.train.gpu.block.turn_back", "its gradients of one row differ from those of the model's own code by"),
    ],
)
def test_an_engine_that_computes_something_else_is_left_out_and_said(
    wrong: str, said: str, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lines = model_of("gemma3"), list[str]()
    monkeypatch.setattr(wrong, lambda *arrays: 30 * next(array for array in arrays if isinstance(array, mx.array)))
    assert isinstance(_chosen(model, lines), MlxEngine)
    assert len(lines) == 1 and lines[0].startswith("WARNING: the GPU engine is left out, training takes longer: ") and said in lines[0]
