"""A base model from any source becomes a directory that mlx_lm loads, or one clear error and nothing at all."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models

from generators import architectures, base_sources, gguf_file
from generators.base import at_hand, import_base
from generators.errors import UserError
from generators.gguf_file import GgufFile

_IDS = [2, *range(300, 332), 290, 7]  # longer than the tiny window


def _silent(line: str) -> None:
    """Takes progress lines."""


def _import(architecture: str, source: dict[str, Any], target: Path) -> dict[str, Any]:
    template = tiny_models.template_of(architecture)
    end_of_turn = tiny_models.end_of_turn_of(architecture)
    return import_base(tiny_models.spec_of(architecture, source), "tiny", target, template, _silent, end_of_turn)


def _write_gguf(path: Path, source: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """A copy of a GGUF with metadata entries and float32 tensors changed."""
    with GgufFile(source) as gguf:
        metadata = dict(gguf.metadata)
        tensors = {name: gguf.rows(name).reshape(tensor.shape).copy() for name, tensor in gguf.tensors.items()}
    change(metadata, tensors)
    plan = gguf_file.plan((name, value.shape, "F32") for name, value in tensors.items())
    data = [value.tobytes() + bytes(gguf_file.padding(value.nbytes)) for value in tensors.values()]
    path.write_bytes(gguf_file.header(metadata, plan) + b"".join(data))
    return path


# What comes out.


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_gguf_gives_the_logits_of_the_model_it_was_made_from(tmp_path: Path, architecture: str) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", architecture)
    gguf = tiny_models.write_gguf(hf, tmp_path / "model.gguf")
    _import(architecture, {"gguf": str(gguf)}, tmp_path / "base")
    assert np.allclose(tiny_models.log_probabilities(tmp_path / "base", _IDS), tiny_models.log_probabilities(hf, _IDS), atol=1e-4)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_directory_keeps_its_weights(tmp_path: Path, architecture: str) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", architecture, dtype="BF16")
    source = _import(architecture, {"directory": str(hf)}, tmp_path / "base")
    assert (tmp_path / "base/model.safetensors").read_bytes() == (hf / "model.safetensors").read_bytes()
    assert source["file_type"] == "BF16" and source["path"] == str(hf)
    assert np.array_equal(tiny_models.log_probabilities(tmp_path / "base", _IDS), tiny_models.log_probabilities(hf, _IDS))


@pytest.mark.parametrize("kind", ["gguf", "directory"])
def test_llama_with_biases_and_its_own_rope_scaling_is_imported(tmp_path: Path, kind: str) -> None:
    scaling = tiny_models.LLAMA3_SCALING
    hf = tiny_models.write_hf(tmp_path / "hf", "llama", rope_theta=500000.0, rope_scaling=scaling, attention_bias=True)
    source = {"directory": str(hf)}
    if kind == "gguf":
        table = architectures.llama3_frequencies(json.loads((hf / "config.json").read_text()))
        plain = tiny_models.write_gguf(hf, tmp_path / "plain.gguf")
        scaled = _write_gguf(tmp_path / "model.gguf", plain, lambda metadata, tensors: tensors.update({"rope_freqs.weight": table}))
        source = {"gguf": str(scaled)}
    _import("llama", source, tmp_path / "base")
    assert json.loads((tmp_path / "base/config.json").read_text())["rope_scaling"] == scaling
    assert np.allclose(tiny_models.log_probabilities(tmp_path / "base", _IDS), tiny_models.log_probabilities(hf, _IDS), atol=1e-4)


def test_newer_transformers_configs_are_understood(tmp_path: Path) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", "gemma3")
    expected = tiny_models.log_probabilities(hf, _IDS)
    config = json.loads((hf / "config.json").read_text())
    everything, window = config.pop("rope_theta"), config.pop("rope_local_base_freq")
    rope = {"full_attention": {"rope_theta": everything}, "sliding_attention": {"rope_theta": window}}
    kinds = ["sliding_attention", "full_attention"]
    del config["sliding_window_pattern"]
    (hf / "config.json").write_text(json.dumps(config | {"rope_parameters": rope, "layer_types": kinds}))
    _import("gemma3", {"directory": str(hf)}, tmp_path / "base")
    assert np.array_equal(tiny_models.log_probabilities(tmp_path / "base", _IDS), expected)


def test_mlx_lm_loads_the_base_and_stops_at_the_end_of_turn(tmp_path: Path) -> None:
    import mlx_lm

    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "gemma3"), tmp_path / "model.gguf")
    _import("gemma3", {"gguf": str(gguf)}, tmp_path / "base")
    tokenizer = mlx_lm.load(str(tmp_path / "base"))[1]
    text = tokenizer.apply_chat_template([{"role": "user", "content": "naber"}], tokenize=False, add_generation_prompt=True)
    assert text == "<bos><start_of_turn>user\nnaber<end_of_turn>\n<start_of_turn>model\n"
    assert tokenizer.eos_token_ids == {tokenizer.convert_tokens_to_ids(token) for token in ("<eos>", "<end_of_turn>")}


@pytest.mark.parametrize(("dtype", "expected"), [("F16", "float16"), ("F32", "float16")])
def test_weights_of_a_gguf_become_float16(tmp_path: Path, dtype: str, expected: str) -> None:
    from generators.device import load_mlx

    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "llama"), tmp_path / "model.gguf", dtype)
    _import("llama", {"gguf": str(gguf)}, tmp_path / "base")
    weights = load_mlx().load(str(tmp_path / "base/model.safetensors"))
    assert {str(value.dtype).removeprefix("mlx.core.") for value in weights.values()} == {expected}
    assert json.loads((tmp_path / "base/config.json").read_text())["dtype"] == expected


def test_source_says_what_was_imported(tmp_path: Path) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "qwen2"), tmp_path / "model.gguf")
    source = _import("qwen2", {"gguf": str(gguf)}, tmp_path / "base")
    assert source == json.loads((tmp_path / "base/source.json").read_text())
    assert source | {"parameters": 0} == {
        "source": f"file {gguf}",
        "path": str(gguf),
        "sha256": hashlib.sha256(gguf.read_bytes()).hexdigest(),
        "architecture": "qwen2",
        "parameters": 0,
        "file_type": "F16",
        "size": gguf.stat().st_size,
    }
    weights = tiny_models.weights_of(json.loads((tmp_path / "hf/config.json").read_text()))
    assert source["parameters"] == sum(value.size for value in weights.values())


def test_the_gguf_is_kept_without_taking_space_twice(tmp_path: Path) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "llama"), tmp_path / "model.gguf")
    _import("llama", {"gguf": str(gguf)}, tmp_path / "base")
    assert (tmp_path / "base/base.gguf").samefile(gguf)


def test_the_gguf_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "llama"), tmp_path / "model.gguf")

    def refuse(source: Path, target: Path) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    _import("llama", {"gguf": str(gguf)}, tmp_path / "base")
    assert not (tmp_path / "base/base.gguf").samefile(gguf)
    assert (tmp_path / "base/base.gguf").read_bytes() == gguf.read_bytes()


def test_embedded_base_speaks(embedded_base: Path) -> None:
    source = json.loads((embedded_base / "source.json").read_text())
    assert (source["architecture"], source["parameters"], source["file_type"]) == ("gemma3", 268098176, "Q4_K_M")
    tokens = json.loads((embedded_base / "tokenizer.json").read_text())["model"]["vocab"]
    after = tiny_models.log_probabilities(embedded_base, [2, *(tokens[piece] for piece in ("The", "▁capital", "▁of", "▁France", "▁is"))])
    assert tokens["▁Paris"] in np.argsort(after[-1])[-5:]


# Where it comes from.


def test_the_first_source_at_hand_is_used(tmp_path: Path) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "llama"), tmp_path / "model.gguf")
    absent = [{"package": "no_such_package"}, {"gguf": str(tmp_path / "absent.gguf")}]
    assert at_hand({"sources": [*absent, {"gguf": str(gguf)}, {"directory": str(tmp_path / "hf")}]}) == f"file {gguf}"


def test_no_source_at_hand_names_each_and_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # nobody listens there
    sources = [{"package": "no_such_package"}, {"ollama": "gemma:2b"}, {"directory": "absent"}, {"gguf": "absent.gguf"}]
    spec = tiny_models.spec_of("gemma", {}) | {"sources": sources}
    assert at_hand(spec) is None
    with pytest.raises(UserError) as error:
        import_base(spec, "gemma-2b", tmp_path / "base", "", _silent)
    assert str(error.value) == (
        "base gemma-2b is not at hand: package no_such_package is not installed (run: pip install -e '.[embedded]'); "
        "Ollama has no model gemma:2b (run: ollama pull gemma:2b); directory absent holds no config.json; file absent.gguf does not exist"
    )


def test_package_puts_its_file_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "llama"), tmp_path / "model.gguf")
    (tmp_path / "tiny_package.py").write_text(f"import shutil\n\n\ndef assemble(path):\n    shutil.copyfile({str(gguf)!r}, path)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert _import("llama", {"package": "tiny_package"}, tmp_path / "base")["source"] == "package tiny_package"
    sys.modules.pop("tiny_package")


def _ollama_store(folder: Path, gguf: Path, name: str = "library/gemma/2b") -> str:
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / f"sha256-{digest}").write_bytes(gguf.read_bytes())
    kind = "application/vnd.ollama.image."
    layers = [{"mediaType": f"{kind}license"}, {"mediaType": f"{kind}model", "digest": f"sha256:{digest}"}]
    manifest = folder / "manifests/registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": layers}))
    return digest


def test_ollamas_store_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "gemma"), tmp_path / "model.gguf")
    digest = _ollama_store(tmp_path / "store", gguf)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "store"))
    source = _import("gemma", {"ollama": "gemma:2b"}, tmp_path / "base")
    assert (source["source"], source["sha256"]) == ("Ollama's gemma:2b", digest)


def test_a_damaged_blob_in_ollamas_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "gemma"), tmp_path / "model.gguf")
    digest = _ollama_store(tmp_path / "store", gguf)
    with (tmp_path / "store/blobs" / f"sha256-{digest}").open("ab") as blob:
        blob.write(b"x")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "store"))
    with pytest.raises(UserError, match=f"Ollama's gemma:2b is not the file that is expected: its sha256 is [0-9a-f]{{64}}, not {digest}"):
        _import("gemma", {"ollama": "gemma:2b"}, tmp_path / "base")


@pytest.fixture
def ollama_server(tmp_path: Path) -> Iterator[str]:
    """Answers /api/show with a FROM line, as Ollama does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"modelfile": f"# Modelfile\nFROM {tmp_path / 'model.gguf'}\nTEMPLATE x"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_running_ollama_says_where_its_store_is(tmp_path: Path, ollama_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("OLLAMA_HOST", ollama_server)
    found, _ = base_sources.find([{"ollama": "gemma:2b"}])
    assert found is not None and found.path == tmp_path / "model.gguf"


def test_a_repository_is_downloaded_only_when_nothing_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", "llama")
    asked: list[dict[str, Any]] = []

    def snapshot(repo: str, **options: Any) -> str:
        asked.append({"repo": repo, **options})
        if options.get("local_files_only"):
            raise FileNotFoundError("not in the cache")
        return str(hf)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    spec_source = {"repo": "someone/tiny", "revision": "0123abc"}
    assert at_hand(tiny_models.spec_of("llama", spec_source)) is None
    assert _import("llama", spec_source, tmp_path / "base")["source"] == "repository someone/tiny"
    assert asked[-1]["revision"] == "0123abc" and "local_files_only" not in asked[-1]


def test_a_download_that_fails_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(repo: str, **options: Any) -> str:
        raise ConnectionError("the hub cannot be reached\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(UserError, match="^someone/tiny cannot be downloaded: the hub cannot be reached$"):
        _import("llama", {"repo": "someone/tiny"}, tmp_path / "base")


# What cannot be imported.


def _assert_refused(source: dict[str, Any], target: Path, message: str, architecture: str = "llama") -> None:
    """One clear line, and neither a target nor leftovers."""
    with pytest.raises(UserError) as error:
        _import(architecture, source, target)
    assert message in str(error.value) and "\n" not in str(error.value) and ".partial" not in str(error.value)
    assert not target.exists() and not list(target.parent.glob("*.partial"))


@pytest.fixture
def llama_gguf(tmp_path: Path) -> Path:
    return tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "llama"), tmp_path / "model.gguf")


