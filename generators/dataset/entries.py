"""What the dataset keeps in memory of each sample: a short record, and where its line stands in its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError

Row = dict[str, Any]


@dataclass(slots=True)
class Entry:
    """category: `group/category`. source: `file:line` of the example, which all samples expanded from it share. turns: of the user.
    users, answers: what user and persona say, in turn. file, offset, length: where the line stands, in bytes, without its newline."""

    id: str
    category: str
    source: str
    tier: str
    language: str
    mood: str | None
    users: tuple[str, ...]
    answers: tuple[str, ...]
    file: int
    offset: int
    length: int

    @property
    def group(self) -> str:
        return self.category.split("/")[0]


def read(sample_files: Sequence[Path]) -> Iterator[tuple[Entry, Row]]:
    """Every sample of every file, in order. Raises UserError for a line that is no sample."""
    for number, path in enumerate(sample_files):
        offset = 0
        with path.open("rb") as lines:
            for line_number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    yield _entry(row, number, offset, len(line.rstrip(b"\n"))), row
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(f"{path}:{line_number}: not a sample ({error!r}); run: doit forget samples && doit samples") from error
                offset += len(line)


def _entry(row: Row, file: int, offset: int, length: int) -> Entry:
    metadata, messages = row["metadata"], row["messages"]
    return Entry(
        id=metadata["id"],
        category=f"{metadata['group']}/{metadata['category']}",
        source=metadata["source"],
        tier=metadata["tier"],
        language=metadata["language"],
        mood=metadata.get("mood"),
        users=tuple(message["content"] for message in messages if message["role"] == "user"),
        answers=tuple(message["content"] for message in messages if message["role"] == "assistant"),
        file=file,
        offset=offset,
        length=length,
    )


def write(entries: Sequence[Entry], order: Sequence[int], sample_files: Sequence[Path], target: Path) -> None:
    """The lines of the samples at `order`, byte for byte as they were rendered."""
    files = [path.open("rb") for path in sample_files]
    try:
        with target.open("wb") as out:
            for index in order:
                entry = entries[index]
                file = files[entry.file]
                file.seek(entry.offset)
                out.write(file.read(entry.length) + b"\n")
    finally:
        for file in files:
            file.close()
