"""What the templates of the documents are given: figures, specs, and what the source says of itself, all of it plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from generators.docs import catalogue, source
from generators.errors import UserError
from generators.files import human_bytes, human_seconds
from generators.report.view import _cell, framing_label, percent, seconds

Row = dict[str, Any]

_M2_TARGET = "benchmarks/m2_target"


class Snapshot:
    """The figures by source, and which sources a page has used."""

    def __init__(self, kept: Row):
        self.recipe: str = kept["recipe"]
        self._sources: dict[str, Row] = kept["sources"]
        self._used: list[str] = []

    def has(self, name: str) -> bool:
        return name in self._sources

    def get(self, name: str) -> Any:
        """The figures of a source."""
        return self.source(name)["figures"]

    def source(self, name: str) -> Row:
        if name not in self._used:
            self._used.append(name)
        return self._sources[name]

    def starting(self, prefix: str) -> list[str]:
        return [name for name in self._sources if name.startswith(prefix)]

    def measured_on(self, device: str, prefix: str) -> list[str]:
        """Names of sources that begin with `prefix` and whose machine's device mentions `device`."""
        machines = {name: source["figures"].get("machine") for name, source in self._sources.items() if name.startswith(prefix)}
        return [name for name, machine in machines.items() if isinstance(machine, dict) and device in str(machine.get("device", ""))]

    def used(self) -> list[Row]:
        """The sources that were asked for so far, in the order of the snapshot."""
        return [{"name": name, **self._sources[name]} for name in self._sources if name in self._used]


def values_of(page: str, root: Path, project: Any, snapshot: Snapshot) -> Row:
    recipe = project.recipes[snapshot.recipe]
    common: Row = {
        "recipe_name": snapshot.recipe,
        "recipe": recipe,
        "recipes": project.recipes,
        "project": project.project,
        "models": project.models,
        "has": snapshot.has,
        "figures": snapshot.get,
        "machine_of": lambda name: snapshot.source(name)["machine"],
        "used_sources": snapshot.used,
        "percent": percent,
        "seconds": seconds,
        "duration": human_seconds,
        "size": human_bytes,
        "cell": _cell,
        "framing_label": framing_label,
        "settings": list(_settings(project.recipes)),
    }
    return common | (_OWN[page](root, project, snapshot) if page in _OWN else {})


# --- the terminal -------------------------------------------------------------------------------------------------------------------


class Terminal:
    """What the guide's commands printed."""

    def __init__(self, snapshot: Snapshot):
        self._snapshot = snapshot

    def _step(self, name: str) -> Row:
        return next(step for step in self._snapshot.get("terminal")["steps"] if step["name"] == name)

    def command(self, name: str) -> str:
        return str(self._step(name)["command"])

    def seconds(self, name: str) -> float:
        return float(self._step(name)["seconds"])

    def edit(self, name: str) -> Row:
        file, old, new = self._step(name)["edit"]
        return {"file": file, "old": old, "new": new}

    def said(self, name: str) -> list[str]:
        return list(self._step(name)["said"])

    def lines(self, name: str, *wanted: str, once: bool = False) -> str:
        """All lines of a step, or those in which one of the patterns is found, with `…` for what is left out. once: the first line of each
        pattern only."""
        lines = self._step(name)["lines"]
        return "\n".join(_only(lines, [re.compile(pattern) for pattern in wanted], once) if wanted else lines)

    def answers(self, name: str) -> list[tuple[str, str]]:
        """(what was typed, what was answered) of a chat through a pipe: notes are indented, answers are not."""
        step = self._step(name)
        answered = [line for line in step["lines"] if line.strip() and not line.startswith("   ")]
        return list(zip(step["said"], answered, strict=False))

    def found(self, name: str, pattern: str) -> str:
        """The first group of the first line of a step that matches. Raises UserError where none does."""
        match = next((found for line in self._step(name)["lines"] if (found := re.search(pattern, line))), None)
        if match is None:
            raise UserError(f"the guide looks for {pattern!r} in what {self.command(name)!r} says, and it is not there")
        return match[1]

    def load(self, name: str) -> float:
        return float(self._step(name).get("load") or 0)

    def total(self, *names: str) -> float:
        return sum(self.seconds(name) for name in names or [step["name"] for step in self._snapshot.get("terminal")["steps"]])


