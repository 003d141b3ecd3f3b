"""A hundred thousand samples out of twenty-six sentences: what they cost, and whether they keep the gates. Run: python tests/benchmarks/expansion.py

The project in expansion/specs/ replaces the shipped project file, recipes and categories; tiers, personas, clients, models, chat formats
and evaluation suites stay. Samples are rendered, judged and split by the gates of `doit dataset`, and put into the frames of the recipe.
Seconds are of wall and processor time, memory is the peak of the process. Writes build/benchmarks/expansion.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
SPECS = Path(__file__).parent / "expansion" / "specs"
RECIPE = "benchmark"


def overlay(root: Path) -> Path:
    """The shipped project at `root`, with the specs of this benchmark in place of its project file, recipes and categories."""
    for name in ("specs", "templates"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("categories", "recipes", "project.yaml"))
    shutil.copytree(SPECS, root / "specs", dirs_exist_ok=True)
    (root / "build").mkdir()
    return root


def run(root: Path) -> dict[str, Any]:
    """The figures of each stage. Raises DatasetErrors where a gate is missed."""
    from generators.files import read_json
    from generators.paths import Paths
    from generators.specs.project import load
    from generators.stages import corpus

    project, paths = load(root, keep=False), Paths(root)
    timed = {
        "samples": _timed(lambda: [corpus.samples(project, paths, name) for name in project.categories]),
        "dataset": _timed(lambda: corpus.build_dataset(project, paths, lambda line: None)),
        "frames": _timed(lambda: corpus.frames(project, paths, RECIPE)),
    }
    report = read_json(paths.dataset / "report.json")
    return {
        "stages": timed,
        "examples": sum(len(category["examples"]) for category in project.categories.values()),
        "samples": report["samples"],
        "train": report["train"],
        "valid": report["valid"],
        "violations": len(report["violations"]),
        "near_duplicates": len(report["near_duplicates"]),
        "peak_memory_mb": round(_peak() / 1e6),
        "sentences": _sentences(paths, list(project.categories)),
    }


def _timed(work: Callable[[], Any]) -> dict[str, float]:
    started, processor = time.perf_counter(), time.process_time()
    work()
    return {"seconds": round(time.perf_counter() - started, 2), "processor_seconds": round(time.process_time() - processor, 2)}


def _sentences(paths: Any, categories: list[str], each: int = 3) -> list[str]:
    """Some of what was made, to be read."""
    from generators.files import read_jsonl

    found = []
    for name in categories:
        rows = list(read_jsonl(paths.samples(name)))
        for row in rows[:: len(rows) // each][:each]:
            found.append(" | ".join(message["content"] for message in row["messages"]))
    return found


def _peak() -> int:
    """Bytes; getrusage counts kilobytes on Linux and bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(overlay(Path(folder) / "project"))
    result = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version()},
        "figures": figures,
        "ratios": {"samples_an_example": round(figures["samples"] / figures["examples"])},
    }
    target = ROOT / "build" / "benchmarks" / "expansion.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
