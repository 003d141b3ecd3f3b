"""What the shipped corpus promises, beyond what the dataset's gates check at every build."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from generators import patterns
from generators.dataset.similar import in_word_order, levelled, matches_between, normalised
from generators.evaluate import compiles
from generators.files import read_json
from generators.paths import Paths
from generators.specs.project import load
from generators.stages import corpus
from generators.turkish import fold
from generators.turkish_suffixes import LANGUAGES

ROOT = Path(__file__).parents[1]
PROJECT = load(ROOT)
COUNTS = {
    "turkish/greetings": 50, "turkish/questions": 75, "turkish/casual": 50, "turkish/slang": 25,
    "technical/rust": 30, "technical/architecture": 30, "technical/performance": 20, "technical/debugging": 20,
    "philosophical/consciousness": 15, "philosophical/ethics": 15, "philosophical/technology": 10, "philosophical/existence": 10,
    "iteration/low": 17, "iteration/medium": 17, "iteration/high": 16,
}  # fmt: skip
# Fewest and most words of an answer.
WORDS = {
    "turkish/greetings": (1, 15), "turkish/casual": (5, 40), "turkish/questions": (15, 70), "philosophical/consciousness": (60, 180),
    "philosophical/ethics": (60, 180), "philosophical/technology": (60, 180), "philosophical/existence": (60, 180),
}  # fmt: skip
CASES = {"turkish": 40, "technical": 25, "philosophy": 15, "iterations": 30, "persona": 15, "multiturn": 10}
SMALL_TALK = ("turkish/greetings", "turkish/casual", "turkish/slang", "iteration/low")


def turns(example: dict[str, Any]) -> list[dict[str, str]]:
    return example.get("turns") or [{"user": example["user"], "jessy": example["jessy"]}]


def examples(group: str = "") -> Iterator[tuple[str, int, dict[str, Any]]]:
    for name, category in PROJECT.categories.items():
        if name.startswith(group):
            for line, example in zip(PROJECT.example_lines[name], category["examples"], strict=True):
                yield name, line, example


def answers(group: str = "") -> Iterator[tuple[str, str]]:
    """(where it stands, what JESSY says) of every turn."""
    for name, line, example in examples(group):
        for turn in turns(example):
            yield f"{name}:{line}", turn["jessy"]


def of(name: str, example: dict[str, Any], field: str) -> Any:
    """A field of an example, or its category's."""
    return example.get(field, PROJECT.categories[name][field])


def snippets(language: str) -> list[Any]:
    fence = re.compile(rf"```{language}\n(.*?)```", re.S)
    return [
        pytest.param(code, id=f"{name}:{line}")
        for name, line, example in examples()
        for turn in turns(example)
        for code in fence.findall(turn["jessy"])
    ]


def test_every_category_has_its_number() -> None:
    assert {name: len(category["examples"]) for name, category in PROJECT.categories.items()} == COUNTS
    assert sum(COUNTS.values()) == 400


def test_the_shipped_specs_do_not_expand() -> None:
    assert {name: category.get("count") for name, category in PROJECT.categories.items()} == COUNTS
    assert not any(category["slots"] for category in PROJECT.categories.values())


def test_the_corpus_passes_every_gate(tmp_path: Path) -> None:
    """Word ranges, opinion marks, language, near duplicates, leaks, tokens and the rest, as `doit dataset` judges them."""
    for name in PROJECT.categories:
        corpus.samples(PROJECT, _paths(tmp_path), name)
    corpus.build_dataset(PROJECT, _paths(tmp_path), lambda line: None)
    report = read_json(_paths(tmp_path).dataset / "report.json")
    assert (report["train"], report["valid"], report["violations"], report["near_duplicates"]) == (361, 39, [], [])


def _paths(root: Path) -> Paths:
    if not (root / "templates").exists():
        (root / "templates").symlink_to(ROOT / "templates")
    return Paths(root)


