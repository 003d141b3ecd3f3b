"""A text out of a log made fit to be looked at: what cannot be seen is gone, and letters are what they look like."""

from __future__ import annotations

import re
import unicodedata

from generators.clients import Unparsable, parse_answer

_LINE_ENDS = re.compile(r"\r\n?|[\x85\u2028\u2029]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_MANY_BREAKS = re.compile(r"\n{3,}")
_JOINER = "\u200d"
_CLIENT_FORM = re.compile(r"\s*(?:CONFIDENCE|LAYERS|CONTENT)\s*:")
# Letters that look like ASCII from U+FF01 on stand at a fixed distance from it.
_WIDE_FIRST, _WIDE_LAST, _WIDE_DISTANCE = 0xFF01, 0xFF5E, 0xFEE0


def cleaned(text: str) -> str:
    """NFC, `\\n` at line ends, plain blanks, ASCII digits; without control characters, invisible ones, and blanks at the ends of lines.

    A key or an address that hides behind invisible letters or digits of another script stands plain after it.
    """
    text = unicodedata.normalize("NFC", _LINE_ENDS.sub("\n", text))
    if not text.isascii():
        text = "".join(_plain(letter, text[place + 1 : place + 2]) for place, letter in enumerate(text))
    text = "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs", "Cn", "Co"))
    return _MANY_BREAKS.sub("\n\n", _TRAILING.sub("", text.replace("\t", "    "))).strip()


def _plain(letter: str, following: str) -> str:
    if letter.isascii():
        return letter
    if _WIDE_FIRST <= ord(letter) <= _WIDE_LAST:
        return chr(ord(letter) - _WIDE_DISTANCE)
    category = unicodedata.category(letter)
    if category == "Nd":
        return str(unicodedata.digit(letter))
    if category == "Zs":
        return " "
    if category == "Cf":
        # What joins two emoji into one is kept, and joins nothing else.
        return letter if letter == _JOINER and following and unicodedata.category(following) == "So" else ""
    return letter


def unframed(answer: str) -> str | None:
    """The words of an answer that is in the client's own form (CONFIDENCE, LAYERS, CONTENT); None where that cannot be read."""
    if not _CLIENT_FORM.match(answer):
        return answer
    try:
        return parse_answer({}, answer).text
    except Unparsable:
        return None
