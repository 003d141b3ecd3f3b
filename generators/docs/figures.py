"""docs/figures.json: every figure of the documents, with the file and the command it came from and the machine it was measured on.

The snapshot is tracked by git, so that the documents can be written where nothing was built. What a recipe's build measured is replaced as a
whole by a newer build; a benchmark stays until its own file comes again, since it may have been measured elsewhere.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import human_bytes, read_json, read_jsonl, write_json

Figures = dict[str, Any]
Source = dict[str, Any]  # file, command, machine, date, figures
FILE = Path("docs") / "figures.json"
COUNTED = "counted: the same on any machine"
_BENCHMARK = "benchmarks/"
_STAYS = (_BENCHMARK, "terminal", "sweep")  # until it is measured again: it may come from another machine
_MEASURES = ("accuracy", "appropriateness", "persona", "passed")
_LONGEST_ANSWER = 400  # characters of an example; longer ones are loops


def write_figures(root: Path, recipe: str, base: str, count: Callable[[], Figures | None], say: Callable[[str], None]) -> None:
    """Read what the build of `recipe` and the benchmarks left behind into docs/figures.json.

    count: the tokens of the training, where base and frames are there. Raises UserError when the recipe was not evaluated here.
    """
    folder = root / "build" / "recipes" / recipe
    if not (folder / "evaluation" / "scores.json").is_file():
        raise UserError(f"{folder.relative_to(root) / 'evaluation' / 'scores.json'} does not exist; run: doit report:{recipe}")
    target = root / FILE
    kept = read_json(target) if target.is_file() else {}
    sources = {name: source for name, source in kept.get("sources", {}).items() if name.startswith(_STAYS)}
    found = _of_recipe(root, recipe, base, count) | _of_benchmarks(root)
    for name, source in found.items():
        say(f"{name}: {source['file']}, {source['machine']}")
    write_json(target, {"recipe": recipe, "sources": dict(sorted((sources | found).items()))})


def put_terminal(root: Path, steps: Figures) -> None:
    """Add what the guide's commands printed to the snapshot that is there. Raises UserError where there is none."""
    if not (root / FILE).is_file():
        raise UserError(f"{FILE} does not exist; run: doit docs --figures, where the default recipe is built")
    snapshot, now = read_json(root / FILE), {"at": datetime.datetime.now(datetime.UTC).timestamp()}
    source = _source("generators/docs/terminal.py", "doit docs --terminal", describe_here(), now, steps)
    snapshot["sources"] = dict(sorted({**snapshot["sources"], "terminal": source}.items()))
    write_json(root / FILE, snapshot)


# --- a recipe's build ---------------------------------------------------------------------------------------------------------------


def _of_recipe(root: Path, recipe: str, base: str, count: Callable[[], Figures | None]) -> dict[str, Source]:
    from generators.tasks import successes

    build, here = root / "build", f"build/recipes/{recipe}"
    taken = {name: success.taken for name, success in successes(build / ".doit.db").items() if success.taken}
    known: dict[str, tuple[str, str, Callable[[Path], Figures]]] = {
        "dataset": ("build/dataset/report.json", "dataset", _dataset),
        "training": (f"{here}/training.json", f"train:{recipe}", read_json),
        "curve": (f"{here}/metrics.jsonl", f"train:{recipe}", _curve),
        "export": (f"{here}/export.json", f"gguf:{recipe}", _export),
        "quantisations": (f"{here}/quantisations.json", f"quantisations:{recipe}", read_json),
        "parity": (f"{here}/parity.json", f"parity:{recipe}", _parity),
        "scores": (f"{here}/evaluation/scores.json", f"evaluate:{recipe}", _scores),
        "examples": (f"{here}/evaluation/tuned.jsonl", f"evaluate:{recipe}", _examples),
        "ledger": (f"{here}/ledger.json", f"ledger:{recipe}", read_json),
        "lock": (f"{here}/lock.json", f"report:{recipe}", _lock),
        "sweep": (f"build/sweeps/{recipe}/results.json", f"sweep:{recipe}", _sweep),
    }
    found: dict[str, Source] = {}
    for name, (file, task, read) in known.items():
        path = root / file
        if path.is_file() and not (name == "ledger" and _is_of_another_model(path, root / here)):
            figures = read(path)
            found[name] = _source(file, f"doit {task}", _machine_of(taken.get(task, {}), figures), taken.get(task, {}), figures)
    stages = _stages(taken, recipe, base)
    if stages:
        found["stages"] = _source("build/.doit.db", "doit", _machine_of(taken[f"train:{recipe}"], {}), taken[f"train:{recipe}"], stages)
    if counted := count():
        found["work"] = _source(f"{here}/frames/train.jsonl", f"doit train:{recipe}", COUNTED, {}, counted)
    return found


