"""Base plus adapter is the formula, and mlx_lm loads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from generators.device import load_mlx
from generators.errors import UserError
from generators.fuse import fuse


def _silent(line: str) -> None:
    """Takes progress lines."""


def _load(path: Path) -> dict[str, np.ndarray]:
    mx = load_mlx()
    return {name: np.array(value.astype(mx.float32)) for name, value in mx.load(str(path)).items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_models.write_hf(tmp_path / "base", "qwen3")


def test_lora_adds_scale_times_a_b_transposed(base: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base, scale=3.0)
    result = fuse(base, adapter, tmp_path / "fused", _silent)
    before, after = _load(base / "model.safetensors"), _load(tmp_path / "fused/model.safetensors")
    low_rank = _load(adapter / "adapters.safetensors")
    changed = [name for name in before if name.removesuffix("weight") + "lora_a" in low_rank]
    for name in changed:
        module = name.removesuffix(".weight")
        expected = before[name] + 3.0 * (low_rank[f"{module}.lora_a"] @ low_rank[f"{module}.lora_b"]).T
        assert np.allclose(after[name], expected, rtol=2**-11, atol=1e-6), name  # float16 rounds by half of 2**-10
    assert len(changed) == result["changed"] == 14
    assert all(np.array_equal(before[name], after[name]) for name in before if name not in changed)


def test_dora_is_what_mlx_lms_own_layer_fuses_to(base: Path, tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    adapter = tiny_models.save_adapter(tmp_path / "adapter", base, kind="dora")
    fuse(base, adapter, tmp_path / "fused", _silent)
    model, _ = load_model(base)
    model.set_dtype(load_mlx().float32)
    layer = load_adapters(model, str(adapter)).layers[1].mlp.down_proj.fuse()
    ours = _load(tmp_path / "fused/model.safetensors")["model.layers.1.mlp.down_proj.weight"]
    assert np.allclose(ours, np.array(layer.weight), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_fused_model_answers_as_base_with_adapter(base: Path, tmp_path: Path, kind: str) -> None:
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    mx = load_mlx()
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base, kind=kind)
    fuse(base, adapter, tmp_path / "fused", _silent)
    ids = [5, 80, 300, 12, 7]
    model, _ = load_model(base)
    model = load_adapters(model, str(adapter))
    model.set_dtype(mx.float32)
    logits = np.array(model(mx.array([ids]))[0])
    expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    assert np.abs(tiny_models.log_probabilities(tmp_path / "fused", ids) - expected).max() < 0.02
    assert np.abs(tiny_models.log_probabilities(base, ids) - expected).max() > 0.2


def test_fused_directory_is_loaded_by_mlx_lm(base: Path, tmp_path: Path) -> None:
    import mlx_lm

    fuse(base, tiny_models.save_adapter(tmp_path / "adapter", base), tmp_path / "fused", _silent)
    tokenizer = mlx_lm.load(str(tmp_path / "fused"))[1]
    assert tokenizer.decode(tokenizer.encode("naber kanka")) == "naber kanka"


def test_an_embedding_takes_its_delta_without_a_transpose(base: Path, tmp_path: Path) -> None:
    adapter, rng = tmp_path / "adapter", np.random.default_rng(0)
    before = _load(base / "model.safetensors")["model.embed_tokens.weight"]
    a, b = rng.standard_normal((len(before), 2)).astype(np.float32), rng.standard_normal((2, before.shape[1])).astype(np.float32)
    tiny_models.save_adapter(adapter, base)
    weights = {"model.embed_tokens.lora_a": a, "model.embed_tokens.lora_b": b}
    tiny_models.save_safetensors(adapter / "adapters.safetensors", weights, "F32")
    fuse(base, adapter, tmp_path / "fused", _silent)
    after = _load(tmp_path / "fused/model.safetensors")["model.embed_tokens.weight"]
    assert np.allclose(after, before + 2.0 * a @ b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_dtype_and_files_of_the_base_are_kept(tmp_path: Path, dtype: str) -> None:
    base = tiny_models.write_hf(tmp_path / "base", "llama", dtype=dtype)
    weights = load_mlx().load(str(base / "model.safetensors"))
    (base / "model.safetensors").unlink()
    names = sorted(weights)
    load_mlx().save_safetensors(str(base / "model-00001-of-00002.safetensors"), {name: weights[name] for name in names[:9]})
    load_mlx().save_safetensors(str(base / "model-00002-of-00002.safetensors"), {name: weights[name] for name in names[9:]})
    adapter = _adapter_of_shards(base, tmp_path, weights)
    fuse(base, adapter, tmp_path / "fused", _silent)
    first = load_mlx().load(str(tmp_path / "fused/model-00001-of-00002.safetensors"))
    assert sorted(first) == names[:9]
    assert {value.dtype for value in first.values()} == {weights[names[0]].dtype}
    assert tiny_models.log_probabilities(tmp_path / "fused", [1, 2, 3]).shape == (3, weights["model.embed_tokens.weight"].shape[0])


def _adapter_of_shards(base: Path, tmp_path: Path, weights: dict) -> Path:
    whole = tmp_path / "whole"
    whole.mkdir()
    load_mlx().save_safetensors(str(whole / "model.safetensors"), weights)
    return tiny_models.save_adapter(tmp_path / "adapter", whole)


def _edit(adapter: Path, **changes: np.ndarray | None) -> None:
    weights = _load(adapter / "adapters.safetensors") | {name: value for name, value in changes.items() if value is not None}
    weights = {name: value for name, value in weights.items() if changes.get(name, value) is not None}
    tiny_models.save_safetensors(adapter / "adapters.safetensors", weights, "F32")


_Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{_Q}.lora_b": None}, f"{_Q}.lora_b is missing"),
        ({f"{_Q}.lora_b": np.ones((3, 128), np.float32)}, "do not belong together"),
        ({f"{_Q}.lora_b": np.ones((4, 96), np.float32)}, "was it trained on another base?"),
        ({f"{_Q}.lora_b": np.full((4, 128), np.nan, np.float32)}, f"{_Q}.lora_b holds NaN or infinite values"),
        ({f"{_Q}.lora_b": np.full((4, 128), 1e30, np.float32)}, f"fused {_Q}.weight holds"),
        ({f"{_Q}.bias_delta": np.ones((4, 4), np.float32)}, "is no adapter weight"),
        (
            {f"model.layers.9.mlp.up_proj.lora_{part}": np.ones(shape, np.float32) for part, shape in (("a", (64, 4)), ("b", (4, 96)))},
            "changes model.layers.9.mlp.up_proj.weight, which the base does not have",
        ),
    ],
    ids=["half", "ranks", "shape", "nan", "overflow", "unknown", "another_base"],
)  # fmt: skip
def test_a_damaged_adapter_is_one_clear_error_and_leaves_the_last_fused_model(
    base: Path, tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base)
    fuse(base, adapter, tmp_path / "fused", _silent)
    before = (tmp_path / "fused/model.safetensors").read_bytes()
    _edit(adapter, **changes)
    with pytest.raises(UserError) as error:
        fuse(base, adapter, tmp_path / "fused", _silent)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "fused/model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"base", "adapter", "fused"}


def test_no_adapter_names_the_command_that_makes_one(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no adapter in .*; run: doit train"):
        fuse(base, tmp_path / "adapter", tmp_path / "fused", _silent)


def test_another_kind_of_fine_tuning_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base)
    (adapter / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "full", "lora_parameters": {"scale": 1}}))
    with pytest.raises(UserError, match="an adapter of type 'full' cannot be fused; supported: lora, dora"):
        fuse(base, adapter, tmp_path / "fused", _silent)


def test_no_base_is_one_clear_error(base: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base)
    with pytest.raises(UserError, match="no model.*safetensors in it"):
        fuse(tmp_path, adapter, tmp_path / "fused", _silent)
