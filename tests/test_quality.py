"""Every quality gate, broken once: it is caught, and the right line is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generators.dataset import DatasetErrors, Violation, build
from generators.dataset.quality import fence_problem, quote_problem
from generators.dataset.similar import in_word_order, levelled, normalised, similar_pairs
from generators.files import write_jsonl
from generators.language import detect

Row = dict[str, Any]

# Twelve pairs of question and answer that have nothing in common, so that each test breaks one rule and no other.
PAIRS = [
    ("naber kanka", "İyidir, senden ne haber?"),
    ("Bugün hava nasıl olacak?", "Güneşli ama rüzgârlı olacak."),
    ("yemekte ne var", "Mercimek çorbası ile pilav var."),
    ("Rust'ta borrow checker ne iş yapar?", "Referansların geçerli kaldığını derlerken denetler."),
    ("sence tatile nereye gideyim", "Kaş sakin olur, oraya git."),
    ("Kedim neden sürekli miyavlıyor?", "Acıkmış ya da ilgi istiyor olabilir."),
    ("dün maçı izledin mi", "Kaçırdım maalesef, sonuç neydi?"),
    ("Postgres sorgum yavaş, ne yapayım?", "Önce EXPLAIN ANALYZE ile plana bak."),
    ("uykum hiç yok ya", "Telefonu bırak, bir kitap al eline."),
    ("Hayatta en çok neden korkarsın?", "Merakını yitirmiş birine dönüşmekten çekinirim."),
    ("sınavdan kaldım galiba", "Daha sonuç açıklanmadı, moralini bozma."),
    ("Git rebase ile merge farkı nedir?", "Rebase geçmişi düz tutar, merge olduğu gibi bırakır."),
]


def row(number: int, category: str = "turkish/talk", **fields: Any) -> Row:
    """The sample at line 10, 20, ... of its category. fields: of the metadata, or user, jessy, turns."""
    user, answer = PAIRS[number % len(PAIRS)]
    turns = fields.pop("turns", [(fields.pop("user", user), fields.pop("jessy", answer))])
    messages = [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    group, name = category.split("/")
    metadata = {
        "id": f"{category}/{number:03}",
        "group": group,
        "category": name,
        "tier": "low",
        "iterations": 1,
        "language": "tr",
        "persona": "jessy",
        "response_budget_s": 5,
        "source": f"specs/categories/{category}.yaml:{number * 10 + 10}",
        "template": "samples/chat.j2",
        "layers": ["C04"],
    }
    return {"messages": messages, "metadata": metadata | fields}


@pytest.fixture
def violations(tmp_path: Path) -> Callable[..., list[Violation]]:
    """Builds a dataset of rows and returns what it is refused for. Keywords: quality and dataset settings, suites, control_tokens."""

    def judge(
        rows: list[Row], suites: Row | None = None, control_tokens: tuple[str, ...] = (), valid_share: float = 0.0, **settings: Any
    ) -> list[Violation]:
        quality: Row = {"tiers": {}, "near_duplicate": 0.9, "eval_leak": 0.9, "same_opening": 1.0, "tokens": 1536}
        quality |= {"forbidden": [], "opinion_required": []}
        quality |= {key: value for key, value in settings.items() if key in quality}
        dataset = {"balance": settings.get("balance", {}), "tolerance": 0.02, "valid_share": valid_share}
        names = {f"{item['metadata']['group']}/{item['metadata']['category']}" for item in rows}
        specs = {name: {"quality": {"words": settings.get("words", {"min": 1, "max": 60})}} for name in names}
        write_jsonl(tmp_path / "samples.jsonl", rows)
        lines = {name: [5 * index + 5 for index in range(len(suite["cases"]))] for name, suite in (suites or {}).items()}
        personas = {"jessy": {"opinion_markers": {"tr": ["bence", "bana göre"], "en": ["I think"]}}}
        project = {"seed": 3, "dataset": dataset, "quality": quality}
        try:
            build(
                [tmp_path / "samples.jsonl"],
                project,
                specs,
                suites or {},
                lines,
                personas,
                tmp_path / "dataset",
                lambda line: None,
                control_tokens=control_tokens,
            )
        except DatasetErrors as errors:
            return errors.violations
        return []

    return judge


def talk(line: int) -> str:
    return f"specs/categories/turkish/talk.yaml:{line}"


def base(count: int = 11) -> list[Row]:
    return [row(number) for number in range(count)]


def test_samples_that_keep_every_rule_pass(violations: Any) -> None:
    assert violations([row(number) for number in range(12)], same_opening=0.09, valid_share=0.2) == []


# --- one sample -------------------------------------------------------------------------------------------------------------------

BROKEN = [
    ("words", {"jessy": "Evet."}, "the answer has 1 words, this category takes 2 to 12", {"words": {"min": 2, "max": 12}}),
    ("language", {"jessy": "That is what I would do if I were you."}, "the text is in 'en', 'tr' is declared", {}),
    (
        "language",
        {"user": "Should I do it?", "jessy": "Bunu böyle yapma, sonra çok pişman olursun.", "language": "en"},
        "the text is in 'tr', 'en' is declared",
        {},
    ),
    ("language", {"user": "What would you do if you were me?"}, "the user's text: the text is in 'en', 'tr' is declared", {}),
    ("forbidden", {"jessy": "HARİKA bir SORU, hemen bakalım."}, "the text says 'harika bir soru'", {"forbidden": ["harika bir soru"]}),
    ("opinion", {}, "no opinion marker; the group turkish needs one of 'bence', 'bana göre'", {"opinion_required": ["turkish"]}),
    (
        "control token",
        {"user": "<end_of_turn> ne işe yarar"},
        "the user's text: the control token '<end_of_turn>' stands in it",
        {"control_tokens": ("<end_of_turn>",)},
    ),
    ("unicode", {"jessy": "Bo\u0308yle yazma onu."}, "'Böyle' is not written in NFC", {}),
    ("quotes", {"jessy": 'Ona "dur dedim ama dinlemedi.'}, 'a quotation mark " is not closed', {}),
    ("code fence", {"jessy": "Şöyle dene:\n```rust\nlet a = 1;"}, "a code fence is not closed", {}),
    ("white space", {"jessy": "Şöyle dene: \nolur."}, "white space at the end of a line", {}),
    ("white space", {"user": "olur mu ki "}, "the user's text: white space at the end of a line", {}),
    (
        "tokens",
        {"user": "ya bak", "jessy": "Öğlen öyle bir şey oldu ki otur da baştan sona anlatayım, gülmekten çayını içemezsin bir daha."},
        "the conversation may take 113 tokens, one a byte, and 100 are allowed; shorten it, or raise quality.tokens",
        {"tokens": 100},
    ),
]


@pytest.mark.parametrize("rule, fields, message, settings", BROKEN, ids=[f"{item[0]}-{number}" for number, item in enumerate(BROKEN)])
def test_a_sample_that_breaks_a_rule_is_named(violations: Any, rule: str, fields: Row, message: str, settings: Row) -> None:
    rows = [row(number, "philosophical/talk") for number in range(11)] if rule == "opinion" else base()
    assert violations([*rows, row(11, **fields)], **settings) == [Violation(rule, message, (talk(120),))]


def test_the_turn_that_breaks_a_rule_is_named(violations: Any) -> None:
    turns = [("selam", "Selam, buyur."), ("bi şey sorcam", "That is what you should have said at once.")]
    (found,) = violations([*base(), row(11, turns=turns)])
    assert found == Violation("language", "turn 2: the text is in 'en', 'tr' is declared", (talk(120),))


def test_earlier_thoughts_keep_the_rules_of_answers(violations: Any) -> None:
    thoughts = [{"text": text, "confidence": 0.4, "layers": ["C02"]} for text in ("Önce soruya bakalım.", "Ona “dur dedim.")]
    (found,) = violations([*base(), row(11, thoughts=thoughts)])
    assert found == Violation("quotes", "thought 2: a quotation mark “ is not closed", (talk(120),))


def test_earlier_thoughts_count_towards_the_tokens(violations: Any) -> None:
    thoughts = [{"text": "Önce soruya bir bakalım, sonra cevap veririz.", "confidence": 0.4, "layers": ["C02"]}]
    assert violations([*base(), row(11)], tokens=100) == []
    (found,) = violations([*base(), row(11, thoughts=thoughts)], tokens=100)
    assert (found.rule, found.sources) == ("tokens", (talk(120),))


def test_every_violation_is_listed_by_place(violations: Any) -> None:
    rows = base()
    rows[3] = row(3, jessy="Evet. ")
    rows[1] = row(1, jessy="Evet. ", user="Ne “oldu böyle?")
    found = violations(rows, words={"min": 2, "max": 60})
    assert [(item.rule, item.sources[0]) for item in found] == [
        ("white space", talk(20)),
        ("words", talk(20)),
        ("white space", talk(40)),
        ("words", talk(40)),
    ]


def test_an_opinion_marker_of_the_language_satisfies(violations: Any) -> None:
    rows = [row(number, jessy=f"Bence {answer}") for number, (_, answer) in enumerate(PAIRS[:11])]
    rows.append(row(11, user="Is it worth it?", jessy="I think it is, if you enjoy the work itself.", language="en"))
    assert violations(rows, opinion_required=["turkish"]) == []


@pytest.mark.parametrize(
    "text, fine",
    [
        ("düz yazı", True),
        ('"tırnak" ve "bir daha"', True),
        ("„Alman“ “İngiliz” «Fransız»", True),
        ("Rust'ta 'a ömrü", True),
        ('55" televizyon', True),
        ('```\nlet s = "a;\n```', True),
        ('`"` işareti', True),
        ("«iç “içe” olur»", True),
        ('"açık kaldı', False),
        ("“açık kaldı", False),
        ("kapandı” ama", False),
        ("«ters„", False),
        ("„Alman”", True),
    ],
)
def test_quotation_marks_are_balanced(text: str, fine: bool) -> None:
    assert (quote_problem(text) is None) == fine


@pytest.mark.parametrize(
    "text, fine", [("```\nx\n```", True), ("`a` ve `b`", True), ("```\nx", False), ("`a ve b", False), ("```\n`\n```", True)]
)
def test_code_marks_are_closed(text: str, fine: bool) -> None:
    assert (fence_problem(text) is None) == fine


# --- a category, or all ---------------------------------------------------------------------------------------------------------------


def test_answers_that_begin_alike_are_named(violations: Any) -> None:
    rows = [row(number) for number in range(10)]
    rows += [row(10, jessy="Valla BEN de bilmiyorum."), row(11, jessy="Valla ben olsam beklerdim.")]
    (found,) = violations(rows, same_opening=0.1)
    assert found.rule == "opening" and found.sources == (talk(110), talk(120))
    assert found.message == "turkish/talk: 2 of 12 answers (17%, at most 10%) begin with 'valla ben'"


def test_openings_of_few_answers_say_nothing(violations: Any) -> None:
    rows = [*base(9), row(9, jessy="Valla ben de bilmiyorum."), row(10, jessy="Valla ben olsam beklerdim.")]
    assert violations(rows, same_opening=0.1) == []


def test_expansions_of_one_example_may_begin_alike(violations: Any) -> None:
    rows = [row(number, source=talk(10)) for number in range(12)]
    for number, item in enumerate(rows):
        item["messages"][1]["content"] = f"Hemen bakıyorum, {PAIRS[number][1]}"
    assert violations(rows, same_opening=0.1) == []


def test_groups_out_of_balance_are_named(violations: Any) -> None:
    rows = [*base(8), *(row(number, "technical/rust") for number in range(8, 12))]
    assert violations(rows, balance={"turkish": 0.5, "technical": 0.5}) == [
        Violation(
            "balance",
            "the group technical has 4 of 12 samples (33.3%); 50.0% ± 2.0% is declared",
            ("specs/categories/technical/rust.yaml:90",),
        ),
        Violation("balance", "the group turkish has 8 of 12 samples (66.7%); 50.0% ± 2.0% is declared", (talk(10),)),
    ]


def test_a_group_that_is_not_there_is_out_of_balance_too(violations: Any) -> None:
    (found,) = violations(base(), balance={"technical": 0.5})
    assert found == Violation("balance", "the group technical has 0 of 11 samples (0.0%); 50.0% ± 2.0% is declared", ())


def test_tiers_out_of_their_range_are_named(violations: Any) -> None:
    (found,) = violations(base(), tiers={"low": [0.3, 0.7], "medium": [0.0, 0.5]})
    assert found == Violation("tiers", "low has 11 of 11 samples (100.0%); 30% to 70% is allowed", (talk(10),))


# --- pairs ------------------------------------------------------------------------------------------------------------------------


def test_the_same_question_twice_is_a_duplicate_whatever_its_case(violations: Any) -> None:
    (found,) = violations([*base(), row(11, user="NABER, KANKA?", jessy="Ne olsun, uğraşıyoruz.")])
    assert found == Violation("duplicate", "the same question 2 times: 'naber kanka'", (talk(10), talk(120)))


def test_the_same_pair_in_two_categories_is_a_duplicate(violations: Any) -> None:
    (found,) = violations([*base(), row(0, "technical/rust")])
    assert found.message == "the same question and answer 2 times: 'naber kanka'"
    assert found.sources == (talk(10), "specs/categories/technical/rust.yaml:10")


def test_turkish_case_tells_dotted_from_dotless(violations: Any) -> None:
    rows = [*base(10), row(10, user="KIRIM NEREDE KALIYOR"), row(11, user="Kırım nerede kalıyor?", jessy="Karadeniz'in kuzeyinde.")]
    (found,) = violations(rows)
    assert found.rule == "duplicate"


def test_a_question_that_is_nearly_another_is_named(violations: Any) -> None:
    (found,) = violations([*base(), row(11, user="Kedim neden surekli miyavliyor ki?", jessy="Sevgi istiyor belli ki.")])
    assert (found.rule, found.sources) == ("near duplicate", (talk(60), talk(120)))
    assert found.message.startswith("the question 'Kedim neden sürekli miyavlıyor?' is nearly 'Kedim neden surekli miyavliyor ki?' (0.9")


def test_the_same_words_in_another_order_are_a_near_duplicate(violations: Any) -> None:
    (found,) = violations([*base(), row(11, user="olacak hava nasıl bugün", jessy="Yağmur bekleniyor sanırım.")])
    assert (found.rule, found.sources) == ("near duplicate", (talk(20), talk(120)))


def test_a_pair_that_is_nearly_another_is_named(violations: Any) -> None:
    answer = "Önce planına bak, sonra eksik olan index'i ekle, en sonunda da sorguyu küçült ve yeniden ölç."
    rows = [*base(10), row(10, user="sorgu yavaş", jessy=answer), row(11, user="sorgu ağır", jessy=answer)]
    (found,) = violations(rows)
    assert (found.rule, found.sources) == ("near duplicate", (talk(110), talk(120))) and found.message.startswith("the pair ")


def test_short_questions_are_told_apart(violations: Any) -> None:
    rows = [*base(8), row(8, user="selam"), row(9, user="selamlar"), row(10, user="slm"), row(11, user="merhaba")]
    assert violations(rows) == []


def test_expansions_of_one_example_may_be_alike_but_not_the_same(violations: Any) -> None:
    alike = [row(20 + number, source=talk(500), user=f"Ankara'ya {number} saatte gidilir mi?", jessy="Gidilir.") for number in range(3)]
    assert violations([*base(), *alike]) == []
    (found,) = violations([*base(), *alike, row(23, source=talk(500), user="Ankara'ya 1 saatte gidilir mi?", jessy="Gidilir tabii.")])
    assert (found.rule, found.sources) == ("duplicate", (talk(500),))


def test_a_near_duplicate_across_the_split_is_a_leak_too(violations: Any) -> None:
    rows = base() + [row(11, user="Kedim neden sürekli miyavlıyor ki?", jessy="Sevgi istiyor belli ki.")]
    leaked = []
    for seed in range(40):  # until the draw puts one of the two, and not the other, into valid
        for item in rows:
            item["metadata"]["id"] = f"turkish/talk/{seed}-{item['metadata']['source']}"
        leaked = [item for item in violations(rows, valid_share=0.3) if item.rule == "leak"]
        if leaked:
            break
    (found,) = leaked
    assert set(found.sources) == {talk(60), talk(120)} and "is in valid and nearly the same" in found.message


def test_an_equal_question_across_the_split_is_a_leak_too(violations: Any) -> None:
    rows = base() + [row(11, user="naber kanka", jessy="Ne olsun, uğraşıyoruz.")]
    found: list[Violation] = []
    for seed in range(40):
        for item in rows:
            item["metadata"]["id"] = f"turkish/talk/{seed}-{item['metadata']['source']}"
        found = violations(rows, valid_share=0.3)
        if len(found) > 1:
            break
    assert [item.rule for item in found] in (["duplicate", "leak"], ["leak", "duplicate"])
    assert next(item for item in found if item.rule == "leak").message == "the question 'naber kanka' is in valid and in train"


SUITE = {
    "turkish": {
        "cases": [
            {"id": "tired", "query": "bugün çok yorgunum"},
            {"id": "two", "turns": [{"user": "selam", "jessy": "Selam."}, {"user": "Ankara'dan İzmir'e kaç saat sürer?"}]},
        ]
    }
}


@pytest.mark.parametrize(
    "user, line, case",
    [
        ("Bugün çok yorgunum!", 5, "turkish:tired"),
        ("bugun cok yorgunumm", 5, "turkish:tired"),
        ("ya bugün çok yorgunum be", 5, "turkish:tired"),
        ("çok yorgunum bugün", 5, "turkish:tired"),
        ("Ankara'dan İzmir'e kaç saat sürüyor?", 10, "turkish:two"),
    ],
)
def test_an_evaluation_query_among_the_samples_is_a_leak(violations: Any, user: str, line: int, case: str) -> None:
    (found,) = violations([*base(), row(11, user=user, jessy="Dinlen biraz o zaman.")], SUITE)
    assert found.rule == "evaluation leak" and found.sources == (talk(120), f"specs/evals/turkish.yaml:{line}") and case in found.message


def test_a_later_turn_leaks_as_well(violations: Any) -> None:
    turns = [("naptın bugün", "Hiç, oturdum öyle."), ("bugün çok yorgunum", "Dinlen biraz o zaman.")]
    (found,) = violations([*base(), row(11, turns=turns)], SUITE)
    assert found.sources[0] == talk(120)


def test_a_question_that_only_shares_words_is_no_leak(violations: Any) -> None:
    asked = row(11, user="bugün çok yorgunum ama yine de spora gitmek istiyorum ne dersin", jessy="Hafif bir yürüyüş yap.")
    assert violations([*base(), asked], SUITE) == []


# --- how texts are compared --------------------------------------------------------------------------------------------------------


def test_texts_are_levelled_for_comparison() -> None:
    assert normalised("  NABER, Kanka?! ") == "naber kanka"
    assert normalised("C++ mı, C# mı?") == "c++ mı c# mı"
    assert normalised("?!") == "?!"
    assert levelled(normalised("Yaaaa ÇOK güzeeel")) == "ya cok guzel"
    assert in_word_order("nasıl hava bugün") == in_word_order("bugün hava nasıl")


def _edited(text: str, share: float, dice: random.Random) -> str:
    letters = list(text)
    for _ in range(max(1, int(len(letters) * share))):
        letters[dice.randrange(len(letters))] = dice.choice("abcdefghij")
    return "".join(letters)


@pytest.mark.parametrize("length", [6, 40])
def test_minhash_proposes_nearly_every_pair_that_comparing_all_finds(length: int) -> None:
    dice = random.Random(length)
    vocabulary = ["".join(dice.choice("aeıioubcdfgklmnrst") for _ in range(dice.randint(2, 9))) for _ in range(3000)]
    texts = [" ".join(dice.choice(vocabulary) for _ in range(length)) for _ in range(1500)]
    texts += [_edited(text, dice.choice([0.02, 0.05, 0.08]), dice) for text in texts[:100]]
    families = [str(number) for number in range(len(texts))]
    every = {pair[:2] for pair in similar_pairs(texts, families, 0.9)}
    proposed = {pair[:2] for pair in similar_pairs(texts, families, 0.9, exact_work=0)}
    assert len(every) >= 95 and proposed <= every and len(proposed) >= 0.95 * len(every)


def test_one_pair_is_reported_for_two_families() -> None:
    texts = [f"bugün hava nasıl olacak acaba {number}" for number in range(6)]
    for work in (10**12, 0):
        assert len(similar_pairs(texts, ["a", "a", "a", "b", "b", "b"], 0.9, exact_work=work)) == 1


# --- language ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, language",
    [
        ("Garbage collector heap'i tararken stop-the-world pause olur.", "tr"),
        ("Bu function async olduğu için await etmen lazım, yoksa Promise döner.", "tr"),
        ("Rust'ta ownership", "tr"),
        ("Tabii, sor gelsin.", "tr"),
        ("I think the borrow checker is right, you keep a reference too long.", "en"),
        ("Always. What's up?", "en"),
        ("Photosynthesis converts light energy into chemical energy.", "en"),
        ("```python\nfor item in this_list: print('that is it')\n```\nŞöyle olmalı.", "tr"),
        ("`if` and `for` do the job here, you know.", "en"),
        ('"Teşekkür ederim", or just "sağ ol" among friends.', "en"),
        ("```\nlet x = 1;\n```", None),
        ("56.", None),
        ("ok", None),
        ("", None),
    ],
)
def test_the_language_of_an_answer_is_told_or_left_open(text: str, language: str | None) -> None:
    assert detect(text) == language
