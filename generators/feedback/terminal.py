"""The one who decides, at the terminal or at the other end of a pipe."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

from generators import progress
from generators.feedback import editing
from generators.feedback.review import Person


def person() -> Person:
    return Person(ask, editing.edit, progress.say)


def ask(question: str) -> str | None:
    """The answer, a line; None where the input has ended. On a terminal the line can be edited."""
    if progress.on_terminal() and sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  arrow keys for `input`, where there is such a thing
        try:
            with redirect_stdout(sys.__stdout__):  # `input` edits lines only on the real one
                return input(f"   {question}")
        except EOFError:
            return None
    progress.say(question)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def places_of(given: list[str], root: Path) -> list[Path]:
    """--from, which may be said again and may hold several paths with commas between; a path with a comma of its own is one."""
    found: list[Path] = []
    for value in given:
        whole = root / Path(value).expanduser()
        parts = [value] if whole.exists() else [part for part in value.split(",") if part.strip()]
        found += [root / Path(part.strip()).expanduser() for part in parts]
    return found
