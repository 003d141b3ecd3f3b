"""Turkish text as Turkish writes it: the letter case with and without a dot, and what counts as a word."""

from __future__ import annotations

import re
import unicodedata

# Letters and digits; an apostrophe or hyphen inside (`Rust'ta`, `e-posta`) and a decimal point or comma (`3,14`) keep one word together.
_WORD = re.compile(r"[^\W_]+(?:(?:['’_-]|(?<=\d)[.,](?=\d))[^\W_]+)*")
_DOT_ABOVE = "\u0307"


def fold(text: str) -> str:
    """`text` in NFC and lower case by Turkish rules: I becomes ı, İ becomes i. `fold("IŞIK İÇİN") == "ışık için"`."""
    text = unicodedata.normalize("NFC", text)
    return text.replace("I", "ı").replace("İ", "i").lower().replace("i" + _DOT_ABOVE, "i")


def words(text: str) -> list[str]:
    """The words of `text` in order, in the letter case in which they stand. Punctuation and emoji are no words."""
    return _WORD.findall(unicodedata.normalize("NFC", text))
