"""A sweep: one recipe with other settings, each point judged on validation loss and the dev half of the cases alone.

A point trains the adapter of its `lora` and `training` settings; points that differ in `parameters` only share it. A point is named by all
settings that the sweep varies, so that it keeps its name and its result when the recipe takes over what was found.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
Row = dict[str, Any]
Field = tuple[str, str]  # ("lora", "rank")

PARTS = ("lora", "training", "parameters")
AS_IT_IS = "recipe"  # the name of an adapter for which the sweep changes nothing
_OLLAMA_TEMPERATURE = 0.8  # where a Modelfile names none; source: ollama, api/types.go (DefaultOptions)
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Point:
    """values: of every field that the sweep varies. adapter: name of the adapter, which other points may share."""

    name: str
    adapter: str
    values: tuple[tuple[Field, Any], ...]

    def of(self, part: str) -> Spec:
        return {field: value for (of, field), value in self.values if of == part}


def size(sweep: Spec) -> int:
    """How many points it declares, those counted each time that come twice."""
    axes = [len(values) for fields in sweep.get("grid", {}).values() for values in fields.values()]
    return (math.prod(axes) if axes else 0) + len(sweep.get("points", []))


def points(recipe: Spec, parameters: Spec) -> list[Point]:
    """The recipe as it is first, then the grid, then the single points; what comes twice is one. parameters: of the first persona."""
    sweep = recipe["sweep"]
    axes = {(part, field): values for part, fields in sweep.get("grid", {}).items() for field, values in fields.items()}
    settings: list[dict[Field, Any]] = [{}]
    settings += [dict(zip(axes, drawn, strict=True)) for drawn in itertools.product(*axes.values())] if axes else []
    settings += [
        {(part, field): value for part, fields in single.items() for field, value in fields.items()} for single in sweep.get("points", [])
    ]
    varied = sorted({field for each in settings for field in each}, key=lambda field: (PARTS.index(field[0]), field[1]))
    now = {(part, field): (parameters if part == "parameters" else recipe[part]).get(field) for part, field in varied}
    found: dict[str, Point] = {}
    for each in settings:
        point = _point({field: each.get(field, now[field]) for field in varied})
        found.setdefault(point.name, point)
    return list(found.values())


def _point(values: Mapping[Field, Any]) -> Point:
    trained = {field: value for field, value in values.items() if field[0] != "parameters"}
    return Point(_name(values), _name(trained), tuple(values.items()))


def _name(values: Mapping[Field, Any]) -> str:
    """`rank-8_learning_rate-0.0002`: fit for a path and a task."""
    name = "_".join(f"{field}-{_spelt(value)}" for (_, field), value in values.items()) or AS_IT_IS
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _spelt(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_spelt, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def applied(recipe: Spec, persona: Spec, point: Point) -> tuple[Spec, Spec]:
    """Recipe and first persona with the settings of the point, and with the sweep's evaluation.

    Where the sweep varies parameters, what is judged is drawn as the deployed model draws; else as the recipe's evaluation says.
    """
    sweep, evaluation = recipe["sweep"], recipe["evaluation"]
    parameters = {name: value for name, value in {**persona["parameters"], **point.of("parameters")}.items() if value is not None}
    drawn = parameters.get("temperature", _OLLAMA_TEMPERATURE) if point.of("parameters") else evaluation["temperature"]
    asked = {"suites": sweep["suites"] or evaluation["suites"], "framings": sweep["framings"] or evaluation["framings"][:1]}
    changed = {part: {**recipe[part], **point.of(part)} for part in ("lora", "training")}
    return {**recipe, **changed, "evaluation": {**evaluation, **asked, "temperature": drawn}}, {**persona, "parameters": parameters}


# --- what a point found -----------------------------------------------------------------------------------------------------------


def result(point: Point, trained: Spec, rows: Sequence[Row], framing: str, seed: int, stamp: str) -> Spec:
    """What is kept of a finished point. trained: the summary of its training, or {failed: why}. framing: the one that is judged.

    stamp: digest of all that decides the result.
    """
    from generators.evaluate import scores

    kept = ("best_validation_loss", "best_step", "steps", "planned_steps", "stop_reason", "seconds", "device", "device_name")
    judged = _judged(rows, framing)
    return {
        "point": point.name,
        "stamp": stamp,
        "adapter": point.adapter,
        "values": {".".join(field): value for field, value in point.values},
        "failed": trained.get("failed"),
        "training": {name: trained[name] for name in kept if name in trained},
        "half": "dev",
        "framing": framing,
        "cases": len({row["id"] for row in judged}),
        "scores": scores.measured(judged, seed),
    }


def _judged(rows: Sequence[Row], framing: str) -> list[Row]:
    return [row for row in rows if row["framing"] == framing]


@dataclass(frozen=True)
class Ranking:
    """best: name of a point, "" where none is finished. why: in words. pairs: each point's cases beside those of the recipe as it is."""

    best: str
    why: str
    pairs: dict[str, Any]


