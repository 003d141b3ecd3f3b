"""`doit diff`: what changed in words, the line of the spec behind it, and the diff itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from generators import diff
from generators.chat_format import go_template
from generators.modelfile import persona_places, render_modelfile
from generators.specs import yaml_source

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "templates"
FORMAT = {
    "system": "first_user_turn",
    "system_separator": "\n\n",
    "begin_of_sequence": True,
    "end_of_turn": "<end>",
    "stop": ["<end>"],
    "turns": {"user": {"prefix": "<u>\n", "suffix": "<end>\n"}, "assistant": {"prefix": "<a>\n", "suffix": "<end>\n"}},
}
OTHERS = {
    "FROM": ("specs/recipes/r.yaml:5",),
    "TEMPLATE": ("specs/chat_formats/f.yaml:3", "specs/chat_formats/f.yaml:4"),
    "stops": ("specs/chat_formats/f.yaml:9",),
    "LICENSE": ("specs/models/m.yaml:7",),
}
PERSONA = """\
display_name: A
identity: I am A.
principles:
  - {name: one, text: First.}
style: [Short., Warm.]
brevity: Be brief.
parameters:
  temperature: 0.5
  top_k: 3
messages:
  - {user: hi, jessy: hey}
"""


def parts(text: str = PERSONA, **chat_format: Any) -> tuple[str, diff.Origin]:
    """A rendered Modelfile and where its values stand."""
    document = yaml_source.parse(text, "specs/personas/a.yaml")
    persona = {"opinion_markers": {}, "template": "persona/system.j2", "description": "d", **document.value}
    form = {**FORMAT, **chat_format}
    rendered = render_modelfile(persona, form, {"name": "L", "url": "u"}, "m.gguf", go_template(form), TEMPLATES)
    return rendered, diff.Origin(persona, persona_places("a", {"a": document}), OTHERS)


def compared(text: str, **chat_format: Any) -> diff.Comparison:
    """The persona after an edit against the one before it."""
    before, (after, origin) = parts()[0], parts(text, **chat_format)
    return diff.compare("r", "a", "HEAD:a", before, after, origin)


def told(found: diff.Comparison) -> list[tuple[str, Any, Any, tuple[str, ...]]]:
    return [(change.what, change.before, change.after, change.where) for change in found.changes]


def test_the_same_specs_make_no_difference() -> None:
    found = compared(PERSONA)
    assert not found.differs and found.changes == [] and found.unified() == []
    assert [line for line, _ in diff.describe(found)] == ["r/a: as HEAD:a"]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("temperature: 0.5", "temperature: 0.75", ("PARAMETER temperature", 0.5, 0.75, ("specs/personas/a.yaml:8",))),
        ("  top_k: 3\n", "", ("PARAMETER top_k", 3, None, ("specs/personas/a.yaml",))),
        ("  top_k: 3\n", "  top_k: 3\n  seed: 1\n", ("PARAMETER seed", None, 1, ("specs/personas/a.yaml:10",))),
        ("I am A.", "I am B.", ("SYSTEM, paragraph 1", "I am A.", "I am B.", ("specs/personas/a.yaml:2",))),
        (
            "[Short., Warm.]",
            "[Short., Loud., Warm.]",
            ("SYSTEM, paragraph 3", "Short. Warm.", "Short. Loud. Warm.", ("specs/personas/a.yaml:5",)),
        ),
        ("jessy: hey", "jessy: yo", ("MESSAGE", "user: hi\nassistant: hey", "user: hi\nassistant: yo", ("specs/personas/a.yaml:11",))),
    ],
)
def test_a_change_is_told_with_its_line(old: str, new: str, change: tuple[Any, ...]) -> None:
    found = compared(PERSONA.replace(old, new))
    assert found.differs and told(found) == [change]


def test_a_rule_that_went_is_told_with_the_file_and_the_template() -> None:
    (change,) = told(compared(PERSONA.replace("[Short., Warm.]", "[Short.]")))
    assert change == ("SYSTEM, paragraph 3", "Short. Warm.", "Short.", ("specs/personas/a.yaml", "templates/persona/system.j2"))


def test_what_only_another_persona_says_is_told_with_its_line() -> None:
    more = PERSONA.replace("[Short., Warm.]", "[Short.]\n").replace("Be brief.", "Be brief.\n# one\n# two")
    more = more.replace("{name: one, text: First.}", "{name: one, text: First.}\n  - {name: two, text: Second.}")
    more += "  - {user: who, jessy: me}\n"
    (before, other), (after, origin) = parts(more.replace("top_k: 3", "top_k: 3\n  seed: 1")), parts()
    changes = {change.what: change for change in diff.compare("r", "a", "r/b", before, after, origin, other).changes}
    assert changes["SYSTEM, paragraph 2"].where == ("specs/personas/a.yaml:5",)
    assert changes["PARAMETER seed"].where == ("specs/personas/a.yaml:14",)
    assert changes["MESSAGE"].where == ("specs/personas/a.yaml:17",)


def test_stops_and_template_are_told_with_the_chat_format() -> None:
    changes = {change.what: change for change in compared(PERSONA, stop=["<end>", "<u>"], system_separator="\n").changes}
    assert set(changes) == {"TEMPLATE", "stops"}
    assert changes["stops"].after == ["<end>", "<u>"] and changes["stops"].where == OTHERS["stops"]
    assert changes["TEMPLATE"].where == OTHERS["TEMPLATE"]


def test_what_is_no_personas_has_its_lines_as_well() -> None:
    from generators.paths import Paths
    from generators.specs.project import load
    from generators.stages import modelfiles

    others = modelfiles.origin_of(load(ROOT, keep=False), Paths(ROOT), "jessy-mini", "casual").others
    assert set(others) == set(OTHERS)
    for what, field in {"FROM": "quantisations:", "TEMPLATE": "system:", "stops": "stop:", "LICENSE": "licence:"}.items():
        file, line = others[what][0].split(":")
        assert (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip().startswith(field), others


def test_the_description_has_words_first_and_the_diff_below() -> None:
    lines = [line for line, _ in diff.describe(compared(PERSONA.replace("0.5", "0.75").replace("Warm.", "Warm. Loud.")))]
    assert lines[:5] == [
        "r/a: against HEAD:a",
        "  SYSTEM, paragraph 3: changed  (specs/personas/a.yaml:5)",
        "    + Loud.",
        "  PARAMETER temperature: 0.5 -> 0.75  (specs/personas/a.yaml:8)",
        "",
    ]
    assert lines[5:7] == ["--- HEAD:a", "+++ r/a.Modelfile (from the specs)"]
    assert "-PARAMETER temperature 0.5" in lines and "+PARAMETER temperature 0.75" in lines


def test_added_lines_are_green_and_removed_ones_red() -> None:
    styles = dict(diff.describe(compared(PERSONA.replace("0.5", "0.75"))))
    assert (styles["+PARAMETER temperature 0.75"], styles["-PARAMETER temperature 0.5"]) == ("green", "red")


def test_a_persona_that_was_never_there_is_new() -> None:
    after, origin = parts()
    found = diff.compare("r", "a", "nothing", None, after, origin)
    assert found.differs and next(iter(diff.describe(found)))[0] == "r/a: new; there is nothing to compare it with"
    (shown,) = diff.as_json([found])
    assert shown["new"] is True and shown["differs"] is True and "+SYSTEM" in shown["diff"]


def test_an_old_file_that_cannot_be_read_is_compared_as_text() -> None:
    after, origin = parts()
    found = diff.compare("r", "a", "HEAD:a", "FROM x\nADAPTER y\n", after, origin)
    assert [change.what for change in found.changes] == ["HEAD:a cannot be read"]
    assert found.unified()


def test_json_holds_every_change() -> None:
    (shown,) = diff.as_json([compared(PERSONA.replace("0.5", "0.75"))])
    assert shown["changes"] == [{"what": "PARAMETER temperature", "before": 0.5, "after": 0.75, "where": ["specs/personas/a.yaml:8"]}]
    assert (shown["recipe"], shown["persona"], shown["against"], shown["differs"], shown["new"]) == ("r", "a", "HEAD:a", True, False)


def test_the_newest_deployment_is_taken(tmp_path: Path) -> None:
    assert diff.last_deployed(tmp_path, "jessy") is None
    for number in ("0001", "0002"):
        (tmp_path / "jessy" / number).mkdir(parents=True)
        (tmp_path / "jessy" / number / "Modelfile").write_text(f"FROM {number}\n")
    assert diff.last_deployed(tmp_path, "jessy") == ((tmp_path / "jessy" / "0002" / "Modelfile").as_posix(), "FROM 0002\n")


def test_without_a_deployment_the_committed_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "build" / "a.Modelfile"
    assert diff.committed(tmp_path, path) is None
    path.parent.mkdir()
    path.write_text("FROM one\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    path.write_text("FROM two\n")
    assert diff.committed(tmp_path, path) == ("HEAD:build/a.Modelfile", "FROM one\n")
    assert diff.committed(tmp_path, tmp_path / "build" / "b.Modelfile") is None


def test_in_a_pipe_it_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    diff.show([compared(PERSONA.replace("0.5", "0.75"))])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "  PARAMETER temperature: 0.5 -> 0.75  (specs/personas/a.yaml:8)\n" in shown
