"""Retraining: what promotes a candidate, what becomes of feedback, one at a time, by itself; and a tiny model's way to Ollama's stand-in."""

from __future__ import annotations

import os
import plistlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import finished_project
import pytest
from judged_rows import rows
from ollama_double import OllamaDouble, running

from generators import llama_server
from generators.deploy import history
from generators.errors import EXIT_FAILED, EXIT_GATE, GateMissed, UserError
from generators.evaluate import scores
from generators.files import held, read_json, read_jsonl, write_jsonl
from generators.paths import Paths
from generators.retrain import Schedule, alone, decide, feedback_suite, keep_adapter, kept_adapter
from generators.specs.project import Project, load
from generators.stages import planning, release, training, trials

ROOT = Path(__file__).parents[1]
RULES: dict[str, Any] = {"bias": 0, "thresholds": {"medium": 2, "high": 5}, "length": [{"words": 6, "points": 3}], "cues": []}
needs_engine = pytest.mark.skipif(not llama_server.is_installed(), reason="llama.cpp is not installed")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of llama.cpp wait for one another on a busy machine, and a tiny model needs no second one."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)


def silent(_: str) -> None:
    """What is said is not looked at."""


# --- the decision -----------------------------------------------------------------------------------------------------------------


def gate(passed: bool | None, got: float | None = 0.9, name: str = "turkish") -> dict[str, Any]:
    return {"name": name, "wanted": 0.9, "got": got, "passed": passed, "below": False, "over": ""}


def paired(before: str, now: str) -> dict[str, Any]:
    return scores.paired(rows(before), rows(now), "passed", 1)


@pytest.mark.parametrize(
    ("before", "now", "cases", "promoted"),
    [
        (True, True, ("++--", "++--"), True),
        (True, True, ("--++", "++++"), True),
        (True, False, ("--++", "++++"), False),
        (True, None, ("++", "++"), False),
        (False, False, ("++", "++"), True),
        (None, False, ("++", "++"), True),
        (True, True, ("+" * 20, "+" * 19 + "-"), True),
        (True, True, ("+" * 20, "+" * 8 + "-" * 12), False),
    ],
)
def test_a_candidate_is_promoted_unless_a_gate_falls_or_it_is_worse_by_more_than_chance(
    before: bool | None, now: bool | None, cases: tuple[str, str], promoted: bool
) -> None:
    found = decide([gate(before)], [gate(now)], paired(*cases))
    assert found.promoted is promoted and found.reasons


def test_every_reason_is_told() -> None:
    found = decide([gate(True, 0.95), gate(True, name="technical")], [gate(False, 0.8), gate(True, name="technical")], paired("+" * 9, "-" * 9))
    assert found.reasons[0] == "the gate turkish 80.0 % (wanted: at least 90.0 %) falls: before, it was 95.0 %"
    assert found.reasons[1].startswith("case by case it is worse, by more than chance: 0 won, 9 lost, 0 tied")
    assert len(found.reasons) == 2


def test_nothing_that_can_be_paired_is_no_reason_against_it() -> None:
    assert decide([], [], scores.paired([], [], "passed", 1)).promoted


# --- held-out feedback ------------------------------------------------------------------------------------------------------------


def held_out(folder: Path, *cases: dict[str, Any]) -> Path:
    write_jsonl(folder / "held_out.jsonl", cases)
    return folder / "held_out.jsonl"


