"""What is exported is what was trained: in llama.cpp as in MLX, whole, and with its metadata."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from tokenizers import Tokenizer

from generators import ggml, gguf_file
from generators.base import import_base
from generators.errors import UserError
from generators.fuse import fuse
from generators.gguf import QUANTISATIONS, check_gguf, write_gguf
from generators.gguf_file import GgufFile
from generators.gguf_tokenizer import CONTROL, NORMAL, USER_DEFINED, encode
from generators.llama_server import serving

_IDS = [2, *range(300, 332), 290, 7]  # longer than the tiny window
_METADATA = {"general.name": "Tiny", "general.license": "apache-2.0"}


def _silent(line: str) -> None:
    """Takes progress lines."""


def _base(tmp_path: Path, architecture: str, kind: str, **overrides: Any) -> Path:
    """An imported tiny base, from a GGUF or from a Hugging Face directory."""
    hf = tiny_models.write_hf(tmp_path / "hf", architecture, **overrides)
    source = {"directory": str(hf)} if kind == "directory" else {"gguf": str(tiny_models.write_gguf(hf, tmp_path / "source.gguf"))}
    target = tmp_path / "base"
    import_base(
        tiny_models.spec_of(architecture, source), "tiny", target, tiny_models.template_of(architecture), _silent,
        tiny_models.end_of_turn_of(architecture),
    )  # fmt: skip
    return target


def _write(base: Path, adapter: Path | None, target: Path, quantisation: str, architecture: str = "gemma3") -> dict[str, Any]:
    template, end = tiny_models.template_of(architecture), tiny_models.end_of_turn_of(architecture)
    return write_gguf(base, adapter, target, quantisation, template, _METADATA, _silent, end)


def _largest_difference(gguf: Path, model: Path) -> float:
    """Between llama.cpp's log-probabilities of its likeliest next tokens and MLX's of the same."""
    ours = tiny_models.log_probabilities(model, _IDS)[-1]
    theirs = tiny_models.llama_log_probabilities(gguf, _IDS)
    assert max(theirs, key=theirs.__getitem__) == int(ours.argmax())
    return max(abs(value - ours[token]) for token, value in theirs.items())


def test_the_names_of_quantisations_cost_no_heavy_import() -> None:
    code = "import sys, generators.gguf; print(sorted({'numpy', 'gguf', 'mlx', 'tokenizers', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# The same model in both engines.


@pytest.mark.parametrize("kind", ["gguf", "directory"])
@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_llama_cpp_answers_as_the_fused_model_in_mlx(tmp_path: Path, architecture: str, kind: str) -> None:
    base = _base(tmp_path, architecture, kind)
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base, kind="dora" if architecture == "llama" else "lora")
    fuse(base, adapter, tmp_path / "fused", _silent)
    _write(base, adapter, tmp_path / "model.gguf", "F16", architecture)
    check_gguf(tmp_path / "model.gguf", base)
    assert _largest_difference(tmp_path / "model.gguf", tmp_path / "fused") < 0.05  # llama.cpp multiplies in float16


def test_llama3_rope_scaling_reaches_llama_cpp(tmp_path: Path) -> None:
    rope = {"rope_theta": 500000.0, "rope_scaling": tiny_models.LLAMA3_SCALING, "max_position_embeddings": 131072}
    base = _base(tmp_path, "llama", "directory", attention_bias=True, **rope)
    _write(base, None, tmp_path / "model.gguf", "F16", "llama")
    assert _largest_difference(tmp_path / "model.gguf", base) < 0.05


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_every_quantisation_is_loaded_and_stays_near_the_model(tmp_path: Path, quantisation: str) -> None:
    base = _base(tmp_path, "gemma3", "gguf", hidden_size=256, intermediate_size=512)  # wide enough for K-quants
    result = _write(base, tiny_models.save_adapter(tmp_path / "adapter", base), tmp_path / "model.gguf", quantisation)
    fuse(base, tmp_path / "adapter", tmp_path / "fused", _silent)
    ours = tiny_models.log_probabilities(tmp_path / "fused", _IDS)[-1]
    theirs = tiny_models.llama_log_probabilities(tmp_path / "model.gguf", _IDS, top=10)
    assert {"Q4_K_M": "Q4_K", "Q5_K_M": "Q5_K"}.get(quantisation, quantisation) in result["types"]
    difference = float(np.mean([abs(value - ours[token]) for token, value in theirs.items()]))
    assert difference < {"Q4_0": 1.5, "Q4_K_M": 1.0}.get(quantisation, 0.5)


def test_embedded_base_in_its_own_quantisation_keeps_every_byte(embedded_base: Path, tmp_path: Path) -> None:
    result = write_gguf(embedded_base, None, tmp_path / "model.gguf", "Q4_K_M", "{{ messages }}", _METADATA, _silent, "<end_of_turn>")
    checked = check_gguf(tmp_path / "model.gguf", embedded_base)
    assert (checked["parameters"], result["kept"]) == (268098176, 236)
    assert checked["types"] == result["types"]


def test_the_real_vocabulary_of_a_directory_gives_llama_cpp_the_same_ids(embedded_base: Path, tmp_path: Path) -> None:
    base = tiny_models.write_hf(tmp_path / "base", "gemma3", vocabulary_from=embedded_base, hidden_size=32)
    _write(base, None, tmp_path / "model.gguf", "Q8_0")
    text = "Naber kanka?  İğneyi ÇUVALDIZI 👩‍👩‍👧 şöyle\n\n\nfn main() {\n    x += 1;\n}\t漢字<end_of_turn>"
    with serving(tmp_path / "model.gguf", context=512) as server:
        assert server.tokenize(text) == encode(Tokenizer.from_file(str(embedded_base / "tokenizer.json")), text, parse_special=True)


# What a file holds.


def test_llama_cpp_uses_the_chat_template_and_stops_at_the_end_of_turn(tmp_path: Path) -> None:
    base = _base(tmp_path, "gemma3", "gguf")
    _write(base, None, tmp_path / "model.gguf", "F16")
    with serving(tmp_path / "model.gguf", context=512) as server:
        prompt = server.apply_template([{"role": "user", "content": "naber"}])
        end = server.tokenize("<end_of_turn>")[0]
        stopped = server.post("/completion", {"prompt": [2, 5], "n_predict": 8, "logit_bias": [[end, 100.0]], "temperature": 0})
    assert prompt.removeprefix("<bos>") == "<start_of_turn>user\nnaber<end_of_turn>\n<start_of_turn>model\n"
    assert (stopped["stop_type"], stopped["content"]) == ("eos", "")


@pytest.mark.parametrize("kind", ["gguf", "directory"])
def test_metadata_is_complete(tmp_path: Path, kind: str) -> None:
    base = _base(tmp_path, "gemma3", kind)
    _write(base, None, tmp_path / "model.gguf", "Q8_0")
    with GgufFile(tmp_path / "model.gguf") as gguf:
        assert (gguf.value("general.name"), gguf.value("general.license")) == ("Tiny", "apache-2.0")
        assert (gguf.value("general.file_type"), gguf.value("general.quantization_version")) == (7, 2)
        assert gguf.value("tokenizer.chat_template") == tiny_models.GEMMA_TEMPLATE
        assert gguf.value("tokenizer.ggml.tokens")[gguf.value("tokenizer.ggml.eot_token_id")] == "<end_of_turn>"
        assert (gguf.value("gemma3.attention.sliding_window"), gguf.value("gemma3.attention.sliding_window_pattern")) == (16, 2)


def test_both_kinds_of_base_give_the_same_file_contents(tmp_path: Path) -> None:
    files = []
    for kind in ("gguf", "directory"):
        base = _base(tmp_path / kind, "llama", kind)
        _write(base, None, tmp_path / f"{kind}.gguf", "F16", "llama")
        with GgufFile(tmp_path / f"{kind}.gguf") as gguf:
            files.append({name: gguf.rows(name) for name in gguf.tensors})
    assert files[0].keys() == files[1].keys()
    assert all(np.allclose(files[0][name], files[1][name], atol=1e-6) for name in files[0])


def test_tensors_the_adapter_leaves_alone_keep_their_bytes(tmp_path: Path) -> None:
    first = _base(tmp_path / "first", "gemma3", "gguf", hidden_size=256, intermediate_size=512)
    _write(first, None, tmp_path / "quantised.gguf", "Q4_K_M")
    spec = tiny_models.spec_of("gemma3", {"gguf": str(tmp_path / "quantised.gguf")})
    import_base(spec, "tiny", tmp_path / "base", tiny_models.GEMMA_TEMPLATE, _silent)
    adapter = tiny_models.save_adapter(tmp_path / "adapter", tmp_path / "base", touch="layers.0.mlp.up_proj")
    result = _write(tmp_path / "base", adapter, tmp_path / "model.gguf", "Q4_K_M")
    with GgufFile(tmp_path / "quantised.gguf") as before, GgufFile(tmp_path / "model.gguf") as after:
        changed = [name for name in before.tensors if not np.array_equal(before.raw(name), after.raw(name))]
    assert changed == ["blk.0.ffn_up.weight"]
    assert result["kept"] == result["tensors"] - 1


def test_two_exports_have_the_same_bytes(tmp_path: Path) -> None:
    base = _base(tmp_path, "qwen2", "directory")
    digests = [_write(base, None, tmp_path / f"{number}.gguf", "Q5_K_M", "qwen2")["sha256"] for number in range(2)]
    assert digests[0] == digests[1] == hashlib.sha256((tmp_path / "0.gguf").read_bytes()).hexdigest()


def test_turn_markers_that_an_old_conversion_lost_are_control_tokens_again(tmp_path: Path) -> None:
    source = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "gemma"), tmp_path / "source.gguf")
    with GgufFile(source) as gguf:
        kinds = gguf.value("tokenizer.ggml.token_type")
        types = [NORMAL if kind in (CONTROL, USER_DEFINED) and number > 3 else kind for number, kind in enumerate(kinds)]
        tokens = [token.replace(" ", "▁") for token in gguf.value("tokenizer.ggml.tokens")]
    _rewrite(source, {"tokenizer.ggml.token_type": gguf_file.int32s(types), "tokenizer.ggml.tokens": gguf_file.texts(tokens)})
    import_base(tiny_models.spec_of("gemma", {"gguf": str(source)}), "tiny", tmp_path / "base", tiny_models.GEMMA_TEMPLATE, _silent)
    _write(tmp_path / "base", None, tmp_path / "model.gguf", "F16")
    with serving(tmp_path / "model.gguf", context=512) as server:
        assert server.tokenize("<start_of_turn>") == [4]
        assert server.tokenize("<start_of_turn>", parse_special=False) != [4]
        assert server.tokenize("  ") == [8]


def _rewrite(path: Path, changes: dict[str, gguf_file.Entry | None], shift: Callable[[str], str | None] = lambda name: name) -> None:
    """The same file with other metadata (None takes a key away) and tensors under other names (None takes one away)."""
    with GgufFile(path) as gguf:
        kept = [(shift(tensor.name), tensor) for tensor in gguf.tensors.values() if shift(tensor.name)]
        data = [gguf.raw(tensor.name).tobytes() + bytes(gguf_file.padding(tensor.size)) for _, tensor in kept]
        metadata = {key: entry for key, entry in {**gguf.metadata, **changes}.items() if entry is not None}
        head = gguf_file.header(metadata, gguf_file.plan((str(name), t.shape, t.type) for name, t in kept))
    path.unlink()
    path.write_bytes(head + b"".join(data))


# What cannot be written.


def _assert_not_written(base: Path, adapter: Path | None, quantisation: str, message: str, end_of_turn: str | None = None) -> None:
    target = base.parent / "model.gguf"
    target.write_bytes(b"the last good one")
    with pytest.raises(UserError) as error:
        write_gguf(base, adapter, target, quantisation, "x", {}, _silent, end_of_turn)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert target.read_bytes() == b"the last good one" and not list(base.parent.glob("*.partial"))


@pytest.fixture
def llama_base(tmp_path: Path) -> Path:
    return _base(tmp_path, "llama", "gguf")


def test_an_unknown_quantisation_is_refused(llama_base: Path) -> None:
    _assert_not_written(llama_base, None, "q8_0", "quantisation 'q8_0' is not one of F16, BF16, Q8_0")


def test_a_k_quant_without_llama_cpp_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = _base(tmp_path, "llama", "directory", hidden_size=256)
    monkeypatch.setattr(ggml, "quantiser", lambda: None)
    _assert_not_written(base, None, "Q4_K_M", "Q4_K_M is made by llama.cpp, which is not installed; run: pip install")


def test_a_missing_base_names_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    _assert_not_written(tmp_path / "base", None, "Q8_0", "there is no base model in")


def test_a_missing_end_of_turn_is_refused(llama_base: Path) -> None:
    _assert_not_written(llama_base, None, "Q8_0", "the base has no token '<end_of_turn>'", "<end_of_turn>")


def test_an_adapter_of_another_base_is_refused(llama_base: Path, tmp_path: Path) -> None:
    other = tiny_models.write_hf(tmp_path / "other", "llama", num_hidden_layers=3)
    adapter = tiny_models.save_adapter(tmp_path / "adapter", other)
    message = "the adapter changes model.layers.2.mlp.down_proj.weight, which the base does not have"
    _assert_not_written(llama_base, adapter, "Q8_0", message)


def test_an_adapter_with_nan_is_refused(llama_base: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(tmp_path / "adapter", llama_base)
    b = np.full((4, 96), np.nan, np.float32)
    weights = {"model.layers.0.mlp.up_proj.lora_a": np.ones((64, 4), np.float32), "model.layers.0.mlp.up_proj.lora_b": b}
    tiny_models.save_safetensors(adapter / "adapters.safetensors", weights, "F32")
    _assert_not_written(llama_base, adapter, "Q8_0", "model.layers.0.mlp.up_proj.lora_b holds NaN or infinite values; train again")


def test_a_sum_that_overflows_names_the_tensor(llama_base: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(tmp_path / "adapter", llama_base)
    b = np.full((4, 96), 1e5, np.float32)
    weights = {"model.layers.0.mlp.up_proj.lora_a": np.ones((64, 4), np.float32), "model.layers.0.mlp.up_proj.lora_b": b}
    tiny_models.save_safetensors(adapter / "adapters.safetensors", weights, "F32")
    _assert_not_written(llama_base, adapter, "F16", "tensor blk.0.ffn_up.weight holds 8e+05, which float16 cannot")


# What is found by reading back.


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    base = _base(tmp_path, "llama", "gguf")
    _write(base, None, tmp_path / "model.gguf", "F16", "llama")
    return tmp_path / "model.gguf", base


def _poke(path: Path, tensor: str, value: float) -> None:
    with GgufFile(path) as gguf:
        offset = gguf.tensors[tensor].offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 2] = np.float16(value).tobytes()
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-64])


def _double(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"blk.1.ffn_down.weight", b"blk.0.ffn_down.weight"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: _rewrite(path, {}, lambda name: None if "1.ffn_up" in name else name), "tensor blk.1.ffn_up.weight is missing"),
        (_double, "tensor blk.0.ffn_down.weight is there twice"),
        (lambda path: _rewrite(path, {}, lambda name: name.replace("1.ffn_up", "7.ffn_up")), "tensor blk.1.ffn_up.weight is missing"),
        (_cut, "the file is cut short"),
        (lambda path: _poke(path, "blk.0.attn_v.weight", float("nan")), "tensor blk.0.attn_v.weight holds NaN or infinite values"),
        (lambda path: _poke(path, "blk.1.attn_v.weight", float("inf")), "tensor blk.1.attn_v.weight holds NaN or infinite values"),
        (lambda path: _rewrite(path, {"tokenizer.chat_template": None}), "the metadata has no tokenizer.chat_template"),
        (lambda path: _rewrite(path, {"tokenizer.chat_template": gguf_file.text(" ")}), "the chat template is empty"),
        (lambda path: _rewrite(path, {"llama.context_length": None}), "the metadata has no llama.context_length"),
        (lambda path: _rewrite(path, {"tokenizer.ggml.tokens": gguf_file.texts(["a"])}), "1 tokens and"),
        (lambda path: _rewrite(path, {"general.architecture": gguf_file.text("gemma")}), "general.architecture is gemma, the base"),
    ],
    ids=["missing", "twice", "renamed", "cut", "nan", "inf", "no_template", "empty_template", "no_key", "tokens", "architecture"],
)  # fmt: skip
def test_the_first_offence_is_named(written: tuple[Path, Path], damage: Callable[[Path], Any], message: str) -> None:
    path, base = written
    damage(path)
    with pytest.raises(UserError) as error:
        check_gguf(path, base)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


def test_another_shape_than_the_bases_is_named(written: tuple[Path, Path], tmp_path: Path) -> None:
    path, base = written
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(UserError, match=r"tensor blk.0.ffn_gate.weight has shape \(96, 64\), the base \(128, 64\)"):
        check_gguf(path, base)


def test_a_tensor_that_the_base_lacks_is_named(written: tuple[Path, Path]) -> None:
    path, base = written
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(UserError, match="tensor blk.1.attn_k.weight is not in the base"):
        check_gguf(path, base)


def test_a_whole_file_is_described(written: tuple[Path, Path]) -> None:
    path, base = written
    result = check_gguf(path, base)
    assert result == {
        "tensors": 21,
        "parameters": sum(int(np.prod(shape)) for shape in _shapes(path)),
        "size": path.stat().st_size,
        "bits_per_weight": 8 * path.stat().st_size / result["parameters"],
        "types": {"F16": 16, "F32": 5},
    }


def _shapes(path: Path) -> list[tuple[int, ...]]:
    with GgufFile(path) as gguf:
        return [tensor.shape for tensor in gguf.tensors.values()]