def _source(file: str, command: str, machine: str, taken: Mapping[str, Any], figures: Figures) -> Source:
    day = datetime.datetime.fromtimestamp(taken["at"], datetime.UTC).date().isoformat() if "at" in taken else None
    return {"file": file, "command": command, "machine": machine, "date": day, "figures": figures}


def _machine_of(taken: Mapping[str, Any], figures: Figures) -> str:
    """This machine where doit remembers that the task ran here; else as far as the file itself says."""
    from generators.measure import this_machine

    return describe_here() if taken.get("machine") == this_machine() else _machine_in(figures)


def describe_here() -> str:
    """`Apple M2, 8 cores, 17.2 GB of memory, Darwin arm64`"""
    import psutil

    from generators import device

    memory = human_bytes(psutil.virtual_memory().total)
    return f"{device.current().name}, {os.cpu_count()} cores, {memory} of memory, {platform.system()} {platform.machine()}"


def _machine_in(figures: Figures) -> str:
    machine = figures.get("machine", figures)
    if not isinstance(machine, dict):
        return _system(str(machine))
    system = _system(machine.get("system") or machine.get("platform") or "")
    device = machine.get("device") if ":" in str(machine.get("device")) else None  # of training, `cpu` alone says nothing
    processor = device or machine.get("device_name") or machine.get("processor")
    parts = [processor if processor not in system.split() else None, f"{machine['cores']} cores" if machine.get("cores") else None, system]
    return ", ".join(str(part) for part in parts if part) or "not told by the file"


def _system(text: str) -> str:
    """`Linux x86_64` of what `platform.platform()` says: a kernel's version tells nothing here."""
    found = re.match(r"(Linux|macOS|Darwin)\b.*?(x86_64|arm64|aarch64)", text)
    return f"{found[1]} {found[2]}" if found else text


def _is_of_another_model(ledger: Path, folder: Path) -> bool:
    released = read_json(folder / "export.json")["quantisations"][0]["sha256"]
    return bool(read_json(ledger).get("model", released) != released)


def _dataset(path: Path) -> Figures:
    report = read_json(path)
    found = {name: report[name] for name in ("samples", "train", "valid", "groups", "tiers", "languages", "multi_turn")}
    agreement = (report.get("classifier") or {}).get("agreement")
    return found | {"moods": sum(report["moods"].values()), "near_duplicates": len(report["near_duplicates"]), "agreement": agreement}


def _curve(path: Path) -> Figures:
    """(step, loss) of the training and of the validation split, and the middle of the shares of the processor or accelerator in use."""
    from statistics import median

    lines = list(read_jsonl(path))
    shares = [line["utilisation"] for line in lines if line.get("utilisation") is not None]
    return {
        "training": [[line["step"], round(line["loss"], 4)] for line in lines if "loss" in line],
        "validation": [[line["step"], round(line["validation_loss"], 4)] for line in lines if "validation_loss" in line],
        "utilisation": round(median(shares), 3) if shares else None,
    }


def _export(path: Path) -> Figures:
    told = ("quantisation", "size", "bits_per_weight", "parameters", "first_answer")
    return {"quantisations": [{key: line[key] for key in told if key in line} for line in read_json(path)["quantisations"]]}


def _parity(path: Path) -> Figures:
    found = read_json(path)
    return {"engines": found["engines"] if isinstance(found, dict) else found}


def _lock(path: Path) -> Figures:
    found = read_json(path)
    return {"seed": found["seed"], "packages": found["packages"], "platform": found["platform"]}


def _sweep(path: Path) -> Figures:
    """The table, without the columns in which all points have one value."""
    found = read_json(path)
    told = [index for index, name in enumerate(found["columns"]) if not name or len({line[index] for line in found["lines"]}) > 1]
    trained: Figures = next((point["training"] for point in found["points"] if point["training"]), {})
    return {
        "columns": [found["columns"][index] for index in told],
        "lines": [[line[index] for index in told] for line in found["lines"]],
        **{name: found[name] for name in ("why", "change", "waiting")},
        "machine": {"device": f"{trained.get('device')}: {trained.get('device_name')}"},
    }


def _stages(taken: Mapping[str, Mapping[str, Any]], recipe: str, base: str) -> Figures:
    """Seconds and memory of each stage when it last ran, in the order of the build; the samples of all categories as one."""
    if f"train:{recipe}" not in taken:
        return {}
    samples = [found for name, found in taken.items() if name.startswith("samples:")]
    lines: dict[str, list[Mapping[str, Any]]] = {"samples": samples, "dataset": [taken["dataset"]] if "dataset" in taken else []}
    for name in (f"base:{base}", *(f"{stage}:{recipe}" for stage in ("_frames", "train", "fuse", "gguf", "quantisations"))):
        lines[name.removeprefix("_")] = [taken[name]] if name in taken else []
    for stage in ("parity", "evaluate", "report"):
        lines[f"{stage}:{recipe}"] = [taken[f"{stage}:{recipe}"]] if f"{stage}:{recipe}" in taken else []
    rows = [
        {
            "stage": name.partition(":")[0],
            "seconds": round(sum(one["seconds"] for one in ones), 1),
            "memory_bytes": max(one["memory_bytes"] for one in ones),
        }
        for name, ones in lines.items()
        if ones
    ]
    return {"stages": rows, "seconds": round(sum(row["seconds"] for row in rows), 1)}


