"""The CPU engine against MLX's own modules and autograd: no sharing, no chunks, every row whole and by itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from generators.device import current, load_mlx
from generators.errors import UserError
from generators.train import data, load_model, lora
from generators.train.cpu import head
from generators.train.cpu.workers import Workers
from generators.train.cpu_engine import CpuEngine
from generators.train.layout import divided, layout_of

mx = load_mlx()
pytestmark = pytest.mark.skipif(current().kind != "cpu", reason="the engine is for machines whose MLX device is the CPU")

LORA: dict[str, Any] = {
    "rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "layers": -1, "dora": False,
}  # fmt: skip
TOLERANCE = 1e-5


def tiny(folder: Path, architecture: str, lora_block: dict[str, Any] = LORA, **config: Any) -> Any:
    """A random model with random adapters, none of them zero."""
    from mlx.utils import tree_unflatten

    tiny_models.write_hf(folder, architecture, **config)
    model = load_model(folder)
    lora.attach(model, lora_block, seed=0)
    rng = np.random.default_rng(1)
    names = lora.parameters(model)
    model.update(tree_unflatten([(name, mx.array(rng.standard_normal(a.shape, dtype=np.float32) * 0.1)) for name, a in names.items()]))
    return model


def rows(count: int, key: str, prefix: int, vocabulary: int, seed: int = 0, longest: int = 40) -> list[data.Row]:
    """Ragged rows after `prefix` shared tokens, their targets in several runs as in conversations of several turns."""
    chance = random.Random(f"{seed}:{key}")
    shared = [chance.randrange(vocabulary) for _ in range(prefix)]
    found = []
    for index in range(count):
        ids = [*shared, *(chance.randrange(vocabulary) for _ in range(chance.randint(5, longest)))]
        after = range(prefix + 2, len(ids))
        targets = sorted(chance.sample(after, chance.randint(1, len(after))))
        found.append(data.Row(f"{key}/{index}", f"x.yaml:{index}", key, 0, tuple(ids), tuple(targets)))
    return found


def reference(model: Any, batch: data.Batch) -> tuple[float, dict[str, np.ndarray]]:
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    def loss(model: Any) -> Any:
        total = mx.array(0.0)
        for row in (row for group in batch for row in group.rows):
            before = mx.array(row.targets) - 1
            logits = model(mx.array([row.ids[:-1]]))[0][before]
            total = total + nn.losses.cross_entropy(logits, mx.array([row.ids[position] for position in row.targets])).sum()
        return total

    value, gradients = nn.value_and_grad(model, loss)(model)
    return value.item(), {name: np.array(gradient) for name, gradient in tree_flatten(gradients)}


def assert_equals_reference(model: Any, batch: data.Batch, lora_block: dict[str, Any] = LORA) -> None:
    expected_loss, expected = reference(model, batch)
    engine = CpuEngine(model, lora_block)
    loss, gradients = engine.loss_and_gradients(batch)
    assert loss == pytest.approx(expected_loss, rel=TOLERANCE)
    assert engine.loss(batch) == pytest.approx(expected_loss, rel=TOLERANCE)
    assert set(gradients) == set(expected) == set(lora.parameters(model))
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32 and gradient.shape == expected[name].shape
        assert np.linalg.norm(gradient - expected[name]) <= TOLERANCE * np.linalg.norm(expected[name]), name


def several_groups(vocabulary: int) -> data.Batch:
    """Three prefixes, two of them longer than the tiny models' window of 16, and a row without one."""
    return data.group_rows(
        [*rows(3, "a", 25, vocabulary), *rows(4, "b", 7, vocabulary), *rows(1, "c", 12, vocabulary), *rows(2, "d", 60, vocabulary)]
    )


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_several_prefixes_with_ragged_rows_equal_the_reference(architecture: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, architecture)
    assert_equals_reference(model, several_groups(model.args.vocab_size))


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_a_single_row_without_prefix_equals_the_reference(architecture: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, architecture)
    assert_equals_reference(model, data.group_rows(rows(1, "a", 0, model.args.vocab_size)))


@pytest.mark.parametrize("size", range(1, 10))
def test_every_batch_size_equals_the_reference(size: int, tmp_path: Path) -> None:
    model = tiny(tmp_path, "gemma3", num_hidden_layers=3)
    assert_equals_reference(model, data.group_rows(rows(size, "a", 21, model.args.vocab_size)))


