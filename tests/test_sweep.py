"""A sweep: which points there are, which one is best and why, what the table says; two points of a tiny model; what an interruption costs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import finished_project
import pytest
from judged_rows import rows
from small_project import RECIPE, built_once, checked_once, doit

from generators import llama_server
from generators.errors import Diverged, UserError
from generators.files import read_json, read_jsonl
from generators.paths import Paths
from generators.specs.project import Project, load
from generators.stages import planning, trials
from generators.sweep import Point, Sweep, applied, changes, points, rank, result, size

RECIPE_SPEC: dict[str, Any] = {
    "lora": {"rank": 16, "alpha": 32},
    "training": {"learning_rate": 1e-4, "epochs": 3},
    "evaluation": {"suites": ["turkish"], "framings": ["persona", "none"], "temperature": 0.0},
}
PERSONA = {"parameters": {"temperature": 0.6, "top_p": 0.9}}
needs_engine = pytest.mark.skipif(not llama_server.is_installed(), reason="llama.cpp is not installed")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of llama.cpp wait for one another on a busy machine, and a tiny model needs no second one."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)


def recipe(**sweep: Any) -> dict[str, Any]:
    return {**RECIPE_SPEC, "sweep": {"suites": [], "framings": [], **sweep}}


def names(**sweep: Any) -> list[str]:
    return [point.name for point in points(recipe(**sweep), PERSONA["parameters"])]


# --- points -----------------------------------------------------------------------------------------------------------------------


def test_a_grid_is_each_value_with_each_and_the_recipe_comes_first() -> None:
    grid = {"lora": {"rank": [8, 32]}, "training": {"learning_rate": [2e-4, 1e-3]}}
    assert names(grid=grid) == [
        "rank-16_learning_rate-0.0001", "rank-8_learning_rate-0.0002", "rank-8_learning_rate-0.001", "rank-32_learning_rate-0.0002",
        "rank-32_learning_rate-0.001",
    ]  # fmt: skip
    assert size({"grid": grid}) == 4


def test_what_a_point_does_not_name_is_as_in_the_recipe_and_what_comes_twice_is_one() -> None:
    single = [{"lora": {"rank": 8}}, {"training": {"epochs": 1}}, {"lora": {"rank": 16}, "training": {"epochs": 3}}]
    assert names(points=single) == ["rank-16_epochs-3", "rank-8_epochs-3", "rank-16_epochs-1"]


def test_the_names_stay_when_the_recipe_takes_over_a_point() -> None:
    grid = {"lora": {"rank": [8, 16]}, "training": {"epochs": [1, 3]}}
    adopted = {**recipe(grid=grid), "lora": {"rank": 8, "alpha": 32}}
    assert {point.name for point in points(adopted, {})} == set(names(grid=grid))
    assert points(adopted, {})[0].name == "rank-8_epochs-3"


def test_points_that_differ_in_parameters_share_an_adapter() -> None:
    found = points(recipe(grid={"lora": {"rank": [8]}, "parameters": {"temperature": [0.2, 0.9]}}), PERSONA["parameters"])
    assert [(point.adapter, dict(point.values)["parameters", "temperature"]) for point in found] == [
        ("rank-16", 0.6), ("rank-8", 0.2), ("rank-8", 0.9),
    ]  # fmt: skip


@pytest.mark.parametrize("values", [{"targets": [["q_proj"] * 20]}, {"dora": [True], "dropout": [0.5]}])
def test_names_are_short_and_fit_for_paths_and_tasks(values: dict[str, Any]) -> None:
    for name in names(grid={"lora": values}):
        assert len(name) <= 120 and not set(name) & set("/:=*?[] ")


def test_a_point_changes_recipe_persona_and_how_it_is_judged() -> None:
    spec = recipe(grid={"lora": {"rank": [8]}, "parameters": {"temperature": [0.9], "min_p": [0.05]}})
    changed, persona = applied(spec, PERSONA, points(spec, PERSONA["parameters"])[1])
    assert changed["lora"] == {"rank": 8, "alpha": 32} and changed["training"] == RECIPE_SPEC["training"]
    assert changed["evaluation"] == {"suites": ["turkish"], "framings": ["persona"], "temperature": 0.9}
    assert persona["parameters"] == {"temperature": 0.9, "top_p": 0.9, "min_p": 0.05}


def test_without_swept_parameters_the_evaluation_is_as_the_recipe_says() -> None:
    spec = recipe(grid={"lora": {"rank": [8]}}, suites=["technical"], framings=["none"])
    changed, persona = applied(spec, PERSONA, points(spec, {})[1])
    assert changed["evaluation"] == {"suites": ["technical"], "framings": ["none"], "temperature": 0.0}
    assert persona == PERSONA


# --- the best -----------------------------------------------------------------------------------------------------------------------


def ranked(*found: tuple[str, float, str], failed: str = "") -> Sweep:
    """Of (point, validation loss, dev cases that passed), the first of which is the recipe as it is."""
    results, judged = [], {}
    for name, loss, passed in found:
        point = Point(name, name, ((("lora", "rank"), int(name)),))
        trained = {"failed": failed} if name == failed[:1] else {"best_validation_loss": loss, "best_step": 7}
        judged[name] = [] if name == failed[:1] else rows(passed)
        results.append(result(point, trained, judged[name], "persona", 1, "stamp"))
    ranking = rank(results, judged, found[0][0], 1)
    return Sweep("mini", found[0][0], results, [], ranking, ["specs/recipes/mini.yaml:9: lora.rank: 1 -> 2"])


@pytest.mark.parametrize(
    ("found", "best", "why"),
    [
        ([("1", 3.0, "++--"), ("2", 2.5, "+++-")], "2", "lowest validation loss of the 2 points .* and it passes most"),
        ([("1", 3.0, "++++-"), ("2", 2.5, "+++--")], "2", "lowest validation loss of the 2 points that the dev half cannot tell"),
        ([("1", 3.0, "+" * 20), ("2", 2.5, "-" * 20)], "1", "more of the dev half than any other, by more than chance"),
        ([("1", 3.0, "++--"), ("2", 3.0, "+++-")], "2", "none of the 2 points of this validation loss passes more"),
        ([("1", 3.0, "+-")], "1", "the only one"),
    ],
)
def test_the_dev_half_rules_out_and_the_loss_decides(found: Any, best: str, why: str) -> None:
    sweep = ranked(*found)
    assert sweep.ranking.best == best
    assert re.search(why, sweep.ranking.why), sweep.ranking.why


def test_settings_that_cannot_be_trained_with_are_a_line_and_never_the_best() -> None:
    sweep = ranked(("1", 3.0, "+-"), ("2", 1.0, "++"), failed="2: the loss at step 4 is nan; lower it")
    assert sweep.ranking.best == "1"
    assert sweep.table()[1][-1] == ["2", *["–"] * 6, "2: the loss at step 4 is nan"]


def test_the_table_has_the_best_first_and_names_the_recipe() -> None:
    columns, lines = ranked(("1", 3.0, "++--"), ("3", 3.5, "++++"), ("2", 2.5, "+++-")).table()
    assert columns[:3] == ["rank", "validation loss", "at step"]
    assert [line[0] for line in lines] == ["2", "1", "3"]
    assert [line[-1] for line in lines] == ["best", "the recipe as it is", ""]
    assert lines[0][1:4] == ["2.5000", "7", "75.0 % (25–100)"] and lines[0][-2] == "1 won, 0 lost" and lines[1][-2] == "–"


def test_the_end_names_the_best_and_the_lines_to_change() -> None:
    sweep = ranked(("1", 3.0, "++--"), ("2", 2.5, "+++-"))
    assert sweep.ending()[-2:] == ["to build with it, change:", "  specs/recipes/mini.yaml:9: lora.rank: 1 -> 2"]
    assert "- best: 2: " in sweep.as_markdown() and "  - `specs/recipes/mini.yaml:9: lora.rank: 1 -> 2`" in sweep.as_markdown()
    assert replace(sweep, to_change=[]).ending()[-1] == "that is the recipe as it is: no line is to be changed"
    waiting = replace(sweep, waiting=["3"])
    assert waiting.ending()[0] == "1 of 3 points are still to be done; doit sweep goes on with them"
    assert "best so far: 2" in waiting.ending()[1] and waiting.as_json()["waiting"] == ["3"]


def test_a_sweep_of_which_nothing_is_finished_names_nothing() -> None:
    sweep = Sweep("mini", "1", [], ["1"], rank([], {}, "1", 1), [])
    assert sweep.ending() == ["1 of 1 points are still to be done; doit sweep goes on with them"]
    assert "No point is finished." in sweep.as_markdown()


def test_only_what_differs_from_the_recipe_is_to_be_changed() -> None:
    best = {"values": {"lora.rank": 8, "training.epochs": 3, "parameters.min_p": 0.05}}
    assert changes(best, RECIPE_SPEC, PERSONA["parameters"]) == [(("lora", "rank"), 16, 8), (("parameters", "min_p"), None, 0.05)]


# --- a tiny model -------------------------------------------------------------------------------------------------------------------

SWEPT = """
training: {batch_size: 2, max_steps: 2, validate_every: 2, patience: 0}
sweep:
  grid: {parameters: {temperature: [0.5]}}
  points: [{training: {learning_rate: 1}}]
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Paths]:
    """A tiny recipe with a sweep of three points over two adapters, and a few framed samples."""
    root = finished_project.make(tmp_path_factory.mktemp("sweep"))
    recipe = root / "specs" / "recipes" / "tiny.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("{persona: 0.7, jessy-cli: 0.3}", "{none: 1.0}") + SWEPT, encoding="utf-8")
    project, paths = load(root, keep=False), Paths(root)
    planning.render_a_few(project, paths, "tiny", 4)
    return project, paths


