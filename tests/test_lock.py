"""The lock, and `doit verify` over it: every kind of difference is found and named, and moved lines are told apart."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generators import lock
from generators.errors import UserError
from generators.files import read_json
from generators.verify import Finding, compare_folders, verify

SPECS = {"specs/project.yaml": {"seed": 1, "name": "a"}, "specs/recipes/r.yaml": {"lora": {"rank": 4}}}
ROW = '{"messages": [], "metadata": {"source": "specs/categories/a/b.yaml:%d"}}\n'
FILES = {
    "templates/persona/system.j2": "t",
    "build/samples/a/b.jsonl": ROW % 4 + ROW % 5,
    "build/dataset/train.jsonl": ROW % 4,
    "build/recipes/r/adapter/adapters.safetensors": "weights",
    "build/recipes/r/r-Q8_0.gguf": "gguf",
    "build/modelfiles/r/a.Modelfile": "FROM x\n",
}
KINDS = {
    "templates": "templates",
    "samples": "build/samples",
    "dataset": "build/dataset",
    "adapter": "build/recipes/r/adapter",
    "modelfiles": "build/modelfiles",
}


class Project:
    """A small build, its rendered twin, and its lock."""

    def __init__(self, root: Path):
        self.root, self.fresh, self.specs = root / "project", root / "fresh", dict(SPECS)
        for name, text in FILES.items():
            self.put(name, text)
        for name in ("samples", "dataset", "modelfiles"):
            shutil.copytree(self.root / "build" / name, self.fresh / name)
        self.lock = self.root / "build" / "recipes" / "r" / "lock.json"
        self.write()

    def put(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    @property
    def files(self) -> dict[str, list[Path]]:
        found = {kind: [path for path in (self.root / folder).rglob("*") if path.is_file()] for kind, folder in KINDS.items()}
        return {**found, "gguf": [self.root / "build/recipes/r/r-Q8_0.gguf"]}

    def write(self) -> dict[str, Any]:
        return lock.write(self.lock, self.root, "r", 1, self.specs, self.files)

    def verify(self) -> tuple[list[str], str]:
        """(what was reported, the error or nothing)."""
        said: list[str] = []
        rendered = {name: self.fresh / name for name in ("samples", "dataset", "modelfiles")}
        try:
            verify(self.root, self.lock, self.specs, self.files, rendered, said.append)
        except UserError as error:
            return said, str(error)
        return said, ""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_lock_has_a_hash_of_everything(project: Project) -> None:
    written = read_json(project.lock)
    assert (written["recipe"], written["seed"]) == ("r", 1)
    assert set(written["specs"]) == set(SPECS)
    assert {file for kind in (*KINDS, "gguf") for file in written[kind]} == set(FILES)
    assert written["gguf"]["build/recipes/r/r-Q8_0.gguf"] == hashlib.sha256(b"gguf").hexdigest()
    assert {"system", "machine", "python"} == set(written["platform"]) and "mlx-lm" in written["packages"]


def test_two_locks_of_one_build_have_the_same_bytes(project: Project) -> None:
    before = project.lock.read_bytes()
    project.write()
    assert project.lock.read_bytes() == before


def test_the_order_of_keys_in_a_spec_does_not_count() -> None:
    assert lock.hash_of({"a": 1, "b": [1, 2]}) == lock.hash_of({"b": [1, 2], "a": 1}) != lock.hash_of({"a": 1, "b": [2, 1]})


def test_an_untouched_build_is_verified(project: Project) -> None:
    assert project.verify() == ([], "")


def edit_spec(project: Project) -> None:
    project.specs["specs/recipes/r.yaml"] = {"lora": {"rank": 8}}


def drop_spec(project: Project) -> None:
    del project.specs["specs/recipes/r.yaml"]


def add_spec(project: Project) -> None:
    project.specs["specs/personas/z.yaml"] = {}


def remove(name: str) -> Callable[[Project], None]:
    return lambda project: (project.root / name).unlink()


def rewrite(name: str, text: str) -> Callable[[Project], None]:
    return lambda project: project.put(name, text)


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (edit_spec, "specs/recipes/r.yaml: was changed since the lock was written; run: doit"),
        (drop_spec, "specs/recipes/r.yaml: is gone since the lock was written"),
        (add_spec, "specs/personas/z.yaml: is new since the lock was written"),
        (rewrite("templates/persona/system.j2", "u"), "templates/persona/system.j2: has other bytes than when the lock was written"),
        (remove("build/samples/a/b.jsonl"), "build/samples/a/b.jsonl: is missing"),
        (rewrite("build/samples/a/c.jsonl", ROW % 1), "build/samples/a/c.jsonl: is left over: the specs give no such file"),
        (rewrite("build/samples/a/b.jsonl", ROW % 4 + "{}\n"), "build/samples/a/b.jsonl: is stale: line 2 is not what the specs give"),
        (rewrite("build/samples/a/b.jsonl", ROW % 4), "build/samples/a/b.jsonl: is stale: line 2 is not what the specs give"),
        (rewrite("build/dataset/train.jsonl", ROW % 4 + "\n"), "build/dataset/train.jsonl: is stale: line 2"),
        (
            rewrite("build/modelfiles/r/a.Modelfile", "FROM y\n"),
            "build/modelfiles/r/a.Modelfile: is stale: line 1 is not what the specs give",
        ),
        (rewrite("build/recipes/r/adapter/adapters.safetensors", "other"), "build/recipes/r/adapter/adapters.safetensors: has other bytes"),
        (remove("build/recipes/r/r-Q8_0.gguf"), "build/recipes/r/r-Q8_0.gguf: is missing; the lock has it"),
        (rewrite("build/recipes/r/adapter/more.json", "{}"), "build/recipes/r/adapter/more.json: is not in the lock"),
        (
            remove("build/recipes/r/lock.json"),
            "build/recipes/r/lock.json: is missing, so that weights cannot be verified; run: doit report",
        ),
        (rewrite("build/recipes/r/lock.json", "{"), "build/recipes/r/lock.json: is missing"),
    ],
)
def test_each_difference_is_found_and_the_first_is_named(project: Project, damage: Callable[[Project], None], first: str) -> None:
    damage(project)
    said, error = project.verify()
    assert said[0].startswith(first)
    assert f"the first: {first}" in error


def test_the_cause_comes_before_what_follows_from_it(project: Project) -> None:
    edit_spec(project)
    rewrite("build/modelfiles/r/a.Modelfile", "FROM y\n")(project)
    rewrite("build/samples/a/b.jsonl", "{}\n")(project)
    said, error = project.verify()
    assert [line.split(":")[0] for line in said[:3]] == [
        "specs/recipes/r.yaml",
        "build/samples/a/b.jsonl",
        "build/modelfiles/r/a.Modelfile",
    ]
    assert error.startswith("5 differences, the first: specs/recipes/r.yaml")


def test_lines_that_a_comment_moved_are_a_note(project: Project) -> None:
    (project.fresh / "samples" / "a" / "b.jsonl").write_text(ROW % 14 + ROW % 15)
    (project.fresh / "dataset" / "train.jsonl").write_text(ROW % 14)
    said, error = project.verify()
    assert error == ""
    assert said == [
        "note: build/samples/a/b.jsonl: 2 lines of specs/ in it have moved, by comments or by other examples; the content is the same",
        "note: build/dataset/train.jsonl: 1 lines of specs/ in it have moved, by comments or by other examples; the content is the same",
    ]


def test_another_machine_and_other_versions_are_notes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "platform_here", lambda: {"system": "Other", "machine": "m", "python": "3"})
    monkeypatch.setattr(lock, "packages_here", lambda: {"mlx": "9"})
    said, error = project.verify()
    assert error == "" and all(line.startswith("note: p") for line in said)
    assert any(line.startswith("note: platform.system: ") and line.endswith(" when the lock was written, Other here") for line in said)


def test_unfinished_and_rejected_files_do_not_count(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    for name in ("a.jsonl.12.partial", "report.rejected.json", ".hidden"):
        (tmp_path / "one" / name).write_text("x")
    assert list(compare_folders(tmp_path / "one", tmp_path / "other", "build/x")) == []


def test_a_finding_reads_as_one_line() -> None:
    assert str(Finding("build/x", "is missing")) == "build/x: is missing"
