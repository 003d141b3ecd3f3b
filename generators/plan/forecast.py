"""Which stages would run, in build order, and because of what.

A stage is up to date as doit sees it: its slice, its files' bytes and its targets are as at its last success. What a stage would write is
known where it is cheap to render (samples, dataset, frames, Modelfiles): those are rendered beside the project, so that a rebuild that
ends in the same bytes is seen to end there. Of a costly stage's output is only known that it may be another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.plan.changes import Change, Places, changes, describe

NEVER, SPEC, TEMPLATE, SOURCE, INPUT, MISSING = "never built", "spec", "template", "source", "input", "missing target"
RUNS, CUT_OFF, UP_TO_DATE, FAILS, WAITS = "runs", "cut off", "up to date", "would fail", "waits"
State = tuple[float, int, str]  # time stamp, size and md5, as doit stores them
# Renders a stage into the project at the given root. Raises UserError when the stage would fail.
Render = Callable[[Path], None]


@dataclass(frozen=True)
class Stage:
    """One task. reads: its slice of the specs. files, targets: paths relative to the project. after: tasks that come first."""

    name: str
    reads: Any
    files: tuple[str, ...]
    targets: tuple[str, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Success:
    """The last success of a task. files: what each was then. taken: seconds, memory_bytes, at, machine, where they were measured."""

    reads: Any
    files: Mapping[str, State]
    taken: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reason:
    """kind: one of the above. text: for a person. file, line: what was edited; line 0 for a whole file. change: of a spec."""

    kind: str
    text: str
    file: str = ""
    line: int = 0
    change: Change | None = None


@dataclass(frozen=True)
class Step:
    """What becomes of a stage."""

    stage: Stage
    status: str
    reasons: tuple[Reason, ...] = ()


def forecast(
    root: Path,
    stages: Sequence[Stage],
    successes: Mapping[str, Success],
    scratch: Path,
    renders: Mapping[str, Render],
    kept: Callable[[Stage, Success | None, Sequence[Reason]], set[str]] = lambda *_: set(),
) -> list[Step]:
    """A step for every stage, in build order.

    root: the project. scratch: an empty folder to render in. renders: for the stages that are cheap to render, by name. kept: targets of a
    costly stage that keep their bytes, given why it runs.
    """
    disk = _Disk(root, scratch)
    places = Places(root)
    steps: list[Step] = []
    stopped: set[str] = set()  # stages that would not come to an end
    for stage in _in_order(stages):
        past = successes.get(stage.name)
        reasons = [*_own_reasons(stage, past, disk, places), *_inherited_reasons(stage, past, disk)]
        step = _step(stage, past, reasons, stopped, disk)
        if step.status == RUNS:
            step = _rendered(step, disk, renders.get(stage.name), kept(stage, past, reasons))
        if step.status in (FAILS, WAITS):
            stopped.add(stage.name)
            disk.will_be_written(stage, set())
        steps.append(step)
    return steps


def _in_order(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Each after those that it comes after, otherwise as given."""
    waiting, done = list(stages), set[str]()
    known = {stage.name for stage in stages}
    while waiting:
        ready = next((stage for stage in waiting if not (set(stage.after) & known) - done), waiting[0])
        waiting.remove(ready)
        done.add(ready.name)
        yield ready


def _step(stage: Stage, past: Success | None, reasons: list[Reason], stopped: set[str], disk: _Disk) -> Step:
    held_up = sorted(stopped & {*stage.after, *(disk.producer[file] for file in stage.files if file in disk.producer)})
    if held_up:
        return Step(stage, WAITS, (Reason(INPUT, f"{', '.join(held_up)} must come to an end first"),))
    if reasons:
        return Step(stage, RUNS, tuple(reasons))
    same = [file for file in stage.files if file in disk.producer]
    if same:
        makers = ", ".join(dict.fromkeys(disk.producer[file] for file in same))
        files = ", ".join(same) if len(same) < 3 else f"{same[0]} and {len(same) - 1} more"
        return Step(stage, CUT_OFF, (Reason(INPUT, f"{makers} will leave {files} as {'it is' if len(same) == 1 else 'they are'}"),))
    return Step(stage, UP_TO_DATE)


def _rendered(step: Step, disk: _Disk, render: Render | None, kept: set[str]) -> Step:
    """The step, with its stage's targets known to `disk`: rendered, or said to be other ones."""
    if render is None or not disk.can_render(step.stage):
        disk.will_be_written(step.stage, kept)
        return step
    disk.prepare(step.stage)
    try:
        render(disk.scratch)
    except UserError as error:
        return Step(step.stage, FAILS, (*step.reasons, Reason(INPUT, str(error))))
    disk.was_rendered(step.stage)
    return step


# --- reasons ----------------------------------------------------------------------------------------------------------------------