VARIANTS = {
    "caps that bite": ("gemma2", {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5}),
    "a window of one token": ("gemma3", {"sliding_window": 1}),
    "a window in llama": ("llama", {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}),
    "windows in every block but the last of a pattern of three": ("gemma3", {"num_hidden_layers": 4, "sliding_window_pattern": 3}),
    "neighbours rotated": ("llama", {"rope_traditional": True}),
    "llama3's rotary scaling": ("llama", {"rope_scaling": tiny_models.LLAMA3_SCALING | {"original_max_position_embeddings": 32}}),
    "linear rotary scaling": ("gemma3", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "biases everywhere": ("llama", {"attention_bias": True}),
    "an embedding that is the head": ("llama", {"tie_word_embeddings": True}),
    "one block": ("qwen3", {"num_hidden_layers": 1}),
    "one key head": ("gemma3", {"num_key_value_heads": 1}),
    "a key head for every query head": ("qwen2", {"num_key_value_heads": 4}),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_the_architectures_equal_the_reference(variant: str, tmp_path: Path) -> None:
    architecture, config = VARIANTS[variant]
    model = tiny(tmp_path, architecture, **config)
    assert_equals_reference(model, several_groups(model.args.vocab_size))


@pytest.mark.parametrize("targets", (["q_proj"], ["k_proj", "v_proj"], ["o_proj"], ["gate_proj"], ["down_proj", "q_proj"]), ids="+".join)
def test_adapters_on_some_layers_only_equal_the_reference(targets: list[str], tmp_path: Path) -> None:
    block = LORA | {"targets": targets, "layers": 2}
    model = tiny(tmp_path, "gemma3", block, num_hidden_layers=3)
    assert_equals_reference(model, several_groups(model.args.vocab_size), block)


def test_attention_of_many_query_blocks_equals_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generators.train.cpu.attention._ROWS", 8)
    monkeypatch.setattr("generators.train.cpu.passes._ROWS", (16, 4))
    model = tiny(tmp_path, "gemma3")
    assert_equals_reference(model, several_groups(model.args.vocab_size))


def test_weights_of_attention_that_are_not_kept_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(tmp_path, "gemma3")
    batch = several_groups(model.args.vocab_size)
    kept = CpuEngine(model, LORA).loss_and_gradients(batch)[1]
    monkeypatch.setattr("generators.train.cpu.passes._KEPT_SCORES", 0)
    again = CpuEngine(model, LORA).loss_and_gradients(batch)[1]
    assert all(np.array_equal(kept[name], again[name]) for name in kept)


@pytest.mark.parametrize("most_tokens", (1, 30, 70, 150))
def test_a_batch_too_large_for_memory_is_computed_in_parts(most_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generators.train.cpu.passes.kept_per_token", lambda decoder: 400_000_000 // most_tokens)
    model = tiny(tmp_path, "gemma3")
    assert_equals_reference(model, several_groups(model.args.vocab_size))


@pytest.mark.parametrize("most_tokens", (1, 40, 100, 200, 10_000))
def test_parts_hold_every_row_once_and_keep_to_the_limit(most_tokens: int) -> None:
    batch = several_groups(300)
    parts = divided(batch, most_tokens)
    assert [row for part in parts for group in part for row in group.rows] == [row for group in batch for row in group.rows]
    assert all(len(group.rows) and group.prefix in {whole.prefix for whole in batch} for part in parts for group in part)
    for part in parts:
        assert layout_of(part).tokens <= most_tokens or sum(len(group.rows) for group in part) == 1


def test_the_adapters_are_read_anew_at_every_call(tmp_path: Path) -> None:
    model = tiny(tmp_path, "qwen3")
    engine, batch = CpuEngine(model, LORA), several_groups(model.args.vocab_size)
    before = engine.loss(batch)
    model.layers[0].mlp.up_proj.lora_b = model.layers[0].mlp.up_proj.lora_b + 0.1
    assert engine.loss(batch) != before
    assert engine.loss(batch) == pytest.approx(reference(model, batch)[0], rel=TOLERANCE)


def test_what_a_batch_gives_does_not_depend_on_the_batch_before(tmp_path: Path) -> None:
    model = tiny(tmp_path, "gemma3")
    large, small = several_groups(model.args.vocab_size), data.group_rows(rows(2, "e", 9, model.args.vocab_size))
    expected_loss, expected = CpuEngine(model, LORA).loss_and_gradients(small)
    engine = CpuEngine(model, LORA)
    engine.loss_and_gradients(large)
    loss, gradients = engine.loss_and_gradients(small)
    assert loss == expected_loss
    assert all(np.array_equal(gradient, expected[name]) for name, gradient in gradients.items())


def test_gradients_stay_what_they_are_when_the_next_batch_is_computed(tmp_path: Path) -> None:
    model = tiny(tmp_path, "gemma3")
    engine = CpuEngine(model, LORA)
    _, gradients = engine.loss_and_gradients(several_groups(model.args.vocab_size))
    copies = {name: gradient.copy() for name, gradient in gradients.items()}
    engine.loss_and_gradients(data.group_rows(rows(2, "e", 9, model.args.vocab_size)))
    assert all(np.array_equal(gradient, copies[name]) for name, gradient in gradients.items())


def test_the_weights_are_mlx_s_own_memory(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    engine = CpuEngine(model, LORA)
    up = engine._decoder.layers[0].gate_up.linears[1].weight
    assert np.shares_memory(up, np.array(model.layers[0].mlp.up_proj.linear.weight, copy=False))


# --- what it leaves to MLX


def test_supports_plain_lora_in_float32(tmp_path: Path) -> None:
    assert CpuEngine.supports(tiny(tmp_path, "gemma3"), LORA, {"base_bits": None})


@pytest.mark.parametrize("changed", ({"dropout": 0.1}, {"dora": True}), ids=str)
def test_dropout_and_dora_are_left_to_mlx(changed: dict[str, Any], tmp_path: Path) -> None:
    model = tiny(tmp_path, "gemma3", LORA | changed)
    assert not CpuEngine.supports(model, LORA | changed, {"base_bits": None})
    with pytest.raises(UserError, match="plain LoRA, without dropout and DoRA"):
        CpuEngine(model, LORA | changed)


def test_half_precision_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    model.set_dtype(mx.bfloat16)
    with pytest.raises(UserError, match=r"computes in float32; model.* is mlx.core.bfloat16"):
        CpuEngine(model, LORA)


def test_a_quantised_base_is_refused_by_name(tmp_path: Path) -> None:
    tiny_models.write_hf(tmp_path, "llama", intermediate_size=128)
    model = load_model(tmp_path, bits=4)
    lora.attach(model, LORA, seed=0)
    with pytest.raises(UserError, match="does not compute the QuantizedLinear at model.layers.0.self_attn.q_proj"):
        CpuEngine(model, LORA)
    assert not CpuEngine.supports(model, LORA, {"base_bits": 4})


def test_another_architecture_is_refused_with_the_list_of_known_ones() -> None:
    from mlx_lm.models import phi

    model = phi.Model(phi.ModelArgs("phi", num_hidden_layers=1, hidden_size=32, num_attention_heads=2, vocab_size=20))
    with pytest.raises(
        UserError, match="the trainer does not know the architecture phi; it knows gemma, gemma2, gemma3_text, llama, qwen2, qwen3"
    ):
        CpuEngine(model, LORA)


def test_a_rotary_embedding_it_does_not_know_is_refused(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(UserError, match=r"rotary embedding DynamicNTKScalingRoPE.* at model.layers.0"):
        CpuEngine(model, LORA)


def test_parameters_that_are_no_adapters_of_linear_layers_are_refused(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    model.model.norm.unfreeze()
    with pytest.raises(UserError, match="model.norm.weight is trained here"):
        CpuEngine(model, LORA)


# --- the head alone: many tiles, and distributions of every shape


def exact_cross_entropy(hidden: np.ndarray, targets: np.ndarray, weight: np.ndarray, cap: float | None) -> tuple[float, np.ndarray]:
    logits = hidden.astype(np.float64) @ weight.T.astype(np.float64)
    slope = np.ones_like(logits)
    if cap:
        slope, logits = 1 - np.tanh(logits / cap) ** 2, np.tanh(logits / cap) * cap
    shifted = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    each = np.arange(len(targets))
    loss = (np.log(p.sum(axis=1)) - shifted[each, targets]).sum()
    p /= p.sum(axis=1, keepdims=True)
    p[each, targets] -= 1
    return loss, (p * slope) @ weight


# Factors of the hidden states: from a flat distribution to one that is a single token, and logits that leave the range of float32's exp.
@pytest.mark.parametrize("peak", (0.01, 1.0, 4.0, 12.0, 40.0))
@pytest.mark.parametrize("cap", (None, 3.0))
def test_the_head_is_exact_from_flat_to_peaked(peak: float, cap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_NARROWEST", 64)
    monkeypatch.setattr(head, "_TILE", 64 * 37)
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((5000, 32), dtype=np.float32)
    targets = rng.integers(0, 5000, 37)
    hidden = peak * (0.3 * weight[targets] + rng.standard_normal((37, 32), dtype=np.float32))
    gradient = np.empty_like(hidden)
    loss = head.cross_entropy(Workers(2), hidden, targets, weight, cap, gradient)
    expected_loss, expected = exact_cross_entropy(hidden, targets, weight, cap)
    assert loss == pytest.approx(expected_loss, rel=TOLERANCE)
    assert np.linalg.norm(gradient - expected) <= TOLERANCE * np.linalg.norm(expected)
