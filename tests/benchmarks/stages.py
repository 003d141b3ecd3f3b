"""What the last build took, stage by stage, out of its own records. Run after a `doit`: python tests/benchmarks/stages.py [PROJECT]

doit remembers the wall time and the peak memory of every task; `training.json` and `scores.json` hold the rest. Writes
build/benchmarks/stages.json of that project, and prints it as a table.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from generators.files import human_bytes, human_seconds, read_json, write_json  # noqa: E402
from generators.tasks import successes  # noqa: E402


def stages(project: Path) -> list[dict[str, Any]]:
    """In the order in which they ended; the samples of all categories as one line."""
    taken = {name: found.taken for name, found in successes(project / "build" / ".doit.db").items() if found.taken}
    lines: dict[str, dict[str, Any]] = {}
    for name, figures in sorted(taken.items(), key=lambda item: item[1]["at"]):
        line = lines.setdefault("samples" if name.startswith("samples:") else name, {"seconds": 0.0, "memory_bytes": 0})
        line["seconds"] += figures["seconds"]
        line["memory_bytes"] = max(line["memory_bytes"], figures["memory_bytes"])
    return [{"stage": name, "seconds": round(line["seconds"], 2), "memory_bytes": line["memory_bytes"]} for name, line in lines.items()]


def results(recipe: Path) -> dict[str, Any]:
    """Losses and scores of a recipe's folder."""
    scores = read_json(recipe / "evaluation" / "scores.json")
    overall = {
        line["framing"]: {side: {measure: line[side][measure]["value"] for measure in ("passed", "accuracy", "appropriateness")}
                          for side in ("base", "tuned")}
        for line in scores["overall"]
    }  # fmt: skip
    return {"training": read_json(recipe / "training.json"), "scores": overall, "gates": scores["gates"], "showcase": scores["showcase"]}


def main(project: Path) -> None:
    found: dict[str, Any] = {"machine": platform.platform(), "python": platform.python_version(), "stages": stages(project)}
    recipes = sorted(path.parents[1].name for path in (project / "build" / "recipes").glob("*/evaluation/scores.json"))
    found["recipes"] = {name: results(project / "build" / "recipes" / name) for name in recipes}
    found["seconds"] = round(sum(line["seconds"] for line in found["stages"]), 1)
    for line in found["stages"]:
        print(f"{line['stage']:28} {human_seconds(line['seconds']):>14} {human_bytes(line['memory_bytes']):>12}")
    print(f"{'all':28} {human_seconds(found['seconds']):>14}")
    print(json.dumps(found["recipes"], indent=1, ensure_ascii=False))
    write_json(project / "build" / "benchmarks" / "stages.json", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
