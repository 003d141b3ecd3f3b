"""`doit plan`: what would run, because of which edited line, what is cut off, and what it takes; and that it changes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_project import RECIPE, ROOT, built_once, checked_once, doit, make

from generators import plan as planning
from generators import progress
from generators.plan import Machine, Reason, Stage, Step, Success, Work, estimate
from generators.plan.changes import Change, Places, changes, describe, shorten

SLANG = "specs/categories/turkish/slang.yaml"
MACHINE = Machine("here", "cpu", 2)


# --- changes: what differs, and where ------------------------------------------------------------------------------------------------


def differences(old: Any, new: Any) -> list[str]:
    return [describe(change) for change in changes({"specs/a.yaml": old}, {"specs/a.yaml": new})]


def test_a_changed_value_is_told_with_what_it_was() -> None:
    assert differences({"lora": {"rank": 16, "alpha": 32}}, {"lora": {"rank": 8, "alpha": 32}}) == ["lora.rank: 16 -> 8"]


def test_an_entry_put_in_front_makes_no_others_differ() -> None:
    old = [{"user": "a", "jessy": "b"}, {"user": "c", "jessy": "d"}]
    assert differences({"examples": old}, {"examples": [{"user": "x", "jessy": "y"}, *old]}) == [
        'examples[0]: new, {"user": "x", "jessy": "y"}'
    ]


def test_an_entry_that_is_gone_is_told_by_what_it_was() -> None:
    assert differences({"style": ["short", "warm"]}, {"style": ["warm"]}) == ["style[0]: gone, 'short'"]


def test_one_field_of_one_entry_is_named_to_the_field() -> None:
    old, new = [{"user": "a", "jessy": "b"}, {"user": "c", "jessy": "d"}], [{"user": "a", "jessy": "b"}, {"user": "c", "jessy": "e"}]
    assert differences({"examples": old}, {"examples": new}) == ["examples[1].jessy: 'd' -> 'e'"]


def test_the_same_entries_in_another_order_are_told_as_that() -> None:
    assert differences({"examples": ["a", "b", "c"]}, {"examples": ["c", "a", "b"]}) == ["examples: in another order"]


def test_the_order_of_a_mapping_counts_where_the_slice_says_so() -> None:
    mix = {"persona": 0.5, "none": 0.5}
    assert differences({"mix": mix, "order of mix": ["persona", "none"]}, {"mix": mix, "order of mix": ["none", "persona"]}) == [
        "mix: in another order"
    ]


def test_a_key_added_to_an_ordered_mapping_is_told_once() -> None:
    old = {"mix": {"persona": 1.0}, "order of mix": ["persona"]}
    assert differences(old, {"mix": {"persona": 1.0, "none": 0.0}, "order of mix": ["persona", "none"]}) == ["mix.none: new, 0.0"]


def test_files_that_only_one_slice_reads_are_one_difference_each() -> None:
    found = changes({"specs/a.yaml": {"x": 1}}, {"specs/b.yaml": {"x": 1}})
    assert [(change.file, change.kind, change.steps) for change in found] == [("specs/b.yaml", "new", ()), ("specs/a.yaml", "gone", ())]


def test_what_is_no_slice_has_no_differences() -> None:
    assert changes(None, {"specs/a.yaml": {}}) == [] and changes({"category": {}}, {"specs/a.yaml": {}}) == []


def test_a_long_text_is_shown_from_where_it_differs() -> None:
    old, new = "o " * 60 + "eski son", "o " * 60 + "yeni son"
    told = describe(Change("specs/a.yaml", ("identity",), "changed", old, new))
    assert "eski son" in told and "yeni son" in told and len(told) < 110


def test_a_value_is_one_short_line() -> None:
    assert shorten("a\n  b") == "'a b'"
    assert len(shorten("x" * 500)) < 50 and len(shorten({"x": ["y"] * 200})) < 50


@pytest.fixture(scope="module")
def places() -> Places:
    return Places(ROOT)


def line_of(file: str, text: str) -> int:
    return next(number for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1) if text in line)


def test_a_field_is_found_at_its_key(places: Places) -> None:
    file = "specs/recipes/jessy-v2.yaml"
    assert places.find(Change(file, ("training", "epochs"), "changed", 3, 4), {}) == (file, line_of(file, "epochs:"))


def test_a_default_is_found_at_what_it_belongs_to(places: Places) -> None:
    file = "specs/recipes/jessy-v2.yaml"
    assert places.find(Change(file, ("training", "clip"), "changed", 1.0, 2.0), {}) == (file, line_of(file, "training:"))


def test_what_a_persona_takes_over_is_found_where_it_is_written(places: Places) -> None:
    change = Change("specs/personas/casual.yaml", ("identity",), "changed", "a", "b")
    assert places.find(change, {}) == ("specs/personas/jessy.yaml", line_of("specs/personas/jessy.yaml", "identity:"))


def test_what_a_persona_appends_is_found_in_its_own_file(places: Places) -> None:
    file, line = "specs/personas/casual.yaml", "Argo ve deyim serbest, kırıcı olmak yok."
    read = {"style": ["another", line]}
    assert places.find(Change(file, ("style", 1), "new", new=line), read) == (file, line_of(file, line))


def test_what_a_persona_removes_is_found_in_its_own_file(places: Places) -> None:
    file = "specs/personas/professional.yaml"
    gone = {"user": "sana bisi sorucam", "jessy": "Sor kanka, dinliyorum."}
    assert places.find(Change(file, ("messages", 0), "gone", old=gone), {"messages": []}) == (file, line_of(file, "- sana bisi sorucam"))


def test_a_file_that_is_gone_has_no_line(places: Places) -> None:
    assert places.find(Change("specs/gone.yaml", (), "gone", old={}), {}) == ("specs/gone.yaml", 0)


# --- estimates --------------------------------------------------------------------------------------------------------------------

MINI = Work(parameters=268_098_176, letters=60_000, epochs=3, queries=480, quantisations=("Q8_0",))
TAKEN = {"seconds": 300.0, "memory_bytes": 3_000_000_000, "machine": "here"}


def test_what_was_measured_here_is_what_is_told() -> None:
    found = estimate("train", MINI, MINI, TAKEN, [], MACHINE)
    assert (found.seconds, found.memory, found.measured) == (300.0, 3_000_000_000, True)


def test_a_figure_of_another_machine_is_none_of_here() -> None:
    found = estimate("train", MINI, MINI, TAKEN | {"machine": "there"}, [], MACHINE)
    assert not found.measured and found.seconds != 300.0


def test_twice_the_epochs_take_about_twice_as_long() -> None:
    doubled = estimate("train", Work(MINI.parameters, MINI.letters, 6, MINI.queries, MINI.quantisations), MINI, TAKEN, [], MACHINE)
    assert doubled.measured and 580 < doubled.seconds <= 600


def test_training_the_starter_on_two_cores_is_estimated_in_minutes() -> None:
    """6 min 20 s were measured: 135 steps of 2.8 s, 3.1 GB."""
    found = estimate("train", MINI, MINI, {}, [], MACHINE)
    assert not found.measured and 120 < found.seconds < 1200 and 2e9 < found.memory < 5e9


def test_a_gguf_takes_its_bits_a_weight_on_disk() -> None:
    """284 MB: 8.5 bits for each of 268 M weights."""
    assert estimate("gguf", MINI, MINI, {}, [], MACHINE).disk == pytest.approx(285e6, rel=0.01)


def test_files_that_are_there_tell_their_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").write_bytes(b"x" * 500)
    assert estimate("train", MINI, MINI, {}, [tmp_path / "a", tmp_path / "b"], MACHINE).disk == 1500


@pytest.mark.parametrize("kind", ["cpu", "metal", "cuda"])
def test_more_parameters_take_longer_everywhere(kind: str) -> None:
    small, large = (
        estimate("train", Work(n, 60_000, 3), Work(n, 60_000, 3), {}, [], Machine("m", kind, 8)).seconds for n in (10**8, 10**10)
    )
    assert large > small


# --- the whole plan ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with checked_once():
        yield built_once(tmp_path_factory)


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "project")
    return tmp_path / "project"


def planned(project: Path, *words: str) -> dict[str, Any]:
    code, _, printed = doit(project, "plan", "--json", *words)
    assert code == 0, printed
    return json.loads(printed)


def edit(project: Path, file: str, old: str, new: str) -> int:
    """Replaces the first `old`. Returns the line where it stands."""
    text = (project / file).read_text(encoding="utf-8")
    assert old in text
    (project / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


def reasons(found: dict[str, Any], task: str) -> list[dict[str, Any]]:
    return next(each["reasons"] for each in found["tasks"] if each["task"] == task)


def test_an_up_to_date_build_has_no_plan(project: Path) -> None:
    found = planned(project)
    assert found["tasks"] == [] and found["cut_off"] == [] and "train:jessy-mini" in found["up_to_date"]


def test_the_edited_file_field_and_line_are_named_with_old_and_new_value(project: Path) -> None:
    text = (project / SLANG).read_text(encoding="utf-8")
    answer = next(line.split("jessy: ")[1] for line in text.splitlines() if line.startswith("    jessy: "))
    line = edit(project, SLANG, f"jessy: {answer}", "jessy: Bambaşka bir cevap.")
    assert reasons(planned(project), "samples:turkish/slang") == [
        {
            "kind": "spec",
            "text": f"{SLANG}:{line} examples[0].jessy: {shorten(answer)} -> 'Bambaşka bir cevap.'",
            "file": SLANG,
            "line": line,
            "field": "examples[0].jessy",
            "change": "changed",
            "old": answer,
            "new": "Bambaşka bir cevap.",
        }
    ]


def test_what_follows_is_told_by_the_stage_that_it_follows_from(project: Path) -> None:
    edit(project, "specs/recipes/jessy-mini.yaml", "rank: 16", "rank: 8")
    found = planned(project)
    tasks = [task["task"] for task in found["tasks"]]
    assert tasks == [f"{stage}:{RECIPE}" for stage in ("train", "fuse", "gguf", "quantisations", "parity", "evaluate", "_lock", "report")]
    assert "train:jessy-mini may write" in reasons(found, "fuse:jessy-mini")[0]["text"]


def test_a_changed_template_and_a_changed_generator_are_named(project: Path) -> None:
    for file in ("templates/samples/macros.j2", "generators/dataset/split.py"):
        with (project / file).open("a", encoding="utf-8") as out:
            out.write("{# a comment #}\n" if file.endswith("j2") else "# a comment\n")
    found = planned(project)
    assert reasons(found, "samples:iteration/low") == [
        {"kind": "template", "text": "templates/samples/macros.j2 was changed", "file": "templates/samples/macros.j2"}
    ]
    assert reasons(found, "dataset") == [
        {"kind": "source", "text": "generators/dataset/split.py was changed", "file": "generators/dataset/split.py"}
    ]


def test_a_missing_target_is_named(project: Path) -> None:
    (project / "build/modelfiles/jessy-mini/casual.Modelfile").unlink()
    assert [reason["text"] for reason in reasons(planned(project), f"modelfile:{RECIPE}")] == [
        "build/modelfiles/jessy-mini/casual.Modelfile is missing"
    ]


def test_a_dataset_that_comes_out_the_same_cuts_off_what_follows(project: Path) -> None:
    edit(project, "specs/project.yaml", "near_duplicate: 0.9", "near_duplicate: 0.91")
    found = planned(project)
    assert [task["task"] for task in found["tasks"]] == ["dataset", f"_lock:{RECIPE}"]
    cut = {each["task"]: each["because"] for each in found["cut_off"]}
    assert cut[f"_frames:{RECIPE}"] == "dataset will leave build/dataset/train.jsonl, build/dataset/valid.jsonl as they are"
    assert f"train:{RECIPE}" in found["up_to_date"]


def test_a_comment_is_seen_and_said_to_change_nothing(project: Path) -> None:
    with (project / SLANG).open("a", encoding="utf-8") as out:
        out.write("# a comment\n")
    found = planned(project)
    assert found["tasks"] == [] and found["touched"] == [SLANG]


def test_a_quantisation_that_is_added_leaves_the_one_that_is_judged(project: Path) -> None:
    edit(project, "specs/recipes/jessy-mini.yaml", "[Q8_0]", "[Q8_0, Q4_0]")
    found = planned(project)
    assert f"evaluate:{RECIPE}" not in [task["task"] for task in found["tasks"]]
    assert f"evaluate:{RECIPE}" in [each["task"] for each in found["cut_off"]]


def test_a_dataset_that_would_be_refused_is_foretold_with_the_reason(project: Path) -> None:
    edit(project, SLANG, "words: {min: ", "words: {min: 39, max: 40} #")
    found = planned(project)
    dataset = next(task for task in found["tasks"] if task["task"] == "dataset")
    assert dataset["status"] == "would fail" and "this category takes 39 to 40" in dataset["reasons"][-1]["text"]
    assert {task["task"]: task["status"] for task in found["tasks"]}[f"_frames:{RECIPE}"] == "waits"


def test_a_fresh_project_is_planned_from_its_samples_to_its_report(tmp_path: Path) -> None:
    make(tmp_path / "fresh")
    found = planned(tmp_path / "fresh")
    tasks = [task["task"] for task in found["tasks"]]
    assert tasks[0].startswith("samples:") and tasks[-1] == f"report:{RECIPE}" and tasks.index("dataset") < tasks.index(f"train:{RECIPE}")
    assert all(task["reasons"][0]["text"] == "was not built yet" and not task["measured"] for task in found["tasks"])


def test_figures_of_the_last_build_are_called_measured(project: Path) -> None:
    edit(project, "specs/personas/jessy.yaml", "temperature: 0.6", "temperature: 0.5")
    task = planned(project)["tasks"][0]
    assert task["task"] == f"modelfile:{RECIPE}" and task["measured"] and task["memory_bytes"] > 10e6 and task["disk_bytes"] > 1000


def test_another_recipe_can_be_planned(project: Path) -> None:
    found = planned(project, "--recipe", "jessy-v2")
    assert found["recipe"] == "jessy-v2" and "train:jessy-v2" in [task["task"] for task in found["tasks"]]
    assert "dataset" in found["up_to_date"]


def test_in_a_pipe_it_is_plain_text(project: Path) -> None:
    edit(project, "specs/personas/jessy.yaml", "temperature: 0.6", "temperature: 0.5")
    lines = doit(project, "plan")[2].splitlines()
    assert lines[0] == "what doit would do for jessy-mini:"
    assert lines[1].startswith("modelfile:jessy-mini: ") and lines[2].strip().endswith("parameters.temperature: 0.6 -> 0.5")
    assert "\x1b" not in "".join(lines) and "as measured here" in lines[-1]


def test_on_a_terminal_it_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    monkeypatch.setattr(progress, "console", lambda: Console(file=written, force_terminal=True, width=120, color_system=None))
    stage = Stage("modelfile:jessy-mini", {}, (), ("build/a",))
    step = Step(stage, planning.RUNS, (Reason("spec", "specs/personas/jessy.yaml:34 parameters.temperature: 0.6 -> 0.5"),))
    planning.show("jessy-mini", [step], {stage.name: estimate("modelfile", MINI, MINI, {}, [], MACHINE)}, [])
    text = written.getvalue()
    assert (
        "time" in text
        and "memory" in text
        and "disk" in text
        and "parameters.temperature: 0.6 -> 0.5" in text
        and "1 of 1 estimated" in text
    )


def test_neighbours_with_the_same_reason_are_one_line() -> None:
    from generators.plan.show import _lines

    reason = (Reason("template", "templates/samples/chat.j2 was changed"),)
    steps = [Step(Stage(f"samples:a/{name}", {}, (), ()), planning.RUNS, reason) for name in "xyz"]
    assert _lines("r", steps, {})[1:] == ["samples (3 tasks)", "    templates/samples/chat.j2 was changed"]


def test_a_slice_that_was_recorded_in_another_form_is_said_to_be(tmp_path: Path) -> None:
    stage = Stage("dataset", {"specs/project.yaml": {"seed": 1}}, (), ())
    (tmp_path / "scratch").mkdir()
    step = planning.forecast(tmp_path, [stage], {"dataset": Success({"seed": 1}, {})}, tmp_path / "scratch", {})[0]
    assert [reason.text for reason in step.reasons] == ["what it reads of the specs was last recorded in another form"]


# --- nothing is changed -----------------------------------------------------------------------------------------------------------


def state(root: Path) -> dict[str, tuple[str, int]]:
    """Every file's hash and time stamp, and every folder."""
    found: dict[str, tuple[str, int]] = {}
    for path in root.rglob("*"):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        found[path.relative_to(root).as_posix()] = (content, path.stat().st_mtime_ns)
    return found


