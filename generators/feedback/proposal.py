"""The proposal: what could be learnt, as a diff of the category files and as JSON that says where each example came from and why.

`build/feedback/proposal.diff` is what `git apply` takes: every proposed example that passes its gates as it stands. Those that a person
has to edit first are in `proposal.json` alone:

    {"read": [{"file", "exchanges", "skipped"}], "skipped": [{"source", "reason"}], "taken_out": {"mail": 2, …},
     "left_out": [{"source", "reason", "detail"}], "held_out": 3, "decided": {"accepted": 4, "rejected": 1},
     "proposed": [{"id", "category", "runner_up", "language", "tier", "iterations", "verdict", "example", "said", "sources", "why",
                   "taken_out", "gates"}],
     "gates": ["balance: …"]}

A source is `file:line`. said: the answer that was given where `example` holds a better one. gates of an example: what it would miss as it
stands; of the whole: what the project would miss with everything in proposal.diff.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.feedback.insertion import inserted
from generators.feedback.judging import Judged, Proposed
from generators.feedback.logs import Read
from generators.files import write_json, write_text

CATEGORIES = "specs/categories"
_SHOWN = 8  # lines of one kind that the summary names before it counts


@dataclass
class Proposal:
    """read: by file. judged: what came of it. changes: the category files with what is ready in them, by path from the project's root.
    newly_held: cases that joined held_out.jsonl, held: all in it. gates: see the module. unplaced: why a file cannot be added to."""

    read: Sequence[Read]
    judged: Judged
    changes: Mapping[str, bytes] = field(default_factory=dict)
    newly_held: int = 0
    held: int = 0
    gates: Sequence[str] = ()
    unplaced: Sequence[str] = ()

    @property
    def ready(self) -> list[Proposed]:
        return [proposed for proposed in self.judged.proposed if not proposed.gates]


def category_file(category: str) -> str:
    return f"{CATEGORIES}/{category}.yaml"


def changes_of(root: Path, proposed: Iterable[Proposed]) -> tuple[dict[str, bytes], list[str]]:
    """The category files with these examples in them, by path from `root`, and what keeps others from being added to."""
    by_file: dict[str, list[dict[str, Any]]] = {}
    for each in proposed:
        by_file.setdefault(category_file(each.place.category), []).append(each.example)
    changes, problems = {}, []
    for file, examples in sorted(by_file.items()):
        try:
            changes[file] = inserted((root / file).read_bytes(), file, examples)
        except UserError as error:
            problems.append(str(error))
    return changes, problems


def diff_of(root: Path, changes: Mapping[str, bytes]) -> str:
    """A unified diff of all of them."""
    return "".join(line for file, after in sorted(changes.items()) for line in _diff(file, (root / file).read_bytes(), after))


def _diff(file: str, before: bytes, after: bytes) -> Iterator[str]:
    old, new = before.decode().splitlines(keepends=True), after.decode().splitlines(keepends=True)
    for line in difflib.unified_diff(old, new, f"a/{file}", f"b/{file}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def write(folder: Path, root: Path, proposal: Proposal) -> None:
    write_text(folder / "proposal.diff", diff_of(root, proposal.changes))
    write_json(folder / "proposal.json", as_json(proposal))


def as_json(proposal: Proposal) -> dict[str, Any]:
    judged = proposal.judged
    return {
        "read": [{"file": read.name, "exchanges": len(read.exchanges), "skipped": len(read.skipped)} for read in proposal.read],
        "skipped": [skipped._asdict() for read in proposal.read for skipped in read.skipped],
        "taken_out": dict(_taken_out(judged)),
        "left_out": [left_out._asdict() for left_out in judged.left_out],
        "held_out": proposal.held,
        "decided": dict(judged.decided),
        "proposed": [_proposed(proposed) for proposed in judged.proposed],
        "gates": [*proposal.gates, *proposal.unplaced],
    }


def _proposed(proposed: Proposed) -> dict[str, Any]:
    candidate, place = proposed.candidate, proposed.place
    return {
        "id": proposed.id,
        **place._asdict(),
        "verdict": candidate.verdict,
        "example": proposed.example,
        "said": candidate.said or None,
        "sources": list(candidate.sources),
        "why": list(proposed.why),
        "taken_out": dict(candidate.taken_out),
        "gates": list(proposed.gates),
    }


def _taken_out(judged: Judged) -> Counter[str]:
    """Of all that is kept in any way."""
    total: Counter[str] = Counter()
    for proposed in (*judged.proposed, *judged.held_out):
        total.update(proposed.candidate.taken_out)
    return total


def summary(proposal: Proposal, held_out: str, folder: str, in_review: bool = False) -> Iterator[str]:
    """What was read, taken out, left out and why, a line each. held_out: the file's name. folder: where the proposal is written.
    in_review: a person goes through it now, and need not be told how."""
    judged = proposal.judged
    skipped = [each for read in proposal.read for each in read.skipped]
    exchanges = sum(len(read.exchanges) for read in proposal.read)
    yield f"read: {_many(exchanges, 'exchange')} in {_many(len(proposal.read), 'file')}"
    if skipped:
        yield f"skipped: {len(skipped)} ({_counted(each.reason for each in skipped)})"
        yield from _listed(f"{each.source}: {each.reason}" for each in skipped)
    taken = _taken_out(judged)
    if taken:
        yield f"taken out: {', '.join(_many(count, kind) for kind, count in taken.most_common())}"
    if judged.left_out:
        yield f"left out: {len(judged.left_out)} ({_counted(each.reason for each in judged.left_out)})"
        corrections = [each for each in judged.left_out if "correction" in each.detail]
        yield from _listed(f"{each.source}: {each.reason}: {each.detail}" for each in corrections)
    if judged.decided:
        yield "decided before: " + ", ".join(f"{count} {decision}" for decision, count in sorted(judged.decided.items()))
    if proposal.held:
        yield f"held out for evaluation: {proposal.held} in {held_out}, {proposal.newly_held} of them new"
    yield from _told_of_proposed(proposal)
    if judged.proposed and not in_review:
        yield f"{folder}/proposal.diff shows them; doit feedback --review goes through them one by one"


def _told_of_proposed(proposal: Proposal) -> Iterator[str]:
    proposed, ready = proposal.judged.proposed, proposal.ready
    if not proposed:
        yield "proposed: nothing new"
        return
    by_category = _counted(each.place.category for each in proposed)
    edit = f"; {len(proposed) - len(ready)} to be edited first" if len(ready) < len(proposed) else ""
    yield f"proposed: {_many(len(proposed), 'example')} ({by_category}){edit}"
    yield from (f"   {problem}" for problem in proposal.unplaced)
    if proposal.gates:
        yield "taken over all together they would miss:"
        yield from _listed(proposal.gates)
    elif ready:
        yield "with all that are ready every gate of the dataset is passed"


def _listed(lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    yield from (f"   {line}" for line in found[:_SHOWN])
    if len(found) > _SHOWN:
        yield f"   and {len(found) - _SHOWN} more, in proposal.json"


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common())


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
