"""Conversations as JSON: jessy-cli's exports, and rows of JSONL.

An export is `{"messages": [{"role": "User" | "Assistant", "content": …}, …], …}`. Its messages are read one by one, so that a file that is
cut off, or broken in one place, gives the others.

A row of JSONL is an export on one line, or

    {"query": "naber", "answer": "İyidir.", "verdict": "better", "correction": "İyidir kanka, senden?",
     "conversation": [{"role": "user", "content": "selam"}, {"role": "assistant", "content": "Selam!"}]}

Only `query` and one of `answer` and `correction` are needed. verdict: good, bad, better (with the answer that would have been right in
`correction`), or null. conversation: what was said before. Other keys are left alone; this is the form in which `doit chat` keeps verdicts.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from generators.errors import one_of
from generators.feedback.exchanges import BAD, BETTER, VERDICTS, Exchange, Skipped, Turn
from generators.feedback.lines import Line

_MESSAGES = re.compile(r'"messages"\s*:\s*\[')
# Where a message begins after one that is broken. Inside of a text the quotes would be escaped.
_MESSAGE = re.compile(r'\{\s*"(?:role|content|timestamp|dimensions)"\s*:')
_BETWEEN = re.compile(r"[\s,]*")
_USERS, _ASSISTANTS = ("user", "human"), ("assistant", "jessy", "model")
_MOST_TURNS = 8  # of a conversation that an exchange remembers


class _Item(NamedTuple):
    """An element of a list, and where it stands. value: None where it is broken."""

    start: int
    end: int
    value: Any


class _Said(NamedTuple):
    """A message. role: user, assistant, or empty for one that cannot be read."""

    source: str
    role: str
    content: str


_DECODER = json.JSONDecoder(strict=False)  # a line break that was not escaped is read as one


# --- exports ----------------------------------------------------------------------------------------------------------------------


def read_export(text: str, name: str) -> Iterator[Exchange | Skipped]:
    """Every answered message of every list of messages in `text`. Never raises."""
    breaks = [found.start() for found in re.finditer("\n", text)]
    position, found = 0, _MESSAGES.search(text)
    if not found:
        yield Skipped(f"{name}:1", "no messages in it")
    while found:
        position, said = found.end(), []
        for item in _items(text, position):
            source = f"{name}:{bisect_right(breaks, item.start) + 1}"
            message = _message(item.value, source)
            if isinstance(message, Skipped):
                yield message
                said.append(_Said(source, "", ""))
            else:
                said += message
            position = item.end
        yield from _exchanges(said)
        found = _MESSAGES.search(text, position)


def _items(text: str, position: int) -> Iterator[_Item]:
    """The elements of the list that begins at `position`, up to its end or the end of the text. Behind a broken one it goes on where the
    next message begins."""
    while True:
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
        if position >= len(text) or text[position] == "]":
            return
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            # What nests too deep would be tried again from each of its levels: the first end of one comes first.
            inner = text.find("}", position) if isinstance(error, RecursionError) else position
            following = _MESSAGE.search(text, inner + 1) if inner >= 0 else None
            other_list = _MESSAGES.search(text, position)
            end = following.start() if following else len(text)
            if other_list and other_list.start() < end:
                yield _Item(position, other_list.start(), None)
                return
            yield _Item(position, end, None)
            position = end
            continue
        yield _Item(position, end, value)
        position = end


def _message(value: Any, source: str) -> list[_Said] | Skipped:
    """A message as a list of one; none for a role that takes no part (system, tool)."""
    if value is None:
        return Skipped(source, "broken JSON")
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or not isinstance(value.get("content"), str):
        return Skipped(source, "no message: role and content are text")
    role, content = value["role"].strip().lower(), value["content"].strip()
    if role not in (*_USERS, *_ASSISTANTS):
        return []
    if not content:
        return Skipped(source, "an empty message")
    if not _is_text(content):
        return Skipped(source, "letters that are no Unicode")
    return [_Said(source, "user" if role in _USERS else "assistant", content)]


def _exchanges(said: Iterable[_Said]) -> Iterator[Exchange | Skipped]:
    """Each answer with the message before it. A message that nobody answers, and an answer to nothing, are skipped."""
    turns: tuple[Turn, ...] = ()
    asked: _Said | None = None
    was_broken = False
    for message in said:
        if message.role == "assistant" and asked is not None:
            yield Exchange(asked.source, asked.content, message.content, turns)
            turns, asked = (*turns, (asked.content, message.content))[-_MOST_TURNS:], None
            continue
        if asked is not None:
            yield Skipped(asked.source, "nothing answers it")
        if message.role == "assistant" and not was_broken:
            yield Skipped(message.source, "an answer to nothing")
        asked = message if message.role == "user" else None
        was_broken = not message.role
    if asked is not None:
        yield Skipped(asked.source, "nothing answers it")


def _is_text(content: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in content)


# --- rows -------------------------------------------------------------------------------------------------------------------------


def read_rows(lines: Iterable[Line], name: str) -> Iterator[Exchange | Skipped]:
    """Every row of JSONL, as its exchange or exchanges, or as why it gives none. Never raises."""
    for line in lines:
        source = f"{name}:{line.number}"
        if line.problem:
            yield Skipped(source, line.problem)
        elif line.text.strip():
            yield from _row(line.text, source)


def _row(text: str, source: str) -> Iterator[Exchange | Skipped]:
    try:
        row = _DECODER.decode(text)
    except (ValueError, RecursionError):
        yield Skipped(source, "broken JSON")
        return
    if isinstance(row, dict) and isinstance(row.get("messages"), list):
        yield from _of_messages(row["messages"], source)
        return
    try:
        yield _judged(row, source)
    except _NoRow as problem:
        yield Skipped(source, str(problem))


class _NoRow(Exception):
    """The message says what is wrong with it."""


def _of_messages(messages: list[Any], source: str) -> Iterator[Exchange | Skipped]:
    said: list[_Said] = []
    for value in messages:
        message = _message(value, source)
        if isinstance(message, Skipped):
            yield message
            said.append(_Said(source, "", ""))
        else:
            said += message
    yield from _exchanges(said)


def _judged(row: Any, source: str) -> Exchange:
    """Raises _NoRow."""
    if not isinstance(row, dict):
        raise _NoRow("no row: an object with query and answer is")
    verdict, correction = row.get("verdict"), _text(row, "correction")
    if verdict is not None and verdict not in VERDICTS:
        raise _NoRow(f"no verdict: one of {one_of(VERDICTS)} is")
    query, answer = _text(row, "query"), _text(row, "answer")
    if not query or not (answer or correction):
        raise _NoRow("no query" if not query else "no answer")
    if correction:
        verdict = BETTER
    elif verdict == BETTER:
        verdict = BAD  # that there is a better answer says no more than that this one is none
    return Exchange(source, query, answer or correction, _conversation(row), verdict, correction or None)


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _NoRow(f"{key} is no text")
    if not _is_text(value):
        raise _NoRow("letters that are no Unicode")
    return value.strip()


def _conversation(row: dict[str, Any]) -> tuple[Turn, ...]:
    """The answered turns of what was said before."""
    messages = row.get("conversation") or []
    if not isinstance(messages, list):
        raise _NoRow("conversation is no list")
    said: list[_Said] = []
    for value in messages:
        message = _message(value, "")
        if isinstance(message, Skipped):
            raise _NoRow(f"conversation: {message.reason}")
        said += message
    return tuple((found.query, found.answer) for found in _exchanges(said) if isinstance(found, Exchange))[-_MOST_TURNS:]
