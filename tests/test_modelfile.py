"""Modelfiles: what is written comes back the same through Ollama's rules, and what cannot is an error at its line of the specs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_files import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from generators import modelfile
from generators.chat_format import go_template
from generators.errors import SpecErrors, UserError
from generators.modelfile import NotWritable, persona_places, problems, problems_of_persona, quoted, render_modelfile, system_prompt
from generators.modelfile_reader import Refused, is_printable, read, read_file
from generators.specs import yaml_source
from generators.specs.project import Project, load

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "templates"
LICENCE = {"name": "A licence", "url": "somewhere"}
FORMAT = {
    "system": "first_user_turn",
    "system_separator": "\n\n",
    "begin_of_sequence": True,
    "end_of_turn": "<end>",
    "stop": ["<end>", "\n<x>"],
    "turns": {"user": {"prefix": "<u>\n", "suffix": "<end>\n"}, "assistant": {"prefix": "<a>\n", "suffix": "<end>\n"}},
    "control_tokens": ["<end>"],
}
BASE = """\
display_name: A
description: d
identity: I am A.
principles:
  - {name: one, text: First.}
  - {name: two, text: Second.}
style: [Short., Warm.]
brevity: Be brief.
parameters:
  temperature: 0.5
  top_k: 3
messages:
  - {user: hi, jessy: hey}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """This project's specs, read without its build folder."""
    root = tmp_path_factory.mktemp("project")
    for name in ("specs", "templates"):
        (root / name).symlink_to(ROOT / name)
    return load(root)


def persona(**over: Any) -> dict[str, Any]:
    document = yaml_source.parse(BASE, "specs/personas/a.yaml")
    return {"opinion_markers": {}, "template": "persona/system.j2", **document.value, **over}


def rendered(spec: dict[str, Any]) -> str:
    return render_modelfile(spec, FORMAT, LICENCE, "../m.gguf", go_template(FORMAT), TEMPLATES)


# Reading


def test_instructions_are_read_in_any_case_and_the_last_of_a_kind_counts() -> None:
    file = read('from x\nSystem one\nSYSTEM "two"\nparameter top_k 4\nPARAMETER stop a\nPARAMETER stop "b c"\nlicense L\n# no\nLICENSE M\n')
    assert (file.source, file.system, file.parameters, file.stops, file.licences) == ("x", "two", {"top_k": 4}, ["a", "b c"], ["L", "M"])


def test_a_quoted_value_ends_at_the_first_line_break_after_the_same_quotes() -> None:
    file = read('FROM x\nSYSTEM """a "b"\n"c" """\nMESSAGE user "say "hi" now"\n')
    assert file.system == 'a "b"\n"c" '
    assert file.messages == [{"role": "user", "content": 'say "hi" now'}]


def test_characters_that_are_not_printable_are_dropped_inside_a_line_and_line_breaks_kept() -> None:
    assert read('FROM x\nSYSTEM """a\u200db\u00a0c\td\r\ne\x00"""').system == "abc\td\r\ne"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SYSTEM a\n", "it has no FROM"),
        ("FROM x\nSYSTEMS a\n", "line 2: no instruction 'SYSTEMS'; there are from, .*; did you mean 'system'"),
        ("FROM x\nMESSAGE me hello\n", "line 2: a MESSAGE is of system, user, assistant, not 'me'"),
        ('FROM x\nSYSTEM "a\nb\n', "the quotes of SYSTEM are never closed"),
        ("FROM x\nPARAMETER\n", "line 3: '\\\\n' inside the word"),
        ("FROM x\nPARAMETER temprature 1\n", "line 2: unknown PARAMETER 'temprature'; there are .*; did you mean 'temperature'"),
        ("FROM x\nPARAMETER top_k 1.5\n", "line 2: PARAMETER top_k is '1.5', and a whole number of 64 bits is expected"),
        ("FROM x\nPARAMETER seed 9223372036854775808\n", "a whole number of 64 bits"),
        ("FROM x\nPARAMETER top_p inf\n", "line 2: PARAMETER top_p is 'inf', and a number is expected"),
        ("FROM x\nPARAMETER use_mmap yes\n", "true or false is expected"),
        ("FROM x\nADAPTER y\n", "line 2: Ollama takes no ADAPTER any more"),
        ("FROM", "the file ends in the middle of an instruction"),
    ],
)
def test_what_ollama_refuses_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        read(text)


def test_parameters_have_the_types_that_ollama_gives_them() -> None:
    file = read("FROM x\nPARAMETER use_mmap TRUE\nPARAMETER temperature 1e-1\nPARAMETER num_ctx 4096\nPARAMETER mirostat 1\n")
    assert file.parameters == {"use_mmap": True, "temperature": 0.1, "num_ctx": 4096}


def test_a_file_that_is_not_there_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run: doit modelfile"):
        read_file(tmp_path / "none.Modelfile")


