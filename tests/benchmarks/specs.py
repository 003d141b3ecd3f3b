"""What it costs to read and judge every spec. Run: python tests/benchmarks/specs.py

Contenders, in turn, each a fresh process on a copy of the shipped specs and templates:

cold            nothing is cached: read, validate, compare, render (as after an edit)
hit             nothing has changed since the last run
ruamel          `ruamel.yaml` alone loads the same files, in Python, with no schema: what there was to beat
ruamel_libyaml  the same through libyaml

Seconds are of the call itself (`load_*`; what it imports, cerberus, Jinja and ruamel.yaml, counts) and of the whole process
(`process_*`). Processor time is what it is on a machine that is busy with other work; the least of many runs is reported, and
the median. `validate_again` is a cold load in a process that has loaded before, as a test suite sees it.
Writes build/benchmarks/specs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RUNS = 15
COLD_LIMIT_S, HIT_LIMIT_S = 0.5, 0.02

_TIMED = """
import json, sys, time
from pathlib import Path
{first}
wall, processor = time.perf_counter(), time.process_time()
{work}
print(json.dumps({{"load_wall_s": time.perf_counter() - wall, "load_cpu_s": time.process_time() - processor, "process_cpu_s": time.process_time()}}))
"""
_FIRST = "from generators.specs.project import load"  # dodo.py has it at hand
_LOAD = "load(Path(sys.argv[1]), keep={keep})"
_RUAMEL = (
    "from ruamel.yaml import YAML\nfor path in sorted((Path(sys.argv[1]) / 'specs').rglob('*.yaml')): YAML(typ='safe', pure={pure}).load(path)"
)
_AGAIN = """
for _ in range(3):
    again = time.process_time()
    load(Path(sys.argv[1]), keep=False)
    again = time.process_time() - again
processor = time.process_time() - again
"""
CONTENDERS = {
    "cold": _LOAD.format(keep=False),
    "hit": _LOAD.format(keep=True),
    "validate_again": _AGAIN,
    "ruamel": _RUAMEL.format(pure=True),
    "ruamel_libyaml": _RUAMEL.format(pure=False),
}


def project(folder: Path) -> Path:
    for name in ("specs", "templates"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "build").mkdir()
    return folder


def once(work: str, folder: Path) -> dict[str, float]:
    """As in a user's shell: compiled modules are kept."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _TIMED.format(first=_FIRST, work=work), str(folder)]
    found: dict[str, float] = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    return found


def measure(folders: dict[str, Path], runs: int) -> dict[str, dict[str, float]]:
    """All contenders in turn, so that what else the machine does falls on all of them."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for name, work in CONTENDERS.items():
        once(work, folders[name])  # compiles modules, and fills the cache that `hit` reads
    for _ in range(runs):
        for name, work in CONTENDERS.items():
            seen[name].append(once(work, folders[name]))
    return {name: _figures(found) for name, found in seen.items()}


def _figures(found: list[dict[str, float]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for key in found[0]:
        values = [run[key] for run in found]
        figures |= {key: round(min(values), 4), f"{key}_median": round(statistics.median(values), 4)}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        cold, hit = project(_folder(scratch, "cold")), project(_folder(scratch, "hit"))
        contenders = measure({name: hit if name == "hit" else cold for name in CONTENDERS}, runs)
        files = list((cold / "specs").rglob("*.yaml"))
        size = sum(path.stat().st_size for path in files)
    result: dict[str, Any] = {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("ruamel.yaml", "cerberus", "jinja2")},
        "files": len(files),
        "bytes": size,
        "runs": runs,
        "contenders": contenders,
        "ratios": {
            "cold_to_limit": round(contenders["cold"]["load_cpu_s"] / COLD_LIMIT_S, 3),
            "hit_to_limit": round(contenders["hit"]["load_cpu_s"] / HIT_LIMIT_S, 3),
            "cold_to_ruamel": round(contenders["cold"]["load_cpu_s"] / contenders["ruamel"]["load_cpu_s"], 3),
            "cold_to_ruamel_libyaml": round(contenders["cold"]["load_cpu_s"] / contenders["ruamel_libyaml"]["load_cpu_s"], 3),
        },
    }
    target = ROOT / "build" / "benchmarks" / "specs.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _folder(scratch: str, name: str) -> Path:
    folder = Path(scratch) / name
    folder.mkdir()
    return folder


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
