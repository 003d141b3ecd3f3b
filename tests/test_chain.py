"""The whole chain, as a person runs it: `doit` in a project of its own, on a tiny random model with the embedded base's real tokenizer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tiny_project import MODEL, RECIPE, ROOT, doit


def ran(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """The tasks that were run, in order."""
    return [line[2:] for line in finished.stdout.splitlines() if line.startswith("▸ ")]


def test_one_command_goes_from_specs_to_a_report(tiny_built: Path) -> None:
    recipe = tiny_built / "build" / "recipes" / "tiny"
    made = {path.relative_to(recipe).as_posix() for path in recipe.rglob("*") if path.is_file()}
    assert {
        "adapter/adapters.safetensors",
        "fused/model.safetensors",
        "tiny-Q8_0.gguf",
        "metrics.jsonl",
        "evaluation/scores.json",
        "report.html",
    } <= made
    assert (tiny_built / "build" / "modelfiles" / "tiny" / "jessy.Modelfile").is_file()
    answers = [json.loads(line) for line in (recipe / "evaluation" / "tuned.jsonl").read_text().splitlines()]
    assert len(answers) >= 10 and all("answer" in row for row in answers)


def test_doit_again_does_nothing_and_says_so(tiny_built: Path) -> None:
    finished = doit(tiny_built, "report:tiny")
    assert finished.returncode == 0
    assert finished.stdout == "Nothing to do: everything is up to date.\n"


def test_one_edited_example_rebuilds_its_category_and_what_follows(tiny_built: Path) -> None:
    category = tiny_built / "specs" / "categories" / "turkish" / "greetings.yaml"
    before = category.read_text(encoding="utf-8")
    line = next(line for line in before.splitlines() if line.strip().startswith("jessy: "))
    category.write_text(before.replace(line, line.rstrip(".!?") + " ya!", 1), encoding="utf-8")
    try:
        finished = doit(tiny_built, "_frames:tiny")
    finally:
        category.write_text(before, encoding="utf-8")
    assert ran(finished) == ["samples:turkish/greetings", "dataset"], finished.stdout + finished.stderr


def test_a_mistake_in_a_spec_ends_with_code_3_and_touches_nothing(tiny_built: Path) -> None:
    recipe = tiny_built / "specs" / "recipes" / "tiny.yaml"
    state = {path: path.stat().st_mtime_ns for path in (tiny_built / "build").rglob("*") if path.is_file()}
    recipe.write_text(RECIPE.replace("base: tiny", "base: tinny"))
    try:
        finished = doit(tiny_built, "report:tiny")
    finally:
        recipe.write_text(RECIPE)
    assert finished.returncode == 3
    assert "specs/recipes/tiny.yaml:2:7: base: no model 'tinny'" in finished.stderr
    assert "did you mean 'tiny'?" in finished.stderr and "Traceback" not in finished.stderr
    assert {path: path.stat().st_mtime_ns for path in (tiny_built / "build").rglob("*") if path.is_file()} == state


def test_a_missing_base_is_one_clear_line(tiny_project: Path) -> None:
    """The model spec names a file that is not there."""
    model = tiny_project / "specs" / "models" / "tiny.yaml"
    model.write_text(MODEL.replace("tiny.gguf", "gone.gguf"))
    try:
        finished = doit(tiny_project, "base:tiny")
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