def test_a_wrong_sha256_names_both(llama_gguf: Path, tmp_path: Path) -> None:
    actual, wanted = hashlib.sha256(llama_gguf.read_bytes()).hexdigest(), "0" * 64
    source = {"gguf": str(llama_gguf), "sha256": wanted}
    _assert_refused(source, tmp_path / "base", f"file {llama_gguf} is not the file that is expected: its sha256 is {actual}, not {wanted}")


def test_a_failed_import_leaves_the_last_good_base(llama_gguf: Path, tmp_path: Path) -> None:
    _import("llama", {"gguf": str(llama_gguf)}, tmp_path / "base")
    before = sorted(path.name for path in (tmp_path / "base").iterdir())
    with pytest.raises(UserError):
        _import("llama", {"gguf": str(llama_gguf), "sha256": "0" * 64}, tmp_path / "base")
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_a_truncated_gguf_is_refused(llama_gguf: Path, tmp_path: Path, share: float) -> None:
    data = llama_gguf.read_bytes()
    llama_gguf.unlink()
    llama_gguf.write_bytes(data[: int(len(data) * share)])
    message = {0.0: "this is no GGUF file", 0.01: "cut short", 0.3: "cut short", 0.99: "the file is cut short"}[share]
    _assert_refused({"gguf": str(llama_gguf)}, tmp_path / "base", message)


