"""When a text goes round in circles, or says its instructions instead of an answer."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from generators.turkish import fold, words

# A chunk of 2 to 80 characters, four times or more in a row, at the end of what was said so far.
_LOOP = re.compile(r"(.{2,80}?)\1{3,}\Z", re.DOTALL)
_LEAST_LOOP = 48  # characters: "ha ha ha ha ha" is laughter
_SECOND_TIME = range(30, 301)  # characters of a chunk that is a loop at its second time already, if it has four words
_STUTTER = re.compile(r"([^\W\d_])\1{11,}|([!?.…])\2{11,}")
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SENTENCE_END = re.compile(r"(?:(?<=[!?…])|(?<=\D\.))[\"”’)\]]*\s+|(?<=\d\.)\s+(?=[A-ZÇĞİÖŞÜ])|\n+")
_PHRASE = 5  # words
_OFTEN = 3  # times
_RECITAL = 8  # words in a row


def is_looping(text: str) -> bool:
    """Whether the end of `text` repeats one chunk over and over: greedy decoding does not leave such a loop."""
    end = text[-2 * _SECOND_TIME[-1] :]
    found = _LOOP.search(end)
    if found is not None and len(found[0]) >= _LEAST_LOOP:
        return True
    return any(end[-size:] == end[-2 * size : -size] and len(words(end[-size:])) >= 4 for size in _SECOND_TIME)


def repeated(text: str) -> str | None:
    """What `text` says over and over, or None: a sentence said twice, five words said three times, one word five times in a row, a loop.

    Code is left out.
    """
    prose = _CODE.sub(" ", text)
    if stutter := _STUTTER.search(prose):
        return stutter[0][:20]
    said = [fold(word) for word in words(prose)]
    found = _stuttered_word(said) or _repeated_phrase(said) or _repeated_sentence(prose)
    return found or (prose[-60:].strip() if is_looping(prose) else None)


def recited(text: str, instructions: str) -> str | None:
    """Eight words in a row of `instructions` that `text` says as they stand there, or None."""
    known = _phrases(instructions)
    said = [fold(word) for word in words(text)]
    for start in range(len(said) - _RECITAL + 1):
        if (phrase := tuple(said[start : start + _RECITAL])) in known:
            return " ".join(phrase)
    return None


@lru_cache(maxsize=64)
def _phrases(instructions: str) -> frozenset[tuple[str, ...]]:
    told = [fold(word) for word in words(instructions)]
    return frozenset(tuple(told[start : start + _RECITAL]) for start in range(len(told) - _RECITAL + 1))


def sentences(text: str) -> list[str]:
    """The sentences of `text`, code left out. A line break ends one; so does `.!?…` before white space (`3. madde` goes on)."""
    prose = _CODE.sub("\n", text)
    return [part.strip() for part in _SENTENCE_END.split(prose) if words(part)]


def _stuttered_word(said: list[str]) -> str | None:
    for start in range(len(said) - 4):
        if len(set(said[start : start + 5])) == 1:
            return " ".join(said[start : start + 5])
    return None


def _repeated_phrase(said: list[str]) -> str | None:
    phrases = Counter(tuple(said[start : start + _PHRASE]) for start in range(len(said) - _PHRASE + 1))
    phrase, times = max(phrases.items(), key=lambda item: item[1], default=((), 0))
    return " ".join(phrase) if times >= _OFTEN else None


def _repeated_sentence(prose: str) -> str | None:
    seen = set()
    for sentence in sentences(prose):
        key = tuple(fold(word) for word in words(sentence))
        if len(key) >= 3 and key in seen:
            return sentence
        seen.add(key)
    return None