def test_word_ranges_are_those_of_their_categories() -> None:
    found = {name: tuple(PROJECT.categories[name]["quality"]["words"][limit] for limit in ("min", "max")) for name in WORDS}
    assert found == WORDS


def test_about_25_samples_are_conversations_of_2_to_4_turns() -> None:
    lengths = [len(example["turns"]) for _, _, example in examples() if "turns" in example]
    assert 22 <= len(lengths) <= 30 and set(lengths) <= {2, 3, 4}


def test_at_least_20_samples_answer_to_a_feeling() -> None:
    moods = Counter(example["mood"] for _, _, example in examples() if "mood" in example)
    assert moods.total() >= 20 and {"sad", "angry", "proud", "anxious"} <= set(moods)


def test_about_half_of_the_users_type_without_capitals() -> None:
    asked = [turns(example)[0]["user"] for _, _, example in examples("turkish")]
    assert 0.4 <= sum(text[0].islower() for text in asked) / len(asked) <= 0.6


def test_a_request_to_ask_is_invited_in_one_short_line() -> None:
    """The family of "sana bisi sorucam": at least 12, each answer one line of at most ten words."""
    asks = re.compile(r"\bsor|soru|dan[ıi][sş]|m[uü]sait|bi dak|dicem|kafama tak|fikrinizi al|rica edecek|anlatmam laz")
    family = [example for _, _, example in examples("turkish/greetings") if "user" in example and asks.search(fold(example["user"]))]
    assert len(family) >= 12
    assert all("\n" not in example["jessy"] and len(example["jessy"].split()) <= 10 for example in family)


def test_a_third_of_the_technical_samples_are_english_and_thirty_hold_code() -> None:
    technical = list(examples("technical"))
    english = sum(of(name, example, "language") == "en" for name, _, example in technical)
    assert len(technical) == 100 and 32 <= english <= 35
    assert sum(any("```" in turn["jessy"] for turn in turns(example)) for _, _, example in technical) >= 30


def test_philosophy_is_half_turkish_half_english() -> None:
    languages = Counter(of(name, example, "language") for name, _, example in examples("philosophical"))
    assert languages == {"tr": 25, "en": 25}


# --- what JESSY never does --------------------------------------------------------------------------------------------------------------


def test_no_answer_shows_a_marker_of_the_directive_or_the_client() -> None:
    marker = re.compile(r"</?iterations|^(CONFIDENCE|LAYERS|CONTENT):", re.M)
    assert [place for place, answer in answers() if marker.search(answer)] == []


def test_a_one_liner_is_never_answered_with_a_list_and_nothing_with_a_heading() -> None:
    prose = [(place, re.sub(r"```.*?```", "", answer, flags=re.S)) for place, answer in answers()]
    assert [place for place, answer in prose if re.search(r"^\s*(#|[-*•]\s)", answer, re.M)] == []
    listed = {place for place, answer in prose if re.search(r"^\s*\d+[.)]\s", answer, re.M)}
    low = {f"{name}:{line}" for name, line, example in examples() if of(name, example, "tier") == "low"}
    assert listed & low == set() and all(place.startswith("technical/") for place in listed)


def test_an_answer_has_one_emoji_at_most_and_most_have_none() -> None:
    emoji = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
    counts = Counter(len(emoji.findall(answer)) for _, answer in answers())
    assert max(counts) <= 1 and counts[1] <= 0.05 * counts.total()


def test_principles_stay_out_of_small_talk() -> None:
    cues = [cue for principle in PROJECT.personas["jessy"]["principles"] for cue in principle["cues"] if principle["name"] != "doubt"]
    said = [(place, cue) for name in SMALL_TALK for place, answer in answers(name) for cue in cues if patterns.matches(cue, answer)]
    assert said == []


def test_principles_are_there_where_they_belong() -> None:
    cues = [cue for principle in PROJECT.personas["jessy"]["principles"] for cue in principle["cues"] if principle["name"] != "doubt"]
    assert sum(any(patterns.matches(cue, answer) for cue in cues) for _, answer in answers("philosophical")) >= 8


