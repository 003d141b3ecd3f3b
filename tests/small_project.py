"""A small copy of this project for tests of the build itself: every spec, few examples, and placeholders where a stage takes minutes.

A placeholder's bytes are a digest of what its stage is given (its slice and its input files), so that they change when, and only when,
the real stage's output could. Samples, dataset, frames and Modelfiles are real.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = "jessy-mini"
EXAMPLES = 3  # of each category
CASES = 2  # of each suite
# A template of its own for one category, with a macro in another file.
TEMPLATE = '{% import "samples/macros.j2" as macros %}\n{{ turns | messages_json | replace("!", macros.mark()) }}\n'
MACROS = "{# what ends an exclamation #}\n{% macro mark() %}!{% endmacro %}\n"


def make(root: Path) -> None:
    """Copy specs, templates and generators to `root`, with the specs cut short."""
    for name in ("specs", "templates", "generators"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    (root / "build").mkdir()
    for path in root.glob("specs/categories/*/*.yaml"):
        _keep_first(path, "examples", EXAMPLES)
        _sub(path, r"^count:.*\n", "", at_least=0)
    for path in root.glob("specs/evals/*.yaml"):
        _keep_first(path, "cases", CASES)
    _loosen(root / "specs" / "project.yaml")
    low, slang = (root / "specs" / "categories" / name for name in ("iteration/low.yaml", "turkish/slang.yaml"))
    (root / "templates" / "samples" / "short.j2").write_text(TEMPLATE)
    (root / "templates" / "samples" / "macros.j2").write_text(MACROS)
    _sub(low, r"^examples:", "template: samples/short.j2\nexamples:")
    _sub(slang, r"^examples:", f"count: {EXAMPLES + 1}\nspelling: {{variants: [lower, ascii, spoken]}}\nexamples:")


def _keep_first(path: Path, key: str, count: int) -> None:
    head, body = path.read_text(encoding="utf-8").split(f"\n{key}:\n", 1)
    entries = re.split(r"(?m)^(?=  - )", body)
    path.write_text(f"{head}\n{key}:\n{''.join(entries[: count + 1])}", encoding="utf-8")


def _loosen(project: Path) -> None:
    """Gates that so few samples cannot pass."""
    _sub(project, r"tolerance: .*", "tolerance: 1")
    _sub(project, r"same_opening: .*", "same_opening: 1")
    _sub(project, r"tiers: \{.*\}", "tiers: {low: [0, 1], medium: [0, 1], high: [0, 1]}")


def _sub(path: Path, pattern: str, replacement: str, at_least: int = 1) -> None:
    text, found = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert found >= at_least, f"{path} has no {pattern}"
    path.write_text(text, encoding="utf-8")


# --- placeholders -----------------------------------------------------------------------------------------------------------------


def _write(path: Path, *given: Any) -> None:
    """A file that says what it is, and holds a digest of what it was made from."""
    digest = hashlib.sha256(json.dumps([_bytes(part) for part in given], sort_keys=True, default=str).encode()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"placeholder for {path.name}, made from {digest}\n")


def _bytes(part: Any) -> Any:
    return part.read_text(encoding="utf-8") if isinstance(part, Path) else part


def _adapter(paths: Any, name: str) -> list[Path]:
    return [paths.recipe(name).adapter / file for file in ("adapters.safetensors", "adapter_config.json")]


def base(project: Any, paths: Any, name: str) -> None:
    from generators import stages

    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        _write(paths.model(name) / file, stages.base_slice(project, name))
    _write(paths.model(name) / "source.json", project.models[name]["sources"])


def train(project: Any, paths: Any, name: str) -> None:
    from generators import stages

    source = paths.model(project.recipes[name]["base"]) / "source.json"
    for file in [*_adapter(paths, name), paths.recipe(name).training_summary]:
        _write(file, stages.train_slice(project, name), paths.recipe(name).frames / "trained.sha256", source)


def fuse(project: Any, paths: Any, name: str) -> None:
    model = paths.model(project.recipes[name]["base"])
    for file in ("config.json", "source.json"):
        _write(paths.recipe(name).fused / file, *_adapter(paths, name), model / file, model / "tokenizer_config.json")


def gguf(project: Any, paths: Any, name: str) -> None:
    from generators import stages

    read = stages.gguf_slice(project, name)
    quantisations = read[f"specs/recipes/{name}.yaml"].pop("export")["quantisations"]
    for quantisation in quantisations:
        _write(paths.recipe(name).gguf(quantisation), quantisation, read, *_adapter(paths, name))
    _write(paths.recipe(name).export, quantisations, read, *_adapter(paths, name))


def evaluate(project: Any, paths: Any, name: str) -> None:
    from generators import stages

    judged = paths.recipe(name).gguf(project.recipes[name]["export"]["quantisations"][0]), paths.recipe(name).frames / "system.txt"
    for file in ("scores.json", "base.jsonl", "tuned.jsonl"):
        _write(paths.recipe(name).evaluation / file, stages.evaluate_slice(project, name), *judged)


def report(project: Any, paths: Any, name: str) -> None:
    from generators import stages

    for file in (paths.recipe(name).report, paths.recipe(name).report.with_suffix(".md")):
        _write(file, stages.report_slice(project, name), paths.recipe(name).evaluation / "scores.json", paths.recipe(name).export)


COSTLY = {"base": base, "train": train, "fuse": fuse, "gguf": gguf, "evaluate": evaluate, "report": report}


# --- reading the specs ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def checked_once() -> Iterator[None]:
    """Spec files and templates with bytes that were checked before are not checked again: the projects of a test differ in one file."""
    from generators import templates
    from generators.specs import validate

    seen: dict[Any, bytes] = {}
    check, check_template = validate.validate, templates.problems_of_template

    def remembered(key: Any, work: Any) -> Any:
        if key not in seen:
            seen[key] = pickle.dumps(work())
        return pickle.loads(seen[key])

    def checked(document: Any, kind: str, partial: bool = False) -> Any:
        key = (document.file, kind, partial, pickle.dumps(document.value))
        value, document.problems = remembered(key, lambda: (check(document, kind, partial=partial), document.problems))
        return value

    def checked_template(folder: Path, name: str) -> Any:
        names = tuple(sorted(path.as_posix() for path in folder.rglob("*.j2")))
        return remembered((name, (folder / name).read_bytes(), names), lambda: list(check_template(folder, name)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "validate", checked)
        patch.setattr(templates, "problems_of_template", checked_template)
        yield


# --- doit -------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def at(root: Path) -> Iterator[None]:
    """In the project at `root`, with placeholders for the costly stages."""
    from generators import stages

    here = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for name, stage in COSTLY.items():
            patch.setattr(stages, name, stage)
        os.chdir(root)
        try:
            yield
        finally:
            os.chdir(here)


def doit(root: Path, *words: str) -> tuple[int, list[str], str]:
    """doit itself, in this process, on a fresh reading of the project's dodo.py: exit code, the tasks that ran in order, what was printed."""
    from doit.cmd_base import ModuleTaskLoader
    from doit.doit_cmd import DoitMain

    from generators.tasks import Reporter

    ran: list[str] = []
    told = Reporter.execute_task

    def note(reporter: Reporter, task: Any) -> None:
        if task.actions:
            ran.append(task.name)
        told(reporter, task)

    printed = io.StringIO()
    with at(root), pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(Reporter, "execute_task", note)
        namespace = runpy.run_path("dodo.py")
        code = DoitMain(ModuleTaskLoader(namespace)).run(list(words))
    return code, ran, printed.getvalue()


def build(root: Path) -> None:
    code, _, printed = doit(root, "run", f"report:{RECIPE}")
    assert code == 0, printed
