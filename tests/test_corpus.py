"""What the shipped corpus promises, beyond what the dataset's gates check at every build."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from generators.specs.project import load
from generators.turkish import fold

ROOT = Path(__file__).parents[1]
PROJECT = load(ROOT)
COUNTS = {
    "turkish/greetings": 50, "turkish/questions": 75, "turkish/casual": 50, "turkish/slang": 25,
    "technical/rust": 30, "technical/architecture": 30, "technical/performance": 20, "technical/debugging": 20,
    "philosophical/consciousness": 15, "philosophical/ethics": 15, "philosophical/technology": 10, "philosophical/existence": 10,
    "iteration/low": 17, "iteration/medium": 17, "iteration/high": 16,
}  # fmt: skip


def turns(example: dict[str, Any]) -> list[dict[str, str]]:
    return example.get("turns") or [{"user": example["user"], "jessy": example["jessy"]}]


def examples(group: str = "") -> Iterator[tuple[str, int, dict[str, Any]]]:
    for name, category in PROJECT.categories.items():
        if name.startswith(group):
            for line, example in zip(PROJECT.example_lines[name], category["examples"], strict=True):
                yield name, line, example


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


def test_about_25_samples_are_conversations_of_2_to_4_turns() -> None:
    lengths = [len(example["turns"]) for _, _, example in examples() if "turns" in example]
    assert 22 <= len(lengths) <= 30 and set(lengths) <= {2, 3, 4}


def test_at_least_20_samples_answer_to_a_feeling() -> None:
    assert sum("mood" in example for _, _, example in examples()) >= 20


def test_a_request_to_ask_is_invited_in_one_short_line() -> None:
    """The family of "sana bisi sorucam": at least 12, each answer one line of at most ten words."""
    asks = re.compile(r"\bsor|soru|dan[ıi][sş]|m[uü]sait|bi dak|dicem|kafama tak|fikrinizi al|rica edecek|anlatmam laz")
    family = [example for _, _, example in examples("turkish/greetings") if "user" in example and asks.search(fold(example["user"]))]
    assert len(family) >= 12
    assert all("\n" not in example["jessy"] and len(example["jessy"].split()) <= 10 for example in family)


def test_a_third_of_the_technical_samples_are_english_and_thirty_hold_code() -> None:
    technical = list(examples("technical"))
    english = sum(example.get("language", PROJECT.categories[name]["language"]) == "en" for name, _, example in technical)
    assert 28 <= english <= 38
    assert sum(any("```" in turn["jessy"] for turn in turns(example)) for _, _, example in technical) >= 30


def test_philosophy_is_half_turkish_half_english() -> None:
    languages = [example.get("language", PROJECT.categories[name]["language"]) for name, _, example in examples("philosophical")]
    assert 23 <= languages.count("tr") <= 27


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


@pytest.mark.skipif(shutil.which("rustc") is None, reason="no rustc on this machine")
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
