"""The whole chain, as a person runs it: `doit` in a project of its own, on a tiny random model with the embedded base's real tokenizer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import write_gguf, write_hf

ROOT = Path(__file__).parents[1]
MODEL = """\
description: A tiny random model with Gemma 3's tokenizer.
architecture: gemma3
chat_format: gemma
context_length: 2048
parameters: 17000000
sources:
  - gguf: tiny.gguf
licence: {name: none, url: none, notice: It is random numbers.}
"""
RECIPE = """\
description: Two steps on the tiny model.
base: tiny
personas: [jessy, casual]
framings: {mix: {persona: 0.5, none: 0.2, jessy-cli: 0.3}}
lora: {rank: 4, alpha: 8}
training: {batch_size: 4, max_steps: 2, validate_every: 2}
export: {quantisations: [Q8_0]}
deploy: {name: tiny}
evaluation: {suites: [multiturn], framings: [persona], max_tokens: 8}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, embedded_base: Path) -> Path:
    """A project that has this one's specs and templates, and a recipe for the tiny model."""
    root = tmp_path_factory.mktemp("project")
    for name in ("specs", "templates"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    (root / "generators").symlink_to(ROOT / "generators")
    (root / "build").mkdir()
    (root / "specs" / "models" / "tiny.yaml").write_text(MODEL)
    (root / "specs" / "recipes" / "tiny.yaml").write_text(RECIPE)
    write_hf(root / "hf", "gemma3", vocabulary_from=embedded_base)
    write_gguf(root / "hf", root / "tiny.gguf")
    return root


def doit(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-m", "doit", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)


def ran(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """The tasks that were run, in order."""
    return [line[2:] for line in finished.stdout.splitlines() if line.startswith("▸ ")]


@pytest.fixture(scope="module")
def built(project: Path) -> Path:
    finished = doit(project, "report:tiny")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return project


def test_one_command_goes_from_specs_to_a_report(built: Path) -> None:
    recipe = built / "build" / "recipes" / "tiny"
    made = {path.relative_to(recipe).as_posix() for path in recipe.rglob("*") if path.is_file()}
    assert {
        "adapter/adapters.safetensors",
        "fused/model.safetensors",
        "tiny-Q8_0.gguf",
        "metrics.jsonl",
        "evaluation/scores.json",
        "report.html",
    } <= made
    assert (built / "build" / "modelfiles" / "tiny" / "jessy.Modelfile").is_file()
    answers = [json.loads(line) for line in (recipe / "evaluation" / "tuned.jsonl").read_text().splitlines()]
    assert len(answers) >= 10 and all("answer" in row for row in answers)


def test_doit_again_does_nothing_and_says_so(built: Path) -> None:
    finished = doit(built, "report:tiny")
    assert finished.returncode == 0
    assert finished.stdout == "Nothing to do: everything is up to date.\n"


def test_one_edited_example_rebuilds_its_category_and_what_follows(built: Path) -> None:
    category = built / "specs" / "categories" / "turkish" / "greetings.yaml"
    before = category.read_text(encoding="utf-8")
    line = next(line for line in before.splitlines() if line.strip().startswith("jessy: "))
    category.write_text(before.replace(line, line.rstrip(".!?") + " ya!", 1), encoding="utf-8")
    try:
        finished = doit(built, "_frames:tiny")
    finally:
        category.write_text(before, encoding="utf-8")
    assert ran(finished) == ["samples:turkish/greetings", "dataset"], finished.stdout + finished.stderr


def test_a_mistake_in_a_spec_ends_with_code_3_and_touches_nothing(built: Path) -> None:
    recipe = built / "specs" / "recipes" / "tiny.yaml"
    state = {path: path.stat().st_mtime_ns for path in (built / "build").rglob("*") if path.is_file()}
    recipe.write_text(RECIPE.replace("base: tiny", "base: tinny"))
    try:
        finished = doit(built, "report:tiny")
    finally:
        recipe.write_text(RECIPE)
    assert finished.returncode == 3
    assert "specs/recipes/tiny.yaml:2:7: base: no model 'tinny'" in finished.stderr
    assert "did you mean 'tiny'?" in finished.stderr and "Traceback" not in finished.stderr
    assert {path: path.stat().st_mtime_ns for path in (built / "build").rglob("*") if path.is_file()} == state


def test_a_missing_base_is_one_clear_line(project: Path) -> None:
    """The model spec names a file that is not there."""
    model = project / "specs" / "models" / "tiny.yaml"
    model.write_text(MODEL.replace("tiny.gguf", "gone.gguf"))
    try:
        finished = doit(project, "base:tiny")
    finally:
        model.write_text(MODEL)
    assert finished.returncode == 1
    errors = [line for line in finished.stdout.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1 and "gone.gguf" in errors[0]
    assert "Traceback" not in finished.stdout + finished.stderr


def test_training_the_embedded_base_lowers_its_loss(embedded_base: Path, tmp_path: Path) -> None:
    """A few real steps on the real model."""
    from training_jobs import SETTINGS, Silent

    from generators.chat_format import render
    from generators.specs.project import load
    from generators.tokens import Tokenizer
    from generators.train import data, load_model, loop, lora

    specs = load(ROOT)
    chat_format = specs.chat_formats["gemma"]
    tokenizer = Tokenizer.load(embedded_base, chat_format)
    pairs = [("naber", "İyidir kanka, senden naber?"), ("sana bisi sorucam", "Sor kanka, dinliyorum."), ("selam", "Selam, hoş geldin!")]
    rows = []
    for question, answer in pairs:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        encoded = tokenizer.encode_sample(messages)
        assert tokenizer.decode(encoded.ids, skip_special=False).endswith("<end_of_turn>") and render(chat_format, messages)
        targets = tuple(index for index, is_target in enumerate(encoded.target) if is_target)
        rows.append(data.Row(question, "tests", "none", 0, tuple(encoded.ids), targets))
    model = load_model(embedded_base)
    lora_block = specs.recipes["jessy-mini"]["lora"]
    lora.attach(model, lora_block, 0)
    job = loop.Job(
        model=model,
        base="gemma",
        lora=lora_block,
        settings=SETTINGS | {"learning_rate": 1e-3, "batch_size": 3, "epochs": 4, "validate_every": 4},
        each_epoch="one",
        train=rows,
        valid=rows,
        seed=0,
        stamp="x",
        checkpoints=tmp_path / "checkpoints",
        metrics=tmp_path / "metrics.jsonl",
        adapter=tmp_path / "adapter",
    )
    summary = loop.run(job, Silent())
    assert summary["best_validation_loss"] < 0.7 * summary["first_validation_loss"]
