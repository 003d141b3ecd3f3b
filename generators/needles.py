"""Telling fast that a text cannot hold a pattern, where a text meets hundreds of patterns, or a pattern a million texts.

A plain pattern (see generators/patterns.py) is found only where its first word stands; looking for that word takes a tenth of the time.
"""

from __future__ import annotations

import re
from functools import lru_cache

from generators.turkish import fold

Readings = tuple[str, str]


def readings(text: str) -> Readings:
    """The text in lower case by Turkish rules and by English ones."""
    return fold(text), text.replace("İ", "i").lower()


def may_hold(pattern: str, text: Readings) -> bool:
    """False only where the text of these readings cannot hold the pattern."""
    needles = _needles(pattern)
    return needles is None or needles[0] in text[0] or needles[1] in text[1]


@lru_cache(maxsize=4096)
def _needles(pattern: str) -> Readings | None:
    """The first word of a plain pattern in both readings; None for a regular expression and for what starts with a sign."""
    if pattern.startswith("/") or not pattern[:1].isalnum():
        return None
    first = re.match(r"\w+", fold(pattern) if "İ" in pattern else pattern)
    return readings(first[0]) if first else None
