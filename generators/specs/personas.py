"""Personas that extend one another: single fields replaced, lists appended to and taken from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generators.errors import Problem, did_you_mean, one_of

if TYPE_CHECKING:
    from generators.specs.project import Project

# How an entry of each list is named when it is to be removed.
_NAMED_BY = {"style": lambda line: line, "principles": lambda principle: principle["name"], "messages": lambda message: message["user"]}


def resolve(project: Project, documents: dict[tuple[str, str], Any]) -> list[Problem]:
    """Replace every persona by its full self, in place. Returns cycles, unknown names and missing fields as problems."""
    from generators.specs import validate, yaml_source

    problems: list[Problem] = []
    resolved: dict[str, dict[str, Any]] = {}

    def full(name: str, way: tuple[str, ...]) -> dict[str, Any] | None:
        if name in resolved:
            return resolved[name]
        own, document = project.personas[name], documents["persona", name]
        parent = own.get("extends")
        if parent is None:
            resolved[name] = own
            return own
        if parent in way or parent == name:
            problems.append(document.problem(("extends",), f"extends: {' -> '.join((*way, name, parent))} goes round in a circle"))
            return None
        if parent not in project.personas:
            known = [other for other in project.personas if other != name]
            problems.append(
                document.problem(("extends",), f"extends: no persona {parent!r}; there are {one_of(known)}{did_you_mean(parent, known)}")
            )
            return None
        base = full(parent, (*way, name))
        if base is None:
            return None
        merged = _merge(base, own, document, problems)
        whole = yaml_source.Document(document.file, merged, document.places, document.key_places)
        checked = validate.validate(whole, "persona")
        if checked is None:
            problems.extend(whole.problems)
            return None
        resolved[name] = checked
        return checked

    for name in project.personas:
        full(name, ())
    if not problems:
        project.personas.update(resolved)
    return problems


def _merge(base: dict[str, Any], own: dict[str, Any], document: Any, problems: list[Problem]) -> dict[str, Any]:
    merged = {key: value for key, value in base.items() if key not in ("extends", "append", "remove")}
    merged |= {key: value for key, value in own.items() if key not in ("extends", "append", "remove", "parameters")}
    merged["parameters"] = {**base.get("parameters", {}), **own.get("parameters", {})}
    for key, names in own.get("remove", {}).items():
        present = [_NAMED_BY[key](entry) for entry in merged[key]]
        for index, name in enumerate(names):
            if name not in present:
                problems.append(
                    document.problem(
                        ("remove", key, index), f"remove.{key}[{index}]: {name!r} is not there to be removed{did_you_mean(name, present)}"
                    )
                )
        merged[key] = [entry for entry in merged[key] if _NAMED_BY[key](entry) not in names]
    for key, entries in own.get("append", {}).items():
        merged[key] = merged[key] + entries
    return merged
