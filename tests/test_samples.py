"""Rendering and expansion of samples: what is written, that it is stable, and who is told what is wrong."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.errors import SpecErrors, UserError
from generators.files import to_json
from generators.samples.expand import expand, prepare_example, survey
from generators.samples.render import render_samples, write_samples
from generators.samples.spelling import effective, respell

TEMPLATES = Path(__file__).parents[1] / "templates"
TIERS = {
    "low": {"iterations": [1, 2], "response_budget_s": 5},
    "medium": {"iterations": [3, 5], "response_budget_s": 15},
    "high": {"iterations": [6, 9], "response_budget_s": 45},
}
PAIR = {"user": "naber", "jessy": "İyidir, senden?"}


def category(*examples: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "language": "tr",
        "tier": "low",
        "iterations": 1,
        "layers": ["C04"],
        "template": "samples/chat.j2",
        "slots": {},
        "quality": {"words": {"min": 1, "max": 99}},
        "examples": list(examples) or [PAIR],
        **fields,
    }


def context(spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    lines = [10 * index + 10 for index in range(len(spec["examples"]))]
    file = "specs/categories/turkish/test.yaml"
    return {"name": "turkish/test", "file": file, "lines": lines, "persona": "jessy", "tiers": TIERS, "seed": 1, **fields}


def rendered(spec: dict[str, Any], templates: Path = TEMPLATES, **fields: Any) -> list[dict[str, Any]]:
    return list(render_samples(spec, context(spec, **fields), templates))


def questions(spec: dict[str, Any], **fields: Any) -> list[str]:
    return [row["messages"][0]["content"] for row in rendered(spec, **fields)]


def slotted(count: int, **fields: Any) -> dict[str, Any]:
    slots = {"city": ["Ankara", "İzmir", "Muş"], "who": ["kanka", "abi"], "unused": ["x", "y", "z"]}
    example = {"user": "{{ slots.city | tr_locative }} hava nasıl {{ slots.who }}?", "jessy": "{{ slots.city }} güneşli."}
    return category(example, {"user": "saat kaç", "jessy": "Üç."}, slots=slots, count=count, **fields)


# --- a sample ---------------------------------------------------------------------------------------------------------------------


def test_a_sample_carries_messages_and_the_metadata_of_its_example() -> None:
    example = PAIR | {"tier": "medium", "iterations": 4, "language": "en", "layers": ["C01"], "mood": "sad", "confidence": 0.9}
    (row,) = rendered(category(example))
    assert row["messages"] == [{"role": "user", "content": "naber"}, {"role": "assistant", "content": "İyidir, senden?"}]
    assert row["metadata"].pop("id").startswith("turkish/test/")
    assert row["metadata"] == {
        "group": "turkish",
        "category": "test",
        "tier": "medium",
        "iterations": 4,
        "language": "en",
        "persona": "jessy",
        "response_budget_s": 15,
        "source": "specs/categories/turkish/test.yaml:10",
        "template": "samples/chat.j2",
        "layers": ["C01"],
        "confidence": 0.9,
        "mood": "sad",
    }


def test_turns_become_messages_in_turn() -> None:
    turns = [{"user": "bir", "jessy": "iki"}, {"user": "üç", "jessy": "dört"}]
    (row,) = rendered(category({"turns": turns}))
    assert [(message["role"], message["content"]) for message in row["messages"]] == [
        ("user", "bir"),
        ("assistant", "iki"),
        ("user", "üç"),
        ("assistant", "dört"),
    ]


def test_an_id_depends_on_the_samples_own_text_alone() -> None:
    before = rendered(category(PAIR))
    after = rendered(category({"user": "slm", "jessy": "Selam."}, PAIR))
    assert after[1]["metadata"]["id"] == before[0]["metadata"]["id"] != after[0]["metadata"]["id"]


def test_text_comes_out_in_nfc() -> None:
    (row,) = rendered(category({"user": "gu\u0308naydın", "jessy": "Gu\u0308naydın!"}))
    assert [message["content"] for message in row["messages"]] == ["günaydın", "Günaydın!"]


def test_the_file_is_json_lines_as_the_rest_of_the_project_writes_them(tmp_path: Path) -> None:
    spec = slotted(7)
    target = tmp_path / "test.jsonl"
    assert write_samples(spec, context(spec), TEMPLATES, target) == 7
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    assert lines == [to_json(row) + "\n" for row in rendered(spec)]


def test_braces_in_an_example_without_slots_are_text() -> None:
    code = 'println!("{{}}"); // {{ slots.city }} {% raw'
    (row,) = rendered(category({"user": code, "jessy": code}))
    assert row["messages"][0]["content"] == code


def test_half_of_a_character_is_reported_with_its_example() -> None:
    with pytest.raises(SpecErrors, match=r"test\.yaml:10:1: examples\[0\]: holds half of a character \(U\+D83D\)"):
        rendered(category({"user": "\ud83d", "jessy": "Selam."}))


# --- templates --------------------------------------------------------------------------------------------------------------------


def own_template(tmp_path: Path, text: str) -> Path:
    (tmp_path / "samples").mkdir(exist_ok=True)
    (tmp_path / "samples" / "own.j2").write_text(text, encoding="utf-8")
    return tmp_path


_LETTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: text.strip() and "{" not in text)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(_LETTERS, min_size=1, max_size=3, unique=True), before=_LETTERS, after=_LETTERS, respelt=st.booleans())
def test_the_direct_path_writes_what_jinja_writes(tmp_path_factory: Any, values: list[str], before: str, after: str, respelt: bool) -> None:
    templates = own_template(tmp_path_factory.mktemp("templates"), "{% if turns %}{{ turns | messages_json }}{% endif %}")
    example = {"user": before + "{{ slots.a }}" + after, "jessy": "{{ slots.a | upper }}" + before, "mood": "{{ slots.a }}"}
    spelling = {"share": 1.0, "variants": ["lower"]} if respelt else None
    spec = category(example, slots={"a": values}, spelling=spelling)
    direct = rendered(spec)
    by_jinja = rendered(spec | {"template": "samples/own.j2"}, templates)
    for row in by_jinja:
        row["metadata"]["template"] = "samples/chat.j2"
    assert [to_json(row) for row in direct] == [to_json(row) for row in by_jinja]


def test_a_template_of_the_projects_own_may_rephrase(tmp_path: Path) -> None:
    text = '[{"role": "user", "content": "{{ turns[0].user | upper }}"}, {"role": "assistant", "content": "x"}]'
    templates = own_template(tmp_path, text)
    (row,) = rendered(category(PAIR, template="samples/own.j2"), templates)
    assert row["messages"] == [{"role": "user", "content": "NABER"}, {"role": "assistant", "content": "x"}]


def test_a_changed_default_template_is_run(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    text = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'
    (tmp_path / "samples" / "chat.j2").write_text(text, encoding="utf-8")
    (row,) = rendered(category(PAIR), tmp_path)
    assert row["messages"][0]["content"] == "a"


@pytest.mark.parametrize(
    "text, message",
    [
        ("\n{{ nobody }}", r"templates/samples/own\.j2:2:1: 'nobody' is undefined \(rendering the example at .*test\.yaml:10\)"),
        ("no JSON", r"templates/samples/own\.j2:1:1: Expecting value"),
        ('[{"role": "assistant", "content": "x"}]', "not user and assistant in turn"),
        ('[{"role": "user", "content": 1}, {"role": "assistant", "content": "x"}]', "content of a message is not text"),
        ('[{"role": "user", "content": " "}, {"role": "assistant", "content": "x"}]', "a text is empty once it is rendered"),
    ],
)
def test_a_template_that_fails_is_named_with_the_example(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecErrors, match=message):
        rendered(category(PAIR, template="samples/own.j2"), own_template(tmp_path, text))


# --- expansion --------------------------------------------------------------------------------------------------------------------


def test_slots_fill_question_and_answer_alike_with_turkish_suffixes() -> None:
    rows = rendered(slotted(7))
    said = {(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows}
    assert len(said) == 7
    assert ("İzmir'de hava nasıl abi?", "İzmir güneşli.") in said and ("Muş'ta hava nasıl kanka?", "Muş güneşli.") in said


def test_possible_counts_only_the_slots_that_an_example_uses() -> None:
    assert survey(slotted(1)).possible == 3 * 2 + 1


def test_a_name_that_begins_another_is_not_taken_for_it() -> None:
    spec = category({"user": "{{ slots.city_name }}", "jessy": "Evet."}, slots={"city": ["a", "b"], "city_name": ["c", "d", "e"]})
    assert survey(spec).possible == 3


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_every_count_up_to_the_possible_comes_without_repeats(count: int) -> None:
    assert len(set(questions(slotted(count)))) == count


def test_every_example_comes_before_any_comes_again() -> None:
    sources = [row["metadata"]["source"].rsplit(":", 1)[1] for row in rendered(slotted(4))]
    assert sorted(sources) == ["10", "10", "10", "20"]


def test_an_impossible_count_says_how_many_there_can_be() -> None:
    with pytest.raises(UserError, match="count: 8 samples are asked for, and 2 examples .* can yield 7"):
        rendered(slotted(8))


def test_a_large_count_draws_without_repeats_and_with_the_seed_alone() -> None:
    slots = {"a": [str(number) for number in range(100)], "b": [str(number) for number in range(100)]}
    spec = category({"user": "{{ slots.a }} ve {{ slots.b }}", "jessy": "Tamam."}, slots=slots, count=500)
    first, again, other = questions(spec), questions(spec), questions(spec, seed=2)
    assert len(set(first)) == 500 and first == again != other


def test_an_example_more_draws_nothing_anew_for_the_others() -> None:
    slots = {"a": [str(number) for number in range(1000)]}
    one = {"user": "bir {{ slots.a }}", "jessy": "Tamam."}
    before = questions(category(one, slots=slots, count=50))
    after = questions(category({"user": "iki", "jessy": "Peki."}, one, slots=slots, count=51))
    assert after[1:] == before


def test_mood_and_thoughts_take_slots_too() -> None:
    thought = {"text": "{{ slots.mood }} biri", "confidence": 0.4, "layers": ["C01"]}
    spec = category(PAIR | {"mood": "{{ slots.mood }}", "thoughts": [thought]}, slots={"mood": ["sad", "proud"]}, count=2)
    found = [(row["metadata"]["mood"], row["metadata"]["thoughts"][0]["text"]) for row in rendered(spec)]
    assert found == [("sad", "sad biri"), ("proud", "proud biri")]


def test_conditions_on_slots_are_left_to_jinja() -> None:
    example = {"user": "{% if slots.who == 'siz' %}Nasılsınız{% else %}Nasılsın {{ slots.who }}{% endif %}?", "jessy": "İyi."}
    spec = category(example, slots={"who": ["siz", "abi"]}, count=2)
    assert questions(spec) == ["Nasılsınız?", "Nasılsın abi?"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{{ slots.cty }}", "no slot 'cty'; there are city; did you mean 'city'?"),
        ("{{ slots.city | tr_dativ }}", "cannot be filled: No filter named 'tr_dativ'."),
        ("{{ slots.city ", "not a template that can be filled: unexpected end of template, expected 'end of print statement'."),
        ("{{ slots.city.nothing.more }}", "cannot be filled: 'str object' has no attribute 'nothing'"),
        ("{% if slots.city %}{{ nobody }}{% endif %}", "cannot be filled: 'nobody' is undefined"),
    ],
)
def test_a_text_that_cannot_be_filled_is_reported_with_its_example(text: str, message: str) -> None:
    with pytest.raises(SpecErrors) as caught:
        rendered(category(PAIR, {"user": text, "jessy": "Evet."}, slots={"city": ["Ankara"]}))
    assert str(caught.value) == f"specs/categories/turkish/test.yaml:20:1: examples[1]: {message}"


def test_every_example_with_a_slot_that_is_not_there_is_found_before_rendering() -> None:
    wrong = {"user": "{{ slots.cty }}", "jessy": "Evet."}
    spec = category(wrong, PAIR, wrong, slots={"city": ["Ankara"]})
    assert [index for index, _ in survey(spec).problems] == [0, 2]
    assert survey(spec).possible == 3


# --- spelling ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant, text, respelt",
    [
        ("lower", "Işık hızı kaç, İrem?", "ışık hızı kaç, irem?"),
        ("lower", "API'yi Instagram'da IDE ile mi?", "api'yi instagram'da ide ile mi?"),
        ("lower", '`String` mi "Etek" mi?', '`String` mi "Etek" mi?'),
        ("ascii", "Çay şöyle ığdır ÜÖĞİ", "Cay soyle igdir UOGI"),
        ("no_question_mark", "Ne? Nasıl??", "Ne? Nasıl"),
        ("spoken", "Bir şey soracağım, değil mi?", "Bişey sorucam, diil mi?"),
        ("spoken", "Ne yapıyorsun, geliyor musun?", "Napıyosun, geliyo musun?"),
        ("spoken", "Yüzde bir zam, on bir kişi, bir daha", "Yüzde bir zam, on bir kişi, bi daha"),
        ("spoken", "Gideceğim, göreceğim, okuyacağım", "Gidicem, görücem, okuyacağım"),
        ("spoken", "Size bir şey sorabilir miyim?", "Size bir şey sorabilir miyim?"),
        ("spoken", "Doktor yorgun, motor bozuk", "Doktor yorgun, motor bozuk"),
        ("lower+spoken+ascii+no_question_mark", "İstanbul'da bir şey içeceğim, geliyor musun?", "istanbul'da bisey icicem, geliyo musun"),
    ],
)
def test_a_spelling_variant_writes_as_people_type(variant: str, text: str, respelt: str) -> None:
    assert respell(text, variant, "tr") == respelt


def test_english_keeps_its_i_and_its_words() -> None:
    assert respell("Is it RIGHT? I think", "lower+spoken+ascii", "en") == "is it right? i think"


def test_a_variant_that_changes_nothing_new_is_no_variant() -> None:
    assert effective(["naber?"], ["lower", "no_question_mark", "lower+no_question_mark", "ascii"], "tr") == ["no_question_mark"]


def test_answers_are_never_respelt() -> None:
    spec = category({"user": "Şunu mu?", "jessy": "Şunu, evet?"}, spelling={"share": 1.0, "variants": ["ascii+lower+no_question_mark"]})
    (row,) = rendered(spec)
    assert [message["content"] for message in row["messages"]] == ["sunu mu", "Şunu, evet?"]


def test_the_share_of_respelt_samples_is_met() -> None:
    slots = {"a": [str(number) for number in range(400)]}
    spelling = {"share": 0.5, "variants": ["ascii"]}
    spec = category({"user": "Şu {{ slots.a }} mi?", "jessy": "Evet."}, slots=slots, count=300, spelling=spelling)
    asked = questions(spec)
    assert len(set(asked)) == 300 and sum(text.startswith("Su") for text in asked) in (150, 151)


def test_spellings_are_samples_of_their_own_when_more_are_asked_for() -> None:
    spelling = {"share": 0.5, "variants": ["lower", "ascii", "lower+ascii"]}
    spec = category({"user": "Şu mu?", "jessy": "Evet."}, spelling=spelling, count=4)
    assert survey(spec).possible == 4
    assert sorted(questions(spec)) == sorted(["Şu mu?", "şu mu?", "Su mu?", "su mu?"])


def test_draws_are_made_one_at_a_time() -> None:
    """A category of ten billion samples starts to yield at once."""
    values = [str(number) for number in range(100_000)]
    spec = category({"user": "{{ slots.a }} {{ slots.b }}", "jessy": "Evet."}, slots={"a": values, "b": values}, count=10**10)
    draws = expand(spec, [prepare_example(spec["examples"][0], spec)], 1)
    assert [next(draws)[1] for _ in range(2)] == [[0, 0, 0], [0, 1, 0]]


def test_the_shipped_categories_render(tmp_path: Path) -> None:
    from generators.specs.project import load

    root = Path(__file__).parents[1]
    project = load(root)
    for name, spec in project.categories.items():
        fields = {"name": name, "file": f"specs/categories/{name}.yaml", "lines": project.example_lines[name], "persona": "jessy"}
        rows = list(render_samples(spec, {**fields, "tiers": project.tiers["tiers"], "seed": 1}, root / "templates"))
        assert len({row["metadata"]["id"] for row in rows}) == spec["count"]
        assert all(unicodedata.is_normalized("NFC", json.dumps(row, ensure_ascii=False)) for row in rows)
