"""The documents say what is so: every message has its entry, every page is what its template and figures give, commands and links are real."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from messages_in_source import PASSED_ON, level, messages, messages_of
from tiny_project import ROOT, doit

from generators import docs
from generators.docs import catalogue, figures, source, terminal
from generators.errors import UserError

PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FROM_TEMPLATES = sorted((ROOT / "templates" / "docs").glob("*.md.j2"))
# Numbers with a unit that a template holds: facts of machines and programs, none of them measured here.
KNOWN = {
    "guide.md.j2": {"15 minutes"},  # what its title promises, and its figures show
    "mac.md.j2": {"8 GB"},
    "several-machines.md.j2": {"10 Gbit"},
    "evaluation.md.j2": {"95 %"},
    "training.md.j2": {"95 %"},
}


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


# --- messages -----------------------------------------------------------------------------------------------------------------------


@cache
def entries() -> dict[str, list[str]]:
    """Every message of the catalogue, levelled, to the titles of its entries."""
    found: dict[str, list[str]] = {}
    for entry in catalogue.entries():
        for message in (*entry.messages, *entry.parts):
            found.setdefault(level(message), []).append(entry.title)
    return found


@cache
def places() -> dict[str, list[str]]:
    """Every message of the program, levelled, to where it is said."""
    found: dict[str, list[str]] = {}
    for message in messages():
        found.setdefault(level(message.text), []).append(f"generators/{message.place}")
    return found


@pytest.mark.parametrize("text", sorted(places()))
def test_a_message_of_the_program_has_an_entry(text: str) -> None:
    remedy = "add it to the entry that has its cause, or a new one with cause and remedy, then run: doit docs"
    assert text in entries(), f"{', '.join(places()[text])}: no entry of generators/docs/errors.yaml has the message {text!r}; {remedy}"


def test_an_entry_has_messages_that_the_program_still_has() -> None:
    stale = [f"{message!r} ({', '.join(titles)})" for message, titles in entries().items() if message not in places()]
    assert not stale, f"nothing says any more, take out of generators/docs/errors.yaml: {'; '.join(stale)}"


def test_a_message_stands_in_one_entry() -> None:
    assert {message: titles for message, titles in entries().items() if len(titles) > 1} == {}


def test_an_entry_tells_cause_and_remedy_and_has_a_title_of_its_own() -> None:
    found = list(catalogue.entries())
    assert len({entry.anchor for entry in found}) == len(found)
    for entry in found:
        assert entry.messages and entry.cause.endswith(".") and entry.remedy.rstrip('`"').endswith((".", ")")), entry.title


@pytest.mark.parametrize(
    "source, told",
    [
        ('raise UserError(f"no {what} here")', ["no {} here"]),
        ('message = f"{a} is old" if a else "there is none"\n    raise UserError(message)', ["there is none", "{} is old"]),
        ('raise UserError(_said(a))\n\n\ndef _said(a):\n    return f"it said {a}"', ["it said {}"]),
        ('_refuse(f"{a} will not do")\n\n\ndef _refuse(text):\n    raise UserError(text)', ["{} will not do"]),
        ('yield document.wrong(("a",), "is wrong" + str(a))', ["is wrong{}"]),
        ("raise UserError(str(a)) from a", []),
        ('say(f"WARNING: {a} is hot")', ["WARNING: {} is hot"]),
    ],
)
def test_messages_are_found_by_whatever_way_they_reach_the_person(source: str, told: list[str]) -> None:
    text = f"def act(a, what, document, say):\n    {source}\n"
    assert sorted(message.text for message in messages_of({"made_up.py": text})) == told


def test_an_exception_of_the_program_carries_a_message_wherever_it_stands_among_its_arguments() -> None:
    text = "class Bad(Exception):\n    def __init__(self, line, text):\n        super().__init__(text)\n\n\ndef f():\n    raise Bad(3, 'is bad')\n"
    assert [message.text for message in messages_of({"made_up.py": text})] == ["is bad"]
    assert PASSED_ON not in [message.text for message in messages()]


# --- pages --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    from generators.specs.project import load

    return {path.as_posix(): text for path, text in docs.rendered(ROOT, load(ROOT, keep=False, captured=False)).items()}


@pytest.mark.parametrize("page", [f"docs/{page}.md" for page in docs.PAGES] + [docs.CURVE.as_posix()])
def test_a_page_is_what_template_specs_and_figures_give(page: str, rendered: dict[str, str]) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == rendered[page], "run: doit docs"


@pytest.mark.parametrize("page", docs.PAGES)
def test_a_page_with_figures_says_where_each_comes_from(page: str, rendered: dict[str, str]) -> None:
    text = rendered[f"docs/{page}.md"]
    kept = json.loads((ROOT / figures.FILE).read_text(encoding="utf-8"))["sources"]
    shown = [name for name, source in kept.items() if f"| {name} | `{source['file']}` | `{source['command']}` |" in text]
    template = (ROOT / "templates" / "docs" / f"{page}.md.j2").read_text(encoding="utf-8")
    asked = set(re.findall(r"(?:figures|machine_of)\(\"(\w+)\"\)", template))
    asked |= {"terminal"} if re.search(r"{[{%][^}]*terminal\.", template) else set()
    assert {name for name in asked if name in kept} <= set(shown)
    for name in shown:
        assert kept[name]["machine"].split(",")[0] in text


def test_a_source_in_the_snapshot_names_file_command_and_machine() -> None:
    kept = json.loads((ROOT / figures.FILE).read_text(encoding="utf-8"))
    assert kept["recipe"] and {"training", "scores", "terminal"} <= set(kept["sources"])
    for name, known in kept["sources"].items():
        assert known["file"] and known["command"] and known["machine"] and known["figures"], name


@pytest.mark.parametrize("template", FROM_TEMPLATES, ids=lambda path: path.name)
def test_no_measured_figure_is_typed_into_a_template(template: Path) -> None:
    """Numbers with a unit come out of expressions. Code that is shown as an example is no measurement."""
    text = re.sub(r"```(?!text).*?```|\{\{.*?\}\}|\{%.*?%\}|`[^`\n]*`", " ", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\d+(?:[.,]\d+)? ?(?:ms\b|s\b|min\b|minutes|seconds|[kMG]B\b|GFLOP|TFLOP|Gbit|%|tokens)", text)
    assert set(found) <= KNOWN.get(template.name, set())


# --- links and commands -------------------------------------------------------------------------------------------------------------


def prose(page: Path) -> str:
    """Without code blocks, whose brackets are no links."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    return {catalogue.anchor(re.sub(r"`", "", title)) for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", names(PAGES))
def test_a_link_leads_to_a_file_and_a_heading_of_the_project(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        file, _, place = target.partition("#")
        if target.startswith("http"):
            continue
        leads_to = (path.parent / file).resolve() if file else path
        assert leads_to.exists(), target
        if place and leads_to.suffix == ".md":
            assert place in anchors(leads_to), target
        elif place:
            assert int(place.removeprefix("L")) <= len(leads_to.read_text(encoding="utf-8").splitlines()), target


OF_DOIT = {"list", "forget", "help", "info", "clean"}
OPTIONS = source.options(ROOT / "dodo.py")
RECIPES = {path.stem for path in (ROOT / "specs").glob("recipes/*.yaml")}
MODELS = {path.stem for path in (ROOT / "specs").glob("models/*.yaml")}


@pytest.mark.parametrize("page", names(PAGES))
def test_a_command_that_a_page_names_is_one_that_doit_has(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    typed = re.findall(r"`(doit(?: [^`\n]+)?)`", text)
    typed += [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for line in typed:
        for command in re.split(r"&&|\|\||;", line) if re.search(r"\bdoit\b", line) else ():
            words = shlex.split(command, comments=True)
            if "doit" in words[:3] and words[0] not in ("pip", "git", "ollama"):
                assert not list(wrong(words[words.index("doit") + 1 :])), (line, list(wrong(words[words.index("doit") + 1 :])))


def wrong(words: list[str]) -> Iterator[str]:
    """What of a command is no task, no recipe or base, and no option. Words in capitals stand for whatever the reader puts there."""
    known: set[str] = {"--all"} if words[:1] == ["list"] else set()
    value = False
    for word in words[1:] if words and words[0] in OF_DOIT else words:
        name, _, rest = word.partition(":")
        if value:
            value = False
        elif word.startswith("--"):
            if word.partition("=")[0] not in known:
                yield word
            value = "=" not in word
        elif name in OPTIONS:
            known = OPTIONS[name]
            if rest and not rest.isupper() and rest.partition("/")[0] not in RECIPES | MODELS | {"nova", "category"}:
                yield word
        elif not word.isupper():
            yield word


@pytest.mark.parametrize(
    "command, found",
    [
        ("doit train:jessy-mini", []),
        ("doit trian", ["trian"]),
        ("doit train:jessy-maxi", ["train:jessy-maxi"]),
        ("doit serve --prot 3", ["--prot"]),
        ("doit forget base && doit base", []),
        ("doit new-persona --name=nova", []),
    ],
)
def test_a_command_that_doit_does_not_have_is_found(command: str, found: list[str]) -> None:
    assert [word for part in command.split(" && ") for word in wrong(part.split()[1:])] == found


def test_every_task_is_in_the_documents() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in OPTIONS:
        assert name.startswith("_") or f"| `{name}` |" in page, name


# --- the guide ----------------------------------------------------------------------------------------------------------------------


def test_what_the_guide_edits_is_in_the_new_project() -> None:
    skeleton = ROOT / "templates" / "new_persona"
    texts: dict[str, str] = {}
    for step in terminal.STEPS:
        if step.edit:
            file, old, new = step.edit
            path = skeleton / file.replace(f"/{terminal.NAME}.yaml", "/NAME.yaml")
            text = texts.get(file) or path.read_text(encoding="utf-8")
            assert old in text, step.name
            texts[file] = text.replace(old, new, 1)


def test_the_guide_shows_the_steps_as_they_are_typed_now() -> None:
    kept = json.loads((ROOT / figures.FILE).read_text(encoding="utf-8"))["sources"]["terminal"]["figures"]["steps"]
    now = [(step.name, step.folder, step.command, list(step.said), list(step.edit) if step.edit else None) for step in terminal.STEPS]
    shown = [(step["name"], step["folder"], step["command"], step["said"], step["edit"]) for step in kept]
    assert shown == now, "run: doit docs --terminal"


def test_a_step_of_the_guide_that_ends_otherwise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "STEPS", (terminal.Step("wrong", "ownvoice", "doit no-such-task"),))
    with pytest.raises(UserError, match="'doit no-such-task' ended with code"):
        terminal.capture(ROOT, lambda line: None)


# --- figures ------------------------------------------------------------------------------------------------------------------------


def test_figures_are_taken_from_a_build_and_shown(tiny_built: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_built / "docs", tmp_path / "docs")
    finished = doit(tiny_built, "docs", "--figures")
    shutil.move(tiny_built / "docs", tmp_path / "new")
    shutil.move(tmp_path / "docs", tiny_built / "docs")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    kept = json.loads((tmp_path / "new" / "figures.json").read_text(encoding="utf-8"))
    training = json.loads((tiny_built / "build" / "recipes" / "tiny" / "training.json").read_text(encoding="utf-8"))
    assert kept["recipe"] == "tiny" and kept["sources"]["training"]["figures"] == training
    assert kept["sources"]["training"]["command"] == "doit train:tiny" and "cores" in kept["sources"]["training"]["machine"]
    page = (tmp_path / "new" / "training.md").read_text(encoding="utf-8")
    assert f"{training['best_validation_loss']:.4f}" in page and "| training | `build/recipes/tiny/training.json` |" in page


def test_without_a_build_there_is_nothing_to_take_figures_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run: doit report:mine"):
        figures.write_figures(tmp_path, "mine", "base", lambda: None, lambda line: None)


def test_without_a_snapshot_no_page_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run: doit docs --figures"):
        docs.rendered(tmp_path, None)


def test_a_benchmark_that_was_measured_elsewhere_stays(tmp_path: Path) -> None:
    elsewhere = {"file": "a", "command": "b", "machine": "an H100", "date": None, "figures": {"speed": 1}}
    old = {"recipe": "mine", "sources": {"benchmarks/gpu": elsewhere, "training": elsewhere}}
    scores = tmp_path / "build" / "recipes" / "mine" / "evaluation" / "scores.json"
    for path, value in ((tmp_path / figures.FILE, old), (scores, SCORES)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    for side in ("base", "tuned"):
        scores.with_name(f"{side}.jsonl").write_text("", encoding="utf-8")
    figures.write_figures(tmp_path, "mine", "base", lambda: None, lambda line: None)
    kept = json.loads((tmp_path / figures.FILE).read_text(encoding="utf-8"))["sources"]
    assert kept["benchmarks/gpu"] == elsewhere and "training" not in kept
    assert kept["scores"]["machine"] == "2 cores, Linux x86_64"


SCORES: dict[str, Any] = {
    "framing": "persona", "framings": ["persona"], "showcase": None, "gates": [], "enforce": False, "iterations": {}, "unlike_generic": {},
    "sampling": {}, "unparsable": {}, "half": None, "suites": [], "overall": [], "latency": {}, "engines": {},
    "machine": {"system": "Linux x86_64", "cores": 2, "python": "3.11.7"},
}  # fmt: skip
