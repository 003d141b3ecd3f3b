"""What a user can cause, said in one clear line each; never a traceback.

`UserError` is for anything that a person or their machine caused (no disk, a wrong file, no server).
`SpecErrors` is for specs and templates: every problem found, each with file, line and column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_FAILED = 1  # a stage could not do its work
EXIT_GATE = 2  # the work was done and an enforced gate was missed
EXIT_SPECS = 3  # specs, templates or a name on the command line are wrong; nothing was touched


class UserError(Exception):
    """A failure with a cause outside the program. `str(error)` is what the user reads."""

    exit_code = EXIT_FAILED


class Diverged(UserError):
    """A training whose loss is no longer a number: settings that cannot be trained with, and nothing is broken."""


class GateMissed(UserError):
    """An enforced gate of a recipe was missed: the artefacts stand, the exit code says no."""

    exit_code = EXIT_GATE


class NoSuchName(UserError):
    """A name on the command line that the specs do not have. Exit code 1 would be taken for the difference that `doit diff` tells of."""

    exit_code = EXIT_SPECS


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a spec or template. `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = self.file + (f":{self.line}:{self.column}" if self.line else "")
        return f"{place}: {self.message}"


class SpecErrors(UserError):
    """All the problems found in one reading of the specs, sorted by file and place."""

    exit_code = EXIT_SPECS

    def __init__(self, problems: Iterable[Problem]):
        self.problems: Sequence[Problem] = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


def one_of(allowed: Iterable[object]) -> str:
    """`low, medium, high` for a message."""
    return ", ".join(str(value) for value in allowed)


def chosen(names: Iterable[str], wanted: str, what: str) -> str:
    """`wanted`. Raises NoSuchName where it is none of `names`."""
    known = list(names)
    if wanted not in known:
        raise NoSuchName(f"no {what} {wanted!r}; there are {one_of(known)}{did_you_mean(wanted, known)}")
    return wanted


def did_you_mean(value: object, allowed: Iterable[object]) -> str:
    """`"; did you mean 'low'?"` for the closest allowed word, or an empty string."""
    from difflib import get_close_matches

    words = [str(word) for word in allowed]
    close = get_close_matches(str(value), words, n=1, cutoff=0.5)
    if not close:
        close = [word for word in words if str(value) and word.startswith(str(value))][:1]
    return f"; did you mean {close[0]!r}?" if close else ""
