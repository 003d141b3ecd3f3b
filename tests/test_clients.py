"""The client's protocol: what it asks, what it reads, when it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from generators import clients
from generators.clients import Observation, Unparsable, overlap, parse_answer, render_answer, run_chain, stage_prompt, stops

CLIENT: dict[str, Any] = YAML(typ="safe").load(Path(__file__).parents[1] / "specs" / "clients" / "jessy-cli.yaml")
LAYERS = ("C01", "C02", "C03", "C04", "C05", "C06")


def answer(confidence: str = "0.9", layers: str = "C01", text: str = "selam") -> str:
    return f"CONFIDENCE: {confidence}\nLAYERS: {layers}\nCONTENT:\n{text}"


def test_an_answer_is_read_line_by_line() -> None:
    assert parse_answer(CLIENT, answer("0.97", "C04, C01", "Sor kanka,\n\ndinliyorum.")) == Observation(
        "Sor kanka,\n\ndinliyorum.", 0.97, ("C04", "C01")
    )


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("Sor kanka.", Observation("Sor kanka.", 0.5, ())),
        ("CONTENT: hemen burada\nve burada", Observation("hemen burada\nve burada", 0.5, ())),
        ("CONFIDENCE: çok\nCONTENT:\nx", Observation("x", 0.5, ())),
        ("CONFIDENCE: 7\nCONTENT:\nx", Observation("x", 1.0, ())),
        ("CONFIDENCE: -1\nCONTENT:\nx", Observation("x", 0.0, ())),
        ("LAYERS:\nCONTENT:\nx", Observation("x", 0.5, ())),
        ("LAYERS: 4, D02,\nCONTENT:\nCONFIDENCE: 0.1", Observation("CONFIDENCE: 0.1", 0.5, ("4", "D02"))),
        ("CONFIDENCE: 0.8\nyarım", Observation("CONFIDENCE: 0.8\nyarım", 0.8, ())),
        ("", Observation("", 0.5, ())),
    ],
)
def test_what_is_missing_has_the_clients_defaults(reply: str, wanted: Observation) -> None:
    assert parse_answer(CLIENT, reply) == wanted


@pytest.mark.parametrize("layers", ["duygu", "C", "C01;C02", "E01", "c01"])
def test_a_layer_that_is_none_is_an_error_of_the_whole_query(layers: str) -> None:
    with pytest.raises(Unparsable, match="neither C or D and a number nor a number"):
        parse_answer(CLIENT, answer(layers=layers))


TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("\n: CONTELAYRS"), st.characters(codec="utf-8", exclude_categories=("C", "Z"))), max_size=30
).map(str.strip)


@given(text=TEXTS, confidence=st.integers(0, 100), layers=st.lists(st.sampled_from(LAYERS), unique=True, max_size=6))
def test_what_is_written_is_read_back(text: str, confidence: int, layers: list[str]) -> None:
    seen = Observation("\n".join(text.splitlines()), confidence / 100, tuple(layers))
    assert parse_answer(CLIENT, render_answer(CLIENT, seen)) == seen


@pytest.mark.parametrize(
    ("observations", "stopped"),
    [
        ([(0.96, 9)], True),
        ([(0.95, 9)], False),
        ([(0.86, 5)], True),
        ([(0.86, 6)], False),
        ([(0.85, 1)], False),
        ([(0.75, 6), (0.75, 6)], True),
        ([(0.74, 6), (0.8, 6)], False),
        ([(0.8, 6), (0.74, 6)], False),
        ([(0.8, 6), (0.8, 4)], False),
    ],
)
def test_the_stop_rule_is_the_clients(observations: list[tuple[float, int]], stopped: bool) -> None:
    names = (*LAYERS, "C07", "C08", "C09")
    assert stops(CLIENT, [Observation("x", confidence, names[:count]) for confidence, count in observations]) is stopped


def test_overlap_is_intersection_over_union() -> None:
    assert overlap(("a", "b"), ("b", "c")) == pytest.approx(1 / 3)
    assert overlap((), ()) == 0.0


def test_the_chain_ends_at_the_first_stage_when_the_model_is_sure() -> None:
    asked: list[tuple[str, str]] = []

    def ask(system: str, prompt: str) -> str:
        asked.append((system, prompt))
        return answer("0.97", "C04", "Sor kanka.")

    result = run_chain(CLIENT, "sana bisi sorucam", ask)
    assert (result.stages, result.answer, result.error) == (1, "Sor kanka.", "")
    assert asked == [(clients.system(CLIENT), stage_prompt(CLIENT, 0, "sana bisi sorucam", []))]
    assert '"sana bisi sorucam"' in asked[0][1]


def test_the_chain_goes_on_to_the_last_stage_and_lists_what_was_seen() -> None:
    prompts: list[str] = []

    def ask(system: str, prompt: str) -> str:
        prompts.append(prompt)
        return answer("0.5", "C06,C10", "emin değilim")

    result = run_chain(CLIENT, "bilinç nedir", ask)
    assert result.stages == len(CLIENT["stages"]) == 2
    assert "explore (confidence 0.50, layers C06,C10): emin değilim" in prompts[1]


def test_the_chain_stops_at_an_answer_that_cannot_be_read() -> None:
    result = run_chain(CLIENT, "x", lambda system, prompt: answer(layers="duygu"))
    assert (result.stages, result.answer) == (0, "")
    assert "layer 'duygu'" in result.error


def test_words_of_the_user_are_never_run_as_a_template() -> None:
    assert "{{ 7 * 7 }} {% x %}" in stage_prompt(CLIENT, 0, "{{ 7 * 7 }} {% x %}", [])
    assert "{{ 7 * 7 }}" in stage_prompt(CLIENT, 1, "x", [Observation("{{ 7 * 7 }}", 0.5, ())])


def test_each_wording_is_one_of_the_declared_ones() -> None:
    prompts = {stage_prompt(CLIENT, 0, "x", [], wording) for wording in range(8)}
    assert len(prompts) == len(CLIENT["stages"][0]["prompts"])
    assert {clients.system(CLIENT, wording) for wording in range(8)} == {text.strip() for text in CLIENT["systems"]}
