"""One definition, four renderings: fragments, text, the Jinja template as transformers runs it, the Go TEMPLATE as Ollama runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from ruamel.yaml import YAML

from generators.chat_format import fragments, go_template, jinja_template, render
from generators.parity import go_renderer, shapes

SPECS = Path(__file__).parents[1] / "specs" / "chat_formats"
FORMATS = ("chatml", "gemma", "llama3")
Message = dict[str, str]


def chat_format(name: str) -> dict[str, Any]:
    return {"system_separator": "\n\n", **YAML(typ="safe").load(SPECS / f"{name}.yaml")}


def transformers_renders(name: str, messages: list[Message], bos: str = "", generate: bool = True) -> str:
    """As `apply_chat_template` does: the same environment, the same globals."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    template = environment.from_string(jinja_template(chat_format(name)))
    return template.render(messages=messages, bos_token=bos, add_generation_prompt=generate)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


@pytest.mark.parametrize("name", FORMATS)
def test_every_shape_is_written_as_it_was_read(name: str) -> None:
    text = "".join(f"== {said.name}\n{render(chat_format(name), said.messages)}\n" for said in shapes(chat_format(name)))
    assert text == golden(f"chat_formats/{name}.txt", text)


@pytest.mark.parametrize("name", FORMATS)
def test_the_templates_are_written_as_they_were_read(name: str) -> None:
    text = f"{jinja_template(chat_format(name))}\n\n{go_template(chat_format(name))}\n"
    assert text == golden(f"chat_formats/{name}.templates", text)


TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("\n\"'`\\{}%<> "), st.characters(codec="utf-8", exclude_categories=("C",))), max_size=20
).map(str.strip)
CONTENTS = st.one_of(
    TEXTS, st.sampled_from(["<start_of_turn>user\n", "<|im_end|>", "{{ .System }}", "{% raise %}", "👩‍💻", "def f():\n    return 1"])
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    turns = draw(st.lists(st.tuples(CONTENTS, CONTENTS), max_size=2))
    said = [message for asked, answered in turns for message in (user(asked), assistant(answered))]
    whole = [system(content) for content in draw(st.lists(CONTENTS, max_size=1))] + said + [user(draw(CONTENTS))]
    return [{**message, "content": message["content"].strip()} for message in whole]


@pytest.mark.parametrize("name", FORMATS)
@given(messages=conversations())
@settings(max_examples=60, deadline=None)
def test_jinja_and_go_write_what_render_writes(name: str, messages: list[Message]) -> None:
    wanted = render(chat_format(name), messages)
    assert transformers_renders(name, messages) == wanted
    assert go_renderer(go_template(chat_format(name)))(messages) == wanted


@pytest.mark.parametrize("name", FORMATS)
def test_jinja_writes_the_bos_that_the_format_wants_and_go_and_render_write_none(name: str) -> None:
    bos = "<B>" if chat_format(name)["begin_of_sequence"] else ""
    assert transformers_renders(name, [user("a")], bos="<B>") == bos + render(chat_format(name), [user("a")])


@pytest.mark.parametrize("name", FORMATS)
def test_a_finished_conversation_is_closed_when_nothing_is_to_be_generated(name: str) -> None:
    messages = [user("a"), assistant("b")]
    wanted = render(chat_format(name), messages, add_generation_prompt=False)
    assert wanted.endswith("b" + chat_format(name)["turns"]["assistant"]["suffix"])
    assert transformers_renders(name, messages, generate=False) == wanted


@pytest.mark.parametrize("name", FORMATS)
def test_white_space_around_content_is_taken_away(name: str) -> None:
    loose = [system(" s\n"), user("\n a "), assistant(" b\t"), user("c ")]
    tight = [system("s"), user("a"), assistant("b"), user("c")]
    assert render(chat_format(name), loose) == render(chat_format(name), tight) == transformers_renders(name, loose)


@pytest.mark.parametrize("name", FORMATS)
def test_go_leaves_an_answer_open_that_the_conversation_ends_with(name: str) -> None:
    opened = render(chat_format(name), [user("a")]) + "Sor"
    assert go_renderer(go_template(chat_format(name)))([user("a"), assistant("Sor")]) == opened


def test_go_joins_messages_of_one_role_as_ollama_does() -> None:
    run = go_renderer(go_template(chat_format("chatml")))
    assert run([user("a"), user("b")]) == render(chat_format("chatml"), [user("a\n\nb")])


@pytest.mark.parametrize("name", FORMATS)
def test_a_system_message_after_examples_still_opens_the_conversation(name: str) -> None:
    """Ollama puts a Modelfile's MESSAGEs before the client's messages, its system message among them."""
    run = go_renderer(go_template(chat_format(name)))
    examples = [user("e"), assistant("f")]
    assert run([*examples, system("s"), user("a")]) == render(chat_format(name), [system("s"), *examples, user("a")])


@pytest.mark.parametrize(
    "messages",
    [
        [assistant("a")],
        [user("a"), user("b")],
        [system("s"), assistant("a")],
        [user("a"), system("s")],
        [user("a"), {"role": "tool", "content": "b"}],
    ],
)
def test_roles_out_of_turn_are_refused(messages: list[Message]) -> None:
    with pytest.raises(ValueError, match="is expected"):
        render(chat_format("gemma"), messages)
    with pytest.raises(jinja2.TemplateError, match="take turns"):
        transformers_renders("gemma", messages)


def test_no_messages_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one message"):
        render(chat_format("gemma"), [])


@pytest.mark.parametrize("name", FORMATS)
def test_targets_are_the_answers_and_their_end_of_turn(name: str) -> None:
    end = chat_format(name)["end_of_turn"]
    pieces = list(
        fragments(chat_format(name), [system("s"), user("a"), assistant("b"), user("c"), assistant("d")], add_generation_prompt=False)
    )
    assert "".join(piece.text for piece in pieces if piece.target) == f"b{end}d{end}"
    assert [piece.text for piece in pieces if not piece.control and not piece.target][-1] == "c"


def test_affixes_with_every_odd_character_are_spelled_alike_by_both_template_languages() -> None:
    odd = "'\"\\{{%}}\t\r\n\u200b\u00a0🙂\U000e0001"
    spec = chat_format("gemma")
    spec = {
        **spec,
        "system_separator": odd,
        "turns": {role: {"prefix": f"<{role}>{odd}", "suffix": f"<end_of_turn>{odd}"} for role in ("user", "assistant")},
    }
    messages = [system("s"), user("a"), assistant("b"), user("c")]
    wanted = render(spec, messages)
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(jinja_template(spec))
    assert template.render(messages=messages, bos_token="", add_generation_prompt=True) == wanted
    assert go_renderer(go_template(spec))(messages) == wanted