def _only(lines: Iterable[str], wanted: list[re.Pattern[str]], once: bool) -> Iterator[str]:
    waiting, left_out = list(wanted), False
    for line in lines:
        found = next((pattern for pattern in waiting if pattern.search(line)), None)
        if found is None:
            left_out = True
            continue
        if left_out:
            yield "…"
        yield line
        left_out = False
        if once:
            waiting.remove(found)
    if left_out:
        yield "…"


def _guide(root: Path, project: Any, snapshot: Snapshot) -> Row:
    from generators.doctor import _LEAST_DISK, _LEAST_MEMORY

    terminal = Terminal(snapshot)
    return {
        "terminal": terminal,
        "examples": terminal.found("new-persona", r"(\d+) examples"),
        "millions": f"{project.models[project.recipes[snapshot.recipe]['base']]['parameters'] / 1e6:.0f}",
        "least_memory": _LEAST_MEMORY,
        "least_disk": _LEAST_DISK,
        "sure": _time_in_turkish,
        "turkce": _in_turkish,
    }


def _time_in_turkish(taken: float) -> str:
    """`0,8 saniye`, `42 saniye`, `3 dakika 20 saniye`"""
    if taken < 10:
        return f"{taken:.1f}".replace(".", ",") + " saniye"
    minutes, rest = divmod(round(taken), 60)
    parts = [f"{minutes} dakika"] * bool(minutes) + [f"{rest} saniye"] * bool(rest)
    return " ".join(parts)


def _in_turkish(text: object) -> str:
    """A machine or a size: `4 GB`, `2 çekirdek`, `25,3 GB bellek`. A version keeps its points."""
    said = str(text).replace(" cores", " çekirdek").replace(" of memory", " bellek").replace(".0 ", " ")
    return re.sub(r"\b(\d+)\.(\d+)(?= (?:GB|MB)|$)", r"\1,\2", said)


# --- recipes ------------------------------------------------------------------------------------------------------------------------


def _settings(recipes: dict[str, Row]) -> Iterator[Row]:
    """The settings of all recipes side by side, as the specs give them with their defaults."""
    for block in ("base", "framings", "lora", "training", "export"):
        fields = {name: (recipe[block] if isinstance(recipe[block], dict) else {"": recipe[block]}) for name, recipe in recipes.items()}
        for field in next(iter(fields.values())):
            told = [_told(values.get(field)) for values in fields.values()]
            if any(value != "–" for value in told):
                yield {"name": f"{block}.{field}" if field else block, "told": told}


def _told(value: Any) -> str:
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each:g}" if isinstance(each, float) else f"{name} {each}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- evaluation ---------------------------------------------------------------------------------------------------------------------


def _evaluation(root: Path, project: Any, snapshot: Snapshot) -> Row:
    from generators.evaluate.cases import half_of
    from generators.evaluate.checks import CHECKS, declared
    from generators.specs.schema import _CHECK

    suites = []
    for name, suite in project.suites.items():
        cases = [
            {
                "id": case["id"],
                "query": case.get("query") or case["turns"][-1]["user"],
                "turns": len(case.get("turns", [None])),
                "language": case["language"],
                "tier": case["tier"],
                "half": half_of(name, case),
                "checks": ", ".join(dict.fromkeys(check for check, _ in declared(suite, case))),
                "line": line,
            }
            for case, line in zip(suite["cases"], project.case_lines[name], strict=True)
        ]
        suites.append({"name": name, "description": suite["description"], "cases": cases, "counts": _counts(cases)})
    return {
        "checks": [
            {"name": name, "dimension": dimension, "help": _CHECK["schema"][name]["meta"]["help"]}
            for name, (dimension, _) in CHECKS.items()
        ],
        "suites": suites,
        "tiers": project.tiers["tiers"],
        "gates": recipe_gates(project.recipes[snapshot.recipe]),
        "benchmarks": [_benchmark(name, snapshot) for name in snapshot.starting("benchmarks/")],
    }


