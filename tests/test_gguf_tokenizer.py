"""Our tokenizer and llama.cpp's give the same ids on the same vocabulary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_models
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from generators import gguf_file
from generators.errors import UserError
from generators.gguf_file import GgufFile
from generators.gguf_tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    USER_DEFINED,
    Vocabulary,
    build_tokenizer,
    encode,
    metadata_of,
    restore_types,
    tokenizer_config,
    vocabulary_of_gguf,
    vocabulary_of_json,
)
from generators.llama_server import serving

ADVERSARIAL = {
    "turkish": "İğneyi ÇUVALDIZI şöyle böyle; ığdır'da ŞIK bir göz, kâğıt, bi'şey diil mi yaa??",
    "combining": "I\u0307stanbul s\u0327ey g\u0306u\u0308n e\u0301\u0301",
    "emoji_zwj": "👩‍👩‍👧‍👦 🏳️‍🌈 😀😀 👍🏽",
    "spaces": "a  b   c    d" + " " * 70 + "e ",
    "tabs_and_newlines": "\t\ta\t \tb\n\n\nc\r\n\r\nd" + "\n" * 45,
    "only_space": " ",
    "empty": "",
    "code": 'def f(x: int) -> int:\n    return x ** 2  # kare\n\n\nif __name__ == "__main__":\n\tprint(f"{f(3)!r}")\n',
    "cjk": "漢字かな交じり文、한국어 텍스트。中文",
    "rare_scripts": "𓀀𓁐 ᚠᚢᚦ ܐܒܓ 𝔘𝔫𝔦 \U0010ffff",
    "control_tokens": "<start_of_turn>user\nhi<end_of_turn>\n<eos><bos><pad><|im_start|>system<|im_end|>\n<|endoftext|>",
    "half_a_control_token": "<start_of_turn<end_of_turn>>< start_of_turn><|im_start|",
    "user_defined": "<tool></li><table><h1>[multimodal]",
    "meta_symbol": "▁▁ ▁a▁b",
    "byte_tokens_as_text": "<0x0A><0xFF>",
    "invisible": "\u200b\u00a0\u00ad\ufeff\u2060\u0085\u2028",
    "digits_and_contractions": "it's 1234567 we'LL I'd 3.14159 5'sı DON'T",
    "repeats": "a" * 100 + "haha" * 20 + "!" * 33,
}
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
# Texts at the borders of what tokenizers treat specially, more likely than by chance.
_PIECES = st.sampled_from(
    [" ", "  ", "\n", "\n\n", "\t", "▁", "<eos>", "<start_of_turn>", "<|im_end|>", "<tool>", "<", ">", "İ", "ı", "\u0307", "🏽", "\u200d",
     "the", " bir", "123", "'s", "'LL", "\r\n", "<0x0A>", "\u00a0", "\u0085", "ſ", "a"]
)  # fmt: skip
_MIXED = st.lists(_PIECES | _TEXTS, max_size=12).map("".join)
# The servers behave the same for every example, so one fixture for all of them is right.
_FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclasses.dataclass(frozen=True)
class Pair:
    """Our tokenizer and a llama.cpp that has loaded the same vocabulary."""

    tokenizer: Any
    client: httpx.Client

    def assert_equal_ids(self, text: str) -> None:
        for parse_special in (False, True):
            body = {"content": text, "add_special": True, "parse_special": parse_special}
            theirs = self.client.post("/tokenize", json=body).json()["tokens"]
            assert encode(self.tokenizer, text, parse_special, add_special=True) == theirs


@contextmanager
def _pair(gguf: Path, tokenizer: Any = None) -> Iterator[Pair]:
    """tokenizer: built from the file's vocabulary when none is given."""
    if tokenizer is None:
        with GgufFile(gguf) as opened:
            tokenizer = build_tokenizer(vocabulary_of_gguf(opened))
    with serving(gguf, context=512) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        yield Pair(tokenizer, client)


@pytest.fixture(scope="module")
def gemma(embedded_base: Path) -> Iterator[Pair]:
    with _pair(embedded_base / "base.gguf", Tokenizer.from_file(str(embedded_base / "tokenizer.json"))) as pair:
        yield pair


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("byte-level")
    with _pair(tiny_models.write_gguf(tiny_models.write_hf(folder / "hf", "qwen2"), folder / "model.gguf")) as pair:
        yield pair


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_gemma_ids_equal_llama_cpps(gemma: Pair, name: str) -> None:
    gemma.assert_equal_ids(ADVERSARIAL[name])


