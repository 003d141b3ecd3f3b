"""A run killed with SIGKILL at random moments, and resumed each time, ends with the bytes of one that nobody touched. Run:

    python tests/benchmarks/kills.py
    python tests/benchmarks/kills.py --kills 40 --seed 7

A tiny random model is trained in a process of its own, on the CPU: once to the end, then with a kill in each sitting, at a moment drawn
uniformly over about a tenth of the run and the start before it, so that kills fall into loading, steps, validations, checkpoints and
between them; then to the end. Writes build/benchmarks/kills.json; exit code 1 where a byte differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

EPOCHS = 60  # of 14 rows in batches of 4: 240 steps
SETTINGS = {"epochs": EPOCHS, "checkpoint_every": 3, "validate_every": 7, "log_every": 5, "schedule": "cosine", "learning_rate": 1e-3}
STEP_S = 0.02  # a pause in each step: a tiny model's own steps are over before a kill can hit them
READY = "ready"
FEWEST_SITTINGS = 8  # over which the run is spread, were nothing lost; what is done twice makes them more


def sitting(model: str, folder: str) -> None:
    """One process of the run: from the newest checkpoint, or from the beginning."""
    from training_jobs import Silent, tiny_job

    from generators.train import loop

    job = tiny_job(Path(model), Path(folder), SETTINGS)
    print(READY, flush=True)
    watcher = Silent(lambda step: time.sleep(STEP_S))
    loop.run(job, watcher)


def start(model: Path, folder: Path) -> subprocess.Popen[str]:
    """Returns when the process is about to look for a checkpoint."""
    command = [sys.executable, str(Path(__file__).resolve()), "--sitting", str(model), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != READY:
        sys.exit(f"a sitting ended with code {process.wait()} before it began")
    return process


def to_the_end(model: Path, folder: Path) -> float:
    """Seconds from the start of the run to its end."""
    process, started = start(model, folder), time.perf_counter()
    if process.wait() != 0:
        sys.exit(f"a sitting in {folder} ended with code {process.returncode}")
    return time.perf_counter() - started


def killed_once(model: Path, folder: Path, after_s: float) -> dict[str, Any]:
    """What a kill `after_s` into the run leaves: the step last told, the newest checkpoint, temporary files."""
    process = start(model, folder)
    time.sleep(after_s)
    over = process.poll() is not None
    process.kill()
    process.wait()
    checkpoints = sorted(path.name for path in folder.glob("checkpoints/step-*") if path.name[5:].isdigit())
    lines = (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").is_file() else []
    return {
        "after_s": round(after_s, 3),
        "checkpoint": int(checkpoints[-1][5:]) if checkpoints else 0,
        "told": json.loads(lines[-1])["step"] if lines else 0,
        "half_written": sum(1 for _ in folder.glob("checkpoints/*.partial")),
        "was_over": over,
    }


def measured(kills: int, seed: int, scratch: Path) -> dict[str, Any]:
    from tiny_models import write_hf

    model = write_hf(scratch / "model", "gemma")
    whole_s = to_the_end(model, scratch / "whole")
    chance, found = random.Random(seed), []
    most = 2 * whole_s / max(FEWEST_SITTINGS, kills)
    while len(found) < kills:
        hit = killed_once(model, scratch / "killed", chance.uniform(0, most))
        sys.stderr.write(f"kill {len(found) + 1}: {hit}\n")
        if hit["was_over"]:
            sys.exit(f"the run was over before kill {len(found) + 1}; give it fewer kills or more epochs")
        found.append(hit)
    last_s = to_the_end(model, scratch / "killed")
    return {"uninterrupted_s": round(whole_s, 2), "last_sitting_s": round(last_s, 2), "kills": found, **compared(scratch)}


def compared(scratch: Path) -> dict[str, Any]:
    """Adapter by its bytes; metrics by all that is no matter of time."""
    of_time = {"samples_per_s", "target_tokens_per_s", "elapsed_s", "eta_s", "memory_bytes", "peak_memory_bytes", "utilisation"}
    sums = {"loss"}  # a line's mean is over the steps of one sitting

    def adapter(name: str) -> bytes:
        return (scratch / name / "adapter" / "adapters.safetensors").read_bytes()

    def metrics(name: str) -> list[dict[str, Any]]:
        lines = map(json.loads, (scratch / name / "metrics.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key not in of_time | sums} for line in lines]

    return {"same_adapter": adapter("whole") == adapter("killed"), "same_metrics": metrics("whole") == metrics("killed")}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--sitting", nargs=2, help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.sitting:
        sitting(*asked.sitting)
        return
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(asked.kills, asked.seed, Path(scratch))
    kills = figures["kills"]
    result = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "mlx": version("mlx"), "mlx-lm": version("mlx-lm")},
        "settings": SETTINGS,
        "seed": asked.seed,
        "figures": figures,
        "ratios": {
            "kills with a checkpoint to go on from": sum(hit["checkpoint"] > 0 for hit in kills) / len(kills),
            "kills in the middle of a checkpoint": sum(hit["half_written"] > 0 for hit in kills) / len(kills),
        },
    }
    target = ROOT / "build" / "benchmarks" / "kills.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    if not (figures["same_adapter"] and figures["same_metrics"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
