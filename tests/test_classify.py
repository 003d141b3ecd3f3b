"""The complexity classifier: what its rules mean, that the shipped ones can be used, and how often they agree with people."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from generators.classify import Authored, classify, compare, explain, matrix, problems_of_rules, review
from generators.dataset.similar import in_word_order, levelled, matches_between, normalised
from generators.samples.expand import first_question
from generators.specs.project import Project, load
from generators.stages import corpus

ROOT = Path(__file__).parents[1]
LEAST_AGREEMENT = 0.85


def rules(*cues: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"bias": 0, "length": [], "thresholds": {"medium": 2, "high": 5}, "cues": list(cues), **fields}


def tier(query: str, *cues: dict[str, Any], **fields: Any) -> str:
    return classify(query, rules(*cues, **fields)).tier


WHY = {"name": "why", "any": ["neden$", "/\\bwhy\\b/"], "points": 2}
CODE = {"name": "code", "any": ["rust$"], "points": 3}


# --- what the rules mean ----------------------------------------------------------------------------------------------------------


def test_without_a_cue_a_query_is_low() -> None:
    verdict = classify("naber", rules(WHY))
    assert verdict.tier == "low" and explain(verdict) == "low (0 points): no cue found"


def test_points_of_all_cues_add_up_and_meet_the_thresholds() -> None:
    assert [tier(query, WHY, CODE) for query in ("naber", "Neden?", "rust", "Rust neden hızlı?")] == ["low", "medium", "medium", "high"]


def test_the_bias_is_where_counting_starts() -> None:
    assert tier("naber", bias=2) == "medium"


def test_the_last_length_that_is_reached_counts() -> None:
    length = [{"words": 6, "points": 5}, {"words": 3, "points": 2}]
    assert [tier(" ".join("a" * count), length=length) for count in (2, 3, 5, 6)] == ["low", "medium", "medium", "high"]


def test_a_cue_counts_once_however_often_it_is_found() -> None:
    assert classify("neden ama neden, why", rules(WHY)).points == 2


def test_a_cue_is_also_found_by_the_cues_it_names() -> None:
    either = {"name": "either", "cues": ["why", "code"], "points": 5}
    silent = [WHY | {"points": 0}, CODE | {"points": 0}]
    assert [tier(query, *silent, either) for query in ("rust", "neden", "naber")] == ["high", "high", "low"]


def test_a_cue_may_need_others_or_be_ruled_out_by_them() -> None:
    both = {"name": "both", "cues": ["why"], "with": ["code"], "points": 5}
    everyday = {"name": "everyday", "cues": ["why"], "unless": ["code"], "points": 2}
    silent = [WHY | {"points": 0}, CODE | {"points": 0}]
    assert [tier(query, *silent, both, everyday) for query in ("rust neden", "neden", "rust")] == ["high", "medium", "low"]


def test_a_cue_may_ask_for_a_length() -> None:
    short = {"name": "short", "any": ["neden$"], "words": {"min": 2, "max": 3}, "points": 2}
    assert [tier(query, short) for query in ("neden", "neden ya", "neden ama neden ki")] == ["low", "medium", "low"]


def test_an_explanation_shows_what_was_found_and_what_it_weighs() -> None:
    long = {"name": "long", "words": {"min": 3}, "points": 0.5}
    verdict = classify("WHY is Rust so fast", rules(WHY, CODE, long, bias=-1))
    assert explain(verdict) == "medium (4.5 points): bias -1, why +2 (why), code +3 (rust), long +0.5 (5 words)"


def test_letter_case_is_turkish_and_english() -> None:
    cue = {"name": "cue", "any": ["index", "ışık"], "points": 2}
    assert [tier(query, cue) for query in ("INDEX eklesem", "IŞIKLAR söndü", "Index", "isik")] == ["medium", "medium", "medium", "low"]


def test_a_phrase_is_found_across_any_white_space_and_case() -> None:
    cue = {"name": "cue", "any": ["iyi geceler"], "points": 2}
    assert tier("İYİ   GECELER", cue) == "medium"


@pytest.mark.parametrize(
    "cue, field, message",
    [
        ({"name": "a", "any": ["/(/"], "points": 1}, "any", "/(/ is not a regular expression: "),
        ({"name": "a", "cues": ["whi"], "points": 1}, "cues", "no cue 'whi'; did you mean 'why'?"),
        ({"name": "a", "any": ["x"], "unless": ["b"], "points": 1}, "unless", "no cue 'b'"),
        ({"name": "a", "cues": ["a"], "points": 1}, "cues", "the cue 'a' leads back to itself"),
        ({"name": "a", "points": 1}, "name", "the cue 'a' says nothing to look for; give it `any`, `cues`, `with` or `words`"),
        ({"name": "why", "any": ["x"], "points": 1}, "name", "the name 'why' is used twice"),
    ],
)
def test_rules_that_cannot_be_used_are_explained(cue: dict[str, Any], field: str, message: str) -> None:
    ((index, where, text),) = problems_of_rules(rules(WHY, cue))
    assert (index, where) == (1, field) and text.startswith(message)


def test_a_circle_of_cues_is_an_error() -> None:
    one, other = {"name": "a", "cues": ["b"], "points": 1}, {"name": "b", "cues": ["a"], "points": 1}
    assert len(list(problems_of_rules(rules(one, other)))) == 2
    with pytest.raises(ValueError, match="leads back to itself"):
        classify("x", rules(one, other))


# --- beside the authors' tiers ------------------------------------------------------------------------------------------------------

AUTHORED = [
    Authored("talk.yaml:5", "naber", "low"),
    Authored("talk.yaml:9", "Neden rust?", "medium"),
    Authored("talk.yaml:12", "neden öyle", "low"),
]


def test_a_comparison_counts_and_names_what_is_seen_otherwise() -> None:
    found = compare(AUTHORED, rules(WHY, CODE))
    assert (found["queries"], found["agreement"]) == (3, 0.3333)
    assert found["confusion"]["low"] == {"low": 1, "medium": 1, "high": 0} and found["confusion"]["medium"]["high"] == 1
    assert [item["source"] for item in found["disagreements"]] == ["talk.yaml:9", "talk.yaml:12"]


def test_nothing_to_compare_is_no_agreement() -> None:
    assert compare([], rules(WHY))["agreement"] == 0.0


def test_a_review_lists_every_disagreement_with_its_line_and_reasons() -> None:
    found = compare(AUTHORED, rules(WHY, CODE))
    assert review(found).splitlines() == [
        "classifier: 33.3% of 3 queries as authored",
        "     low taken for low 1, medium 1, high 0",
        "  medium taken for low 0, medium 0, high 1",
        "    high taken for low 0, medium 0, high 0",
        "",
        "talk.yaml:9: medium, seen as high (5 points): why +2 (neden), code +3 (rust)",
        "  Neden rust?",
        "",
        "talk.yaml:12: low, seen as medium (2 points): why +2 (neden)",
        "  neden öyle",
    ]
    assert review(found).startswith("\n".join(matrix(found)))


# --- the shipped rules --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project() -> Project:
    return load(ROOT)


@pytest.fixture(scope="module")
def further() -> list[dict[str, str]]:
    return YAML(typ="safe").load(ROOT / "tests" / "specs" / "classifier_queries.yaml")["queries"]


def authored(project: Project) -> list[tuple[str, str]]:
    return [
        (example.get("user") or example["turns"][0]["user"], example.get("tier", category["tier"]))
        for category in project.categories.values()
        for example in category["examples"]
    ]


def agreement(pairs: list[tuple[str, str]], shipped: dict[str, Any]) -> float:
    return sum(classify(query, shipped).tier == tier for query, tier in pairs) / len(pairs)


def test_the_shipped_rules_can_be_used(project: Project) -> None:
    assert list(problems_of_rules(project.tiers["classifier"])) == []


def test_they_agree_with_the_authors_of_the_corpus(project: Project) -> None:
    assert agreement(authored(project), project.tiers["classifier"]) >= LEAST_AGREEMENT


def test_without_a_query_classify_lists_the_lines_of_the_corpus(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.classify(project, "")
    told = capsys.readouterr().out
    wrong = sum(classify(query, project.tiers["classifier"]).tier != tier for query, tier in authored(project))
    places = re.findall(r"^(specs/categories/.*\.yaml):(\d+): ", told, re.M)
    assert len(places) == wrong and f"of {len(authored(project))} queries" in told
    lines = (ROOT / places[0][0]).read_text(encoding="utf-8").splitlines()
    assert lines[int(places[0][1]) - 1].startswith("  - ")


def test_a_query_is_explained(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.classify(project, "Rust neden hızlı?")
    assert re.fullmatch(r"(low|medium|high) \(.* points\): .*\n", capsys.readouterr().out)


def test_an_example_with_slots_is_asked_with_the_first_of_each() -> None:
    category = {"language": "tr", "slots": {"city": ["Muş", "Van"], "who": ["abi"]}}
    example = {"user": "{{ slots.city | tr_locative }} hava nasıl {{ slots.who }}", "jessy": "Soğuk."}
    assert first_question(example, category) == "Muş'ta hava nasıl abi"


def test_they_agree_on_queries_that_they_were_not_tuned_on(project: Project, further: list[dict[str, str]]) -> None:
    assert agreement([(item["query"], item["tier"]) for item in further], project.tiers["classifier"]) >= LEAST_AGREEMENT


def test_the_further_queries_are_sixty_in_both_languages(further: list[dict[str, str]]) -> None:
    assert Counter(item["tier"] for item in further) == {"low": 20, "medium": 20, "high": 20}
    assert min(Counter((item["tier"], item["language"]) for item in further).values()) >= 6


def test_the_further_queries_are_neither_in_the_corpus_nor_in_the_evaluation(project: Project, further: list[dict[str, str]]) -> None:
    known = [query for query, _ in authored(project)]
    known += [turn["user"] for suite in project.suites.values() for case in suite["cases"] for turn in case.get("turns", [])]
    known += [case["query"] for suite in project.suites.values() for case in suite["cases"] if "query" in case]
    asked, texts = ([levelled(normalised(text)) for text in texts] for texts in ([item["query"] for item in further], known))
    for order in (str, in_word_order):
        assert list(matches_between([order(text) for text in asked], [order(text) for text in texts], 0.8)) == []