def test_a_header_with_absurd_lengths_is_refused(llama_gguf: Path, tmp_path: Path) -> None:
    llama_gguf.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + bytes(100))
    _assert_refused({"gguf": str(llama_gguf)}, tmp_path / "base", "the file ends inside its header")


def test_a_header_with_wrong_bytes_is_imported_or_refused_but_never_a_crash(llama_gguf: Path, tmp_path: Path) -> None:
    rng, whole = np.random.default_rng(0), llama_gguf.read_bytes()
    with GgufFile(llama_gguf) as gguf:
        header_size = min(tensor.offset for tensor in gguf.tensors.values())
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(4, header_size, 3):
            data[place] = rng.integers(256)
        damaged = tmp_path / "damaged.gguf"
        damaged.write_bytes(data)
        try:
            _import("llama", {"gguf": str(damaged)}, tmp_path / "base")
        except UserError:
            refused += 1
        damaged.unlink()
    assert refused > 10


def test_an_unknown_architecture_is_refused_with_the_list(llama_gguf: Path, tmp_path: Path) -> None:
    other = _write_gguf(tmp_path / "other.gguf", llama_gguf, lambda m, t: m.update({"general.architecture": gguf_file.text("mamba")}))
    message = f"file {other}: architecture 'mamba' is not supported; supported: gemma, gemma2, gemma3, llama, qwen2, qwen3"
    _assert_refused({"gguf": str(other)}, tmp_path / "base", message)