@_FEW
@given(_MIXED)
def test_gemma_ids_equal_llama_cpps_on_random_text(gemma: Pair, text: str) -> None:
    gemma.assert_equal_ids(text)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_byte_level_ids_equal_llama_cpps(byte_level: Pair, name: str) -> None:
    byte_level.assert_equal_ids(ADVERSARIAL[name])


@_FEW
@given(_MIXED)
@example("ſ'ſ 'S\u00a0\u0085\u180e\u1680x")
def test_byte_level_ids_equal_llama_cpps_on_random_text(byte_level: Pair, text: str) -> None:
    byte_level.assert_equal_ids(text)


def test_saved_tokenizer_loads_in_transformers_with_the_same_ids(embedded_base: Path, gemma: Pair) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(embedded_base)
    text = "".join(ADVERSARIAL.values())
    assert loaded(text, add_special_tokens=False)["input_ids"] == encode(gemma.tokenizer, text, parse_special=True)
    assert (loaded.bos_token, loaded.eos_token, loaded.unk_token, loaded.pad_token) == ("<bos>", "<eos>", "<unk>", "<pad>")


def test_control_tokens_in_text_stay_text_unless_asked_for(gemma: Pair) -> None:
    start = gemma.tokenizer.token_to_id("<start_of_turn>")
    assert start not in encode(gemma.tokenizer, "<start_of_turn>user")
    assert encode(gemma.tokenizer, "<start_of_turn>user", parse_special=True)[0] == start


@pytest.mark.parametrize("name", sorted(set(ADVERSARIAL) - {"meta_symbol", "control_tokens", "half_a_control_token"}))
def test_decoding_gives_the_text_back(gemma: Pair, name: str) -> None:
    assert gemma.tokenizer.decode(encode(gemma.tokenizer, ADVERSARIAL[name])) == ADVERSARIAL[name]


@pytest.mark.parametrize("pre", ["llama-bpe", "smollm", "gpt-2"])
def test_word_cutters_equal_llama_cpps(tmp_path: Path, pre: str) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", "qwen2")
    gguf = tiny_models.write_gguf(hf, tmp_path / "model.gguf")
    _rewrite_metadata(gguf, {"tokenizer.ggml.pre": gguf_file.text(pre)})
    with _pair(gguf) as pair:
        for text in ADVERSARIAL.values():
            pair.assert_equal_ids(text)


def test_space_prefix_equals_llama_cpps(tmp_path: Path) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "hf", "gemma"), tmp_path / "model.gguf")
    _rewrite_metadata(gguf, {"tokenizer.ggml.add_space_prefix": gguf_file.flag(True)})
    with _pair(gguf) as pair:
        for text in ADVERSARIAL.values():
            pair.assert_equal_ids(text)


def _rewrite_metadata(path: Path, changes: dict[str, gguf_file.Entry]) -> None:
    """The same file with other metadata."""
    with GgufFile(path) as gguf:
        tensors = list(gguf.tensors.values())
        data = [gguf.raw(tensor.name).tobytes() + bytes(gguf_file.padding(tensor.size)) for tensor in tensors]
        head = gguf_file.header({**gguf.metadata, **changes}, gguf_file.plan((t.name, t.shape, t.type) for t in tensors))
    path.write_bytes(head + b"".join(data))


@pytest.mark.parametrize("architecture", ["gemma", "qwen2"])
def test_vocabulary_survives_the_way_through_a_tokenizer_json(tmp_path: Path, architecture: str) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", architecture)
    settings_ = json.loads((hf / "tokenizer_config.json").read_text())
    rows = json.loads((hf / "config.json").read_text())["vocab_size"]
    first = vocabulary_of_json((hf / "tokenizer.json").read_text(), settings_, rows, hf)
    config = tokenizer_config(first, "", 512)
    again = vocabulary_of_json(build_tokenizer(first).to_str(), config, rows, hf)
    assert dataclasses.replace(again, scores=[]) == dataclasses.replace(first, scores=[])
    assert build_tokenizer(again).to_str() == build_tokenizer(first).to_str()  # scores have only their order to give


