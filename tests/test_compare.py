"""Any two models compared: what can be named, what counts as shared, what the report says, and the command on a finished project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import finished_project
import pytest
from judged_rows import MACHINE, SAMPLING, judged, row, rows

from generators import llama_server
from generators.compare import Side, choose, compare, folder_name, lines_of, shared, subjects, write
from generators.deploy import history
from generators.errors import UserError
from generators.evaluate.kept import find, found_or_made, keep, of_recipe
from generators.files import read_json, sha256_file
from generators.paths import Paths
from generators.specs.project import Project, load
from generators.stages import release, trials

RECIPES = {"mini": ["jessy", "casual"], "big": ["jessy"]}
needs_engine = pytest.mark.skipif(not llama_server.is_installed(), reason="llama.cpp is not installed")
KNOWN = subjects(RECIPES, "mini", {"mini-model": [1, 2]})


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of llama.cpp wait for one another on a busy machine, and a tiny model needs no second one."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)


def side(name: str, passed: str, **facts: Any) -> Side:
    return Side(name, judged(rows(passed)), facts, {"turkish": 0.9}, ["persona"])


# --- names ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "kind", "name"),
    [
        ("mini", "recipe", "mini"),
        ("mini:casual", "persona", "mini:casual"),
        ("casual", "persona", "mini:casual"),
        ("jessy", "persona", "mini:jessy"),
        ("big:jessy", "persona", "big:jessy"),
        ("mini-model@2", "deployment", "mini-model@2"),
        ("build/deployments/mini-model/0002/", "deployment", "mini-model@2"),
    ],
)
def test_recipes_personas_and_deployments_are_known_by_their_names(asked: str, kind: str, name: str) -> None:
    found = choose(asked, KNOWN)
    assert (found.kind, found.name) == (kind, name)


def test_a_recipe_is_meant_where_a_persona_has_its_name() -> None:
    assert choose("jessy", subjects({"jessy": ["jessy"]}, "jessy", {})).kind == "recipe"


@pytest.mark.parametrize(("asked", "hint"), [("minni", "'mini'"), ("causal", "'casual'"), ("mini-model@3", "'mini-model@")])
def test_a_wrong_name_says_what_there_is_and_what_may_be_meant(asked: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {hint}") as error:
        choose(asked, KNOWN)
    assert "recipes big, mini; the personas big:jessy, mini:casual, mini:jessy; the deployments mini-model@1" in str(error.value)


def test_a_name_is_fit_for_a_folder() -> None:
    assert [folder_name(name) for name in ("mini:casual", "model@2", " a/b ")] == ["mini-casual", "model@2", "a-b"]


# --- what is shared ---------------------------------------------------------------------------------------------------------------


def test_only_what_both_were_asked_in_the_same_words_counts() -> None:
    a, b = rows("+++"), [*rows("+-"), row(2, True, query="other words"), row(7, True)]
    before, after, notes = shared(Side("a", judged(a)), Side("b", judged(b)))
    assert [seen["case"] for seen in before] == [seen["case"] for seen in after] == ["case-0", "case-1"]
    assert notes == [
        "1 cases were asked in other words of the two, and are left out.", "1 answers of b have no counterpart, and are left out.",
    ]  # fmt: skip


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(UserError, match="a and b were asked no case in common"):
        shared(Side("a", judged(rows("+"))), Side("b", judged([row(5, True)])))


def test_other_settings_and_machines_are_told() -> None:
    other = judged(rows("+"), sampling=SAMPLING | {"temperature": 0.7}, machine=MACHINE | {"cores": 8})
    notes = shared(Side("a", judged(rows("+"))), Side("b", other))[2]
    assert notes == [
        "They were asked with different settings: temperature 0.0 and 0.7.",
        "They were asked on different machines: their times do not compare.",
    ]


# --- the report -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    target = tmp_path_factory.mktemp("compare")
    found = compare(side("one", "--+---", rank=8), side("two", "+++++-", rank=16), 1)
    write(found, target)
    return target, found.scores


def test_the_second_is_judged_against_the_first_case_by_case(found: tuple[Path, dict[str, Any]]) -> None:
    paired = found[1]["overall"][0]["paired"]["passed"]
    assert (paired["wins"], paired["losses"], paired["ties"]) == (4, 0, 2)
    assert paired["difference"]["low"] > 0 and paired["mcnemar_p"] == 0.125
    assert read_json(found[0] / "evaluation" / "scores.json") == found[1]


def test_the_terminal_is_told_the_same(found: tuple[Path, dict[str, Any]]) -> None:
    told = "\n".join(lines_of(found[1]))
    assert "one -> two, 6 cases: every check passed 17 % -> 83 %" in told
    assert "4 won, 0 lost, 2 tied; difference +67 points" in told


@pytest.mark.parametrize("file", ["report.html", "report.md"])
def test_the_report_calls_both_by_their_names(found: tuple[Path, dict[str, Any]], file: str) -> None:
    text = (found[0] / file).read_text(encoding="utf-8")
    assert "one and two" in text and "rank" in text and "16" in text
    for word in (">base<", ">tuned<", ">Tuned", "tuned passed", "| base |", "→ tuned", ">Before<"):
        assert word not in text


def test_both_halves_are_shown(found: tuple[Path, dict[str, Any]]) -> None:
    assert [(line["half"], line["tuned"]["passed"]["n"]) for line in found[1]["halves"]] == [("dev", 4), ("test", 2)]
    assert 'id="halves"' in (found[0] / "report.html").read_text(encoding="utf-8")
    assert "| dev | 4 |" in (found[0] / "report.md").read_text(encoding="utf-8")


# --- what is kept -----------------------------------------------------------------------------------------------------------------


def test_an_evaluation_is_kept_while_all_that_decides_it_stays(tmp_path: Path) -> None:
    asked: list[str] = []

    def examine() -> Any:
        asked.append("asked")
        return rows("+"), {"engine": {}}

    first = found_or_made(tmp_path, ["gguf", "exam"], examine)
    assert found_or_made(tmp_path, ["gguf", "exam"], examine) == first and asked == ["asked"]
    found_or_made(tmp_path, ["gguf", "other exam"], examine)
    assert len(asked) == 2


def test_what_was_cut_off_while_it_was_kept_is_not_found(tmp_path: Path) -> None:
    keep(tmp_path, ["model"], judged(rows("+")))
    assert find(tmp_path, ["model"]) == judged(rows("+"))
    next(tmp_path.rglob("told.json")).unlink()
    assert find(tmp_path, ["model"]) is None


def test_a_recipe_without_an_evaluation_has_none(tmp_path: Path) -> None:
    assert of_recipe(tmp_path) is None
    (tmp_path / "scores.json").write_text("{}")
    (tmp_path / "tuned.jsonl").write_text("")
    with pytest.raises(UserError, match=r"is damaged .* run doit evaluate again"):
        of_recipe(tmp_path)


# --- the command ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Paths]:
    """A recipe whose model is there, not yet evaluated."""
    root = finished_project.make(tmp_path_factory.mktemp("finished"))
    return load(root, keep=False), Paths(root)


@needs_engine
def test_two_personas_are_compared_and_what_is_missing_is_asked_once(
    finished: tuple[Project, Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    trials.compare(*finished, "jessy", "casual")
    told = capsys.readouterr().out
    assert "tiny:jessy -> tiny:casual, 10 cases" in told and "McNemar p" in told and told.count("loaded in") == 2
    for file in ("report.html", "report.md"):
        assert (finished[1].build / "compare" / "jessy-vs-casual" / file).is_file()
    trials.compare(*finished, "jessy", "casual")
    assert "loaded in" not in capsys.readouterr().out


@needs_engine
def test_a_deployment_is_asked_with_the_prompt_that_it_was_deployed_with(finished: tuple[Project, Paths]) -> None:
    project, paths = finished
    gguf = paths.recipe("tiny").gguf("F16")
    sha256, record = sha256_file(gguf), {"recipe": "tiny", "deployed_at": "2026-11-01", "previous": None}
    history.add(paths.deployments, "tiny", 1, "FROM x.gguf\nSYSTEM Kısa konuş.\n", record | {"gguf": {"name": gguf.name, "sha256": sha256}})
    trials.compare(project, paths, "jessy", "tiny@1")
    assert (paths.build / "compare" / "jessy-vs-tiny@1" / "report.html").is_file()


@needs_engine
def test_of_a_deployment_whose_gguf_is_gone_counts_what_was_kept_when_it_was_deployed(finished: tuple[Project, Paths]) -> None:
    project, paths = finished
    record: dict[str, Any] = {"recipe": "tiny", "deployed_at": "2026-11-01", "previous": None, "gguf": {"name": "x.gguf", "sha256": "0" * 64}}
    history.add(paths.deployments, "tiny", 7, "FROM x.gguf\nSYSTEM Kısa konuş.\n", record)
    with pytest.raises(UserError, match="tiny@7 was not evaluated when it was deployed, and its GGUF .* is not kept any more"):
        trials.compare(project, paths, "jessy", "tiny@7")
    exam = trials._exam(project, paths, "tiny", "jessy")
    then = trials._examined(project, paths, "tiny", exam, paths.recipe("tiny").gguf("F16"))
    keep(paths.evaluations, release.of_deployment("0" * 64, "Kısa konuş."), then)
    trials.compare(project, paths, "jessy", "tiny@7")
    assert (paths.build / "compare" / "jessy-vs-tiny@7" / "report.md").is_file()


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("tiny", "casual", "tiny has not been evaluated; run: doit evaluate:tiny"),
        ("jessy-mini:jessy", "casual", "jessy-mini-Q8_0.gguf does not exist; run: doit gguf:jessy-mini"),
        ("casual", "tiny:casual", "casual and tiny:casual are the same"),
        ("casual", "", "name the two: doit compare --a X --b Y"),
        ("casul", "jessy", "did you mean 'casual'"),
    ],
)
def test_what_cannot_be_compared_is_told_with_what_to_do(finished: tuple[Project, Paths], a: str, b: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        trials.compare(*finished, a, b)
