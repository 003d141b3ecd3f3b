"""The patterns of checks and cues, as specs write them.

`ankara`     a word or phrase: found at the start of a word, in any letter case, with any suffix after it (`Ankara'da`, `ANKARAYA`)
`at$`        found only where a word ends with it: `at`, not `atı` (a suffix behind an apostrophe is a word end: `404'tür`)
`\\$`         a dollar sign that belongs to the phrase stands at the end
`/v(al|wa)la/`   a regular expression, searched anywhere in the folded text

Letter case is folded by Turkish rules and by English ones, and a pattern is found when either reading holds it: `INDEX` is `index`
in a technical answer, `ISLAK` is `ıslak` in a Turkish one. A blank in a phrase matches any white space, `'` any apostrophe.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from generators.turkish import fold

Readings = tuple[str, str]
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'"})


def problem(pattern: str) -> str | None:
    """What is wrong with the pattern, for a message; None when it can be used."""
    if not _is_regular(pattern) and len(pattern.strip()) > 2:
        return None  # such a phrase can always be looked for; compiling hundreds to see it takes as long as all other rules of the specs
    try:
        _expressions(pattern)
    except ValueError as error:
        return str(error)
    return None


def matches(pattern: str, text: str) -> bool:
    """Whether `text` holds the pattern. Raises ValueError for a regular expression that cannot be read."""
    turkish, english = _expressions(pattern)
    folded = readings(text)
    if turkish.search(folded[0]):
        return True
    return not (turkish is english and folded[0] == folded[1]) and english.search(folded[1]) is not None


def first_match(patterns: Iterable[str], text: str) -> str | None:
    """The first of `patterns` that `text` holds, or None."""
    return next((pattern for pattern in patterns if matches(pattern, text)), None)


@lru_cache(maxsize=4096)
def _expressions(pattern: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern by Turkish and by English letter case."""
    if _is_regular(pattern):
        return _regular(pattern[1:-1])
    phrase, whole = pattern.strip(), False
    if phrase.endswith("\\$"):
        phrase = phrase[:-2] + "$"
    elif phrase.endswith("$"):
        phrase, whole = phrase[:-1], True
    if not phrase:
        raise ValueError(f"the pattern {pattern!r} is empty")
    turkish, english = readings(phrase)
    first = _literal(turkish, whole)
    return first, first if turkish == english else _literal(english, whole)


def _is_regular(pattern: str) -> bool:
    return len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/")


def _regular(source: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    try:
        compiled = re.compile(source, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"/{source}/ is not a regular expression: {error}") from error
    return compiled, compiled


def _literal(phrase: str, whole: bool) -> re.Pattern[str]:
    body = r"\s+".join(re.escape(part) for part in phrase.split())
    # A phrase that starts with a sign (`&str`, `->`) may follow anything; one that starts with a letter starts a word,
    # and what follows an apostrophe is a suffix, not a word.
    start = r"(?<!\w)(?<!\w')" if phrase[0].isalnum() else ""
    end = r"(?!\w)" if whole else ""
    return re.compile(start + body + end)


@lru_cache(maxsize=64)
def readings(text: str) -> Readings:
    """The text in lower case by Turkish rules (`I` is `ı`) and by English ones (`I` is `i`), with one kind of apostrophe."""
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    return fold(text), text.replace("İ", "i").lower()
