"""The split and the report: exact, stable, seeded, and whole or not at all."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from generators.dataset import REJECTED, DatasetErrors, build, summary
from generators.dataset.entries import Entry
from generators.dataset.report import quantiles
from generators.dataset.split import shuffled, split, valid_count
from generators.errors import UserError
from generators.files import read_json, read_jsonl

PROJECT = {
    "seed": 7,
    "dataset": {"balance": {}, "tolerance": 0.02, "valid_share": 0.1},
    "quality": {
        "tiers": {},
        "near_duplicate": 0.9,
        "eval_leak": 0.9,
        "same_opening": 1.0,
        "tokens": 1536,
        "forbidden": [],
        "opinion_required": [],
    },
}
PERSONAS = {"jessy": {"opinion_markers": {"tr": ["bence"], "en": ["I think"]}}}
CLASSIFIER = {
    "bias": 0,
    "length": [],
    "thresholds": {"medium": 2, "high": 5},
    "cues": [{"name": "why", "any": ["neden$"], "points": 2}, {"name": "greeting", "any": ["selam"], "points": -1}],
}
_SYLLABLES = [consonant + vowel for consonant in "bcdfgklmnprstvyz" for vowel in "aeıiouöü"]


def entry(category: str, number: int, source: str | None = None) -> Entry:
    place = source or f"specs/categories/{category}.yaml:{number}"
    return Entry(f"{category}/{number}", category, place, "low", "tr", None, (f"soru {number}",), ("cevap",), 0, 0, 0)


def entries(**sizes: int) -> list[Entry]:
    return [entry(f"turkish/{name}", number) for name, size in sizes.items() for number in range(size)]


def valid_ids(found: list[Entry], share: float = 0.1, seed: int = 7) -> set[str]:
    return {found[index].id for index in split(found, share, seed).valid}


def write_category(folder: Path, name: str, count: int, **metadata: Any) -> Path:
    """Samples that keep every rule: each asks and answers something of its own."""
    group, category = name.split("/")
    target = folder / f"{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8") as out:
        for number in range(count):
            things = ["".join(random.Random(f"{name}{number}{place}").sample(_SYLLABLES, 4)) for place in range(4)]
            answer = f"Bunun için {things[1]} ile {things[3]} gerek."
            row = {
                "messages": [{"role": "user", "content": f"{' '.join(things)} neden"}, {"role": "assistant", "content": answer}],
                "metadata": {
                    "id": f"{name}/{number:04x}",
                    "group": group,
                    "category": category,
                    "tier": "medium",
                    "iterations": 3,
                    "language": "tr",
                    "persona": "jessy",
                    "response_budget_s": 15,
                    "source": f"specs/categories/{name}.yaml:{number + 10}",
                    "template": "samples/chat.j2",
                    "layers": ["C02"],
                    **metadata,
                },
            }
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return target


def categories(*names: str) -> dict[str, Any]:
    return {name: {"quality": {"words": {"min": 1, "max": 50}}} for name in names}


def made(tmp_path: Path, **sizes: int) -> dict[str, Any]:
    files = [write_category(tmp_path / "samples", f"turkish/{name}", size) for name, size in sizes.items()]
    specs = categories(*(f"turkish/{name}" for name in sizes))
    return build(files, PROJECT, specs, {}, {}, PERSONAS, tmp_path / "dataset", lambda line: None, classifier=CLASSIFIER)


def ids(path: Path) -> list[str]:
    return [row["metadata"]["id"] for row in read_jsonl(path)]


# --- the split --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples, valid", [(0, 0), (4, 0), (5, 1), (10, 1), (15, 1), (16, 2), (25, 2), (50, 5), (75, 7), (100, 10)])
def test_a_category_gives_the_nearest_whole_number_and_one_from_five_on(samples: int, valid: int) -> None:
    assert valid_count(samples, 0.1) == valid
    assert len(valid_ids(entries(only=samples))) == valid


def test_no_valid_split_is_made_where_its_share_is_nothing() -> None:
    assert valid_ids(entries(only=50), share=0.0) == set()


def test_a_sample_more_in_one_category_moves_none_of_another() -> None:
    before = valid_ids(entries(one=40, two=30))
    after = valid_ids(entries(one=41, two=30))
    assert {name for name in before if "/two/" in name} == {name for name in after if "/two/" in name}


def test_a_sample_more_moves_at_most_one_of_its_own_category() -> None:
    before, after = valid_ids(entries(one=40)), valid_ids(entries(one=41))
    assert len(before) == len(after) == 4 and len(before - after) <= 1


def test_another_seed_draws_another_split() -> None:
    assert valid_ids(entries(one=100), seed=7) != valid_ids(entries(one=100), seed=8)


def test_the_order_of_files_does_not_matter() -> None:
    found = entries(one=40, two=30)
    assert valid_ids(found) == valid_ids(found[::-1])


def test_expansions_of_one_example_stay_together() -> None:
    found = [entry("turkish/one", number, f"one.yaml:{number // 5}") for number in range(100)]
    parts = split(found, 0.1, 7)
    sides = {(found[index].source, index in parts.valid) for index in range(100)}
    assert len(parts.valid) == 10 and len(sides) == 20 and parts.divided == []


def test_one_example_is_divided_where_the_number_demands_it() -> None:
    found = [entry("turkish/one", number, f"one.yaml:{number // 50}") for number in range(100)]
    parts = split(found, 0.1, 7)
    assert len(parts.valid) == 10 and len({found[index].source for index in parts.valid}) == 1
    assert parts.divided == [found[parts.valid[0]].source]


def test_a_new_sample_passes_no_other_in_the_shuffle() -> None:
    before = [entries(one=40)[index].id for index in shuffled(entries(one=40), range(40), 7)]
    after = [entries(one=41)[index].id for index in shuffled(entries(one=41), range(41), 7)]
    assert [name for name in after if name != "turkish/one/40"] == before != sorted(before)


# --- what is written --------------------------------------------------------------------------------------------------------------


def test_both_splits_hold_every_line_once_as_it_was_rendered(tmp_path: Path) -> None:
    made(tmp_path, one=30, two=20)
    rendered = [line for path in (tmp_path / "samples").rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    written = [line for name in ("train", "valid") for line in (tmp_path / "dataset" / f"{name}.jsonl").read_bytes().splitlines()]
    assert sorted(written) == sorted(rendered)
    assert Counter(name.rsplit("/", 1)[0] for name in ids(tmp_path / "dataset" / "valid.jsonl")) == {"turkish/one": 3, "turkish/two": 2}


def test_a_second_build_writes_the_same_bytes(tmp_path: Path) -> None:
    made(tmp_path, one=30)
    first = {path.name: path.read_bytes() for path in (tmp_path / "dataset").iterdir()}
    made(tmp_path, one=30)
    assert {path.name: path.read_bytes() for path in (tmp_path / "dataset").iterdir()} == first
    assert sorted(first) == ["report.json", "train.jsonl", "valid.jsonl"]


def test_train_is_shuffled_across_categories(tmp_path: Path) -> None:
    made(tmp_path, one=30, two=30)
    names = ids(tmp_path / "dataset" / "train.jsonl")
    assert names != sorted(names) and len({name.rsplit("/", 1)[0] for name in names[:10]}) == 2


def test_bad_data_replaces_nothing_and_leaves_its_report(tmp_path: Path) -> None:
    made(tmp_path, one=30)
    before = {name: (tmp_path / "dataset" / name).read_bytes() for name in ("train.jsonl", "valid.jsonl", "report.json")}
    write_category(tmp_path / "bad", "turkish/one", 30, language="en")
    with pytest.raises(DatasetErrors) as caught:
        build(
            [tmp_path / "bad" / "turkish" / "one.jsonl"],
            PROJECT,
            categories("turkish/one"),
            {},
            {},
            PERSONAS,
            tmp_path / "dataset",
            lambda line: None,
        )
    assert caught.value.exit_code == 3 and len(caught.value.violations) == 30
    assert str(caught.value).startswith("specs/categories/turkish/one.yaml:10: language: ")
    assert {name: (tmp_path / "dataset" / name).read_bytes() for name in before} == before
    assert len(read_json(tmp_path / "dataset" / REJECTED)["violations"]) == 30


def test_good_data_clears_the_rejected_report(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / REJECTED).write_text("{}")
    made(tmp_path, one=30)
    assert not (tmp_path / "dataset" / REJECTED).exists()


def test_a_line_that_is_no_sample_is_named(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"messages": []}\n')
    with pytest.raises(UserError, match=r"one\.jsonl:1: not a sample"):
        build([path], PROJECT, {}, {}, {}, PERSONAS, tmp_path / "dataset", lambda line: None)


def test_no_samples_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no samples"):
        build([], PROJECT, {}, {}, {}, PERSONAS, tmp_path / "dataset", lambda line: None)


# --- the report -------------------------------------------------------------------------------------------------------------------


def test_the_report_counts_what_is_there(tmp_path: Path) -> None:
    files = [
        write_category(tmp_path, "turkish/one", 20, mood="sad"),
        write_category(tmp_path, "technical/two", 10, tier="high"),
    ]
    report = build(files, PROJECT, categories("turkish/one", "technical/two"), {}, {}, PERSONAS, tmp_path / "dataset", lambda line: None)
    assert (report["samples"], report["train"], report["valid"]) == (30, 27, 3)
    assert report["groups"]["turkish"] == {"samples": 20, "share": 0.6667, "declared": None}
    assert report["tiers"]["high"]["samples"] == 10 and report["languages"] == {"tr": 30} and report["moods"] == {"sad": 20}
    one = report["categories"]["turkish/one"]
    assert (one["samples"], one["train"], one["valid"], one["multi_turn"]) == (20, 18, 2, 0)
    assert one["words"] == {"min": 6, "p10": 6, "p25": 6, "median": 6, "p75": 6, "p90": 6, "max": 6}
    assert 0 < one["type_token_ratio"] < 1 and one["commonest_opening"] == {"opening": "bunun için", "answers": 20, "share": 1.0}
    assert report == read_json(tmp_path / "dataset" / "report.json")


def test_quantiles_are_values_that_occur() -> None:
    found = quantiles({1: 5, 2: 3, 10: 2})
    assert found == {"min": 1, "p10": 1, "p25": 1, "median": 1, "p75": 2, "p90": 10, "max": 10}


def test_each_disagreement_of_the_classifier_is_listed(tmp_path: Path) -> None:
    files = [write_category(tmp_path, "turkish/one", 10), write_category(tmp_path, "turkish/two", 5, tier="high")]
    report = build(
        files,
        PROJECT,
        categories("turkish/one", "turkish/two"),
        {},
        {},
        PERSONAS,
        tmp_path / "dataset",
        lambda line: None,
        classifier=CLASSIFIER,
    )
    found = report["classifier"]
    assert found["agreement"] == round(10 / 15, 4) and found["confusion"]["high"] == {"low": 0, "medium": 5, "high": 0}
    assert [item["source"] for item in found["disagreements"]] == [f"specs/categories/turkish/two.yaml:{line}" for line in range(10, 15)]
    assert found["disagreements"][0]["why"] == "medium (2 points): why +2 (neden)"


def test_the_summary_counts_the_disagreements_and_says_where_they_stand(tmp_path: Path) -> None:
    files = [write_category(tmp_path, "turkish/one", 10, tier="high")]
    report = build(
        files, PROJECT, categories("turkish/one"), {}, {}, PERSONAS, tmp_path / "dataset", lambda line: None, classifier=CLASSIFIER
    )
    text = summary(report)
    assert "  10 disagree: they stand in report.json under classifier, and doit classify lists them" in text.splitlines()
    assert "    high taken for low 0, medium 10, high 0" in text.splitlines() and "one.yaml:10" not in text


def test_the_summary_names_categories_classifier_and_violations(tmp_path: Path) -> None:
    report = made(tmp_path, one=30, two=20)
    text = summary(report)
    assert "turkish/one" in text and "50 samples: 45 train, 5 valid" in text and "every gate is passed" in text
    assert "classifier: 100.0% of 50 queries" in text and "\x1b" not in text
    report["violations"] = [{"rule": "words", "message": "x", "sources": []}]
    assert "violations: words 1" in summary(report)
    assert max(map(len, text.splitlines())) <= 140
