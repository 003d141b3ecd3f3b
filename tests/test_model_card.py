"""The model card: what it says of what the stages left behind, and of what they did not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from golden_files import golden
from ruamel.yaml import YAML

from generators.errors import UserError
from generators.files import read_json, write_json
from generators.report.card import write_card
from generators.templates import closure

ROOT = Path(__file__).parents[1]


def share(value: float | None, cases: int) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return {"value": value, "low": value - 0.1, "high": min(1, value + 0.1), "n": cases}


def suite(name: str, framing: str, base: float | None, tuned: float, cases: int) -> dict[str, Any]:
    sides = {
        side: {measure: share(value, cases) for measure in ("accuracy", "appropriateness", "persona", "passed")}
        for side, value in (("base", base), ("tuned", tuned))
    }
    paired = {"wins": 3, "losses": 1, "ties": 0, "mcnemar_p": 0.6, "difference": share(0.2, cases)}
    return {"suite": name, "framing": framing, **sides, "paired": {"accuracy": paired, "passed": paired}}


def gate(name: str, got: float | None, wanted: float, below: bool = False) -> dict[str, Any]:
    passed = None if got is None else (got < wanted if below else got >= wanted)
    return {"name": name, "got": got, "wanted": wanted, "below": below, "over": f"suite {name}", "passed": passed}


SCORES = {
    "recipe": "mini", "framing": "persona", "framings": ["persona", "cli"], "half": None,
    "gates": [gate("turkish", 0.72, 0.9), gate("technical", 0.9, 0.85), gate("simple_query_s", 1.25, 5, below=True),
              gate("iteration_efficiency", None, 0.8)],
    "suites": [suite("turkish", "persona", 0.25, 0.72, 20), suite("technical|odd", "persona", None, 0.9, 10), suite("turkish", "cli", 0.1, 0.4, 20)],
    "overall": [suite("all", "persona", 0.3, 0.78, 30) | {"suite": None}, suite("all", "cli", 0.1, 0.4, 20) | {"suite": None}],
    "engines": {"tuned": {"name": "llama.cpp mini-Q8_0.gguf", "digest": "a" * 64, "load_seconds": 0.8, "slots": 4}},
    "machine": {"system": "Linux", "cores": 2, "python": "3.11"},
}  # fmt: skip
TRAINING = {
    "steps": 138, "planned_steps": 138, "stop_reason": "all 138 steps done", "best_step": 135, "best_validation_loss": 3.569,
    "first_validation_loss": 4.4216, "seconds": 1973.6, "samples_per_s": 0.549, "peak_memory_bytes": 4_110_209_024, "device": "cpu",
    "device_name": "A processor",
}  # fmt: skip
EXPORT = {
    "quantisations": [
        {"quantisation": "Q8_0", "size": 291_544_704, "bits_per_weight": 8.6996, "sha256": "f" * 64, "parameters": 268_098_176},
        {"quantisation": "Q4_K_M", "size": 240_000_000, "bits_per_weight": 5.2, "sha256": "e" * 64, "parameters": 268_098_176},
    ]
}
DATASET = {
    "samples": 400, "train": 361, "valid": 39, "multi_turn": 28, "moods": {"sad": 3}, "near_duplicates": [], "classifier": {"agreement": 0.87},
    "groups": {"turkish": {"samples": 200, "share": 0.5, "declared": 0.5}, "technical": {"samples": 200, "share": 0.5, "declared": None}},
    "tiers": {"low": {"samples": 300, "share": 0.75}, "high": {"samples": 100, "share": 0.25}}, "languages": {"tr": 300, "en": 100},
}  # fmt: skip
LOCK = {
    "format": 1, "recipe": "mini", "seed": 7, "platform": {"system": "Linux", "machine": "x86_64", "python": "3.11.2"},
    "packages": {"mlx": "0.32.4", "mlx-lm": "0.32.0", "numpy": "2.3.0"},
}  # fmt: skip
CONTEXT: dict[str, Any] = {
    "name": "mini",
    "recipe": {
        "description": "A small voice.",
        "deploy": {"name": "voice"},
        "lora": {"rank": 16, "alpha": 32, "dropout": 0.0, "targets": ["q_proj", "v_proj"], "layers": -1},
        "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-4},
        "framings": {"mix": {"persona": 0.4, "none": 0.2, "cli": 0.3, "directive": 0.1}},
    },
    "base_name": "tiny",
    "base": {
        "description": "A tiny model; as it came.",
        "licence": {"name": 'Open "Terms"', "url": "https://example.org/terms", "notice": "Use it well."},
        "sources": [{"package": "tiny_gguf"}, {"repo": "example/tiny-it"}],
    },
    "end_of_turn": "<end_of_turn>",
}
FILES = {"evaluation/scores.json": SCORES, "training.json": TRAINING, "export.json": EXPORT, "lock.json": LOCK, "dataset.json": DATASET}


def written(folder: Path, files: dict[str, Any] = FILES, **context: Any) -> str:
    for name, value in files.items():
        write_json(folder / name, value)
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    (folder / "frames" / "system.txt").write_text("Sen A'sın.\n\nKısa konuş.\n", encoding="utf-8")
    write_card(folder, {**CONTEXT, "dataset_report": folder / "dataset.json", **context})
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def card(tmp_path: Path) -> str:
    return written(tmp_path)


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_card_is_the_one_that_was_read(card: str) -> None:
    assert card == golden("model_card.md", card)


def test_the_head_is_yaml_that_a_hub_reads(card: str) -> None:
    head = YAML(typ="safe").load(card.split("---\n")[1])
    assert head == {
        "language": ["tr", "en"],
        "license": "other",
        "license_name": 'Open "Terms"',
        "license_link": "https://example.org/terms",
        "base_model": "example/tiny-it",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "lora", "conversational", "ollama"],
    }


def test_a_base_that_is_on_no_hub_is_not_named_as_one(tmp_path: Path) -> None:
    card = written(tmp_path, base={**CONTEXT["base"], "sources": [{"package": "tiny_gguf"}]})
    assert "base_model" not in YAML(typ="safe").load(card.split("---\n")[1])


def test_it_has_its_sections_in_order(card: str) -> None:
    assert re.findall(r"^## (.*)", card, re.MULTILINE) == [
        "Base and licence", "Data", "Training", "Scores", "Quantisations", "How to run it", "Limits",
    ]  # fmt: skip


def test_the_licence_and_its_notice_are_told(card: str) -> None:
    assert '[Open "Terms"](https://example.org/terms). Use it well.' in section(card, "Base and licence")


def test_scores_are_those_of_the_judged_framing_with_their_intervals(card: str) -> None:
    scores = section(card, "Scores")
    assert "| Turkish | 72.0 % | at least 90 % | missed |" in scores and "| Simple queries | 1.25 s | below 5 s | passed |" in scores
    assert "| turkish | 20 | 25 % → 72 % | 62 % to 82 % |" in scores and "40 %" not in scores
    assert "| technical\\|odd | 10 | – → 90 % |" in scores and "| all suites | 30 |" in scores


def test_every_file_has_its_size_and_whole_hash(card: str) -> None:
    assert f"| `mini-Q8_0.gguf` | 291.5 MB | 8.70 | `{'f' * 64}` |" in section(card, "Quantisations")


def test_commands_name_the_model_and_its_first_file(card: str) -> None:
    run = section(card, "How to run it")
    assert "doit deploy:mini" in run and "ollama run voice" in run
    assert "llama-server -m mini-Q8_0.gguf --jinja" in run and "lms import mini-Q8_0.gguf" in run
    assert "```text\nSen A'sın.\n\nKısa konuş.\n```" in run


def test_what_was_missed_or_not_measured_is_a_limit(card: str) -> None:
    limits = section(card, "Limits")
    assert "- Turkish: 72.0 %, and at least 90 % was wanted." in limits
    assert "- Iteration efficiency was not measured (suite iteration_efficiency)." in limits
    assert "Technical" not in limits and "Only Q8_0 was evaluated; Q4_K_M loaded and answered" in limits
    assert "tr 75 %, en 25 %" in limits and "268 million parameters" in limits


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("evaluation/scores.json", "It was not evaluated; run `doit evaluate:mini`."),
        ("training.json", "There are no figures of a run; run `doit train:mini`."),
        ("export.json", "No file was written; run `doit gguf:mini`."),
        ("dataset.json", "There is no report of the dataset; run `doit dataset`."),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_makes_it(missing: str, told: str, tmp_path: Path) -> None:
    assert told in written(tmp_path, {name: value for name, value in FILES.items() if name != missing})


def test_without_a_lock_nothing_is_claimed_of_versions(tmp_path: Path) -> None:
    assert "Made with" not in written(tmp_path, {name: value for name, value in FILES.items() if name != "lock.json"})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(UserError, match="export.json is damaged"):
        write_card(tmp_path, {**CONTEXT, "dataset_report": tmp_path / "dataset.json"})


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "a") == written(tmp_path / "b")


def test_no_line_has_room_at_its_end_and_no_gap_is_wider_than_a_line(card: str) -> None:
    assert not re.search(r"[ \t]\n", card) and "\n\n\n" not in card


def test_the_template_stands_alone() -> None:
    """dodo.py lists it as an input; what it would include must be listed with it."""
    assert [path.name for path in closure(ROOT / "templates", "reports/card.md.j2")] == ["card.md.j2"]


def test_the_recipes_of_this_project_have_all_that_a_card_needs(tmp_path: Path) -> None:
    from generators.paths import Paths
    from generators.specs.project import load
    from generators.stages import judging

    project = load(ROOT, keep=False)
    for name in project.recipes:
        root = Paths(tmp_path / name)
        write_json(root.dataset / "report.json", DATASET)
        write_json(root.recipe(name).export, EXPORT)
        judging.report(project, root, name)
        card = root.recipe(name).card.read_text(encoding="utf-8")
        assert f"# {project.recipes[name]['deploy']['name']}\n" in card and "Gemma Terms of Use" in card
    assert read_json(root.recipe(name).export) == EXPORT