def _counts(cases: list[Row]) -> Row:
    return {
        field: {value: sum(case[field] == value for case in cases) for value in wanted}
        for field, wanted in (("language", ("tr", "en")), ("tier", ("low", "medium", "high")), ("half", ("dev", "test")))
    }


def recipe_gates(recipe: Row) -> Row:
    return {name: limit for name, limit in recipe["gates"].items() if name != "enforce"}


def _benchmark(name: str, snapshot: Snapshot) -> Row:
    """Contenders that were measured in the same figures as a table; everything else as (what, value), named by the way to it."""
    source_of = snapshot.source(name)
    rest = {key: value for key, value in source_of["figures"].items() if key not in ("machine", "versions")}
    tables = {key: value for key, value in rest.items() if _is_table(value)}
    lines = [line for key, value in rest.items() if key not in tables for line in _numbers(value, (key,))]
    return {"name": name.partition("/")[2], "source": source_of, "tables": [_table(value) for value in tables.values()], "lines": lines}


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 1 and all(isinstance(row, dict) and not _is_table(row) for row in value.values())


def _table(rows: dict[str, Row]) -> Row:
    columns = list(dict.fromkeys(key for row in rows.values() for key, value in row.items() if isinstance(value, int | float)))
    shown = [[name, *(_number(row[column]) if column in row else "–" for column in columns)] for name, row in rows.items()]
    return {"columns": [column.replace("_", " ") for column in columns], "rows": shown}


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _numbers(value: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _numbers(inside, (*way, str(key)))
    elif isinstance(value, int | float):
        yield ": ".join(way), _number(value)
    elif isinstance(value, str) and len(value) < 60:
        yield ": ".join(way), value


# --- other pages --------------------------------------------------------------------------------------------------------------------


def _troubleshooting(root: Path, project: Any, snapshot: Snapshot) -> Row:
    from generators import errors
    from generators.tasks import EXIT_INTERRUPTED, EXIT_UNREAD

    codes = {"failed": errors.EXIT_FAILED, "gate": errors.EXIT_GATE, "specs": errors.EXIT_SPECS}
    codes |= {"interrupted": EXIT_INTERRUPTED, "unread": EXIT_UNREAD}
    return {"sections": catalogue.sections(), "codes": codes, "anchor": catalogue.anchor}


def _mac(root: Path, project: Any, snapshot: Snapshot) -> Row:
    """What training jessy-v2 takes on an M2, as the benchmark counts it."""
    counted = snapshot.get(_M2_TARGET) if snapshot.has(_M2_TARGET) else None
    if counted is None:
        return {"counted": None}
    has, assumed = counted["recipe_has"], counted["assumed"]
    own = f"{has['base_bits'] or 16} bits{', gradient_checkpointing' if has['gradient_checkpointing'] else ''}"
    return {
        "counted": counted,
        "own": own,
        "peaks": assumed["peak_operations_per_s"],
        "bandwidth": assumed["bytes_per_s"],
        "shares": (0.25, 0.5, 0.75),
        "goal": counted["target"],
        "within": next((name for name, way in counted["ways"].items() if way["in_memory"]), None),
        "reading": [{"quantisation": name, "bytes": bits / 8 * counted["weights"]} for name, bits in (("Q4_K_M", 4.9), ("Q8_0", 8.5))],
    }


def _cuda(root: Path, project: Any, snapshot: Snapshot) -> Row:
    """Benchmarks whose device is a CUDA one."""
    on_cuda = snapshot.measured_on("cuda", "benchmarks/train_speed")
    return {"measured": [{"name": name.partition("/")[2], "source": snapshot.source(name)} for name in on_cuda]}


def _architecture(root: Path, project: Any, snapshot: Snapshot) -> Row:
    return {"tasks": source.tasks(root / "dodo.py"), "modules": source.modules(root / "generators")}


# page -> what it is given besides
_OWN = {
    "guide": _guide,
    "rehber": _guide,
    "evaluation": _evaluation,
    "troubleshooting": _troubleshooting,
    "mac": _mac,
    "cuda": _cuda,
    "architecture": _architecture,
}