def test_another_architecture_than_the_specs_is_refused(llama_gguf: Path, tmp_path: Path) -> None:
    message = f"file {llama_gguf}: this is a llama model, the spec says gemma"
    _assert_refused({"gguf": str(llama_gguf)}, tmp_path / "base", message, architecture="gemma")


def _put(name: str, value: np.ndarray) -> Callable[..., Any]:
    return lambda metadata, tensors: tensors.update({name: value})


def _set(key: str, entry: gguf_file.Entry) -> Callable[..., Any]:
    return lambda metadata, tensors: metadata.update({key: entry})


def _shorten_embedding(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    for name in ("token_embd.weight", "output.weight"):
        tensors[name] = tensors[name][:9]


def _make_nan(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.ffn_up.weight"][3, 5] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, t: t.pop("blk.1.ffn_down.weight"), "tensor blk.1.ffn_down.weight is missing"),
        (lambda m, t: t.pop("token_embd.weight"), "tensor token_embd.weight is missing"),
        (_put("blk.1.ffn_down.weight", np.ones((96, 64), np.float32)), "tensor blk.1.ffn_down.weight has shape (96, 64), (64, 96) is due"),
        (_put("blk.0.ffn_gate_inp.weight", np.ones((2, 64), np.float32)), "tensor blk.0.ffn_gate_inp.weight is no part of a llama model"),
        (_make_nan, "tensor blk.0.ffn_up.weight holds NaN or infinite values"),
        (lambda m, t: t["blk.0.ffn_up.weight"].fill(1e5), "tensor blk.0.ffn_up.weight holds 1e+05, which float16 cannot"),
        (_put("rope_freqs.weight", np.linspace(1, 9, 16, dtype=np.float32)), "rope_freqs.weight holds no rope scaling of llama3's kind"),
        (lambda m, t: m.pop("llama.block_count"), "the metadata has no llama.block_count"),
        (_set("llama.block_count", gguf_file.uint32(2**31)), "tensor blk.2.attn_q.weight is missing"),
        (_put("token_embd.weight", np.ones((9, 64), np.float32)), "tensor output.weight has shape"),
        (_shorten_embedding, "407 tokens for an embedding of 9 rows"),
        (_set("llama.block_count", gguf_file.text("2")), "llama.block_count is '2', a positive whole number is due"),
        (_set("llama.attention.head_count", gguf_file.uint32(0)), "llama.attention.head_count is 0, a positive whole number is due"),
        (_set("llama.rope.freq_base", gguf_file.float32(np.nan)), "llama.rope.freq_base is nan, a positive number is due"),
        (_set("llama.rope.scaling.type", gguf_file.text("yarn")), "rope scaling 'yarn' is not supported"),
        (_set("llama.attention.head_count_kv", gguf_file.int32s([2, 4])), "llama.attention.head_count_kv differs between blocks"),
    ],
    ids=["gone", "empty", "shape", "unknown", "nan", "large", "table", "no_key", "endless", "output", "rows", "text", "zero", "no_base",
         "yarn", "blocks"],
)  # fmt: skip
def test_a_gguf_that_is_not_whole_is_refused(llama_gguf: Path, tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    damaged = _write_gguf(tmp_path / "damaged.gguf", llama_gguf, change)
    _assert_refused({"gguf": str(damaged)}, tmp_path / "base", f"{damaged}: {message}")


def _edit_config(hf: Path, **changes: Any) -> None:
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda hf: _edit_config(hf, model_type="mamba"), "architecture 'mamba' is not supported; supported: gemma"),
        (lambda hf: _edit_config(hf, hidden_size=None), "config.json has hidden_size None, a positive whole number is due"),
        (lambda hf: _edit_config(hf, model_type="gemma3"), "gemma3 with an image encoder is not supported"),
        (lambda hf: _edit_config(hf, quantization={"bits": 4}), "the weights are quantised"),
        (lambda hf: _edit_config(hf, num_hidden_layers=3), "tensor model.layers.2.self_attn.q_proj.weight is missing"),
        (lambda hf: _edit_config(hf, num_hidden_layers=1), "tensor model.layers.1.input_layernorm.weight is no part of a llama model"),
        (lambda hf: _edit_config(hf, hidden_size=32), "tensor model.embed_tokens.weight has shape"),
        (lambda hf: _edit_config(hf, rope_scaling={"rope_type": "yarn"}), "rope scaling 'yarn' is not supported"),
        (lambda hf: (hf / "config.json").write_text("{"), "config.json: cannot be read"),
        (lambda hf: (hf / "tokenizer.json").unlink(), "no tokenizer.json in it"),
        (lambda hf: (hf / "model.safetensors").unlink(), "no model*.safetensors in it"),
        (lambda hf: (hf / "model.safetensors").write_bytes((hf / "model.safetensors").read_bytes()[:5000]), "the file is cut short"),
        (lambda hf: (hf / "model.safetensors").write_bytes(b"not safetensors"), "this is no safetensors file"),
    ],
    ids=["name", "no_size", "vision", "quantised", "missing", "unknown", "shape", "yarn", "json", "tokenizer", "weights", "cut", "garbage"],
)  # fmt: skip
def test_a_directory_that_is_not_whole_is_refused(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", "llama")
    damage(hf)
    _assert_refused({"directory": str(hf)}, tmp_path / "base", message)


def test_an_end_of_turn_that_the_vocabulary_lacks_is_refused(llama_gguf: Path, tmp_path: Path) -> None:
    spec = tiny_models.spec_of("llama", {"gguf": str(llama_gguf)})
    with pytest.raises(UserError, match="the base has no token '<end_of_turn>', with which its chat format ends a turn"):
        import_base(spec, "tiny", tmp_path / "base", "", _silent, "<end_of_turn>")


def test_too_little_disk_is_told_before_anything_is_written(llama_gguf: Path, tmp_path: Path) -> None:
    spec = tiny_models.spec_of("llama", {"gguf": str(llama_gguf)}, parameters=10**15)
    with pytest.raises(UserError, match=r"base tiny needs 4000\.0 TB under .*; make room and run doit again"):
        import_base(spec, "tiny", tmp_path / "base", "", _silent)