def test_feedback_becomes_cases_judged_by_their_references(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Kedim Zeytin."}, {"role": "assistant", "content": "Ne güzel ad."}]
    whole = {"id": "q1", "conversation": [], "verdict": "better", "tier": "medium", "language": "en", "source": "a.txt:1"}
    path = held_out(
        tmp_path,
        whole | {"query": "naber", "reference": "İyidir, senden?"},
        {"query": "adı neydi benim kedimin hatırlıyor musun", "conversation": said, "reference": "Zeytin."},
    )
    suite = feedback_suite(path, RULES, pytest.fail)
    assert suite is not None
    short, long = suite["cases"]
    assert short["checks"] == [{"similar_to": {"references": ["İyidir, senden?"], "chrf": 0.3}}]
    assert (short["id"], short["tier"], short["language"]) == ("q1", "medium", "en"), "what is given counts"
    assert (long["tier"], long["language"]) == ("medium", "tr"), "what is not is guessed"
    assert long["turns"] == [{"user": "Kedim Zeytin.", "jessy": "Ne güzel ad."}, {"user": "adı neydi benim kedimin hatırlıyor musun"}]
    assert feedback_suite(path, RULES, pytest.fail) == suite, "the same ids, so the same halves"


def test_an_answer_need_not_be_like_one_that_nobody_judged(tmp_path: Path) -> None:
    suite = feedback_suite(held_out(tmp_path, {"query": "naber", "reference": "İyidir.", "verdict": None}), RULES, pytest.fail)
    assert suite is not None and suite["cases"][0]["checks"] == [] and {"no_generic": True} in suite["defaults"]


def test_the_feedback_writes_the_fields_that_are_read_here() -> None:
    from generators.feedback import store

    shown = (store.__doc__ or "").partition("one a line:\n\n")[2].partition("\n\n")[0]
    assert {'"id"', '"query"', '"conversation"', '"reference"', '"verdict"', '"tier"', '"language"'} <= set(re.findall(r'"\w+"(?=:)', shown))


def test_no_feedback_is_no_suite(tmp_path: Path) -> None:
    assert feedback_suite(tmp_path / "none.jsonl", RULES, pytest.fail) is None
    assert feedback_suite(held_out(tmp_path), RULES, pytest.fail) is None


@pytest.mark.parametrize(
    "line", ["{", "3", '{"query": "a"}', '{"query": "a", "reference": "b", "conversation": [{"role": "user", "content": "c"}]}']
)
def test_a_line_that_is_no_case_is_told_and_left_out(line: str, tmp_path: Path) -> None:
    (tmp_path / "held_out.jsonl").write_text(f'{{"query": "a", "reference": "b"}}\n{line}\n')
    said: list[str] = []
    suite = feedback_suite(tmp_path / "held_out.jsonl", RULES, said.append)
    assert suite is not None and len(suite["cases"]) == 1
    assert len(said) == 1 and "held_out.jsonl:2 is no held-out case, and is left out" in said[0]


# --- one at a time ----------------------------------------------------------------------------------------------------------------


def test_two_never_run_at_once_and_the_second_says_who_has_it(tmp_path: Path) -> None:
    lock = tmp_path / "retrain" / "running"
    with alone(lock, "retraining of mini", silent):
        with (
            pytest.raises(UserError, match=rf"another retraining of mini \(process {os.getpid()}, since .*\) goes on"),
            alone(lock, "retraining of big", silent),
        ):
            pass
    with alone(lock, "retraining of big", silent):
        assert "retraining of big" in lock.read_text()
    assert lock.read_text() == ""


def test_a_lock_whose_process_was_killed_holds_nobody(tmp_path: Path) -> None:
    lock, said = tmp_path / "running", list[str]()
    code = (
        f"import sys, time; from pathlib import Path; from generators.retrain import alone\n"
        f"with alone(Path({str(lock)!r}), 'retraining of mini', print):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid}"), alone(lock, "retraining of mini", said.append):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    with alone(lock, "retraining of mini", said.append):
        assert said[0].startswith(f"an earlier retraining of mini (process {process.pid}") and "was cut off" in said[0]


# --- by itself --------------------------------------------------------------------------------------------------------------------


def schedule(**changes: Any) -> Schedule:
    made: dict[str, Any] = {
        "weekday": 0, "hour": 3, "minute": 30, "folder": Path("/home/a b/100%"), "recipe": "mini", "log": "build/retrain.log", "environment": {},
    }  # fmt: skip
    return Schedule(**made | changes)


def test_the_line_for_cron_has_five_fields_and_no_bare_percent() -> None:
    assert schedule().crontab() == (
        rf"30 3 * * 0 cd '/home/a b/100\%' && {sys.executable} -m doit retrain:mini >> build/retrain.log 2>&1"
    )
    every = schedule(weekday=None, environment={"OLLAMA_HOST": "127.0.0.1:9"}).crontab()
    assert every.startswith("30 3 * * * cd ") and "&& OLLAMA_HOST=127.0.0.1:9 " in every


def test_the_property_list_is_one_that_launchd_reads() -> None:
    job = plistlib.loads(schedule(environment={"OLLAMA_HOST": "x"}).launchd("jessy.retrain.mini").encode())
    assert job["StartCalendarInterval"] == {"Weekday": 0, "Hour": 3, "Minute": 30} and job["Label"] == "jessy.retrain.mini"
    assert job["ProgramArguments"] == [sys.executable, "-m", "doit", "retrain:mini"] and job["WorkingDirectory"] == "/home/a b/100%"
    assert job["EnvironmentVariables"] == {"OLLAMA_HOST": "x"} and job["StandardOutPath"] == "/home/a b/100%/build/retrain.log"
    assert "Weekday" not in plistlib.loads(schedule(weekday=None).launchd("x").encode())["StartCalendarInterval"]


# --- what is kept -----------------------------------------------------------------------------------------------------------------


def test_adapters_are_kept_for_what_is_deployed_and_what_it_would_be_rolled_back_to(tmp_path: Path) -> None:
    adapter, folder = tmp_path / "adapter", tmp_path / "deployed"
    adapter.mkdir()
    for sha256, wanted in (("one", []), ("two", ["one"]), ("three", ["two"])):
        (adapter / "adapters.safetensors").write_text(sha256)
        keep_adapter(adapter, folder, sha256, f"made from {sha256}", wanted)
    assert sorted(path.name for path in folder.iterdir()) == ["three", "two"]
    found, made_from = kept_adapter(folder, "two")
    assert found is not None and (found / "adapters.safetensors").read_text() == "two" and made_from == "made from two"
    assert kept_adapter(folder, "one") == (None, "")


# --- a tiny model -----------------------------------------------------------------------------------------------------------------

SUITE = """\
description: Tea.
cases:
"""
CASE = "  - {{id: tea-{0}, query: çay {0}, language: tr, tier: low, checks: [{{any: [çay]}}]}}\n"
SETTINGS = "training: {batch_size: 2, max_steps: 1, validate_every: 1, patience: 0, learning_rate: 1e-6}\nlora: {rank: 2, alpha: 4}\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Paths]:
    """A recipe that is built and not deployed; its model always says that the tea is good, and the suite asks for no more."""
    root = finished_project.make(tmp_path_factory.mktemp("retrain"))
    recipe = root / "specs" / "recipes" / "tiny.yaml"
    text = recipe.read_text(encoding="utf-8").replace("suites: [multiturn]", "suites: [tea]").replace("max_tokens: 8", "max_tokens: 16")
    recipe.write_text(text.replace("{persona: 0.7, jessy-cli: 0.3}", "{none: 1.0}") + SETTINGS, encoding="utf-8")
    (root / "specs" / "evals" / "tea.yaml").write_text(SUITE + "".join(CASE.format(number) for number in range(5)), encoding="utf-8")
    project, paths = load(root, keep=False), Paths(root)
    planning.render_a_few(project, paths, "tiny", 4)
    paths.held_out.parent.mkdir()
    held_out(paths.held_out.parent, {"query": "çay nasıl olmuş", "reference": "Bu çay güzel!", "source": "log.txt:4"})
    return project, paths


@pytest.fixture(scope="module")
def ollama() -> Iterator[OllamaDouble]:
    with running() as double:
        yield double


def with_training(project: Project, start: str = "fresh", **settings: Any) -> Project:
    recipe = project.recipes["tiny"]
    return replace(project, recipes={**project.recipes, "tiny": {**recipe, "retrain": {**recipe["retrain"], "from": start, "training": settings}}})


@needs_engine
def test_without_ollama_the_candidate_is_built_and_judged(tiny: tuple[Project, Paths], monkeypatch: pytest.MonkeyPatch) -> None:
    project, paths = tiny
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    before = {path: path.stat().st_mtime_ns for path in paths.recipe("tiny").root.rglob("*") if path.suffix in (".gguf", ".txt", ".jsonl")}
    with pytest.raises(UserError, match="the candidate of tiny is good, and could not be deployed: no Ollama answers") as error:
        trials.retrain(project, paths, "tiny", False)
    assert error.value.exit_code == EXIT_FAILED and "doit retrain:tiny again" in str(error.value)
    verdict = read_json(paths.retrain("tiny").verdict)
    assert (verdict["promoted"], verdict["deployed"], verdict["against"]) == (True, False, "tiny as built")
    found = list(read_jsonl(paths.retrain("tiny").root / "evaluation" / "tuned.jsonl"))
    assert {row["suite"] for row in found} == {"tea", "feedback"} and all(row["passed"] for row in found if row["suite"] == "tea")
    assert "Good, not deployed" in (paths.retrain("tiny").root / "report.html").read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is built stays as it was"


@needs_engine
def test_with_ollama_the_same_candidate_is_deployed(
    tiny: tuple[Project, Paths], ollama: OllamaDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, paths = tiny
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    trials.retrain(project, paths, "tiny", False)
    assert "the candidate is promoted" in capsys.readouterr().out
    assert [found.record["retrained"] for found in history.all_of(paths.deployments, "tiny")] == [True]
    trials.retrain(project, paths, "tiny", False)
    assert "tiny@1 was made from these very samples and settings" in capsys.readouterr().out


@needs_engine
def test_a_worse_candidate_is_not_deployed_and_the_report_says_why(
    tiny: tuple[Project, Paths], ollama: OllamaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, paths = tiny
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    if not history.last(paths.deployments, "tiny"):
        release.deploy(project, paths, "tiny", False)
    before = history.last(paths.deployments, "tiny")
    with pytest.raises(GateMissed, match="the candidate of tiny is not promoted: .*case by case it is worse") as error:
        trials.retrain(with_training(project, "deployed", learning_rate=0.05, max_steps=3), paths, "tiny", False)
    assert error.value.exit_code == EXIT_GATE
    assert history.last(paths.deployments, "tiny") == before
    report = (paths.retrain("tiny").root / "report.md").read_text(encoding="utf-8")
    assert "## Not promoted" in report and "worse, by more than chance" in report


@needs_engine
def test_what_training_could_not_better_is_not_judged(
    tiny: tuple[Project, Paths], ollama: OllamaDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, paths = tiny
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    if not history.last(paths.deployments, "tiny"):
        release.deploy(project, paths, "tiny", False)
    trials.retrain(with_training(project, "deployed", learning_rate=1), paths, "tiny", False)
    assert "no step of the training made it better, and what came of it is tiny@1 again" in capsys.readouterr().out


def test_an_adapter_that_was_not_kept_cannot_be_trained_on(tiny: tuple[Project, Paths], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project, paths = tiny
    gguf = tmp_path / "x.gguf"
    deployed = trials._Deployed("tiny@1", gguf, "0" * 64, "", 1, None, "")
    made = replace(paths, made=tmp_path)
    with pytest.raises(UserError, match="the adapter of tiny@1, .* run doit deploy:tiny once more, or set retrain.from to fresh"):
        trials._make_candidate(with_training(project, "deployed"), paths, made, "tiny", deployed)


def test_an_adapter_of_another_form_is_refused(tmp_path: Path) -> None:
    import tiny_models
    from training_jobs import LORA

    from generators.train import load_model, lora

    base = tiny_models.write_hf(tmp_path / "base", "llama")
    model = load_model(base)
    lora.attach(model, LORA, 1)
    lora.save(lora.parameters(model), LORA, len(model.layers), "base", tmp_path / "adapter")
    other = load_model(base)
    lora.attach(other, LORA | {"rank": 8}, 2)
    with pytest.raises(UserError, match="another lora.rank than the recipe"):
        lora.load(other, LORA | {"rank": 8}, tmp_path / "adapter")
    same = load_model(base)
    lora.attach(same, LORA, 2)
    lora.load(same, LORA, tmp_path / "adapter")
    assert all(bool((lora.parameters(same)[name] == array).all()) for name, array in lora.parameters(model).items())


def test_doit_watch_finds_a_candidate_that_is_being_trained(tiny: tuple[Project, Paths]) -> None:
    project, paths = tiny
    candidate = replace(paths, made=paths.retrain("tiny").candidate).recipe("tiny")
    with held(candidate.metrics, "training of tiny"):
        assert training.trials_going_on(project, paths) == {"retrain:tiny": candidate}
    assert training.trials_going_on(project, paths) == {}


def test_a_recipe_that_was_never_built_has_nothing_to_be_compared_with(tiny: tuple[Project, Paths]) -> None:
    with pytest.raises(UserError, match="nothing that a retrained jessy-mini could be compared with; run: doit report:jessy-mini"):
        trials._what_is_deployed(*tiny, "jessy-mini")


def test_the_schedule_is_printed_and_nothing_is_done(tiny: tuple[Project, Paths], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    project, paths = tiny
    trials.retrain(project, replace(paths, root=tmp_path), "jessy-mini", True)
    cron, plist = capsys.readouterr().out.split("# for launchd")
    assert f"30 3 * * 0 cd {tmp_path} && " in cron and "doit retrain:jessy-mini" in cron
    assert plistlib.loads(plist.partition("\n")[2].encode())["WorkingDirectory"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
