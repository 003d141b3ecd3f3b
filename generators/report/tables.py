"""Tables out of figures whose columns the report does not know beforehand, and the list of what the figures were made with."""

from __future__ import annotations

from typing import Any

from generators.report.material import Material

Shown = dict[str, Any]


def table(figures: Any) -> Shown | None:
    """{columns, lines, numeric} of a list of flat mappings, or of a mapping that holds such a list or such mappings by name; else None."""
    rows = _rows(figures)
    if not rows:
        return None
    columns = list(dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, dict | list)))
    lines = [[_text(row.get(name)) for name in columns] for row in rows]
    numeric = [all(_is_number(row.get(name)) for row in rows if row.get(name) is not None) for name in columns]
    return {"columns": [name.replace("_", " ") for name in columns], "lines": lines, "numeric": numeric}


def _rows(figures: Any) -> list[dict[str, Any]]:
    if isinstance(figures, list):
        return [row for row in figures if isinstance(row, dict)]
    if not isinstance(figures, dict) or not figures:
        return []
    for value in figures.values():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            return value
    if all(isinstance(value, dict) for value in figures.values()):
        return [{"name": name, **value} for name, value in figures.items()]
    return [{"what": name, "value": value} for name, value in figures.items() if not isinstance(value, dict | list)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _settings(settings: dict[str, Any]) -> str:
    plain = ((name, value) for name, value in settings.items() if value is not None and not isinstance(value, list | dict))
    return ", ".join(f"{name} {_text(value)}" for name, value in plain)


def environment(material: Material, sides: dict[str, str]) -> list[tuple[str, str]]:
    """What the figures were made with: machine, engines, sampling, hashes. sides: what base and tuned are called."""
    scores, context = material.scores or {}, material.context
    found: list[tuple[str, str]] = []
    machine = scores.get("machine")
    if machine:
        found.append(("Evaluated on", f"{machine['system']}, {machine['cores']} cores, Python {machine['python']}"))
    for side, engine in scores.get("engines", {}).items():
        found.append((sides[side], f"{engine['name']}, {engine['slots']} slots, sha256 {engine['digest'][:16]}…"))
    if scores.get("sampling"):
        found.append(("Sampling", ", ".join(f"{name} {value:g}" for name, value in scores["sampling"].items())))
    for key, name in (("lora", "LoRA"), ("training", "Training")):
        if settings := (context.get("recipe") or {}).get(key):
            found.append((name, _settings(settings)))
    for name, value in {**context.get("environment", {}), **(material.lock or {})}.items():
        if not isinstance(value, dict | list):
            found.append((str(name), _text(value)))
    return found
