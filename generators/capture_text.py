"""Texts laid side by side: which are made after one pattern, what they have in common, and what varies in them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import SequenceMatcher

_ALIKE = 0.5  # share of the shorter of two texts that they begin with, end with and hold alike, from which they are of one pattern
# What may end a sentence of the query itself, before the quote or the line break that the pattern has behind it.
_SENTENCE_END = re.compile(r"[?!.…]+(?=[\"'”’»)\]]|\s|$)")
_AROUND_VALUE = " \t\r\n\"'“”‘’«»`"


class Unclear(Exception):
    """What varies cannot be the query alone. `str(error)` says why."""


def alike(texts: Sequence[str]) -> list[list[int]]:
    """Indices of the texts, grouped by the pattern that they are made after."""
    groups: list[list[int]] = []
    for index, text in enumerate(texts):
        group = next((group for group in groups if _share_in_common(texts[group[0]], text) >= _ALIKE), None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    return groups


def _share_in_common(one: str, other: str) -> float:
    shorter = min(len(one), len(other))
    prefix, (left, right), suffix = _around((one, other))
    inside = SequenceMatcher(None, left, right, autojunk=False).find_longest_match().size
    return (len(prefix) + inside + len(suffix)) / shorter if shorter else 0.0


def aligned(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(constants, values): each text is the constants with its value between them, every time the same one.

    Raises Unclear where the texts are all the same, or differ in more than one respect.
    """
    prefix, middles, suffix = _around(texts)
    if len(set(middles)) < 2:
        raise Unclear("all requests are the same; ask different queries")
    inner: list[str] = []
    values = rests = middles
    while shared := _shared(rests):
        parts = [rest.partition(shared) for rest in rests]
        values = values if inner else [before for before, _, _ in parts]
        rests = [rest for _, _, rest in parts]
        if not all(value and before == value and rest.startswith(value) for value, (before, _, rest) in zip(values, parts, strict=True)):
            raise Unclear(f"all requests hold {shared!r} where they vary; the queries share it, or more than the query varies")
        inner.append(shared)
    tails = {rest[len(value) :] for value, rest in zip(values, rests, strict=True)}
    if len(tails) > 1:
        raise Unclear("more than the query varies")
    return [prefix, *inner, tails.pop() + suffix], values


def matched(constants: Sequence[str], text: str) -> str | None:
    """The value that stands between the constants every time, if the text is made so."""
    room = len(text) - sum(map(len, constants))
    holes = len(constants) - 1
    if room < 0 or room % holes or not text.startswith(constants[0]):
        return None
    value = text[len(constants[0]) :][: room // holes]
    return value if value.join(constants) == text else None


def _around(texts: Sequence[str]) -> tuple[str, list[str], str]:
    """(what all begin with, what is between, what all end with), cut between words: half a word in common is chance."""
    prefix = re.sub(r"\w+$", "", os.path.commonprefix(list(texts)))
    rests = [text[len(prefix) :] for text in texts]
    suffix = re.sub(r"^\w+", "", os.path.commonprefix([rest[::-1] for rest in rests])[::-1])
    if end := _SENTENCE_END.match(suffix):
        suffix = suffix[end.end() :]
    return prefix, [rest[: len(rest) - len(suffix)] for rest in rests], suffix


def loosely_matched(constants: Sequence[str], text: str) -> str:
    """What stands between the outer constants without the quotes around the value, or nothing: what a conversation before it leaves of a
    pattern."""
    head, tail = constants[0].rstrip(_AROUND_VALUE), constants[-1].lstrip(_AROUND_VALUE)
    if not (head and tail and text.startswith(head) and text.endswith(tail)):
        return ""
    return text[len(head) : len(text) - len(tail)].strip(_AROUND_VALUE)


def _shared(texts: Sequence[str]) -> str:
    """The longest text that all hold, where it is too long for chance; else nothing."""
    least = max(4, 16 // len(texts))
    low, high, found = least, min(map(len, texts)) - 1, ""
    while low <= high:
        size = (low + high) // 2
        common = set.intersection(*({text[at : at + size] for at in range(len(text) - size + 1)} for text in texts))
        common = {each for each in common if len(each.strip()) >= least}
        if common:
            found, low = min(common, key=texts[0].index), size + 1
        else:
            high = size - 1
    return found


def has_frame(texts: Sequence[str]) -> bool:
    """Whether the texts begin or end alike with more than white space, or hold something alike."""
    prefix, middles, suffix = _around(texts)
    return bool(prefix.strip() or suffix.strip() or _shared(middles))


def escaped(text: str) -> str:
    """Text that Jinja gives back as it is."""
    return re.sub(r"\{[{%#]", lambda hit: "{{ '" + hit[0] + "' }}", text)
