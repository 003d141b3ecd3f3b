"""Personas that extend one another: single fields replaced, parameters one by one, lists appended to and taken from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from generators.errors import Problem, did_you_mean, one_of

if TYPE_CHECKING:
    from generators.specs.project import Project
    from generators.specs.yaml_source import Document, Steps

Persona = dict[str, Any]
Documents = Mapping[tuple[str, str], "Document"]

# How an entry of each list is named when it is to be removed.
_NAMED_BY: dict[str, Callable[[Any], str]] = {
    "style": lambda line: line,
    "principles": lambda principle: principle["name"],
    "messages": lambda message: message["user"],
}
_ABOUT_EXTENDING = ("extends", "append", "remove")


def resolve(project: Project, documents: Documents) -> list[Problem]:
    """Replace every persona by its full self, in place; one that cannot be is taken out. Returns what stood in the way.

    A persona whose parent's file has problems of its own is taken out silently: those problems are told already.
    """
    resolver = _Resolver(project.personas, documents)
    resolved = {name: resolver.full(name, ()) for name in project.personas}
    project.personas = {name: persona for name, persona in resolved.items() if persona is not None}
    return resolver.problems


def lineage(name: str, documents: Documents) -> Iterator[Document]:
    """The file of a persona, then those of the personas that it extends."""
    seen: set[str] = set()
    while name not in seen and ("persona", name) in documents:
        seen.add(name)
        document = documents["persona", name]
        yield document
        name = document.value.get("extends", "") if isinstance(document.value, dict) else ""


def where_written(name: str, field: str, documents: Documents) -> tuple[Document, Steps]:
    """The file in which a field of a persona is written, its own or one that it extends, and the way to it there."""
    files = list(lineage(name, documents))
    for document in files:
        if document.node((field,)):
            return document, (field,)
    return files[0], ()


class _Resolver:
    def __init__(self, personas: dict[str, Persona], documents: Documents):
        self.personas, self.documents = personas, documents
        self.problems: list[Problem] = []
        self.resolved: dict[str, Persona | None] = {}

    def full(self, name: str, way: tuple[str, ...]) -> Persona | None:
        """way: the personas that led here by extending."""
        if name not in self.resolved:
            self.resolved[name] = self._full(name, way)
        return self.resolved[name]

    def _full(self, name: str, way: tuple[str, ...]) -> Persona | None:
        own, document = self.personas[name], self.documents["persona", name]
        parent = own.get("extends")
        if parent is None:
            alone = [key for key in own if key in _ABOUT_EXTENDING]
            self.problems += [document.wrong((key,), "there is nothing to change without `extends`", at_key=True) for key in alone]
            return own
        if parent in (*way, name):
            circle = " -> ".join([*way, name, parent])
            self.problems.append(document.wrong(("extends",), f"{circle} goes round in a circle"))
            return None
        known = sorted(other for kind, other in self.documents if kind == "persona" and other != name)
        if parent not in known:
            hint = did_you_mean(parent, known)
            self.problems.append(document.wrong(("extends",), f"no persona {parent!r}; there {_are(known)}{hint}"))
            return None
        base = self.full(parent, (*way, name)) if parent in self.personas else None
        return self._merged(base, own, document) if base is not None else None

    def _merged(self, base: Persona, own: Persona, document: Document) -> Persona | None:
        from generators.specs.validate import checked

        merged = {key: value for key, value in base.items() if key not in _ABOUT_EXTENDING}
        merged |= {key: value for key, value in own.items() if key not in _ABOUT_EXTENDING}
        merged["parameters"] = {**base["parameters"], **own.get("parameters", {})}
        found = list(_removed(merged, own.get("remove", {}), document))
        for key, entries in own.get("append", {}).items():
            merged[key] = [*merged[key], *entries]
        whole, problems = checked(merged, document, "persona")
        self.problems += found + problems
        return None if found or problems else whole


def _removed(merged: Persona, remove: dict[str, list[str]], document: Document) -> Iterator[Problem]:
    """Take entries out of the lists of `merged`, in place."""
    for key, names in remove.items():
        name_of = _NAMED_BY[key]
        present = [name_of(entry) for entry in merged[key]]
        for index, name in enumerate(names):
            if name not in present:
                hint = did_you_mean(name, present) or (f"; there {_are(present)}" if key == "principles" else "")
                yield document.wrong(("remove", key, index), f"{name!r} is not there to be removed{hint}")
        merged[key] = [entry for entry in merged[key] if name_of(entry) not in names]


def _are(names: list[str]) -> str:
    return f"are {one_of(names)}" if len(names) > 1 else f"is only {names[0]}" if names else "is no other"