def _own_reasons(stage: Stage, past: Success | None, disk: _Disk, places: Places) -> Iterator[Reason]:
    """What a person did: edited a spec, a template or a generator, or deleted what was built."""
    if past is None:
        yield Reason(NEVER, "was not built yet")
        return
    yield from _of_slice(stage, past, places)
    for file in sorted(set(stage.files) ^ set(past.files)):
        if file not in disk.producer and not file.startswith("build/"):
            yield Reason(_kind_of_file(file), f"{file} {'is new' if file in stage.files else 'is gone'}", file)
        elif file not in stage.files or file not in disk.producer:
            yield Reason(INPUT, f"{file} is {'read now' if file in stage.files else 'no longer read'}", file)
    for file in stage.files:
        if file in past.files and file not in disk.producer and not disk.is_as(file, past.files[file]):
            yield Reason(_kind_of_file(file), f"{file} was changed", file)
    for target in stage.targets:
        if not (disk.root / target).is_file():
            yield Reason(MISSING, f"{target} is missing", target)


def _of_slice(stage: Stage, past: Success, places: Places) -> Iterator[Reason]:
    if past.reads == stage.reads:
        return
    found = changes(past.reads, stage.reads)
    if not found:
        yield Reason(SPEC, "what it reads of the specs was last recorded in another form")
    told: set[str] = set()  # what several personas take over from one is edited once
    for change in found:
        file, line = places.find(change, stage.reads.get(change.file) if isinstance(stage.reads, dict) else None)
        line = line if change.steps else 0
        text = describe(change) if change.steps or places.has(file) else "is gone"
        sentence = f"{file}{f':{line}' if line else ''} {text}"
        if sentence not in told:
            told.add(sentence)
            yield Reason(SPEC, sentence, file, line, change)


def _inherited_reasons(stage: Stage, past: Success | None, disk: _Disk) -> Iterator[Reason]:
    """Files that stages before it would write with other bytes, told together for each of those stages."""
    others: dict[str, list[str]] = {}
    for file in stage.files:
        if past is not None and file in disk.producer and (file not in past.files or not disk.is_as(file, past.files[file])):
            others.setdefault(disk.producer[file], []).append(file)
    for producer, files in others.items():
        verb = "may" if any(map(disk.is_unknown, files)) else "will"
        named = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        yield Reason(INPUT, f"{producer} {verb} write {named} anew", files[0])


def _kind_of_file(file: str) -> str:
    return TEMPLATE if file.startswith("templates/") else SOURCE if "generators" in Path(file).parts[:-1] else INPUT


def touched(root: Path, steps: Sequence[Step], successes: Mapping[str, Success]) -> list[str]:
    """Spec files that were saved since the stages that read them ran, with nothing in them that a stage reads changed: a comment, the
    layout, or a field that only says how something is told."""
    built: dict[str, float] = {}
    for step in steps:
        past = successes.get(step.stage.name)
        for file in step.stage.reads or {} if past is not None else {}:
            built[file] = max(built.get(file, 0.0), past.taken.get("at", 0.0) if past else 0.0)
    edited = {reason.change.file for step in steps for reason in step.reasons if reason.change}
    return sorted(file for file, at in built.items() if at and file not in edited and (root / file).stat().st_mtime > at)


# --- files ------------------------------------------------------------------------------------------------------------------------


class _Disk:
    """The project's files as they would be. producer: of the files that would be written, the stage that writes them."""

    def __init__(self, root: Path, scratch: Path):
        self.root, self.scratch = root.resolve(), scratch
        self.producer: dict[str, str] = {}
        self._rendered: set[str] = set()
        self._unknown: set[str] = set()
        (scratch / "templates").symlink_to(self.root / "templates")

    def is_unknown(self, file: str) -> bool:
        return file in self._unknown

    def is_as(self, file: str, past: State) -> bool:
        """Whether the file will be what it was; False where that cannot be told."""
        path = self._path(file)
        if file in self._unknown or not path.is_file():
            return False
        found = path.stat()
        if found.st_mtime == past[0] and file not in self._rendered:
            return True
        return found.st_size == past[1] and _md5(path) == past[2]

    def will_be_written(self, stage: Stage, kept: set[str]) -> None:
        """With other bytes, as far as one can tell, but for the targets `kept`."""
        self.producer |= dict.fromkeys(stage.targets, stage.name)
        self._unknown |= set(stage.targets) - kept

    def can_render(self, stage: Stage) -> bool:
        return all(file not in self._unknown and self._path(file).is_file() for file in stage.files)

    def prepare(self, stage: Stage) -> None:
        """The stage's inputs stand in the scratch folder: those that were rendered there, and links to those that stay."""
        for file in stage.files:
            here = self.scratch / file
            if file.startswith("build/") and file not in self._rendered and not here.is_symlink():
                here.parent.mkdir(parents=True, exist_ok=True)
                here.symlink_to(self.root / file)

    def was_rendered(self, stage: Stage) -> None:
        self.producer |= dict.fromkeys(stage.targets, stage.name)
        self._rendered |= set(stage.targets)

    def _path(self, file: str) -> Path:
        return (self.scratch if file in self._rendered else self.root) / file


def _md5(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "md5").hexdigest()
