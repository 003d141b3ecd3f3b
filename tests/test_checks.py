"""The checks: what passes, what fails, and the reason that is given. The suites' own gold answers are judged as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from generators.evaluate import checks, compiles
from generators.evaluate.checks import Setting, Verdict
from generators.evaluate.repetition import is_looping, repeated, sentences
from generators.evaluate.similarity import chrf

ROOT = Path(__file__).parents[1]
SUITES = sorted((ROOT / "specs" / "evals").glob("*.yaml"))
PERSONA = {
    "opinion_markers": {"tr": ["bence", "bana göre"], "en": ["I think", "I believe"]},
    "principles": [{"name": "doubt", "text": "...", "cues": ["emin değilim"]}],
}


def verdict(answer: str, check: str, wanted: Any, **setting: Any) -> Verdict:
    """The verdict of one declared check."""
    known = Setting(**{"query": "soru", "language": "tr", "persona": PERSONA, "forbidden": ("size nasıl yardımcı",), **setting})
    return next(found for found in checks.judge(answer, [(check, wanted)], known) if found.check == check)


PASSES = [
    ("any", ["sor", "dinliyorum"], "Sor kanka."),
    ("any", "sor", "Sor kanka."),
    ("all", ["heap", "stack"], "Stack'te değil, heap'te durur."),
    ("none", ["siz$"], "Sen bilirsin."),
    ("carries", ["Defne"], "Hatırlarım, Defne."),
    ("words", {"max": 3}, "Sor kanka, dinliyorum."),
    ("words", {"min": 2}, "Sor kanka."),
    ("sentences", {"max": 1}, "3. madde en önemlisi."),
    ("no_list", True, "Şöyle:\n- tek satır"),
    ("no_list", True, "```python\n- a\n- b\n```"),
    ("no_generic", True, "Buyur, dinliyorum."),
    ("no_repetition", True, "Olur. Neden olmasın?"),
    ("no_echo", True, "Bilmem, soru güzel."),
    ("no_marker", True, "Düz cevap."),
    ("opinion", "required", "Bence Rust."),
    ("opinion", "required", "I believe so, and that is that."),
    ("opinion", "absent", "Ankara."),
    ("principle", True, "Açıkçası emin değilim."),
    ("similar_to", {"references": ["Sor kanka, dinliyorum."], "chrf": 0.5}, "Sor bakalım, dinliyorum."),
    ("code_compiles", "python", "Şöyle:\n```python\nx = 1\n```"),
]
FAILS = [
    ("any", ["sor", "dinliyorum"], "Buyur.", "none of 'sor', 'dinliyorum' is in it"),
    ("all", ["heap", "stack"], "Heap'te durur.", "'stack' not in it"),
    ("none", ["siz$"], "Siz bilirsiniz.", "'siz$' is in it"),
    ("carries", ["Defne"], "Adınızı bilmiyorum.", "'Defne' of an earlier turn is not in it"),
    ("words", {"max": 2}, "Sor kanka, dinliyorum.", "3 words, at most 2 were asked for"),
    ("words", {"min": 5}, "Sor kanka.", "2 words, at least 5 were asked for"),
    ("sentences", {"max": 1}, "Bir. İki!", "2 sentences, at most 1 were asked for"),
    ("no_list", True, "- bir\n- iki", "it is a list (2 items)"),
    ("no_list", True, "1. bir\n2) iki", "it is a list (2 items)"),
    ("no_list", True, "## Özet\nŞöyle.", "it has a heading ('## Özet')"),
    ("no_list", True, "**Özet:**\nŞöyle.", "it has a heading"),
    ("no_generic", True, "Size nasıl yardımcı olabilirim?", "a phrase of any assistant"),
    ("no_repetition", True, "Bu böyle gider. Bu böyle gider.", "it repeats 'Bu böyle gider.'"),
    ("no_marker", True, "<iterations>2</iterations>\nOlur.", "it shows the marker '<iterations>'"),
    ("no_marker", True, "CONFIDENCE: 0.9\nOlur.", "it shows the marker 'CONFIDENCE:'"),
    ("opinion", "required", "Rust daha iyidir.", "no mark of an opinion"),
    ("opinion", "absent", "Bence Ankara.", "a plain answer was asked for, and it says 'bence'"),
    ("principle", True, "Olur.", "it leans on none of the persona's principles"),
    ("similar_to", {"references": ["Sor kanka."], "chrf": 0.5}, "Hayır, olmaz öyle şey.", "to the nearest reference, 0.50 was asked for"),
    ("code_compiles", "python", "```python\ndef f(:\n```", "Python: invalid syntax"),
    ("code_compiles", "python", "Kod yazmadım.", "no fenced python code"),
]


@pytest.mark.parametrize(("check", "wanted", "answer"), PASSES)
def test_passes(check: str, wanted: Any, answer: str) -> None:
    found = verdict(answer, check, wanted)
    assert (found.passed, found.reason) == (True, "")


@pytest.mark.parametrize(("check", "wanted", "answer", "reason"), FAILS)
def test_fails_and_says_why(check: str, wanted: Any, answer: str, reason: str) -> None:
    found = verdict(answer, check, wanted)
    assert found.passed is False
    assert reason in found.reason


def test_every_check_is_covered_by_the_tables() -> None:
    assert {row[0] for row in PASSES} >= checks.CHECKS.keys() - {"no_echo"}
    assert {row[0] for row in FAILS} | {"no_echo"} >= checks.CHECKS.keys()


@pytest.mark.parametrize(
    ("query", "answer", "echo"),
    [
        ("kahve mi çay mı içsem", "Kahve mi çay mı içsem diyorsan, kahve.", True),
        ("naber nasıl gidiyor", "Naber, nasıl gidiyor?", True),
        ("naber nasıl gidiyor", "İyi, senden naber, nasıl gidiyor?", False),
        ("günaydın", "Günaydın!", False),
    ],
)
def test_an_echo_is_the_whole_question_said_again(query: str, answer: str, echo: bool) -> None:
    assert verdict(answer, "no_echo", True, query=query).passed is not echo


# --- what is checked on every answer ---------------------------------------------------------------------------------------------------


def undeclared(answer: str, **setting: Any) -> dict[str, bool | None]:
    known = Setting(**{"query": "soru", "language": "tr", "control_tokens": ("<end_of_turn>",), **setting})
    return {found.check: found.passed for found in checks.judge(answer, [], known)}


def test_a_good_answer_passes_what_nobody_declared() -> None:
    assert undeclared("Sor kanka, dinliyorum.") == dict.fromkeys(
        ("language", "finished", "instructions", "control_tokens", "markers"), True
    )


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_no_answer_fails_accuracy_and_appropriateness(answer: str) -> None:
    found = checks.judge(answer, [("none", ["x"])], Setting("soru", "tr"))
    assert checks.dimension_passed(found, "accuracy") is False
    assert checks.dimension_passed(found, "appropriateness") is False


@pytest.mark.parametrize(
    ("language", "answer", "passed"),
    [
        ("tr", "This is an answer in the wrong language altogether.", False),
        ("en", "Bu cevap yanlış dilde yazılmış bir cevaptır.", False),
        ("tr", "Pod'u restart et, log'a bak, OOMKilled mı gör.", True),
        ("tr", "Ok.", True),
        ("en", "Ok.", True),
        ("tr", "这是一个错误的答案", False),
    ],
)
def test_the_language_is_checked_and_short_answers_pass_either_way(language: str, answer: str, passed: bool) -> None:
    assert undeclared(answer, language=language)["language"] is passed


def test_control_tokens_and_markers_are_never_allowed() -> None:
    assert undeclared("Olur.<end_of_turn>")["control_tokens"] is False
    assert undeclared("Olur. <start_of_turn>user")["control_tokens"] is False
    assert undeclared("LAYERS: C01\nOlur.")["markers"] is False


def test_an_answer_does_not_recite_its_instructions() -> None:
    told = "Sen JESSY'sin: esprili, sıcak, dürüst bir dost. Yazılımdan anlarsın."
    assert undeclared("Sen Jessy'sin, esprili, sıcak, dürüst bir dost.", instructions=told)["instructions"] is True
    assert undeclared("Tabii. SEN JESSY'SİN: esprili, sıcak, dürüst bir dost, yazılımdan.", instructions=told)["instructions"] is False


def test_an_answer_that_was_cut_off_did_not_finish() -> None:
    assert undeclared("Olur da", ended="length")["finished"] is False


# --- how suites declare them -----------------------------------------------------------------------------------------------------------


def test_a_limit_of_the_case_replaces_the_suites_and_patterns_add_up() -> None:
    suite = {"defaults": [{"words": {"max": 40}}, {"none": ["siz$"]}, {"no_list": True}]}
    case = {"checks": [{"words": {"max": 9}}, {"none": ["kanka"]}, {"no_list": False}]}
    assert checks.declared(suite, case) == [("none", ["siz$"]), ("words", {"max": 9}), ("none", ["kanka"])]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"ani": ["x"]}, "unknown check 'ani'"),
        ({"ani": ["x"]}, "did you mean 'any'?"),
        ({"any": []}, "any: is empty"),
        ({"any": ["/(/"]}, "any: /(/ is not a regular expression"),
        ({"any": [5]}, "any: 5 is not text; quote it"),
        ({"words": 5}, "words: takes `{min: N, max: N}`"),
        ({"opinion": "yes"}, "opinion: 'yes' is not one of required, absent"),
        ({"code_compiles": "perl"}, "code_compiles: 'perl' is not one of rust, python"),
        ({"similar_to": {"references": ["x"], "chrf": 40}}, "similar_to: takes"),
        ({"no_list": "yes"}, "no_list: 'yes' is neither true nor false"),
        ("any", "'any' is not a check"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(check: Any, message: str) -> None:
    assert any(message in problem for problem in checks.problems_of_check(check))


@pytest.mark.parametrize("suite_file", SUITES, ids=lambda path: path.stem)
def test_the_gold_answers_pass_and_the_bad_ones_fail(suite_file: Path) -> None:
    yaml = YAML(typ="safe")
    suite, answers = yaml.load(suite_file), yaml.load(ROOT / "tests" / "evals" / "answers" / suite_file.name)
    persona, project = yaml.load(ROOT / "specs" / "personas" / "jessy.yaml"), yaml.load(ROOT / "specs" / "project.yaml")
    for case in suite["cases"]:
        asked = (case.get("turns") or [{"user": case.get("query")}])[-1]["user"]
        setting = Setting(asked, case["language"], persona, tuple(project["quality"]["forbidden"]))
        declared = checks.declared(suite, case)
        good = [found for found in checks.judge(answers[case["id"]]["good"], declared, setting) if found.passed is False]
        bad = [found for found in checks.judge(answers[case["id"]]["bad"], declared, setting) if found.passed is False]
        assert not good, (case["id"], good)
        unjudged = any(name == "code_compiles" and wanted == "rust" for name, wanted in declared) and not compiles.is_available("rust")
        assert bad or unjudged, case["id"]


# --- code ------------------------------------------------------------------------------------------------------------------------------

needs_rustc = pytest.mark.skipif(not compiles.is_available("rust"), reason="rustc is not installed")


@needs_rustc
def test_rust_statements_compile_as_a_body_and_items_as_a_library() -> None:
    assert verdict('```rust\nlet x: i32 = 1;\nprintln!("{x}");\n```', "code_compiles", "rust").passed
    assert verdict("```rust\npub fn f(a: &str) -> usize { a.len() }\n```", "code_compiles", "rust").passed


@needs_rustc
def test_rust_that_does_not_compile_fails_with_the_compilers_words() -> None:
    found = verdict('```rust\nfn f() -> i32 { "x" }\n```', "code_compiles", "rust")
    assert found.passed is False
    assert "mismatched types" in found.reason


def test_without_a_compiler_code_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = verdict("```rust\nfn f() {}\n```", "code_compiles", "rust")
    assert found.passed is None
    assert "no compiler for rust" in found.reason


def test_a_block_may_build_on_the_one_before() -> None:
    answer = "Önce:\n```python\nfor x in y:\n    pass\n```\nsonra:\n```python\nelse:\n    pass\n```"
    assert verdict(answer, "code_compiles", "python").passed


# --- repetition and likeness -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "çok çok çok çok çok güzel",
        "aaaaaaaaaaaaaaaaa",
        "bir iki üç dört beş. Evet bir iki üç dört beş. Yine bir iki üç dört beş altı.",
        "Yaparım. " * 6,
    ],
)
def test_a_text_that_goes_round_in_circles_is_seen(text: str) -> None:
    assert repeated(text)


@pytest.mark.parametrize("text", ["ha ha ha ha, çok iyi", "```\nx\nx\nx\nx\nx\nx\n```", "Olur. Olur."])
def test_what_people_say_twice_is_no_repetition(text: str) -> None:
    assert repeated(text) is None


def test_a_loop_at_the_end_is_seen_while_it_is_being_said() -> None:
    assert is_looping("Tamam. " + "Soru nedir acaba? " * 5)
    assert not is_looping("ha ha ha ha ha")
    assert not is_looping("Tamam. Soru nedir acaba? " * 2)


def test_a_long_sentence_is_a_loop_at_its_second_time() -> None:
    assert is_looping("Peki. " + "Bunu böyle söylemek bana hiç doğru gelmiyor.\n" * 2)
    assert not is_looping("Peki. Bunu böyle söylemek bana hiç doğru gelmiyor.\nOnu da böyle söylemek bana doğru gelmiyor.\n")


def test_sentences_are_cut_where_a_reader_cuts_them() -> None:
    assert sentences("Olur. 3. madde önemli! Değil mi?\nPeki...") == ["Olur.", "3. madde önemli!", "Değil mi?", "Peki..."]


def test_chrf_is_one_for_the_same_and_zero_for_nothing_shared() -> None:
    assert chrf("Sor kanka.", "sor KANKA.") == pytest.approx(1.0)
    assert chrf("abc", "xyz") == 0.0
    assert chrf("", "xyz") == 0.0


def test_chrf_agrees_with_a_figure_worked_out_by_hand() -> None:
    # "abcd" beside "abce": orders 1 to 4 share 3/4, 2/3, 1/2, 0/1, so precision and recall are both their mean.
    assert chrf("abcd", "abce") == pytest.approx((3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)


def test_a_rustc_that_only_fails_is_no_rustc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "rustc"
    broken.write_text("#!/bin/sh\necho 'error: no toolchain is chosen' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not compiles.is_available("rust") and compiles.is_available("python")
