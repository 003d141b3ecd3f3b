"""What was said and what a person thought of it: the one form in which every kind of log arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Turn = tuple[str, str]  # what the user said, and what was answered
GOOD, BAD, BETTER = "good", "bad", "better"
VERDICTS = (GOOD, BAD, BETTER)


@dataclass(frozen=True)
class Exchange:
    """source: `file:line`. conversation: the turns before it, the oldest first. verdict: one of VERDICTS, None where nobody judged it.
    correction: the answer that would have been right. speaker, known: who took part as the log has it: the user's name; address and session."""

    source: str
    query: str
    answer: str
    conversation: tuple[Turn, ...] = ()
    verdict: str | None = None
    correction: str | None = None
    speaker: str = ""
    known: tuple[str, ...] = ()


class Skipped(NamedTuple):
    """A block, row or message that could not be read. source: `file:line` where it begins."""

    source: str
    reason: str
