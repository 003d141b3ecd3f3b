"""The catalogue of messages, errors.yaml: what the program says when something goes wrong, why, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("errors.yaml")


@dataclass(frozen=True)
class Entry:
    """messages: one for each wording, with a name in braces for every value. parts: messages that only put another one into its place."""

    title: str
    messages: tuple[str, ...]
    parts: tuple[str, ...]
    cause: str
    remedy: str
    lead: str

    @property
    def anchor(self) -> str:
        return anchor(self.title)


@dataclass(frozen=True)
class Section:
    title: str
    lead: str
    entries: tuple[Entry, ...]


def sections() -> list[Section]:
    from ruamel.yaml import YAML

    found: list[dict[str, Any]] = YAML(typ="safe").load(FILE)
    return [Section(section["title"], section.get("lead", ""), tuple(_entry(entry) for entry in section["entries"])) for section in found]


def entries() -> Iterator[Entry]:
    for section in sections():
        yield from section.entries


def _entry(found: dict[str, Any]) -> Entry:
    return Entry(
        found["title"],
        tuple(_lines(found["messages"])),
        tuple(_lines(found.get("parts", ""))),
        found["cause"],
        found["remedy"],
        found.get("lead", ""),
    )


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())


def anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