@needs_engine
def test_points_are_trained_judged_and_kept_one_by_one(tiny: tuple[Project, Paths], capsys: pytest.CaptureFixture[str]) -> None:
    project, paths = tiny
    found, kept = trials.sweep_points(project, "tiny"), paths.sweep("tiny")
    (first, second), (adapter, other) = found[:2], trials.sweep_adapters(project, "tiny")
    assert first.adapter == second.adapter == adapter and found[2].adapter == other
    trials.sweep_train(project, paths, "tiny", first)
    gguf = replace(paths, made=kept.adapter(adapter)).recipe("tiny").gguf("judged")
    trials.sweep_point(project, paths, "tiny", first)
    assert gguf.is_file() and read_json(kept.results)["waiting"] == [found[1].name, found[2].name]
    assert {row["half"] for row in read_jsonl(kept.rows(first.name))} == {"dev"}
    trials.sweep_point(project, paths, "tiny", second)
    assert not gguf.exists(), "it goes with the last point that shares it"
    assert not (paths.recipe("tiny").adapter).exists(), "nothing of the recipe itself is touched"
    capsys.readouterr()
    trials.sweep(project, paths, "tiny")
    told = capsys.readouterr().out
    assert "1 of 3 points are still to be done" in told and "best so far: " in told


def test_settings_that_diverge_are_kept_as_a_result(tiny: tuple[Project, Paths], monkeypatch: pytest.MonkeyPatch) -> None:
    project, paths = tiny

    def diverge(*_: Any) -> None:
        raise Diverged("the loss at step 1 is nan; lower it\n  a sample")

    monkeypatch.setattr(trials, "train_adapter", diverge)
    point = trials.sweep_points(project, "tiny")[2]
    trials.sweep_train(project, paths, "tiny", point)
    trials.sweep_point(project, paths, "tiny", point)
    assert read_json(paths.sweep("tiny").result(point.name))["failed"] == "the loss at step 1 is nan; lower it"