@pytest.mark.parametrize(
    ("character", "kept"), [("ğ", True), ("❤", True), ("\ufe0f", True), ("🩷", True), ("🫩", False), ("\u200d", False), ("\u3000", False)]
)
def test_printable_is_what_go_calls_so(character: str, kept: bool) -> None:
    assert is_printable(character) is kept


# Writing


@given(st.text(alphabet=st.one_of(st.sampled_from('"\n\r\t #ğ🩷'), st.characters(codec="utf-8")), max_size=40))
@settings(max_examples=400, deadline=None)
def test_a_quoted_value_comes_back_or_is_refused(text: str) -> None:
    try:
        value = quoted(text)
    except NotWritable:
        assert modelfile.dropped_characters(text) or '"""' in text
        return
    file = read(f"FROM x\nSYSTEM {value}\nPARAMETER stop {value}\nMESSAGE user {value}\nLICENSE {value}")
    assert (file.system, file.stops, file.messages, file.licences) == (text, [text], [{"role": "user", "content": text}], [text])


WORDS = st.text(
    alphabet=st.one_of(st.sampled_from("\"\n'`{}%# \t"), st.characters(codec="utf-8", exclude_categories=("C", "Z"))),
    min_size=1,
    max_size=30,
)


@given(
    identity=WORDS,
    style=st.lists(WORDS, max_size=3),
    user=WORDS,
    jessy=WORDS,
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 2**62),
    use_mmap=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_whole_modelfile_comes_back_with_the_same_values(
    identity: str, style: list[str], user: str, jessy: str, temperature: float, top_k: int, use_mmap: bool
) -> None:
    parameters = {"temperature": temperature, "top_k": top_k, "use_mmap": use_mmap}
    spec = persona(identity=identity, style=style, parameters=parameters, messages=[{"user": user, "jessy": jessy}])
    found = list(problems_of_persona(spec, {}, TEMPLATES))
    if found:
        with pytest.raises(NotWritable):
            rendered(spec)
        return
    file = read(rendered(spec))
    assert file.system == system_prompt(spec, TEMPLATES)
    assert file.parameters == parameters
    assert file.messages == [{"role": "user", "content": user}, {"role": "assistant", "content": jessy}]
    assert (file.source, file.template, file.stops) == ("../m.gguf", go_template(FORMAT), FORMAT["stop"])
    assert file.licences == ["A licence\nsomewhere"]


def test_a_text_that_no_quotes_can_hold_says_which_line_and_why() -> None:
    with pytest.raises(NotWritable, match='a line ends in """, which ends the value early'):
        quoted('Say """\nand go on')


def test_a_text_that_begins_and_ends_with_quotes_can_be_written() -> None:
    assert read(f"FROM x\nSYSTEM {quoted(chr(34) + 'a' + chr(34))}").system == '"a"'


def test_a_template_of_ones_own_that_ollama_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "persona").mkdir()
    (tmp_path / "persona" / "system.j2").write_text("{{ persona.identity }}")
    (tmp_path / "Modelfile.j2").write_text("FROM {{ gguf }}\nPARAMETER warmth 1\n")
    with pytest.raises(UserError, match="templates/Modelfile.j2 gives a file that Ollama refuses: line 2: unknown PARAMETER 'warmth'"):
        render_modelfile(persona(), FORMAT, LICENCE, "m.gguf", go_template(FORMAT), tmp_path)


@pytest.mark.parametrize("name", ["jessy", "casual", "professional", "technical"])
def test_the_shipped_personas_render_as_they_were_read(project: Project, name: str) -> None:
    chat_format, licence = project.chat_formats["gemma"], project.models["gemma-3-270m"]["licence"]
    text = render_modelfile(project.personas[name], chat_format, licence, "jessy-mini-Q8_0.gguf", go_template(chat_format), TEMPLATES)
    assert text == golden(f"modelfiles/{name}.Modelfile", text)


def test_the_shipped_specs_can_all_be_written(project: Project) -> None:
    assert list(problems(TEMPLATES, project, documents(ROOT))) == []


def documents(root: Path) -> dict[tuple[str, str], Any]:
    from generators.specs.project import _spec_files

    return {
        (kind, path.stem): yaml_source.read(path, path.relative_to(root).as_posix())
        for kind, path in _spec_files(root)
        if kind != "category"
    }


def test_modelfiles_in_the_build_folder_are_what_the_specs_give(project: Project) -> None:
    """build/modelfiles/ is tracked: a change of the specs without `doit modelfile` would be committed stale."""
    import os

    checked = 0
    for name, recipe in project.recipes.items():
        chat_format = project.chat_formats[project.models[recipe["base"]]["chat_format"]]
        for wanted in recipe["personas"]:
            path = ROOT / "build" / "modelfiles" / name / f"{wanted}.Modelfile"
            if path.is_file():
                gguf = os.path.relpath(
                    ROOT / "build" / "recipes" / name / f"{name}-{recipe['export']['quantisations'][0]}.gguf", path.parent
                )
                licence = project.models[recipe["base"]]["licence"]
                text = render_modelfile(project.personas[wanted], chat_format, licence, gguf, go_template(chat_format), TEMPLATES)
                assert path.read_text(encoding="utf-8") == text, f"{path} is stale; run: doit modelfile:{name}"
                checked += 1
    if not checked:
        pytest.skip("no Modelfile was built here")


