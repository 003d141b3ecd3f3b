"""An answer as it can be spoken: sentence by sentence, in words alone, the first one while the rest is still being written.

`Speaker` is fed with pieces of an answer in whatever cuts they come, and gives the sentences that are certain: the same ones however the
answer was cut. A sentence waits for the word after its full stop, since "Dr." and "2." end none, and for the end of a code block.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from generators import language as languages
from generators.turkish_suffixes import tr_capital
from generators.voice import in_english, in_turkish
from generators.voice.clean import FENCE, ITEM, cleaned

_IN = {"tr": in_turkish, "en": in_english}
LANGUAGES = tuple(_IN)
_SIGNS = {
    "tr": {"&": " ve ", "=": " eşittir ", "≈": " yaklaşık ", "~": " yaklaşık ", "≤": " küçük eşit ", "≥": " büyük eşit ", "<": " küçüktür ",
           ">": " büyüktür ", "±": " artı eksi ", "≠": " eşit değildir ", "%": " yüzde ", "#": " numara ", "№": " numara ", "+": " artı "},
    "en": {"&": " and ", "=": " equals ", "≈": " about ", "~": " about ", "≤": " at most ", "≥": " at least ", "<": " less than ",
           ">": " greater than ", "±": " plus or minus ", "≠": " is not ", "%": " per cent ", "#": " number ", "№": " number ", "+": " plus "},
}  # fmt: skip
_WRITTEN_OUT = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "="}
_PAUSES = re.compile(r"\s*(?:->|=>|→|⇒|—|–(?=\s)|(?<=\s)-(?=\s)|[()\[\]{}|])\s*")
_END = re.compile(r"[.!?…]+[\"'”’»)\]*_]*(?=\s)|\n")
_QUOTED_END = re.compile(r"[.!?…]+([\"'”’»)\]*_]+)(?=\s+[a-zçğıöşü])")
_OPEN_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_KEPT = ".,!?;:…'’-"


class Sentence(NamedTuple):
    """text: words and punctuation that voices know as pauses. language: `tr` or `en`."""

    text: str
    language: str


def speakable(text: str, language: str) -> str:
    """A whole text in one line. Empty where nothing in it can be said."""
    return " ".join(sentence.text for sentence in sentences(text, language, fixed=True))


def sentences(text: str, language: str, fixed: bool = False) -> list[Sentence]:
    """See `Speaker`."""
    speaker = Speaker(language, fixed)
    return [*speaker.feed(text), *speaker.finish()]


class Speaker:
    """language: `tr` or `en`, of the answer as far as is known; a sentence that is clearly in the other one is said in that, unless it is
    fixed."""

    def __init__(self, language: str, fixed: bool = False):
        self._language, self._fixed = language, fixed
        self._waiting = ""
        self._item = 0

    def feed(self, piece: str) -> Iterator[Sentence]:
        """What is certain with `piece`."""
        self._waiting += piece
        while cut := _first_cut(self._waiting, self._language, self._item):
            part, self._waiting = self._waiting[:cut], self._waiting[cut:]
            yield from self._said(part)

    def finish(self) -> Iterator[Sentence]:
        """The rest."""
        rest, self._waiting = self._waiting, ""
        while rest:
            cut = _first_cut(rest + "\n ", self._language, self._item) or len(rest)
            part, rest = rest[:cut], rest[cut:]
            yield from self._said(part)

    def _said(self, part: str) -> Iterator[Sentence]:
        lines, self._item = cleaned(part, self._language, self._item)
        for line in lines:
            language = (None if self._fixed else languages.detect(line)) or self._language
            self._language = language
            for text in _split(in_words(line, language), language):
                yield Sentence(text, language)


def in_words(line: str, language: str) -> str:
    """A cleaned line: digits, units, abbreviations and signs in words; then nothing but letters, blanks and pauses."""
    line = _IN[language].words(_QUOTED_END.sub(r",\1", line))
    line = _PAUSES.sub(", ", line)
    for written, sign in _WRITTEN_OUT.items():
        line = line.replace(written, sign)
    for sign, said in _SIGNS[language].items():
        line = line.replace(sign, said)
    line = unicodedata.normalize("NFKC", line.replace("…", "\0")).replace("\0", "…") if not line.isascii() else line
    line = re.sub(r"\d+", lambda found: f" {_IN[language].words(found[0])} ", line)  # what stood inside a word
    if language == "tr":
        line = re.sub(r"(?<=\w)['’](?=\w)", "", line)  # Ankara'ya is said in one
    line = "".join(
        letter if letter.isalpha() or unicodedata.category(letter) in ("Mn", "Mc") or letter in _KEPT else " " for letter in line
    )
    return _tidied(line)


def _tidied(line: str) -> str:
    line = re.sub(r"(?<!\w)['’]|['’](?!\w)|(?<!\w)-+|-+(?!\w)", " ", line)
    line = re.sub(r"\s+", " ", line)
    line = re.sub(r"\s+(?=[.,!?;:…])", "", line)
    line = re.sub(r"[,;:]+(?=[.,!?;:…])|(?<=[.!?…])[,;:]+", "", line)
    line = re.sub(r"(?<=[.,!?;:…])(?=\w)", " ", line)
    line = re.sub(r"\.{2,}", "…", line)
    return line.rstrip(" ,;:-").lstrip(" .,!?;:…-")


def _split(text: str, language: str) -> Iterator[str]:
    for part in re.split(r"(?<=[.!?…])\s+", text):
        if any(letter.isalpha() for letter in part):
            yield tr_capital(part) if language == "tr" else part[0].upper() + part[1:]


# --- where a sentence ends --------------------------------------------------------------------------------------------------------


def _first_cut(text: str, language: str, item: int) -> int:
    """Behind the first sentence, line or code block that is whole whatever follows; 0 where none is. item: number of the last list item."""
    fence = _OPEN_FENCE.search(text)
    for found in _END.finditer(text, 0, fence.start() if fence else len(text)):
        if found[0] == "\n":
            return found.end()
        following = re.match(r"[^\S\n]*(?:\n|(\S+)\s)", text[found.end() :])
        if not following:
            break  # the next word decides
        if _ends(text[: found.end()], following[1] or "", language, item):
            return found.end()
    if fence:
        if text[: fence.start()].strip():
            return fence.start()
        whole = FENCE.match(text[fence.start() :])
        closed = (
            whole and re.search(r"^[ \t]*(?:```|~~~)[ \t]*\n$", whole[0] + "\n", re.MULTILINE) and len(whole[0].strip().split("\n")) > 1
        )
        end = fence.start() + (whole.end() if whole else 0)
        return end if closed and end < len(text) else 0
    return 0


def _ends(text: str, following: str, language: str, item: int) -> bool:
    """Whether the sign at the end of `text` ends a sentence."""
    line = text[text.rfind("\n") + 1 :]
    if text.count("`") % 2 or re.search(r"\[[^\]]*$|\]\([^)]*$", line):
        return False
    bare = text.rstrip("\"'”’»)]*_")
    if bare != text and following[:1].islower():  # "Gel." dedi
        return False
    if not bare.endswith("."):
        return True
    number = ITEM.match(line + " X")
    if number and number.end() == len(line) + 1 and int(number[1]) in (1, item + 1):
        return False
    words = _IN[language]
    return not words.ends_in_abbreviation(bare, following) and not words.is_ordinal(bare, following)