def _gemma_1_as_old_conversions_had_it() -> Vocabulary:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>"]
    tokens += ["\n\n", "▁▁", "<0x00>", "a", "▁▁a"]
    types = [CONTROL, CONTROL, CONTROL, 2, *[NORMAL] * 6, BYTE, NORMAL, NORMAL]
    return Vocabulary("llama", tokens, types, [0.0] * len(tokens))


def test_types_that_old_gemma_conversions_lost_are_restored() -> None:
    restored = restore_types(_gemma_1_as_old_conversions_had_it(), "gemma")
    kinds = dict(zip(restored.tokens, restored.types, strict=True))
    assert [kinds[token] for token in ("<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>")] == [CONTROL] * 4
    assert (kinds["\n\n"], kinds["  "]) == (USER_DEFINED, USER_DEFINED)
    assert (kinds["a"], kinds["▁▁a"]) == (NORMAL, NORMAL)


def test_types_are_left_alone_where_nothing_was_lost(embedded_base: Path) -> None:
    with GgufFile(embedded_base / "base.gguf") as gguf:
        assert vocabulary_of_gguf(gguf).types == gguf.value("tokenizer.ggml.token_type")


def _gguf_with(tmp_path: Path, **changes: gguf_file.Entry | None) -> Path:
    vocabulary = Vocabulary("llama", ["<unk>", "a"], [2, NORMAL], [0.0, 0.0], ids={"unk": 0})
    metadata = {"general.architecture": gguf_file.text("llama"), **metadata_of(vocabulary)}
    metadata |= {f"tokenizer.ggml.{key}": entry for key, entry in changes.items() if entry is not None}
    for key in (key for key, entry in changes.items() if entry is None):
        del metadata[f"tokenizer.ggml.{key}"]
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(gguf_file.header(metadata, []))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": gguf_file.text("bert")}, "tokenizer 'bert' is not supported; supported: llama"),
        ({"model": gguf_file.text("gpt2"), "pre": gguf_file.text("tekken")}, "the pre-tokeniser 'tekken' is not supported; supported: "),
        ({"tokens": None}, "the metadata has no tokenizer.ggml.tokens"),
        ({"scores": None}, "the metadata has no tokenizer.ggml.scores"),
        ({"token_type": gguf_file.int32s([1])}, "2 tokens, but 1 types and 2 scores"),
    ],
)
def test_a_vocabulary_that_cannot_be_read_is_one_clear_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with GgufFile(_gguf_with(tmp_path, **changes)) as gguf, pytest.raises(UserError) as error:
        vocabulary_of_gguf(gguf)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_tokenizer_json_that_is_no_bpe_is_refused() -> None:
    with pytest.raises(UserError, match="a tokenizer of type 'Unigram' is not supported; supported: BPE"):
        vocabulary_of_json('{"model": {"type": "Unigram"}}', {}, 10, "tokenizer.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model": {"type": "BPE", "vocab": {}}}'])
def test_a_tokenizer_json_that_cannot_be_read_is_one_clear_error(text: str) -> None:
    with pytest.raises(UserError, match="^tokenizer.json: (this is no tokenizer.json|the tokenizer has no vocabulary)"):
        vocabulary_of_json(text, {}, 10, "tokenizer.json")


@pytest.mark.parametrize("architecture", ["gemma", "qwen2"])
def test_the_rebuilt_tokenizer_gives_the_ids_of_the_one_it_was_read_from(tmp_path: Path, architecture: str) -> None:
    hf = tiny_models.write_hf(tmp_path / "hf", architecture)
    original = Tokenizer.from_file(str(hf / "tokenizer.json"))
    rows = json.loads((hf / "config.json").read_text())["vocab_size"]
    settings_ = json.loads((hf / "tokenizer_config.json").read_text())
    rebuilt = build_tokenizer(vocabulary_of_json((hf / "tokenizer.json").read_text(), settings_, rows, hf))
    for name in set(ADVERSARIAL) - {"spaces", "meta_symbol", "code", "combining"}:  # in these ours goes llama.cpp's way
        assert encode(rebuilt, ADVERSARIAL[name], add_special=True) == encode(original, ADVERSARIAL[name], add_special=True), name


def test_an_unknown_word_cutter_is_refused() -> None:
    source = {
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "x+"}},
        "decoder": {"type": "ByteLevel"},
    }
    with pytest.raises(UserError, match="cuts words in a way that is not supported"):
        vocabulary_of_json(json.dumps(source), {}, 10, "tokenizer.json")
