"""The benchmark's specs: 100,000 samples out of a few sentences, without a repeat and in correct Turkish."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.expansion import RECIPE, overlay
from golden_files import golden

from generators.dataset import build
from generators.files import write_jsonl
from generators.samples.expand import expand, prepare_example, survey
from generators.samples.render import render_samples
from generators.specs.project import Project, load
from generators.turkish import fold

TEMPLATES = Path(__file__).parents[1] / "templates"
_SUFFIXED = re.compile(r"([A-ZÇĞİÖŞÜ][a-zçğıöşü]+)'([a-zçğıöşü]+)")
_BACK, _VOWELS = set("aıou"), set("aıoueiöü")
# Read otherwise than written, or with a soft l: what the general rule gets wrong, and the filters right.
_BY_TABLE = {"Kemal", "Redis", "Windows", "Docker", "Python", "Rust", "Java", "Kubernetes", "Linux"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return load(overlay(tmp_path_factory.mktemp("expansion") / "project"), keep=False)


def samples(project: Project, name: str, count: int) -> Iterator[dict[str, Any]]:
    """`count` samples of a category."""
    context = {
        "name": name,
        "file": f"specs/categories/{name}.yaml",
        "lines": project.example_lines[name],
        "persona": project.project["persona"],
        "tiers": project.tiers["tiers"],
        "seed": project.project["seed"],
    }
    return render_samples({**project.categories[name], "count": count}, context, TEMPLATES)


def a_few(project: Project, each: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """`each` samples an example, of every category."""
    for name, category in sorted(project.categories.items()):
        for row in samples(project, name, each * len(category["examples"])):
            yield name, row


def test_the_recipe_expands_to_a_hundred_thousand_samples(project: Project) -> None:
    assert list(project.recipes) == [RECIPE] == [project.project["default_recipe"]]
    assert sum(category["count"] for category in project.categories.values()) == 100_000
    assert sum(len(category["examples"]) for category in project.categories.values()) < 30
    assert all(survey(category).possible > category["count"] for category in project.categories.values())


def test_none_of_them_comes_twice(project: Project) -> None:
    for category in project.categories.values():
        tables: dict[str, Any] = {}
        prepared = [prepare_example(example, category, tables) for example in category["examples"]]
        drawn = {(index, tuple(positions), spelling) for index, positions, spelling in expand(category, prepared, 1)}
        assert len(drawn) == category["count"]


def test_what_they_say_is_what_was_read_by_a_person(project: Project) -> None:
    lines = [f"{name}: " + " | ".join(message["content"] for message in row["messages"]) for name, row in a_few(project, each=4)]
    assert "\n".join(lines) + "\n" == golden("expansion.txt", "\n".join(lines) + "\n")


def test_every_suffix_after_an_apostrophe_harmonises_with_its_name(project: Project) -> None:
    """An oracle of three lines beside the filters' many."""
    checked = set()
    for _, row in a_few(project, each=150):
        for name, suffix in _SUFFIXED.findall(row["messages"][1]["content"]):
            if name not in _BY_TABLE:
                of_name, of_suffix = ([letter for letter in fold(text) if letter in _VOWELS] for text in (name, suffix))
                assert (of_name[-1] in _BACK) == (of_suffix[0] in _BACK), f"{name}'{suffix}"
                checked.add((name, suffix))
    assert len(checked) > 300


def test_a_slice_of_it_passes_every_gate(project: Project, tmp_path: Path) -> None:
    """Some of each category; all of it is judged by tests/benchmarks/expansion.py."""
    files = []
    for name, category in project.categories.items():
        files.append(tmp_path / f"{name}.jsonl")
        write_jsonl(files[-1], samples(project, name, category["count"] // 400))
    control = {token for chat_format in project.chat_formats.values() for token in chat_format["control_tokens"]}
    evaluation = (project.suites, project.case_lines)
    target = tmp_path / "dataset"
    report = build(
        files, project.project, project.categories, *evaluation, project.personas, target, lambda line: None, control_tokens=control
    )
    assert (report["samples"], report["violations"]) == (250, [])
