"""`doit new-persona`: a second project that passes its gates, can be built at once, and overwrites nothing."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from finished_project import MODEL as TINY
from ruamel.yaml import YAML
from tiny_models import write_hf
from tiny_project import ROOT, doit

from generators import templates
from generators.errors import UserError
from generators.files import read_json, read_jsonl
from generators.new_persona import SKELETON, check_name, display_name, new_persona
from generators.specs.json_schema import language_server_line
from generators.specs.project import Project, load

MODEL: dict[str, Any] = YAML(typ="safe").load(ROOT / "specs" / "models" / "gemma-3-270m.yaml")


def make(into: Path, name: str = "sea-captain") -> list[str]:
    said: list[str] = []
    new_persona(name, into, ROOT, "gemma-3-270m", MODEL, said.append)
    return said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make(tmp_path_factory.mktemp("new") / "captain")
    return tmp_path_factory.getbasetemp() / "new0" / "captain"


@pytest.fixture(scope="module")
def project(made: Path) -> Project:
    return load(made, keep=False)


# --- names and folders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nova", "sea-captain", "r2d2", "a"])
def test_a_name_that_will_do(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Nova", "nova"), ("Çınar Ağa", "cinar-aga"), ("sea_captain", "sea-captain"), ("a--b", "a-b"), ("-x", "x"), ("../evil", "evil"),
        ("a" * 41, "a" * 40), ("İzmir", "izmir"), ("42", ""), ("null", ""), ("日本", ""), ("name\n", ""),
    ],
)  # fmt: skip
def test_a_name_that_will_not_do_is_told_with_one_that_does(name: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        check_name(name)
    assert "begins with a letter" in str(caught.value)
    assert str(caught.value).endswith(f"did you mean {meant!r}?") is bool(meant)


def test_without_a_name_the_command_is_shown() -> None:
    with pytest.raises(UserError, match="doit new-persona --name nova"):
        check_name("")


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for into in (tmp_path, tmp_path / "notes.txt", tmp_path / "dangling"):
        with pytest.raises(UserError, match="exists, and nothing is written over"):
            make(into)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "notes.txt"]


def test_what_fails_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.copytree", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="no space left"):
        make(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


# --- what is in it ----------------------------------------------------------------------------------------------------------------


def test_it_loads_with_forty_examples_of_another_voice(project: Project) -> None:
    assert (project.project["name"], project.project["default_recipe"], project.project["persona"]) == ("sea-captain",) * 3
    assert project.personas["sea-captain"]["display_name"] == display_name("sea-captain") == "Sea Captain"
    assert sum(len(category["examples"]) for category in project.categories.values()) == 40
    assert {category["language"] for category in project.categories.values()} == {"en"}
    assert not {name.split("/")[0] for name in project.categories} & {path.name for path in (ROOT / "specs" / "categories").iterdir()}
    assert project.recipes["sea-captain"]["base"] == "gemma-3-270m" and project.suites


def test_nothing_of_jessy_and_no_placeholder_is_left_in_it(made: Path) -> None:
    written = [path for path in made.rglob("*") if path.is_file() and path.parts[len(made.parts)] not in ("templates", "docs", "dodo.py")]
    assert len(written) >= 14
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert "{{" not in text and "NAME" not in path.name, path
        assert not re.search(r"\bJESSY\b|kanka", text), path


def test_every_spec_names_its_schema_which_is_there(made: Path) -> None:
    for path in (made / "specs").rglob("*.yaml"):
        line = path.read_text(encoding="utf-8").split("\n")[0]
        assert line == language_server_line(path.relative_to(made).as_posix())
        assert (path.parent / line.partition("$schema=")[2]).is_file()


def test_the_classifier_agrees_with_most_of_the_authored_tiers(project: Project) -> None:
    from generators.classify import classify

    asked = [
        (example.get("user") or example["turns"][0]["user"], example.get("tier", category["tier"]))
        for category in project.categories.values()
        for example in category["examples"]
    ]
    agreed = sum(classify(query, project.tiers["classifier"]).tier == tier for query, tier in asked)
    assert agreed / len(asked) >= 0.8


def test_it_runs_doit_as_this_project_does(made: Path) -> None:
    ours, theirs = (tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["doit"] for folder in (ROOT, made))
    assert theirs == ours
    assert (made / ".gitignore").read_text() == (ROOT / ".gitignore").read_text()
    assert (made / "build" / ".gitignore").read_text() == (ROOT / "build" / ".gitignore").read_text()


def test_the_skeleton_is_small_files_rendered_plainly() -> None:
    files = [path for path in (ROOT / "templates" / SKELETON).rglob("*") if path.is_file()]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 8000 and templates.render_text(text, name="x", display_name="X", base="y"), path
    assert not [path for path in files if path.suffix == ".j2"]  # those would be templates of this project


# --- through doit -----------------------------------------------------------------------------------------------------------------


def test_a_newcomer_builds_it_at_once(tmp_path: Path) -> None:
    """The whole of `doit`, with the installed program. In place of Gemma a random model of a few thousand weights, and two steps."""
    into = tmp_path / "nova"
    make(into, "nova")
    write_hf(into / "hf", "llama", max_position_embeddings=2048)
    (into / "specs" / "models" / "gemma-3-270m.yaml").write_text(TINY)
    shutil.copy(ROOT / "specs" / "chat_formats" / "chatml.yaml", into / "specs" / "chat_formats")
    recipe = into / "specs" / "recipes" / "nova.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 6", "epochs: 6\n  max_steps: 2").replace("max_tokens: 120", "max_tokens: 8"))
    built = doit(into)
    assert built.returncode == 0 and "every gate is passed" in built.stdout, built.stdout + built.stderr
    assert read_json(into / "build" / "dataset" / "report.json")["violations"] == []
    assert "SYSTEM" in (into / "build" / "modelfiles" / "nova" / "nova.Modelfile").read_text()
    made = into / "build" / "recipes" / "nova"
    assert (made / "nova-Q8_0.gguf").is_file() and "Nova" in (made / "report.html").read_text()
    assert {row["suite"] for row in read_jsonl(made / "evaluation" / "tuned.jsonl")} == {"voice"}


def test_through_doit_it_is_made_where_it_is_asked_for(tiny_project: Path, tmp_path: Path) -> None:
    told = doit(tiny_project, "new-persona", "--name", "nova", "--into", str(tmp_path / "new"))
    assert told.returncode == 0 and f"may come from tiny.gguf, which is looked for in {tmp_path / 'new'}" in told.stdout, told.stderr
    assert load(tmp_path / "new", keep=False).recipes["nova"]["base"] == "tiny"