def in_a_process(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-m", "doit", *words], cwd=root, env=environment, capture_output=True, text=True, timeout=300)


def test_planning_changes_no_file_of_an_edited_project(project: Path) -> None:
    edit(project, SLANG, "    jessy: ", "    jessy: Kanka, ")
    before = state(project)
    finished = in_a_process(project, "plan")
    assert finished.returncode == 0 and "samples:turkish/slang" in finished.stdout, finished.stderr
    assert state(project) == before


def test_planning_leaves_no_file_in_a_fresh_project(tmp_path: Path) -> None:
    make(tmp_path / "fresh")
    before = state(tmp_path / "fresh")
    finished = in_a_process(tmp_path / "fresh", "plan", "--json")
    assert finished.returncode == 0 and json.loads(finished.stdout)["tasks"], finished.stderr
    assert state(tmp_path / "fresh") == before


def test_a_recipe_that_is_none_is_one_clear_line_and_changes_no_file_either(project: Path) -> None:
    before = state(project)
    finished = in_a_process(project, "plan", "--recipe", "jesy-mini")
    assert finished.returncode == 3
    assert finished.stderr == "ERROR: no recipe 'jesy-mini'; there are jessy-mini, jessy-v2; did you mean 'jessy-mini'?\n"
    assert state(project) == before
