"""Shares with intervals, pairs, times, iterations and gates, on figures that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from generators.errors import GateMissed
from generators.evaluate import describe_gate, enforce, scores, summarise
from generators.evaluate.trace import Trace

GATES = {"enforce": True, "turkish": 0.9, "technical": 0.85, "appropriateness": 0.85, "iteration_efficiency": 0.8, "simple_query_s": 5}
RECIPE = {"gates": GATES, "evaluation": {"framings": ["persona", "some-client"]}}


def row(case: str, passed: bool | None = True, **fields: Any) -> dict[str, Any]:
    suite = fields.pop("suite", "turkish")
    made = {
        "id": f"{suite}/{case}",
        "suite": suite,
        "case": case,
        "framing": "persona",
        "repeat": 0,
        "tier": "low",
        "query": case,
        "answer": "x",
        "accuracy": passed,
        "appropriateness": passed,
        "persona": None,
        "iterations": None,
        "passed": bool(passed),
        "generic": False,
        "seconds": 1.0,
        "first_token_s": 0.5,
        "tokens": 11,
        "stages": 1,
        "used": None,
        "ended": "stop",
        "alone": False,
        "error": "",
    }
    return made | fields


def test_an_interval_holds_its_mean_and_is_the_same_for_the_same_seed() -> None:
    values = [1.0] * 8 + [0.0] * 2
    found = scores.interval(values, seed=3)
    assert found == scores.interval(values, seed=3)
    assert found["value"] == pytest.approx(0.8)
    assert found["low"] < 0.8 < found["high"]
    assert found["n"] == 10


def test_the_interval_of_nothing_is_nothing() -> None:
    assert scores.interval([], seed=0) == {"value": None, "low": None, "high": None, "n": 0}


def test_repeats_of_a_case_count_once() -> None:
    rows = [row("a", True), row("a", False, repeat=1), row("b", True), row("c", None)]
    assert scores.by_case(rows, "accuracy") == {("turkish/a", "persona"): 0.5, ("turkish/b", "persona"): 1.0}


def test_wins_losses_and_ties_are_counted_case_by_case() -> None:
    base = [row("a", False), row("b", True), row("c", True), row("only-base", True)]
    tuned = [row("a", True), row("b", False), row("c", True), row("only-tuned", True)]
    found = scores.paired(base, tuned, "passed", seed=0)
    assert (found["wins"], found["losses"], found["ties"]) == (1, 1, 1)
    assert found["difference"]["value"] == pytest.approx(0)
    assert found["mcnemar_p"] == 1


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(0, 0, 1.0), (5, 0, 2 / 2**5), (0, 5, 2 / 2**5), (3, 1, 2 * (1 + 4) / 2**4), (4, 4, 1.0)]
)
def test_mcnemar_is_the_exact_binomial(wins: int, losses: int, p: float) -> None:
    assert scores.mcnemar(wins, losses) == pytest.approx(p)


def test_only_what_was_asked_alone_gives_times() -> None:
    rows = [row("a", alone=True, seconds=1.0), row("b", alone=True, seconds=3.0), row("c", alone=False, seconds=90.0)]
    found = scores.latency(rows)
    assert (found["n"], found["p50"], found["max"]) == (2, 2.0, 3.0)
    assert found["p95"] == pytest.approx(2.9)
    assert found["tokens_per_s"] == pytest.approx(20 / 3)


def test_no_measurement_gives_no_time() -> None:
    assert scores.latency([row("a")])["p50"] is None


@pytest.mark.parametrize(
    ("tier", "used", "right"),
    [
        ("low", 1, True),
        ("low", 2, False),
        ("medium", 1, True),
        ("medium", 2, True),
        ("medium", 3, False),
        ("high", 4, True),
        ("high", 3, False),
    ],
)
def test_a_client_of_four_stages_ends_where_the_tier_says(tier: str, used: int, right: bool) -> None:
    assert scores.right_stages(tier, used, available=4) is right


def test_efficiency_is_told_by_framing_and_tier() -> None:
    rows = [
        row("a", suite="iterations", framing="some-client", iterations=True, used=1),
        row("b", suite="iterations", framing="some-client", iterations=False, used=2),
        row("c", suite="iterations", framing="some-client", iterations=True, used=2, tier="high"),
        row("d", suite="turkish", framing="some-client", iterations=False, used=2),
    ]
    found = scores.efficiency(rows, seed=0)["some-client"]
    assert found["value"] == pytest.approx(2 / 3)
    assert found["tiers"]["low"]["value"] == 0.5
    assert found["tiers"]["low"]["used"] == {"1": 1, "2": 1}


def figures(tuned: list[dict[str, Any]]) -> dict[str, Any]:
    return summarise([row("a", False)], tuned, RECIPE, "mini", seed=1)


def test_gates_are_judged_on_the_first_framing() -> None:
    tuned = [row("a", True), row("a", False, framing="none")]
    gates = {gate["name"]: gate for gate in figures(tuned)["gates"]}
    assert (gates["turkish"]["got"], gates["turkish"]["passed"]) == (1.0, True)
    assert (gates["technical"]["got"], gates["technical"]["passed"]) == (None, None)


def test_the_slowest_framing_decides_the_gate_of_time() -> None:
    tuned = [row("a", alone=True, seconds=1.0), row("a", framing="some-client", alone=True, seconds=6.0)]
    gate = next(gate for gate in figures(tuned)["gates"] if gate["name"] == "simple_query_s")
    assert (gate["got"], gate["passed"]) == (6.0, False)
    assert "some-client" in gate["over"]


def test_the_least_efficiency_decides_its_gate() -> None:
    tuned = [
        row("a", suite="iterations", framing="some-client", iterations=True, used=1),
        row("a", suite="iterations", framing="directive", iterations=False, used=7),
    ]
    gate = next(gate for gate in figures(tuned)["gates"] if gate["name"] == "iteration_efficiency")
    assert (gate["got"], gate["passed"]) == (0.0, False)


def test_an_enforced_gate_that_is_missed_ends_with_its_name_and_code_2() -> None:
    found = figures([row("a", False)])
    with pytest.raises(GateMissed, match=r"2 gates of mini missed: turkish 0\.0 % \(wanted: at least 90\.0 %\); appropriateness") as caught:
        enforce(found)
    assert caught.value.exit_code == 2


def test_a_gate_that_is_not_enforced_is_only_shown() -> None:
    found = figures([row("a", False)]) | {"enforce": False}
    enforce(found)
    assert not found["passed"]


def test_an_enforced_gate_that_was_not_measured_does_not_fail_the_build() -> None:
    enforce(figures([row("a", True)]))


def test_a_gate_of_time_is_told_in_seconds() -> None:
    assert (
        describe_gate({"name": "simple_query_s", "wanted": 5, "got": 6.5, "below": True}) == "simple_query_s 6.50 s (wanted: below 5.00 s)"
    )


def test_the_showcase_is_the_clients_query_before_and_after() -> None:
    base = [row("ask", False, framing="some-client", query="sana bisi sorucam", alone=True, seconds=83.0, stages=2)]
    tuned = [
        row("other", framing="some-client", alone=True),
        row("ask", framing="some-client", query="sana bisi sorucam", alone=True, seconds=1.4),
    ]
    found = summarise(base, tuned, RECIPE, "mini", seed=1)["showcase"]
    assert (found["query"], found["base"]["seconds"], found["tuned"]["seconds"]) == ("sana bisi sorucam", 83.0, 1.4)


# --- trace -----------------------------------------------------------------------------------------------------------------------------


def sample(user: str, category: str, line: int) -> dict[str, Any]:
    source = f"specs/categories/{category}.yaml:{line}"
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": "cevap"}]
    return {"messages": messages, "metadata": {"source": source, "group": category.split("/")[0], "category": category.split("/")[1]}}


TRACE = Trace(
    [sample("Bir şey sorabilir miyim?", "turkish/greetings", 11), sample("Rust'ta borrow checker nedir", "technical/rust", 12),
     sample("deadlock nasıl çözülür", "technical/debugging", 40)]
)  # fmt: skip


def test_the_nearest_sample_comes_first_though_letters_and_suffixes_differ() -> None:
    found = TRACE.nearest("bi sey sorabilirmiyim sana")
    assert found[0]["source"] == "specs/categories/turkish/greetings.yaml:11"
    assert TRACE.nearest("deadlock'u cozmek")[0]["category"] == "technical/debugging"


def test_the_categories_to_edit_follow_from_the_nearest_samples() -> None:
    assert TRACE.categories("rust borrow checker ne yapar")[0] == "technical/rust"


def test_a_query_like_nothing_has_no_trace() -> None:
    assert TRACE.nearest("xyzzy qwv") == []
    assert TRACE.categories("xyzzy qwv") == []