def rank(results: Sequence[Spec], rows: Mapping[str, Sequence[Row]], first: str, seed: int) -> Ranking:
    """The best point: of those whose dev cases cannot be told from the best-scoring point's, the one with the lowest validation loss.

    So few cases tell large differences only, and the loss, which is of hundreds of answers, decides among what they cannot tell apart.
    results: finished ones. rows: of each, by the point's name. first: the point that is the recipe as it is.
    """
    from generators.evaluate import scores

    sound = [found for found in results if not found["failed"] and found["scores"]["passed"]["value"] is not None]
    if not sound:
        return Ranking("", "no point is finished", {})
    judged = {found["point"]: _judged(rows[found["point"]], found["framing"]) for found in sound}
    top = min(sound, key=lambda found: (-found["scores"]["passed"]["value"], found["training"]["best_validation_loss"]))
    beside_top = {name: scores.paired(judged[top["point"]], of, "passed", seed)["difference"] for name, of in judged.items()}
    alike = [found for found in sound if found is top or (beside_top[found["point"]]["high"] or 0) >= 0]
    best = min(alike, key=lambda found: (found["training"]["best_validation_loss"], -found["scores"]["passed"]["value"]))
    others = [name for name in judged if name != first] if first in judged else []
    pairs = {name: scores.paired(judged[first], judged[name], "passed", seed) for name in others}
    return Ranking(best["point"], _why(best, top, alike, sound), pairs)


def _why(best: Spec, top: Spec, alike: Sequence[Spec], sound: Sequence[Spec]) -> str:
    if len(sound) == 1:
        return "the only one that is finished"
    if len(alike) == 1:
        return "it passes more of the dev half than any other, by more than chance"
    losses = {found["training"]["best_validation_loss"] for found in alike}
    if len(losses) == 1:
        return f"none of the {len(alike)} points of this validation loss passes more of the dev half"
    also = ", and it passes most" if best is top else ""
    return f"the lowest validation loss of the {len(alike)} points that the dev half cannot tell from the best{also}"


def changes(best: Spec, recipe: Spec, parameters: Spec) -> list[tuple[Field, Any, Any]]:
    """(field, now, better) of what the recipe would have to say to be the point. best: its result."""
    found = []
    for name, value in best["values"].items():
        part, _, field = name.partition(".")
        now = (parameters if part == "parameters" else recipe[part]).get(field)
        if now != value:
            found.append(((part, field), now, value))
    return found


# --- the table --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sweep:
    """What is known of a recipe's sweep. first: the point that is the recipe as it is. results: of finished points. waiting: names of the
    others. to_change: `specs/recipes/x.yaml:12: lora.rank: 16 -> 8`, of what would make the recipe the best point."""

    recipe: str
    first: str
    results: Sequence[Spec]
    waiting: Sequence[str]
    ranking: Ranking
    to_change: Sequence[str]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(columns, lines), the best first, then by validation loss; what failed comes last."""
        names = list(self.results[0]["values"]) if self.results else []
        judged = ("validation loss", "at step", "dev: all checks", "accuracy", "appropriateness", "against the recipe", "")
        columns = [*(name.partition(".")[2] for name in names), *judged]

        def place(found: Spec) -> tuple[bool, float]:
            return found["point"] != self.ranking.best, found["training"].get("best_validation_loss", math.inf)

        return columns, [self._line(found, names) for found in sorted(self.results, key=place)]

    def _line(self, found: Spec, names: Sequence[str]) -> list[str]:
        values = [_spelt(found["values"][name]) for name in names]
        notes = ["best"] if found["point"] == self.ranking.best else []
        notes += ["the recipe as it is"] if found["point"] == self.first else []
        if found["failed"]:
            return [*values, *["–"] * 6, ", ".join([*notes, found["failed"].partition(";")[0]])]
        training, pair = found["training"], self.ranking.pairs.get(found["point"])
        scores = [_share(found["scores"][name]) for name in ("passed", "accuracy", "appropriateness")]
        against = f"{pair['wins']} won, {pair['losses']} lost" if pair else "–"
        return [*values, f"{training['best_validation_loss']:.4f}", str(training["best_step"]), *scores, against, ", ".join(notes)]

    def ending(self) -> list[str]:
        """What follows the table."""
        count = len(self.waiting) + len(self.results)
        told = [f"{len(self.waiting)} of {count} points are still to be done; doit sweep goes on with them"] if self.waiting else []
        if not self.ranking.best:
            return told
        told.append(f"best{' so far' if self.waiting else ''}: {self.ranking.best}: {self.ranking.why}")
        if not self.to_change:
            return [*told, "that is the recipe as it is: no line is to be changed"]
        return [*told, "to build with it, change:", *(f"  {line}" for line in self.to_change)]

    def as_json(self) -> Spec:
        told: Spec = {"recipe": self.recipe, "half": "dev", "best": self.ranking.best, "why": self.ranking.why}
        columns, lines = self.table()
        told |= {"change": list(self.to_change), "waiting": list(self.waiting), "columns": columns, "lines": lines}
        return told | {"points": list(self.results)}

    def as_markdown(self) -> str:
        columns, lines = self.table()
        head = [f"# Sweep of {self.recipe}", "", "Validation loss, and scores on the dev half of the cases with 95 % intervals;"]
        head += ["the test half was not looked at.", ""]
        rows = [_cells(columns), "|" + "---|" * len(columns), *map(_cells, lines)] if lines else ["No point is finished."]
        told = [f"  - `{line.strip()}`" if line.startswith(" ") else f"- {line}" for line in self.ending()]
        return "\n".join([*head, *rows, "", *told, ""])


def _share(figures: Spec) -> str:
    if figures["value"] is None:
        return "–"
    low, high = (f"{100 * figures[end]:.0f}" for end in ("low", "high"))
    return f"{100 * figures['value']:.1f} % ({low}–{high})"


def _cells(values: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(value.split()).replace("|", "\\|") for value in values) + " |"
