"""The files that people left: which there are, of which kind each is, and what was read of it. Nothing in them stops the reading."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from generators.errors import UserError
from generators.feedback.daily_logs import read_log
from generators.feedback.exchanges import Exchange, Skipped
from generators.feedback.exports import read_export, read_rows
from generators.feedback.lines import lines_of, read_lines
from generators.feedback.privacy import strip
from generators.feedback.texts import cleaned
from generators.files import human_bytes

LOG, EXPORT, ROWS = "log", "export", "rows"
_KINDS = {".txt": LOG, ".log": LOG, ".json": EXPORT, ".jsonl": ROWS, ".ndjson": ROWS}
LARGEST_EXPORT = 256_000_000  # bytes; an export is one value of JSON and is held in memory


class Found(NamedTuple):
    """A file. name: as a source has it: without the folders above the one that was asked for, which may name their owner, and without what
    else in it is personal."""

    path: Path
    name: str


@dataclass
class Read:
    """What one file gave."""

    name: str
    exchanges: list[Exchange] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def files_of(root: Path, places: Sequence[Path], own: Collection[Path]) -> list[Found]:
    """The logs in `places`, files or folders, each once. own: files that this program keeps there and that are no logs.

    Raises UserError for a place that is not there.
    """
    found: dict[Path, Found] = {}
    kept = {path.resolve() for path in own}
    for place in places:
        if not place.exists():
            raise UserError(f"{place} does not exist; --from takes files and folders")
        for path in _below(place) if place.is_dir() else [place]:
            if path.resolve() not in kept:
                found.setdefault(path.resolve(), Found(path, _name(root, place, path)))
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in _KINDS:
                yield Path(parent) / name


def _name(root: Path, place: Path, path: Path) -> str:
    """Relative to the project, or from the folder on that was asked for. As text, whatever bytes the name is made of."""
    inside, here = path.resolve(), root.resolve()
    if inside.is_relative_to(here):
        name = inside.relative_to(here).as_posix()
    elif place.is_dir():
        name = f"{place.resolve().name}/{path.relative_to(place).as_posix()}"
    else:
        name = path.name
    return strip(cleaned(name.encode("utf-8", "replace").decode())).text


def read(file: Found) -> Read:
    """All that is in a file. One that cannot be read is a single Skipped."""
    result = Read(file.name)
    try:
        for item in _items(file):
            if isinstance(item, Skipped):
                result.skipped.append(item)
            else:
                result.exchanges.append(item)
    except OSError as error:
        result.skipped.append(Skipped(f"{file.name}:1", f"cannot be read: {error.strerror or error}"))
    return result


def _items(file: Found) -> Iterator[Exchange | Skipped]:
    if not file.path.is_file():  # a pipe would block for ever
        yield Skipped(f"{file.name}:1", "no regular file")
        return
    kind = _KINDS.get(file.path.suffix.lower()) or _kind_by_content(file.path)
    if kind == LOG:
        yield from read_log(read_lines(file.path), file.name)
    elif kind == ROWS:
        yield from read_rows(read_lines(file.path), file.name)
    else:
        yield from _export(file)


def _kind_by_content(path: Path) -> str:
    """For a name that tells nothing."""
    first = next((line.text.strip() for line in read_lines(path) if line.text.strip()), "")
    if not first.startswith(("{", "[")):
        return LOG
    return ROWS if first.startswith("{") and first.endswith("}") else EXPORT


def _export(file: Found) -> Iterator[Exchange | Skipped]:
    size = file.path.stat().st_size
    if size > LARGEST_EXPORT:
        yield Skipped(f"{file.name}:1", f"{human_bytes(size)}; an export may take {human_bytes(LARGEST_EXPORT)}, so split it up")
        return
    data = file.path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        text = data.decode("utf-8-sig", "surrogateescape")
    if '"messages"' in text:
        yield from read_export(text, file.name)
    else:  # rows in a file that is called .json
        yield from read_rows(lines_of(text), file.name)
