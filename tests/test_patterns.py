"""Patterns of checks and cues: Turkish letter case, suffixes, word ends, regular expressions."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators import patterns
from generators.turkish import fold, words

FOUND = [
    ("ankara", "Başkent Ankara'dır."),
    ("ankara", "ANKARA"),
    ("ankara", "Ankaralıyım"),
    ("ışık", "IŞIK hızı"),
    ("istanbul", "İSTANBUL'dayım"),
    ("İstanbul", "istanbul"),
    ("index", "INDEX'i yeniden oluştur"),
    ("I think", "Well, I think so."),
    ("it is", "IT IS fine"),
    ("at$", "Çöpe at."),
    ("at$", "at, eşek"),
    ("404$", "O 404'tür."),
    ("5\\$", "It costs 5$ only"),
    ("bana göre", "Bana\n göre öyle"),
    ("&str", "bir &str alır"),
    ("c'den", "C’den Rust'a"),
    ("/\\b14[.:]30\\b/", "Saat 14.30'da"),
    ("/^evet/", "Şöyle:\nEvet, olur."),
    ("/i(yi|dare)/", "İYİ"),
]
ABSENT = [
    ("kara", "Ankara"),
    ("at$", "atı aldı"),
    ("ışık", "isik"),
    ("sor$", "soru"),
    ("ta", "Rust'ta"),
    ("bana göre", "banagöre"),
    ("/\\bevet$/", "evet ama"),
]


@pytest.mark.parametrize(("pattern", "text"), FOUND)
def test_is_found(pattern: str, text: str) -> None:
    assert patterns.matches(pattern, text)


@pytest.mark.parametrize(("pattern", "text"), ABSENT)
def test_is_not_found(pattern: str, text: str) -> None:
    assert not patterns.matches(pattern, text)


def test_the_first_match_is_the_first_pattern_that_the_text_holds() -> None:
    assert patterns.first_match(["yok", "sor", "dinle"], "Dinliyorum, sor.") == "sor"
    assert patterns.first_match(["yok"], "sor") is None
    assert patterns.first_match([], "sor") is None


@pytest.mark.parametrize(("pattern", "reason"), [("/(/", "not a regular expression"), ("$", "is empty"), ("  ", "is empty")])
def test_a_pattern_that_cannot_be_read_says_why(pattern: str, reason: str) -> None:
    assert reason in (patterns.problem(pattern) or "")
    with pytest.raises(ValueError, match=reason):
        patterns.matches(pattern, "text")


def test_a_good_pattern_has_no_problem() -> None:
    assert patterns.problem("bence") is None
    assert patterns.problem("/ben(ce)?/") is None


def test_a_decomposed_text_is_read_like_a_composed_one() -> None:
    assert patterns.matches("şöyle", unicodedata.normalize("NFD", "Şöyle böyle"))


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_no_text_makes_a_phrase_raise(text: str) -> None:
    if patterns.problem(text) is None:
        patterns.matches(text, text)


def test_fold_follows_turkish_letter_case() -> None:
    assert fold("IŞIK İÇİN") == "ışık için"
    assert fold(unicodedata.normalize("NFD", "İÇİN")) == "için"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_fold_is_stable(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_words_keep_suffixes_behind_apostrophes_and_decimals() -> None:
    assert words("Rust'ta e-posta 3,14 mü? 👍 Ev, bark.") == ["Rust'ta", "e-posta", "3,14", "mü", "Ev", "bark"]