# Problems and their places


def told(text: str, child: str | None = None, templates: Path = TEMPLATES) -> list[str]:
    """The problems of a persona file, or of one that extends it."""
    from generators.specs.personas import resolve

    project, read_documents = Project(), {("persona", "a"): yaml_source.parse(text, "specs/personas/a.yaml")}
    if child:
        read_documents["persona", "b"] = yaml_source.parse(child, "specs/personas/b.yaml")
    for (_, name), document in read_documents.items():
        project.personas[name] = document.value
    if "extends" not in text:
        project.personas["a"] = {"opinion_markers": {}, "messages": [], "template": "persona/system.j2", **project.personas["a"]}
    assert resolve(project, read_documents) == []
    name = "b" if child else "a"
    places = persona_places(name, {name: document for (_, name), document in read_documents.items()})
    return [str(problem) for problem in problems_of_persona(project.personas[name], places, templates)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "I am A.",
            "I am 👩‍💻.",
            "specs/personas/a.yaml:3:11: identity: Ollama's Modelfile parser drops U+200D (ZERO WIDTH JOINER) without a word",
        ),
        ("Warm.", "Wa\u00a0rm.", "specs/personas/a.yaml:7:17: style[1]: Ollama's Modelfile parser drops U+00A0 (NO-BREAK SPACE)"),
        ("Second.", '"Say \\"\\"\\""', 'specs/personas/a.yaml:6:23: principles[1].text: a line ends in """, which ends the value early'),
        ("jessy: hey", 'jessy: "a \\"\\"\\"\\nb"', 'specs/personas/a.yaml:13:23: messages[0].jessy: a line ends in """'),
        ("user: hi", "user: h\u200bi", "specs/personas/a.yaml:13:12: messages[0].user: Ollama's Modelfile parser drops U+200B"),
        ("top_k: 3", "top_k: 99999999999999999999", "specs/personas/a.yaml:11:10: parameters.top_k: 99999999999999999999 does not fit"),
    ],
)
def test_what_cannot_be_written_is_told_at_its_line(old: str, new: str, message: str) -> None:
    found = told(BASE.replace(old, new))
    assert len(found) == 1 and found[0].startswith(message), found


def test_what_a_persona_takes_over_is_told_where_it_is_declared() -> None:
    child = "extends: a\nappend:\n  style:\n    - Loud.\n    - Ve\u200dry.\nremove:\n  principles: [one]\n"
    found = told(BASE.replace("Second.", "Sec\u200dond."), child)
    assert [line.split(": Ollama")[0] for line in found] == [
        "specs/personas/a.yaml:6:23: principles[0].text",
        "specs/personas/b.yaml:5:7: style[3]",
    ]


def test_a_field_that_the_system_prompt_does_not_hold_may_hold_anything() -> None:
    assert told(BASE.replace("description: d", "description: d 👩‍💻")) == []


def test_a_template_that_brings_the_character_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "persona").mkdir()
    (tmp_path / "persona" / "system.j2").write_text("{{ persona.identity }}\n\u200dx\n")
    assert told(BASE, templates=tmp_path)[0].startswith("templates/persona/system.j2:2:1: Ollama's Modelfile parser drops U+200D")


def test_an_undefined_name_in_the_template_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "persona").mkdir()
    (tmp_path / "persona" / "system.j2").write_text("{{ persona.identity }}\n\n{{ persona.moood }}\n")
    assert told(BASE, templates=tmp_path) == ["templates/persona/system.j2:3:1: 'dict object' has no attribute 'moood'"]
    with pytest.raises(SpecErrors, match="system.j2:3:1"):
        system_prompt(persona(), tmp_path)


def test_stops_and_licences_are_told_at_their_lines(project: Project) -> None:
    read_documents = documents(ROOT)
    chat_format, model = project.chat_formats["gemma"], project.models["gemma-2b"]
    spoilt = Project(
        chat_formats={"gemma": {**chat_format, "stop": [*chat_format["stop"][:1], "\u200b"]}},
        models={"gemma-2b": {**model, "licence": {**model["licence"], "name": "x\u2028"}}},
    )
    found = list(_places(problems(TEMPLATES, spoilt, read_documents)))
    assert found == [("specs/chat_formats/gemma.yaml", "stop[1]"), ("specs/models/gemma-2b.yaml", "licence.name")]


def _places(found: Any) -> Iterator[tuple[str, str]]:
    for problem in found:
        assert problem.line > 1 and problem.column > 1
        yield problem.file, problem.message.split(":")[0]
