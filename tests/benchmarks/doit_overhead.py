"""What the build system itself costs: `doit` with nothing to do, and `doit list`. Run: python tests/benchmarks/doit_overhead.py

In a copy of this project, the whole corpus in it, with the stages that take minutes replaced by placeholders once, so that the build is
up to date; what is measured then is the project as it is. Beside it, in turn: a Python that does nothing, one that imports doit, and doit
on a dodo.py with one empty task. Wall time is what a person waits; processor time is what it is on a machine that is busy with other work.
The least of many runs is reported, and the median. "doit list, after an edit" reads and checks every spec; "doit dataset, after an edit" renders
one category and builds the dataset besides.
Writes build/benchmarks/doit_overhead.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

RUNS = 15
LIMITS_S = {"doit, nothing to do": 0.3, "doit list": 0.3, "doit dataset, after an edit": 1.5}
EMPTY_DODO = "def task_empty():\n    '''Nothing'''\n    return {'actions': [], 'uptodate': [True]}\n"


def built_project(root: Path) -> None:
    """The whole corpus, up to date."""
    import small_project

    for name in ("specs", "templates", "generators"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    (root / "build").mkdir()
    small_project.build(root)


def once(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of a process, as in a user's shell: compiled modules are kept."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment | {"PYTHONPATH": str(folder)}, check=True, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(contenders: dict[str, tuple[list[str], Path]], runs: int) -> dict[str, Any]:
    """All contenders in turn, so that what else the machine does falls on all of them."""
    for command, folder in contenders.values():
        once(command, folder)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, (command, folder) in contenders.items():
            seen[name].append(once(command, folder))
    return {name: _figures(found) for name, found in seen.items()}


def _figures(found: list[tuple[float, float]]) -> dict[str, float]:
    walls, processors = zip(*found, strict=True)
    return {
        "wall_s": round(min(walls), 4),
        "wall_median_s": round(statistics.median(walls), 4),
        "processor_s": round(min(processors), 4),
        "processor_median_s": round(statistics.median(processors), 4),
    }


def first_load(project: Path) -> dict[str, float]:
    """`doit list` after an edit of one category: the cache of the specs does not hold."""
    found = []
    category = next((project / "specs" / "categories").glob("*/*.yaml"))
    for number in range(3):
        with category.open("a", encoding="utf-8") as out:
            out.write(f"# {number}\n")
        found.append(once([sys.executable, "-m", "doit", "list"], project))
    return _figures(found)


def edit_to_dataset(project: Path, runs: int) -> dict[str, float]:
    """`doit dataset` after the text of one example has changed: its category's samples and the dataset are made anew."""
    category = project / "specs" / "categories" / "turkish" / "slang.yaml"
    shipped = category.read_text(encoding="utf-8")
    assert "kanka" in shipped
    found = []
    for number in range(runs):
        category.write_text(shipped.replace("kanka", f"kanka{'m' * (1 - number % 2)}", 1), encoding="utf-8")
        found.append(once([sys.executable, "-m", "doit", "dataset"], project))
    return _figures(found)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=RUNS)
    asked = arguments.parse_args()
    doit = [sys.executable, "-m", "doit"]
    with tempfile.TemporaryDirectory() as scratch:
        project, empty = Path(scratch) / "project", Path(scratch) / "empty"
        project.mkdir()
        empty.mkdir()
        (empty / "dodo.py").write_text(EMPTY_DODO)
        built_project(project)
        contenders = {
            "python -c pass": ([sys.executable, "-c", "pass"], empty),
            "python -c 'import doit'": ([sys.executable, "-c", "import doit"], empty),
            "doit, one empty task": (doit, empty),
            "doit, nothing to do": (doit, project),
            "doit list": ([*doit, "list"], project),
        }
        figures = measure(contenders, asked.runs)
        figures["doit list, after an edit"] = first_load(project)
        once([*doit, "dataset"], project)
        figures["doit dataset, after an edit"] = edit_to_dataset(project, asked.runs)
    floor = figures["doit, one empty task"]["processor_s"]
    ours = {name: figures[name]["processor_s"] for name in ("doit, nothing to do", "doit list")}
    result = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "doit": version("doit")},
        "runs": asked.runs,
        "figures": figures,
        "ratios": {f"{name} over an empty dodo.py": round(seconds / floor, 2) for name, seconds in ours.items()},
        "limits_s": LIMITS_S,
        "within_limit": {name: figures[name]["wall_s"] <= limit for name, limit in LIMITS_S.items()},
    }
    target = ROOT / "build" / "benchmarks" / "doit_overhead.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
