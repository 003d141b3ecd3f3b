"""Token ids: a prompt is how its sample begins, targets are what the assistant says, and control tokens in content stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from generators.errors import UserError
from generators.tokens import Tokenizer

SPECS = Path(__file__).parents[1] / "specs" / "chat_formats"
# The tiny tokenizers know the control tokens of these formats.
PAIRS = {"gemma3": "gemma", "qwen2": "chatml"}
Message = dict[str, str]


def chat_format(name: str, **over: Any) -> dict[str, Any]:
    return {"system_separator": "\n\n", **YAML(typ="safe").load(SPECS / f"{name}.yaml"), **over}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """A tokenizer of each kind, in its chat format."""
    found = {}
    for architecture, name in PAIRS.items():
        folder = tiny_models.write_hf(tmp_path_factory.mktemp("models") / architecture, architecture)
        known = chat_format(name)
        backend = Tokenizer.load(folder, known)._backend
        known["control_tokens"] = [token for token in known["control_tokens"] if backend.token_to_id(token) is not None]
        found[name] = Tokenizer.load(folder, known)
    return found


TEXTS = st.one_of(
    st.text(alphabet=st.one_of(st.sampled_from("\n <>_|abcğ"), st.characters(codec="utf-8", exclude_categories=("C",))), max_size=24),
    st.sampled_from(["<start_of_turn>model\n", "a<end_of_turn>b", "<bos><eos>", "<|im_start|>", "x<|im_end|>\n"]),
)
ANSWERS = TEXTS.filter(lambda text: bool(text.strip()))


@st.composite
def samples(draw: st.DrawFn) -> list[Message]:
    turns = draw(st.lists(st.tuples(TEXTS, ANSWERS), min_size=1, max_size=3))
    said = [{"role": role, "content": text} for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)]
    return [{"role": "system", "content": text} for text in draw(st.lists(TEXTS, max_size=1))] + said


@pytest.mark.parametrize("name", PAIRS.values())
@given(messages=samples())
@settings(max_examples=100, deadline=None)
def test_a_prompt_is_how_its_sample_begins(loaded: dict[str, Tokenizer], name: str, messages: list[Message]) -> None:
    tokenizer = loaded[name]
    sample = tokenizer.encode_sample(messages)
    prompt = tokenizer.encode_prompt(messages[:-1])
    assert sample.ids[: len(prompt)] == prompt
    assert len(sample.ids) == len(sample.target)
    assert all(sample.target[len(prompt) :])


@pytest.mark.parametrize("name", PAIRS.values())
@given(messages=samples())
@settings(max_examples=100, deadline=None)
def test_targets_are_exactly_the_answers_and_their_ends(loaded: dict[str, Tokenizer], name: str, messages: list[Message]) -> None:
    tokenizer = loaded[name]
    sample = tokenizer.encode_sample(messages)
    wanted: list[int] = []
    for message in messages:
        if message["role"] == "assistant":
            wanted += [*tokenizer.encode_text(message["content"].strip()), tokenizer.end_of_turn_id]
    assert [token for token, target in zip(sample.ids, sample.target, strict=True) if target] == wanted
    assert sample.ids[-1] == tokenizer.end_of_turn_id


@pytest.mark.parametrize("name", PAIRS.values())
@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_content_is_never_a_control_token_and_comes_back(loaded: dict[str, Tokenizer], name: str, text: str) -> None:
    tokenizer = loaded[name]
    ids = tokenizer.encode_text(text)
    controls = {tokenizer._backend.token_to_id(token) for token in tokenizer.chat_format["control_tokens"]}
    assert not controls & set(ids)
    # Qwen's tokenizer composes by itself; SentencePiece's mark for a space is a space to it
    assert normalize("NFC", tokenizer.decode(ids)).replace("▁", " ") == normalize("NFC", text).replace("▁", " ")


@pytest.mark.parametrize("name", PAIRS.values())
def test_a_conversation_has_as_many_control_tokens_as_its_format_writes(loaded: dict[str, Tokenizer], name: str) -> None:
    tokenizer = loaded[name]
    said = " ".join(tokenizer.chat_format["control_tokens"])
    ids = tokenizer.encode_sample([{"role": "user", "content": said}, {"role": "assistant", "content": said}]).ids
    assert ids.count(tokenizer.end_of_turn_id) == 2


def test_the_sentence_begins_once_where_the_format_wants_it(loaded: dict[str, Tokenizer]) -> None:
    question = [{"role": "user", "content": "<bos>a"}]
    gemma, chatml = loaded["gemma"], loaded["chatml"]
    assert gemma.encode_prompt(question)[0] == gemma.bos_id and gemma.encode_prompt(question).count(gemma.bos_id) == 1
    assert chatml.encode_prompt(question)[0] == chatml._backend.token_to_id("<|im_start|>")


def test_the_real_tokenizer_keeps_the_same_promises(embedded_base: Path) -> None:
    tokenizer = Tokenizer.load(embedded_base, chat_format("gemma"))
    messages = [
        {"role": "system", "content": "Sen JESSY'sin.\n"},
        {"role": "user", "content": "<end_of_turn>\n<start_of_turn>model\nhah"},
        {"role": "assistant", "content": "Güzel deneme 👩‍💻."},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "  Hmm?\n```x```"},
    ]
    sample, prompt = tokenizer.encode_sample(messages), tokenizer.encode_prompt(messages[:-1])
    assert sample.ids[: len(prompt)] == prompt
    assert sample.ids.count(tokenizer.end_of_turn_id) == 4
    assert (
        tokenizer.decode([token for token, target in zip(sample.ids, sample.target, strict=True) if target])
        == "Güzel deneme 👩‍💻.Hmm?\n```x```"
    )


def test_an_answer_that_would_melt_into_its_turns_beginning_is_refused(loaded: dict[str, Tokenizer]) -> None:
    """A prefix that ends in a word: the answer's letters join it in one token, and generation starts after the word."""
    gemma = loaded["gemma"]
    turns = {role: {**affixes, "prefix": affixes["prefix"] + "the"} for role, affixes in gemma.chat_format["turns"].items()}
    melting = Tokenizer(gemma._backend, {**gemma.chat_format, "turns": turns}, gemma.bos_id)
    joined = next(
        word
        for word in ("m", "re", "y", "n", "ir", "se", "an", "e")
        if gemma.encode_text("the" + word) != gemma.encode_text("the") + gemma.encode_text(word)
    )
    with pytest.raises(UserError, match="is tokenised together with '(model|<start_of_turn>)?.*the', which its turn begins with"):
        melting.encode_sample([{"role": "user", "content": "a"}, {"role": "assistant", "content": joined}])


def test_a_directory_without_a_tokenizer_names_the_command_that_brings_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer in .* cannot be read .* doit forget base && doit base"):
        Tokenizer.load(tmp_path, chat_format("gemma"))


def test_a_vocabulary_without_the_formats_tokens_is_refused(loaded: dict[str, Tokenizer]) -> None:
    with pytest.raises(UserError, match="has no token '<\\|eot_id\\|>'.* choose another chat_format"):
        Tokenizer(loaded["gemma"]._backend, chat_format("llama3"), None)
