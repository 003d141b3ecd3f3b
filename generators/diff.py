"""What an edit of the specs does to the Modelfiles, told twice: in words, with the line of the spec behind each change, and as a diff.

A Modelfile is compared with the one last deployed, or else with the committed one, or else with nothing.
"""

from __future__ import annotations

import difflib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generators import modelfile_reader
from generators.modelfile import Places, Spec, Steps, texts_of
from generators.modelfile_reader import Modelfile

_SENTENCES = ("identity", "principles", "style", "brevity")


@dataclass(frozen=True)
class Origin:
    """Where the values of a Modelfile are declared. places: of the persona's, see `generators.modelfile.persona_places`. others: places of
    what is no persona's, by the name that its change has: FROM, TEMPLATE, stops, LICENSE."""

    persona: Spec
    places: Places
    others: Mapping[str, tuple[str, ...]]

    def at(self, *steps: Any) -> str:
        """`specs/personas/jessy.yaml:32`, or the file where no line is known."""
        known: Steps = steps
        while known and known not in self.places:
            known = known[:-1]
        file, line, _ = self.places.get(known, ("", 0, 0))
        return f"{file}:{line}" if known else file


@dataclass(frozen=True)
class Change:
    """One difference in meaning. what: `PARAMETER temperature`. before, after: None where it is not there. where: places in the specs."""

    what: str
    before: Any
    after: Any
    where: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """One Modelfile. against: what it was compared with. before: its text, None where there is none. after: from the specs of now."""

    recipe: str
    persona: str
    against: str
    before: str | None
    after: str
    changes: list[Change] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        return self.before != self.after

    def unified(self) -> list[str]:
        """The lines of a unified diff."""
        old, name = (self.before or "").splitlines(), f"{self.recipe}/{self.persona}.Modelfile"
        return list(difflib.unified_diff(old, self.after.splitlines(), self.against, f"{name} (from the specs)", lineterm=""))


def compare(
    recipe: str, persona: str, against: str, before: str | None, after: str, origin: Origin, other: Origin | None = None
) -> Comparison:
    """before, after: texts of Modelfiles. A text before that Ollama would refuse is compared as text alone.

    origin: of the text after. other: of the text before, where the specs of now say that as well.
    """
    changes: list[Change] = []
    if before is not None and before != after:
        try:
            changes = list(changes_of(modelfile_reader.read(before), modelfile_reader.read(after), origin, other))
        except modelfile_reader.Refused as error:
            changes = [Change(f"{against} cannot be read", str(error), None, ())]
    return Comparison(recipe, persona, against, before, after, changes)


def changes_of(before: Modelfile, after: Modelfile, origin: Origin, other: Origin | None = None) -> Iterator[Change]:
    """Every difference in meaning, in the order of a Modelfile."""
    if before.source != after.source:
        yield Change("FROM", before.source, after.source, origin.others["FROM"])
    if before.template != after.template:
        yield Change("TEMPLATE", before.template, after.template, origin.others["TEMPLATE"])
    yield from _system_changes(before.system, after.system, origin, other)
    for name in dict.fromkeys([*after.parameters, *before.parameters]):
        old, new = before.parameters.get(name), after.parameters.get(name)
        if old != new:
            said = other if new is None and other else origin
            yield Change(f"PARAMETER {name}", old, new, (said.at("parameters", name),))
    if before.stops != after.stops:
        yield Change("stops", before.stops, after.stops, origin.others["stops"])
    yield from _message_changes(before.messages, after.messages, origin, other)
    if before.licences != after.licences:
        yield Change("LICENSE", "\n".join(before.licences), "\n".join(after.licences), origin.others["LICENSE"])


def _system_changes(before: str, after: str, origin: Origin, other: Origin | None) -> Iterator[Change]:
    """By paragraph; one that was rewritten is one change."""
    old, new = before.split("\n\n") if before else [], after.split("\n\n") if after else []
    for kind, first, last, start, stop in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        pairs = max(last - first, stop - start)
        for index in range(pairs):
            was = old[first + index] if first + index < last else None
            now = new[start + index] if start + index < stop else None
            number = (start if now is not None else first) + min(index, pairs - 1) + 1
            yield Change(f"SYSTEM, paragraph {number}", was, now, _said_at(was or "", now or "", origin, other))


def _said_at(was: str, now: str, origin: Origin, other: Origin | None) -> tuple[str, ...]:
    """The fields whose text came into the paragraph, and those of `other` whose text went; where there are none, something went that no
    spec says any more, or the template itself was edited."""
    found = [*_fields_in(now, was, origin), *(_fields_in(was, now, other) if other else ())]
    return tuple(dict.fromkeys(found)) or (origin.at("extends") or origin.at(), f"templates/{origin.persona['template']}")


