"""The last lines of a build: what there is now, how it scored, and what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.files import human_bytes, read_json


def ending(ggufs: list[Path], modelfiles: Path, scores: Path, default: bool) -> list[str]:
    """scores: scores.json of the evaluation. default: whether the recipe may be left out of a command."""
    found = read_json(scores)
    name = found["recipe"]
    built = ", ".join(f"{path.name} ({human_bytes(path.stat().st_size)})" for path in ggufs)
    count = len(list(modelfiles.glob("*.Modelfile")))
    return [
        f"built: {built}; {count} Modelfile{'s' if count != 1 else ''} in {modelfiles}",
        f"scored: {'; '.join(_scored(found))}",
        f"gates: {_gates(found)}",
        f"next: open build/recipes/{name}/report.html; read what doit diff shows; doit deploy{'' if default else ':' + name}"
        " puts it into Ollama; edit specs/ and run doit again",
    ]


def _scored(found: dict[str, Any]) -> list[str]:
    line = next((line for line in found["overall"] if line["framing"] == found["framing"]), None)
    told = []
    for measure, words in (("passed", "every check passed"), ("accuracy", "accuracy"), ("appropriateness", "appropriateness")):
        if line and None not in (before := line["base"][measure]["value"], after := line["tuned"][measure]["value"]):
            told.append(f"{words} {100 * before:.0f} % -> {100 * after:.0f} %")
    shown = found["showcase"]
    if shown and shown["base"]:
        before, after = shown["base"], shown["tuned"]
        told.append(f"'{shown['query']}' through {shown['framing']}: {before['seconds']:.1f} s -> {after['seconds']:.1f} s")
    return told


def _gates(found: dict[str, Any]) -> str:
    missed = [gate["name"] for gate in found["gates"] if gate["passed"] is False]
    passed = sum(gate["passed"] is True for gate in found["gates"])
    if not missed:
        return f"all {passed} passed"
    told = ", ".join(missed)
    return f"{passed} of {len(found['gates'])} passed; missed: {told}" + ("" if found["enforce"] else " (shown only: enforce is false)")