def test_a_result_of_other_settings_counts_no_more(tiny: tuple[Project, Paths], monkeypatch: pytest.MonkeyPatch) -> None:
    test_settings_that_diverge_are_kept_as_a_result(tiny, monkeypatch)
    project, paths = tiny
    point = trials.sweep_points(project, "tiny")[2]
    assert point.name in trials._sweep_results(project, paths, "tiny")
    recipe = project.recipes["tiny"]
    other = replace(project, recipes={**project.recipes, "tiny": {**recipe, "training": {**recipe["training"], "clip": 0.5}}})
    assert trials._sweep_results(other, paths, "tiny") == {}


def test_the_line_to_change_is_named_where_it_stands(tiny: tuple[Project, Paths]) -> None:
    project, paths = tiny
    line = trials._line_to_change(project, paths, "tiny", ("training", "max_steps"), 2, 5)
    assert line == "specs/recipes/tiny.yaml:9: training.max_steps: 2 -> 5"
    added = trials._line_to_change(project, paths, "tiny", ("training", "learning_rate"), 1e-4, 1e-3)
    assert added == "specs/recipes/tiny.yaml:9: training.learning_rate: 0.0001 -> 0.001 (to be added)"
    assert trials._line_to_change(project, paths, "tiny", ("parameters", "temperature"), 0.6, 0.2).startswith("specs/personas/jessy.yaml:")


def test_a_recipe_without_a_sweep_says_how_to_declare_one(tiny: tuple[Project, Paths]) -> None:
    with pytest.raises(UserError, match=r"jessy-v2 declares no sweep; add one to specs/recipes/jessy-v2.yaml, for example `sweep: "):
        trials.sweep(*tiny, "jessy-v2")


# --- as tasks -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small build whose recipe has got another sweep since; placeholders stand for training and judging."""
    with checked_once():
        root = tmp_path_factory.mktemp("swept") / "project"
        shutil.copytree(built_once(tmp_path_factory), root)
        spec = root / "specs" / "recipes" / f"{RECIPE}.yaml"
        without = spec.read_text(encoding="utf-8").partition("\nsweep:")[0]
        spec.write_text(without + "\nsweep: {grid: {lora: {rank: [8]}, parameters: {top_p: [0.5, 0.9]}}}\n", encoding="utf-8")
        yield root


def test_declaring_a_sweep_rebuilds_nothing(built: Path) -> None:
    assert doit(built, "run", f"report:{RECIPE}")[:2] == (0, [])


def test_an_interrupted_sweep_goes_on_and_a_new_value_costs_its_own_points(built: Path) -> None:
    first, second = f"sweep:{RECIPE}:rank-8_top_p-0.5", f"sweep:{RECIPE}:rank-8_top_p-0.9"
    assert doit(built, "run", first)[:2] == (0, [f"_sweep_train:{RECIPE}:rank-8", first])
    assert doit(built, "run", first, second)[:2] == (0, [second])
    spec = built / "specs" / "recipes" / f"{RECIPE}.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace("top_p: [0.5, 0.9]", "top_p: [0.5, 0.9, 0.7]"), encoding="utf-8")
    third = f"sweep:{RECIPE}:rank-8_top_p-0.7"
    assert doit(built, "run", first, second, third)[:2] == (0, [third])
