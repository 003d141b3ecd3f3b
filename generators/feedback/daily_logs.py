"""jessy-cli's daily logs (`YYYY-MM-DD.txt`): blocks between lines of 80 `=`.

    ====…
    [RFC 3339 time] IP: … | Session: … | User: …
    ====…

    USER:
    what was asked

    JESSY:
    what was answered

    ====…

A file is cut into segments at its lines of `=`; a header with the segment behind it is a block. Texts hold anything, such lines too: a
segment that begins like no block goes on with the text before it. Nothing can tell a text that imitates a whole block from a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from generators.feedback.exchanges import Exchange, Skipped, Turn
from generators.feedback.lines import Line

RULE = "=" * 80
_HEADER = re.compile(r"\s*\[[^\]\n]*\d{4}-\d{2}-\d{2}[^\]\n]*\]\s*IP:(?P<ip>.*?)\|\s*Session:(?P<session>.*?)\|\s*User:(?P<user>.*)")
_LIKE_A_HEADER = re.compile(r"\s*\[(?:\d{4}-\d{2}|.*(?:IP:|Session:|User:))")
_USER, _JESSY = "USER:", "JESSY:"
_MOST_TURNS = 8  # of a session that an exchange remembers
_NOBODY = ("", "anonymous", "unknown", "none", "n/a", "-")


class _Header(NamedTuple):
    """session: what blocks of one conversation share."""

    line: int
    session: str
    speaker: str
    known: tuple[str, ...]


@dataclass
class _Segment:
    """Lines between two rules. closed: a rule stands behind it."""

    lines: list[Line] = field(default_factory=list)
    closed: bool = False

    @property
    def first(self) -> Line | None:
        return next((line for line in self.lines if line.text.strip() or line.problem), None)

    @property
    def kind(self) -> str:
        first = self.first
        if first is None:
            return "blank"
        if _HEADER.fullmatch(first.text):
            return "header"
        if first.text.startswith(_USER) or _LIKE_A_HEADER.match(first.text):
            return "block"  # one that lost its header, or most of it
        return "text"


def read_log(lines: Iterable[Line], name: str) -> Iterator[Exchange | Skipped]:
    """Every block in its order, as an exchange or as why it is none. Blocks of one session are one conversation. Never raises."""
    sessions: dict[str, tuple[Turn, ...]] = {}
    segments = list(_segments(lines))
    is_spaced = any(segment.closed and _ends_blank(segment) for segment in segments if segment.kind != "blank")
    position = 0
    while position < len(segments):
        segment = segments[position]
        position += 1
        if segment.kind == "header":
            header, body, position = _block(segments, position, segment)
            yield from _exchange(header, body, name, sessions, is_spaced)
        elif segment.kind != "blank":
            yield Skipped(f"{name}:{_first_line(segment)}", "text outside of a block")


def _segments(lines: Iterable[Line]) -> Iterator[_Segment]:
    segment = _Segment()
    for line in lines:
        if line.text.strip() == RULE:
            segment.closed = True
            yield segment
            segment = _Segment()
        else:
            segment.lines.append(line)
    yield segment


def _first_line(segment: _Segment) -> int:
    return segment.first.number if segment.first else 0


def _ends_blank(segment: _Segment) -> bool:
    return bool(segment.lines) and not segment.lines[-1].text.strip() and not segment.lines[-1].problem


def _block(segments: Sequence[_Segment], position: int, first: _Segment) -> tuple[_Header, _Segment, int]:
    """The header in `first`, the block's text (which may begin in the same segment), and where the next block may begin."""
    at = next(index for index, line in enumerate(first.lines) if line is first.first)
    found = _HEADER.fullmatch(first.lines[at].text)
    assert found is not None
    speaker, *known = ("" if part.casefold() in _NOBODY else part for part in map(str.strip, found.group("user", "ip", "session")))
    header = _Header(first.lines[at].number, "|".join((speaker, *known)), speaker, tuple(filter(None, known)))
    body = _Segment(first.lines[at + 1 :], first.closed)
    if body.first is None and first.closed and position < len(segments) and segments[position].kind in ("block", "text"):
        body = _Segment(list(segments[position].lines), segments[position].closed)
        position += 1
    answered = bool(_answers(body.lines))
    while _goes_on(body, segments, position, answered):
        following = segments[position]
        answered = answered or bool(_answers(following.lines))
        body.lines += [Line(following.lines[0].number - 1, RULE), *following.lines]
        body.closed = following.closed
        position += 1
    return header, body, position


def _goes_on(body: _Segment, segments: Sequence[_Segment], position: int, answered: bool) -> bool:
    """Whether the rule behind `body` is part of its text. A block ends in a blank line, the rule and a blank line, and never before it is
    answered."""
    if not body.lines or not body.closed or position >= len(segments) or segments[position].kind != "text":
        return False
    return not (answered and _ends_blank(body) and not segments[position].lines[0].text.strip())


def _exchange(
    header: _Header, body: _Segment, name: str, sessions: dict[str, tuple[Turn, ...]], is_spaced: bool
) -> Iterator[Exchange | Skipped]:
    source = f"{name}:{header.line}"
    problem = _problem(body, is_spaced)
    if problem:
        yield Skipped(source, problem)
        return
    start = next(index for index, line in enumerate(body.lines) if line is body.first)
    middle = _answers(body.lines)[0]
    query = _section(body.lines[start:middle], _USER)
    answer = _section(body.lines[middle:], _JESSY)
    if not query or not answer:
        yield Skipped(source, "an empty section")
        return
    conversation = sessions.get(header.session, ())
    sessions[header.session] = (*conversation, (query, answer))[-_MOST_TURNS:]
    yield Exchange(source, query, answer, conversation, speaker=header.speaker, known=header.known)


def _problem(body: _Segment, is_spaced: bool) -> str:
    """Why the block is none, or nothing. is_spaced: other blocks of the file end in a blank line. Then, and where the block begins with
    one, text right at the rule was cut off: the rule is that of the next block."""
    broken = next((line.problem for line in body.lines if line.problem), "")
    if broken:
        return broken
    if body.first is None:
        return "nothing behind the header"
    if not body.first.text.startswith(_USER):
        return "no USER: section"
    answers = _answers(body.lines)
    if not answers:
        return "no JESSY: section"
    again = [line for line in _after_blanks(body.lines[answers[0] :]) if line.text.strip() == _USER]
    if len(answers) > 1 or again:
        return "a section that begins twice"
    is_spaced = is_spaced or not body.lines[0].text.strip()
    if not body.closed or (is_spaced and not _ends_blank(body)):
        return "cut off: no closing line"
    return ""


def _answers(lines: Sequence[Line]) -> list[int]:
    """Where JESSY: may begin: at a line of its own behind a blank one, else at any line of its own, else before words."""
    alone = [index for index, line in enumerate(lines) if line.text.strip() == _JESSY]
    behind_blank = [index for index in alone if index and not lines[index - 1].text.strip()]
    return behind_blank or alone or [index for index, line in enumerate(lines) if line.text.startswith(_JESSY)]


def _after_blanks(lines: Sequence[Line]) -> Iterator[Line]:
    for before, line in zip(lines, lines[1:], strict=False):
        if not before.text.strip():
            yield line


def _section(lines: Sequence[Line], label: str) -> str:
    text = "\n".join(line.text for line in lines).lstrip()
    return text.removeprefix(label).strip()