def _fields_in(text: str, without: str, origin: Origin) -> list[str]:
    """Places of the fields that `text` holds and `without` does not."""
    found = [steps for steps, said in texts_of(origin.persona) if said.strip() and said.strip() in text and said.strip() not in without]
    # A name's few letters are soon found by chance.
    sentences = [steps for steps in found if steps[0] in _SENTENCES and steps[-1] != "name"]
    return [origin.at(*steps) for steps in sentences or found]


def _message_changes(
    before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]], origin: Origin, other: Origin | None
) -> Iterator[Change]:
    old, new = (
        [_exchange(before, index) for index in range(0, len(before), 2)],
        [_exchange(after, index) for index in range(0, len(after), 2)],
    )
    for kind, first, last, start, stop in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for index in range(max(last - first, stop - start)):
            was = old[first + index] if first + index < last else None
            now = new[start + index] if start + index < stop else None
            gone = other.at("messages", first + index) if other else origin.at("messages")
            yield Change("MESSAGE", was, now, (origin.at("messages", start + index) if now else gone,))


def _exchange(messages: Sequence[Mapping[str, str]], index: int) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages[index : index + 2])


# What to compare with


def last_deployed(deployments: Path, model: str) -> tuple[str, str] | None:
    """(where, text) of the newest Modelfile below `deployments`/`model`, in the order of the names of its folders; None where none is."""
    found = sorted(path for path in (deployments / model).rglob("*Modelfile") if path.is_file())
    return (found[-1].as_posix(), found[-1].read_text(encoding="utf-8")) if found else None


def committed(root: Path, path: Path) -> tuple[str, str] | None:
    """(where, text) of `path` as the last commit has it; None without git, or where it was never committed."""
    command = ["git", "-C", str(root), "show", f"HEAD:./{path.relative_to(root).as_posix()}"]
    try:
        shown = subprocess.run(command, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (f"HEAD:{path.relative_to(root).as_posix()}", shown.stdout.decode("utf-8", errors="replace")) if shown.returncode == 0 else None


# Telling it


def as_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "recipe": found.recipe,
            "persona": found.persona,
            "against": found.against,
            "differs": found.differs,
            "new": found.before is None,
            "changes": [
                {"what": change.what, "before": change.before, "after": change.after, "where": list(change.where)}
                for change in found.changes
            ],
            "diff": "\n".join(found.unified()),
        }
        for found in comparisons
    ]


def show(comparisons: Sequence[Comparison]) -> None:
    """In a pager on a terminal, in plain text in a pipe."""
    import os

    from generators import progress

    lines = [line for found in comparisons for line in describe(found)]
    if not progress.on_terminal():
        write_plain("\n".join(text for text, _ in lines))
        return
    console = progress.console()
    os.environ.setdefault("LESS", "-FRX")  # colours; no pager for what fits the screen
    with console.pager(styles=True):
        for text, style in lines:
            console.print(text, style=style, markup=False, soft_wrap=True)


def write_plain(text: str) -> None:
    """To standard output; a reader that has seen enough (`| head`) is no error."""
    import os
    import sys

    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered has nobody to read it


def describe(found: Comparison) -> Iterator[tuple[str, str]]:
    """(line, style): what changed in words, then the diff."""
    name = f"{found.recipe}/{found.persona}"
    if not found.differs:
        yield f"{name}: as {found.against}", "dim"
        return
    yield f"{name}: {'new; there is nothing to compare it with' if found.before is None else f'against {found.against}'}", "bold"
    if found.before is not None and not found.changes:
        yield "  the same values, otherwise written", ""
    for change in found.changes:
        yield from _describe_change(change)
    yield "", ""
    for line in found.unified():
        yield line, {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "") if not line.startswith(("+++", "---")) else "bold"
    yield "", ""


def _describe_change(change: Change) -> Iterator[tuple[str, str]]:
    where = f"  ({', '.join(change.where)})" if change.where else ""
    short = all(value is None or len(str(value)) <= 60 and "\n" not in str(value) for value in (change.before, change.after))
    if short and not change.what.startswith(("SYSTEM", "MESSAGE")):
        yield f"  {change.what}: {_value(change.before)} -> {_value(change.after)}{where}", "yellow"
        return
    verb = "new" if change.before is None else "gone" if change.after is None else "changed"
    yield f"  {change.what}: {verb}{where}", "yellow"
    if change.what.startswith(("SYSTEM", "MESSAGE", "TEMPLATE")):
        yield from (("    - " + line, "red") for line in _parts(change.before, change.after))
        yield from (("    + " + line, "green") for line in _parts(change.after, change.before))


def _value(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _parts(text: str | None, other: str | None) -> list[str]:
    """The sentences (or lines) of `text` that `other` has not."""
    import re

    def cut(whole: str | None) -> list[str]:
        return [part for part in re.split(r"(?<=[.!?;:])\s+|\n", whole or "") if part]

    return [part for part in cut(text) if part not in cut(other)]
