"""How people type: variants of what a user says, never of an answer.

A variant rewrites only what can be rewritten without a dictionary: letter case, question marks, Turkish letters typed on a foreign
keyboard, and a closed list of spoken forms. Text in back-ticks or quotation marks stays, since its spelling may be what is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_LAST_QUESTION_MARK = re.compile(r"\s*\?+\s*$")
_KEPT = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]*`|\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»)", re.DOTALL)
_WORD = re.compile(r"[^\W_]+")
_ASCII = str.maketrans("çğıöşüÇĞİÖŞÜâîû", "cgiosuCGIOSUaiu")
_THEN_A_BACK_VOWEL = re.compile(r"[^aeıioöuü]*[aıou]")
_IN_NUMBERS = "yüzde|yüz|bin|on|yirmi|otuz|kırk|elli|altmış|yetmiş|seksen|doksan"
# "siz", -siniz, -ınız and polite words: who writes so does not write "bişey" in the same breath.
_FORMAL = re.compile(r"\b(?:siz(?:e|i|in|den|ce|le)?|efendim|lütfen|affedersiniz|acaba|\w+[ıiuü]n[ıiuü]z)\b", re.IGNORECASE)
_NARROW = {"a": "ı", "ı": "ı", "e": "i", "i": "i", "o": "u", "u": "u", "ö": "ü", "ü": "ü"}
# Spoken forms in the order in which they apply: bir şey -> bişey, bir -> bi, ne yap- -> nap-, değil -> diil, geliyor -> geliyo,
# gideceğim -> gidicem. Stems that end in a vowel (başlayacağım) narrow in a way that rules alone do not get right, and are left.
_SPOKEN: Sequence[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = (
    (re.compile(r"\b([Bb])ir şey"), r"\1işey"),
    (re.compile(rf"\b((?i:{_IN_NUMBERS}) )?([Bb])ir(?= [^\W\d])"), lambda hit: hit[0] if hit[1] else hit[2] + "i"),
    (re.compile(r"\b([Nn])e haber\b"), r"\1aber"),
    (re.compile(r"\b([Nn])e yap(?=[aıtmsc])"), r"\1ap"),
    (re.compile(r"\b([Dd])eğil\b"), r"\1iil"),
    (re.compile(r"(?<=[ıiuü]yo)r(?=(?:sun|lar|du)?\b)"), ""),
    (
        re.compile(r"([aeıioöuü])([^\W\daeıioöuüy]+)(?:acağ|eceğ)[ıi]m\b"),
        lambda hit: hit[1] + hit[2] + _NARROW[hit[1]] + ("cam" if hit[1] in "aıou" else "cem"),
    ),
)


def _lower(text: str, turkish: bool) -> str:
    return _WORD.sub(lambda hit: _lower_word(hit[0]), text) if turkish else text.lower()


def _lower_word(word: str) -> str:
    """By Turkish rules (I to ı), but acronyms and foreign words in I by English ones (API, Internet, Instagram)."""
    if len(word) > 1 and word.isascii() and word.isupper():
        return word.lower()
    if not word.isascii():
        word = word[0] + word[1:].replace("I", "ı")
    if word[0] == "I" and word[1:2].lower() not in ("n", "m") and _THEN_A_BACK_VOWEL.match(word[1:].lower()):
        word = "ı" + word[1:]
    return word.replace("İ", "i").lower()


def _ascii(text: str, turkish: bool) -> str:
    return text.translate(_ASCII) if turkish else text


def _spoken(text: str, turkish: bool) -> str:
    if turkish and not _FORMAL.search(text):
        for pattern, replacement in _SPOKEN:
            text = pattern.sub(replacement, text)
    return text


# In the order in which they apply: spoken forms are found by their Turkish letters, and lower case knows I from İ.
_REWRITES: dict[str, Callable[[str, bool], str]] = {"spoken": _spoken, "lower": _lower, "ascii": _ascii}


def respell(text: str, variant: str, language: str) -> str:
    """`text` of a user in a variant: one or more of lower, no_question_mark, ascii and spoken, joined by `+`.

    language: of the text, "tr" or "en"; what is special to Turkish leaves English alone.
    """
    names = variant.split("+")
    parts = _KEPT.split(text)
    for number in range(0, len(parts), 2):  # between what is kept
        for name, rewrite in _REWRITES.items():
            if name in names:
                parts[number] = rewrite(parts[number], language == "tr")
    result = "".join(parts)
    return _LAST_QUESTION_MARK.sub("", result) if "no_question_mark" in names else result


def effective(texts: Sequence[str], variants: Sequence[str], language: str) -> list[str]:
    """Those of `variants` that change the texts, each into something that no earlier one gives."""
    seen, found = {tuple(texts)}, []
    for variant in variants:
        result = tuple(respell(text, variant, language) for text in texts)
        if result not in seen:
            seen.add(result)
            found.append(variant)
    return found
