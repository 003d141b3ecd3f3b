"""A small copy of this project for tests of the build itself: every spec, few examples, and placeholders where a stage takes minutes.

A placeholder's bytes are a digest of what its stage is given (its slice and its input files), so that they change when, and only when,
the real stage's output could. Samples, dataset, frames and Modelfiles are real, and so is all that decides what runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from functools import partial
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
    _sub(root / "specs" / "recipes" / f"{RECIPE}.yaml", r"per_sample: .*", "per_sample: 1")
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

REAL = ("samples", "dataset", "_frames", "modelfile")
# Files that a stage leaves beside its targets, and others read.
_BESIDE = {"base": ("model.safetensors",)}


def _placeholder(task: Any, reads: Any) -> Callable[[], dict[str, Any]]:
    """Writes each of the task's targets as a file that says what it is, and holds a digest of what it was made from."""

    def write() -> dict[str, Any]:
        from generators.measure import Measure

        measure, stage = Measure(), task.name.partition(":")[0]
        given = {path: Path(path).read_text(encoding="utf-8") for path in sorted(task.file_dep) if not path.startswith("generators/")}
        for target in task.targets:
            _write(Path(target), given, _read_for(stage, target, reads))
        for name in _BESIDE.get(stage, ()):
            _write(Path(task.targets[0]).parent / name, given, reads)
        return measure.taken()

    return write


def _write(path: Path, *given: Any) -> None:
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"placeholder for {path.name}, made from {digest}\n")


def _read_for(stage: str, target: str, reads: Any) -> Any:
    """What one target of a stage depends on: source.json on the sources alone, a GGUF on no quantisation but its own."""
    if target.endswith("source.json") and stage == "base":
        return [part.get("sources") for part in reads.values()]
    if target.endswith(".gguf"):
        return {file: {key: value for key, value in part.items() if key != "export"} for file, part in reads.items()}
    return reads


# --- reading the specs ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def checked_once() -> Iterator[None]:
    """Spec files and templates with bytes that were read before are not read again: the projects of a test differ in one file."""
    from generators import templates
    from generators.specs import project

    seen: Any = {}
    load, check_template = project.load, templates.problems_of_template

    def checked_template(folder: Path, name: str) -> Any:
        key = (name, (folder / name).read_bytes(), tuple(sorted(path.as_posix() for path in folder.rglob("*.j2"))))
        if key not in seen:
            seen[key] = list(check_template(folder, name))
        return seen[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project, "load", partial(load, seen=seen))
        patch.setattr(templates, "problems_of_template", checked_template)
        yield


# --- doit -------------------------------------------------------------------------------------------------------------------------


def _with_placeholders(tasks: list[Any]) -> list[Any]:
    from generators.tasks import Reads

    for task in tasks:
        if task.targets and task.name.partition(":")[0] not in REAL:
            reads = next(check.value for check, _, _ in task.uptodate if isinstance(check, Reads))
            task._actions, task._action_instances = [_placeholder(task, reads)], None
    return tasks


@contextlib.contextmanager
def at(folder: Path) -> Iterator[None]:
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def doit(root: Path, *words: str) -> tuple[int, list[str], str]:
    """doit itself, in this process, on a fresh reading of the project's dodo.py: exit code, the tasks that ran in order, what was printed."""
    from doit.doit_cmd import DoitMain

    from generators.tasks import Loader, Reporter

    class WithPlaceholders(Loader):
        def setup(self, opt_values: Any) -> None:
            self.namespace = runpy.run_path("dodo.py")

        def load_tasks(self, cmd: Any, pos_args: Any) -> Any:
            return _with_placeholders(super().load_tasks(cmd, pos_args))

    ran: list[str] = []
    told = Reporter.execute_task

    def note(reporter: Reporter, task: Any) -> None:
        if task.actions:
            ran.append(task.name)
        told(reporter, task)

    printed = io.StringIO()
    with at(root), pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(Reporter, "execute_task", note)
        patch.setattr("doit.plugin.entry_points_impl", lambda: lambda group: [])  # what is installed is not searched for plugins each time
        code = DoitMain(WithPlaceholders()).run(list(words))
    return code, ran, printed.getvalue()


def build(root: Path) -> None:
    code, _, printed = doit(root, "run", f"report:{RECIPE}")
    assert code == 0, printed


def built_once(factory: pytest.TempPathFactory) -> Path:
    """A built project for all tests of a run that only copy it."""
    root = factory.getbasetemp() / "small-project"
    if not root.exists():
        make(root)
        build(root)
    return root