# --- the evaluation -----------------------------------------------------------------------------------------------------------------


def _scores(path: Path) -> Figures:
    found = read_json(path)
    told = ("framing", "framings", "showcase", "gates", "enforce", "iterations", "sampling", "half", "machine")
    latency = {
        side: {framing: {key: value for key, value in figures.items() if key != "seconds"} for framing, figures in framings.items()}
        for side, framings in found["latency"].items()
    }
    engines = {side: {key: engine[key] for key in ("name", "load_seconds", "slots")} for side, engine in found["engines"].items()}
    return {
        **{key: found[key] for key in told if key in found},
        "suites": [_line(line) for line in found["suites"]],
        "overall": [_line(line) for line in found["overall"]],
        "latency": latency,
        "engines": engines,
    }


def _line(line: Figures) -> Figures:
    rounded = {
        side: {
            measure: {key: round(value, 4) if isinstance(value, float) else value for key, value in line[side][measure].items()}
            for measure in _MEASURES
        }
        for side in ("base", "tuned")
    }
    paired = {key: line["paired"]["passed"][key] for key in ("wins", "losses", "ties", "mcnemar_p")}
    return {key: line[key] for key in ("suite", "framing") if key in line} | rounded | {"paired": paired}


def _examples(path: Path) -> Figures:
    """Of every suite, in the framing that is judged: the first case that was won, and the first that neither passed; nothing is chosen. And
    how often each check failed."""
    framing = read_json(path.with_name("scores.json"))["framing"]
    sides = [
        [row for row in read_jsonl(file) if row["framing"] == framing and not row["repeat"]]
        for file in (path.with_name("base.jsonl"), path)
    ]
    before, after = ({row["id"]: row for row in rows} for rows in sides)
    found: dict[tuple[str, str], Figures] = {}
    for name in (name for name in after if name in before):
        won, lost = after[name]["passed"] and not before[name]["passed"], not (after[name]["passed"] or before[name]["passed"])
        if won or lost:
            found.setdefault((after[name]["suite"], "won" if won else "neither"), _example(before[name], after[name]))
    failed = Counter(name for row in sides[1] for name in {check["check"] for check in row["checks"] if check["passed"] is False})
    failures = dict(sorted(failed.items(), key=lambda item: (-item[1], item[0])))
    examples = [{"outcome": outcome, **each} for (_, outcome), each in sorted(found.items())]
    return {"framing": framing, "failures": failures, "examples": examples}


def _example(before: Figures, after: Figures) -> Figures:
    failures = [f"{check['check'].replace('_', ' ')}: {check['reason']}" for check in after["checks"] if check["passed"] is False]
    return {
        "suite": after["suite"],
        "case": after["case"],
        "tier": after["tier"],
        "query": after["query"],
        "turns": len(after["history"]) + 1,
        "base": before["answer"][:_LONGEST_ANSWER],
        "tuned": after["answer"][:_LONGEST_ANSWER],
        "failures": failures[:3],
    }


# --- benchmarks ---------------------------------------------------------------------------------------------------------------------


def _of_benchmarks(root: Path) -> dict[str, Source]:
    """`train_speed-gemma-2b-8.json` comes from train_speed.py."""
    scripts = sorted((path.stem for path in (root / "tests" / "benchmarks").glob("*.py")), key=len, reverse=True)
    found: dict[str, Source] = {}
    for path in sorted((root / "build" / "benchmarks").glob("*.json")):
        script = next((name for name in scripts if path.stem == name or path.stem.startswith(f"{name}-")), None)
        if script and script != "stages":  # what that one reads is read here as well
            figures = _without_texts(read_json(path))
            command = f"python tests/benchmarks/{script}.py"
            found[f"{_BENCHMARK}{path.stem}"] = _source(f"build/benchmarks/{path.name}", command, _machine_in(figures), {}, figures)
    return found


def _without_texts(figures: Any) -> Any:
    """Lists of sentences are no figures."""
    if not isinstance(figures, dict):
        return figures
    texts = [key for key, value in figures.items() if isinstance(value, list) and any(isinstance(each, str) for each in value)]
    return {key: _without_texts(value) for key, value in figures.items() if key not in texts}
