"""The stage ledger: which stage loses, told by probabilities and by answers, and a whole chain of a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from ruamel.yaml import YAML

from generators import ledger
from generators.chat_format import jinja_template
from generators.errors import UserError
from generators.evaluate.engines import Generation, Sampling
from generators.files import read_json, write_jsonl
from generators.fuse import fuse
from generators.gguf import write_gguf
from generators.ledger import Judge, Probe, Stage
from generators.llama_logits import Scored
from generators.quantisations import Text
from generators.report.material import Material
from generators.report.view import view
from generators.tokens import Tokenizer

ROOT = Path(__file__).parents[1]
GEMMA = YAML(typ="safe").load(ROOT / "specs" / "chat_formats" / "gemma.yaml")
JUDGE = Judge((("no_list", True),), {"opinion_markers": {}, "principles": []}, (), ("<end_of_turn>",))
GOOD, LIST = "İyidir valla, senden naber?", "İyidir:\n- bir\n- iki\n- üç"


def _silent(line: str) -> None:
    """Progress is not looked at."""


class Saying:
    """An engine that says one thing."""

    name, digest, slots, load_seconds = "saying", "0", 1, 0.0

    def __init__(self, text: str):
        self._text = text

    def prompt_key(self, messages: list[dict[str, str]]) -> str:
        return "0"

    def generate(self, messages: Any, sampling: Sampling, watch: Any = None) -> Generation:
        return Generation(self._text, 5, 5, 0.1, 0.1, "stop")

    def log_probabilities(self, messages: Any, answer: str) -> list[float]:
        raise AssertionError("the ledger scores whole texts")


def _stage(name: str, before: str | None, nats: float, text: str = GOOD) -> Stage:
    def score(texts: Sequence[Text]) -> Scored:
        count = sum(len(each.positions) for each in texts)
        return Scored([nats] * count, [0] * count)

    return Stage(name, before, lambda: nullcontext(Saying(text)), score)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_hf(tmp_path_factory.mktemp("base"), "gemma3")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dataset") / "valid.jsonl"
    turns = [{"role": "user", "content": "selam"}, {"role": "assistant", "content": "selam kanka"}]
    rows = [
        {
            "messages": [
                *(turns if index == 0 else []),
                {"role": "user", "content": f"naber {index}"},
                {"role": "assistant", "content": GOOD},
            ],
            "metadata": {"id": str(index), "language": "tr"},
        }
        for index in range(6)
    ]
    write_jsonl(path, rows)
    return path


def _kept(base: Path, valid: Path, target: Path, stages: list[Stage], lines: list[str] | None = None) -> dict[str, Any]:
    probes = ledger.draw_probes(valid, "Sen JESSY'sin.", 7)
    said = (lines if lines is not None else []).append
    return ledger.keep(stages, probes, Tokenizer.load(base, GEMMA), JUDGE, 0.05, Sampling(8), "sha", target, said)


def test_the_first_stage_that_loses_more_than_the_budget_is_named(base: Path, valid: Path, tmp_path: Path) -> None:
    stages = [
        _stage("base", None, -4.0),
        _stage("adapter", "base", -2.0),
        _stage("fused", "adapter", -2.01),
        _stage("F16", "fused", -2.01),
        _stage("Q8_0", "F16", -2.02),
        _stage("Q4_0", "F16", -2.2),
        _stage("Q4_K_M", "F16", -2.5),
    ]
    lines: list[str] = []
    found = _kept(base, valid, tmp_path / "ledger.json", stages, lines)
    assert found["first_loss"] == "Q4_0" and read_json(tmp_path / "ledger.json") == found
    assert [row["loss"] for row in found["stages"]] == [None, *map(pytest.approx, (-2.0, 0.01, 0.0, 0.01, 0.19, 0.49))]
    assert lines[-1] == ("ledger: the first stage that loses more than the budget is Q4_0: 0.190 nats a token and 0 probes against F16")


def test_a_stage_without_probabilities_is_judged_by_its_answers(base: Path, valid: Path, tmp_path: Path) -> None:
    deployed = Stage("deployed", "Q8_0", lambda: nullcontext(Saying(LIST)), None)
    found = _kept(base, valid, tmp_path / "ledger.json", [_stage("Q8_0", None, -2.0), deployed])
    assert found["first_loss"] == "deployed"
    assert [(row["passed"], row["lost_probes"], row["log_probability"]) for row in found["stages"]] == [(6, None, -2.0), (0, 6, None)]
    assert found["probes"][0]["stages"]["deployed"] == {"answer": LIST, "failed": ["no_list"], "log_probability": None}


def test_what_gets_better_is_no_loss_and_a_stage_that_does_not_run_is_told(base: Path, valid: Path, tmp_path: Path) -> None:
    def refuse() -> Any:
        raise UserError("Ollama does not answer")

    lines: list[str] = []
    stages = [_stage("base", None, -4.0), _stage("adapter", "base", -2.0), Stage("deployed", "adapter", refuse, None)]
    found = _kept(base, valid, tmp_path / "ledger.json", stages, lines)
    assert found["first_loss"] is None and [row["stage"] for row in found["stages"]] == ["base", "adapter"]
    assert "deployed: not measured: Ollama does not answer" in lines
    assert lines[-1] == "ledger: no stage loses more than 0.05 nats a token or 3 probes"


def test_an_answer_of_more_than_twice_the_reference_fails() -> None:
    probe = Probe("a", "tr", ({"role": "user", "content": "naber"},), GOOD)
    long = "Bence bugün hava çok güzel ve sen de iyi görünüyorsun, ama ben yine de uzun uzun anlatırım; çay içelim mi, yoksa önce yürüyelim mi?"
    assert JUDGE.failed(probe, Generation(GOOD, 5, 5, 0.1, 0.1, "stop")) == []
    assert JUDGE.failed(probe, Generation(long, 5, 5, 0.1, 0.1, "stop")) == ["words"]


def test_probes_are_drawn_by_seed_with_the_persona_before_them(valid: Path) -> None:
    draw = partial(ledger.draw_probes, valid, "Sen JESSY'sin.")
    assert draw(7, 3) == draw(7, 3) != draw(8, 3)
    assert draw(7, 3)[0].messages[0] == {"role": "system", "content": "Sen JESSY'sin."}
    with pytest.raises(UserError, match="holds no samples"):
        ledger.draw_probes(valid.with_name("none.jsonl"), "", 7)


def test_checks_are_those_that_every_suite_asks_of_all_its_answers() -> None:
    suites = {
        "a": {"defaults": [{"no_generic": True}, {"no_list": True}, {"words": {"max": 9}}]},
        "b": {"defaults": [{"no_generic": True, "no_list": False}, {"words": {"max": 90}}]},
    }
    assert ledger.common_checks(suites) == (("no_generic", True),)
    assert ledger.common_checks({}) == ()


def test_a_tiny_model_goes_through_every_stage_and_loses_nothing_but_by_the_adapter(base: Path, valid: Path, tmp_path: Path) -> None:
    adapter = tiny_models.save_adapter(tmp_path / "adapter", base)
    fuse(base, adapter, tmp_path / "fused", _silent)

    def write(quantisation: str, path: Path) -> None:
        write_gguf(base, adapter, path, quantisation, jinja_template(GEMMA), {"general.name": "t"}, _silent, "<end_of_turn>")

    write("Q8_0", tmp_path / "t-Q8_0.gguf")
    ggufs = {"Q8_0": tmp_path / "t-Q8_0.gguf"}
    stages = ledger.stages(base, adapter, tmp_path / "fused", ggufs, partial(write, "F16"), "nobody-has-this", GEMMA, threads=1)
    found = _kept(base, valid, tmp_path / "ledger.json", stages[:-1])
    rows = {row["stage"]: row for row in found["stages"]}
    assert list(rows) == ["base", "adapter", "fused", "F16", "Q8_0"] and stages[-1].name == "deployed"
    assert abs(rows["adapter"]["loss"]) > 0.01  # the adapter is random
    assert all(abs(rows[stage]["loss"]) < 0.05 for stage in ("fused", "F16", "Q8_0"))
    assert not (tmp_path / "F16.gguf.partial").exists()
    assert all(set(probe["stages"]) == set(rows) for probe in found["probes"])


def test_the_report_names_the_first_loss_and_shows_no_ledger_of_another_model() -> None:
    kept = {"model": "sha", "first_loss": "Q4_0", "stages": [{"stage": "F16", "passed": 30}, {"stage": "Q4_0", "passed": 12}]}
    export = {"quantisations": [{"quantisation": "Q4_0", "sha256": "sha"}]}
    shown = view(Material({}, ledger=kept, export=export))["ledger"]
    assert shown["lines"] == [["F16", "30", ""], ["Q4_0", "12", "the first to lose more than the budget"]]
    assert view(Material({}, ledger=kept | {"model": "older"}, export=export))["ledger"] is None