def test_names_of_languages_take_no_apostrophe() -> None:
    """They are derived by -ce, and what follows a derivation is written on (Türkçeyi)."""
    wrong = re.compile(rf"\b({'|'.join(LANGUAGES)})['’]")
    assert [place for place, answer in answers() if wrong.search(fold(answer))] == []


# --- iteration control ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["low", "medium", "high"])
def test_iterations_and_confidence_are_spread_over_the_range_of_the_tier(tier: str) -> None:
    low, high = PROJECT.tiers["tiers"][tier]["iterations"]
    found = [example for _, _, example in examples(f"iteration/{tier}")]
    assert set(Counter(example["iterations"] for example in found)) == set(range(low, high + 1))
    assert len({example["confidence"] for example in found}) >= 4
    assert {len(example.get("thoughts", [])) for example in found} == {"low": {0}, "medium": {0, 1}, "high": {3}}[tier]


def test_thoughts_grow_surer_towards_the_answer() -> None:
    for name, line, example in examples("iteration"):
        confidence = [seen["confidence"] for seen in example.get("thoughts", [])] + [example["confidence"]]
        assert confidence == sorted(confidence), f"{name}:{line}"


def test_thoughts_lead_jessy_cli_to_the_right_number_of_stages() -> None:
    """By its own stop rule: low ends at stage 1, medium at 1 or 2, high at the last."""
    from generators.clients import Observation, stops

    client = PROJECT.clients["jessy-cli"]
    last = len(client["stages"])
    for tier, wanted in (("low", {1}), ("medium", {1, 2}), ("high", {last})):
        for name, line, example in examples(f"iteration/{tier}"):
            final = Observation(example["jessy"], example["confidence"], tuple(example["layers"]))
            thoughts = [Observation(seen["text"], seen["confidence"], tuple(seen["layers"])) for seen in example.get("thoughts", [])]
            chain = [*thoughts[: last - 1], final]
            used = next((count for count in range(1, last) if stops(client, chain[:count])), len(chain))
            assert used in wanted, f"{name}:{line}"


# --- the evaluation ---------------------------------------------------------------------------------------------------------------------


def test_every_suite_has_its_number_of_cases() -> None:
    assert {name: len(suite["cases"]) for name, suite in PROJECT.suites.items()} == CASES
    assert Counter(case["tier"] for case in PROJECT.suites["iterations"]["cases"]) == {"low": 10, "medium": 10, "high": 10}


def test_no_query_of_the_evaluation_is_in_the_corpus_even_roughly() -> None:
    """Stricter than the gate, in any order of the words."""
    asked = [case.get("query") or case["turns"][-1]["user"] for suite in PROJECT.suites.values() for case in suite["cases"]]
    known = [turn["user"] for _, _, example in examples() for turn in turns(example)]
    queries, texts = ([levelled(normalised(text)) for text in part] for part in (asked, known))
    for order in (str, in_word_order):
        pairs = matches_between([order(text) for text in queries], [order(text) for text in texts], 0.8)
        assert [(asked[one], known[other]) for one, other, _ in pairs] == []


# --- code -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not compiles.is_available("rust"), reason="no rustc on this machine")
def test_every_rust_snippet_compiles(tmp_path: Path) -> None:
    """All in one crate, a module each: one run of rustc instead of thirty."""
    modules = [f"mod sample_{index} {{\n{snippet.values[0]}\n}}\n" for index, snippet in enumerate(snippets("rust"))]
    assert len(modules) >= 20
    source = tmp_path / "corpus.rs"
    source.write_text("#![allow(unused)]\n" + "".join(modules), encoding="utf-8")
    command = ["rustc", "--edition", "2021", "--crate-type", "lib", "--emit=metadata", "-o", str(tmp_path / "corpus.rmeta"), str(source)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("code", snippets("python"))
def test_every_python_snippet_compiles(code: str) -> None:
    compile(code, "snippet", "exec")
