"""The quality gates: each rule a function that yields what breaks it, with the file and line of the samples.

Rules of one sample read its row while it streams by; rules of a category or of the whole dataset read the figures and the entries.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Collection, Iterable, Iterator, Mapping, NamedTuple, Sequence

from generators import language, patterns
from generators.dataset.entries import Entry
from generators.dataset.similar import Pair, in_word_order, levelled, matches_between, normalised, similar_pairs
from generators.errors import EXIT_SPECS, UserError
from generators.turkish import fold, words

OPENINGS_FROM = 12  # answers from which a category's share of identical openings says something
_WHOLE_QUERY = 3  # words of an evaluation query from which a question that holds it whole, and at most so many more words, is a leak
_MORE_WORDS = 2


class Violation(NamedTuple):
    """rule: its name. sources: `file:line` of the samples, the first to be edited first; none for the dataset as a whole."""

    rule: str
    message: str
    sources: tuple[str, ...]

    def __str__(self) -> str:
        more = f" (with {', '.join(self.sources[1:])})" if len(self.sources) > 1 else ""
        place = f"{self.sources[0]}: " if self.sources else ""
        return f"{place}{self.rule}: {self.message}{more}"


class DatasetErrors(UserError):
    """Every gate that the samples miss. The last good dataset stands."""

    exit_code = EXIT_SPECS

    def __init__(self, violations: Iterable[Violation]):
        self.violations = sorted(violations, key=_by_place)
        super().__init__("\n".join(map(str, self.violations)))


def _by_place(violation: Violation) -> tuple[Any, ...]:
    file, _, line = (violation.sources[0] if violation.sources else "~").rpartition(":")
    return not violation.sources, file, int(line) if line.isdigit() else 0, violation.rule


@dataclass(frozen=True)
class Limits:
    """What the rules measure against. quality, balance, tolerance: of the project. words: fewest and most of an answer, by category.
    markers: of an opinion, by persona and language."""

    quality: Mapping[str, Any]
    balance: Mapping[str, float]
    tolerance: float
    words: Mapping[str, tuple[int, int]]
    markers: Mapping[str, Mapping[str, Sequence[str]]]
    control_tokens: Collection[str] = field(default_factory=frozenset)


# --- one sample -------------------------------------------------------------------------------------------------------------------


def of_sample(entry: Entry, persona: str, limits: Limits) -> Iterator[Violation]:
    """What breaks a rule in one sample, at most one violation a rule."""
    rules = {
        "words": _word_range(entry, limits),
        "language": _language(entry),
        "forbidden": _forbidden(entry, limits),
        "opinion": _opinion(entry, persona, limits),
        "control token": _control_tokens(entry, limits),
        "unicode": _nfc(entry),
        "quotes": _in_answers(entry, quote_problem),
        "code fence": _in_answers(entry, fence_problem),
        "white space": _white_space(entry),
    }
    for rule, messages in rules.items():
        found = list(messages)
        if found:
            yield Violation(rule, "; ".join(found), (entry.source,))


def _turn(entry: Entry, number: int) -> str:
    return f"turn {number}: " if len(entry.answers) > 1 else ""


def _in_answers(entry: Entry, problem: Any) -> Iterator[str]:
    for number, answer in enumerate(entry.answers, 1):
        message = problem(answer)
        if message:
            yield _turn(entry, number) + message


def _word_range(entry: Entry, limits: Limits) -> Iterator[str]:
    fewest, most = limits.words.get(entry.category, (0, 10**9))
    for number, answer in enumerate(entry.answers, 1):
        count = len(words(answer))
        if not fewest <= count <= most:
            yield f"{_turn(entry, number)}the answer has {count} words, this category takes {fewest} to {most}"


def _language(entry: Entry) -> Iterator[str]:
    for number, answer in enumerate(entry.answers, 1):
        seen = language.detect(answer)
        if seen not in (None, entry.language):
            yield f"{_turn(entry, number)}the answer is in {seen!r}, {entry.language!r} is declared"


def _forbidden(entry: Entry, limits: Limits) -> Iterator[str]:
    for number, answer in enumerate(entry.answers, 1):
        for phrase in limits.quality["forbidden"]:
            if patterns.matches(phrase, answer):
                yield f"{_turn(entry, number)}the answer says {phrase!r}"


def _opinion(entry: Entry, persona: str, limits: Limits) -> Iterator[str]:
    if entry.group not in limits.quality["opinion_required"]:
        return
    markers = limits.markers.get(persona, {}).get(entry.language, ())
    if not any(patterns.matches(marker, answer) for marker in markers for answer in entry.answers):
        yield f"no opinion marker; the group {entry.group} needs one of {', '.join(map(repr, markers)) or 'those that the persona declares'}"


def _control_tokens(entry: Entry, limits: Limits) -> Iterator[str]:
    for text in (*entry.users, *entry.answers):
        for token in limits.control_tokens:
            if token in text:
                yield f"the text holds the control token {token!r}"


def _nfc(entry: Entry) -> Iterator[str]:
    for text in (*entry.users, *entry.answers):
        if not unicodedata.is_normalized("NFC", text):
            first = next(word for word in text.split() if not unicodedata.is_normalized("NFC", word))
            yield f"{unicodedata.normalize('NFC', first)!r} is not written in NFC"


def _white_space(entry: Entry) -> Iterator[str]:
    for who, texts in (("user", entry.users), ("answer", entry.answers)):
        for number, text in enumerate(texts, 1):
            if text != text.rstrip() or any(line != line.rstrip() for line in text.split("\n")):
                yield f"{_turn(entry, number)}white space at the end of a line of the {who}"


_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_INCHES = re.compile(r"(?<=\d)\"")
_CLOSES = {"“": "„", "”": "“„", "»": "«"}


def fence_problem(text: str) -> str | None:
    """What is wrong with the code marks of a text: a fence or a back-tick that is not closed."""
    if len(_FENCE.findall(text)) % 2:
        return "a code fence is not closed"
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "a back-tick is not closed" if prose.count("`") % 2 else None


def quote_problem(text: str) -> str | None:
    """What is wrong with the quotation marks („…“ „…” “…” «…» "…") of a text, code left out. Apostrophes are none."""
    prose = _INCHES.sub("", _CODE.sub("", text)) if text.count('"') % 2 else _CODE.sub("", text)
    if prose.count('"') % 2:
        return 'a quotation mark " is not closed'
    waiting: list[str] = []
    for mark in prose:
        if mark in _CLOSES and waiting and waiting[-1] in _CLOSES[mark]:
            waiting.pop()
        elif mark in "„“«":
            waiting.append(mark)
        elif mark in "”»":
            return f"a quotation mark {mark} closes nothing"
    return f"a quotation mark {waiting[-1]} is not closed" if waiting else None


# --- a category, or all of them ---------------------------------------------------------------------------------------------------


def opening(answer: str) -> str:
    """The first two words, folded: how an answer begins."""
    return " ".join(fold(word) for word in words(answer)[:2])


def same_openings(category: str, openings: Mapping[str, Mapping[str, int]], limits: Limits) -> Iterator[Violation]:
    """openings: opening -> source -> answers. Expansions of one example count once, since they begin alike by intention."""
    total, most = sum(map(len, openings.values())), limits.quality["same_opening"]
    if total < OPENINGS_FROM:
        return
    for text, sources in openings.items():
        if len(sources) > 1 and len(sources) / total > most:
            share = f"{len(sources)} of {total} answers ({len(sources) / total:.0%}, at most {most:.0%})"
            yield Violation("opening", f"{category}: {share} begin with {text!r}", tuple(sources))


def balance(groups: Mapping[str, int], limits: Limits) -> Iterator[Violation]:
    total = sum(groups.values())
    for group, declared in limits.balance.items():
        share = groups.get(group, 0) / total if total else 0.0
        if abs(share - declared) > limits.tolerance + 1e-9:
            message = f"the group {group} has {groups.get(group, 0)} of {total} samples ({share:.1%}); {declared:.1%} ± {limits.tolerance:.1%} is declared"
            yield Violation("balance", message, ())


def tier_shares(tiers: Mapping[str, int], limits: Limits) -> Iterator[Violation]:
    total = sum(tiers.values())
    for tier, (least, most) in limits.quality["tiers"].items():
        share = tiers.get(tier, 0) / total if total else 0.0
        if not least - 1e-9 <= share <= most + 1e-9:
            yield Violation("tiers", f"{tier} has {tiers.get(tier, 0)} of {total} samples ({share:.1%}); {least:.0%} to {most:.0%} is allowed", ())


# --- pairs ------------------------------------------------------------------------------------------------------------------------


class Near(NamedTuple):
    """Two samples that say nearly the same. what: question or pair."""

    what: str
    one: int
    other: int
    similarity: float


def duplicates(entries: Sequence[Entry]) -> Iterator[Violation]:
    """Samples with the same question. Letter case and punctuation do not make two questions different, but expansions of one example,
    whose spelling is varied on purpose, only count where they are the same to the letter."""
    same: dict[tuple[str, ...], list[int]] = {}
    for index, entry in enumerate(entries):
        same.setdefault(tuple(map(normalised, entry.users)), []).append(index)
    for indices in same.values():
        sources = tuple(dict.fromkeys(entries[index].source for index in indices))
        to_the_letter = Counter((entries[index].source, entries[index].users) for index in indices)
        repeated = [source for (source, _), count in to_the_letter.items() if count > 1]
        if len(sources) > 1:
            answers = {tuple(map(normalised, entries[index].answers)) for index in indices}
            what = "question and answer" if len(answers) == 1 else "question"
            yield Violation("duplicate", f"the same {what} {len(indices)} times: {entries[indices[0]].users[0]!r}", sources)
        elif repeated:
            yield Violation("duplicate", f"the example yields the question {entries[indices[0]].users[0]!r} {len(indices)} times", (repeated[0],))


def near_duplicates(entries: Sequence[Entry], limits: Limits) -> list[Near]:
    """Questions, and questions with their answers, that are nearly alike; samples of one example are not compared, equal questions neither."""
    threshold, families = limits.quality["near_duplicate"], [entry.source for entry in entries]
    exact = [tuple(map(normalised, entry.users)) for entry in entries]
    questions = [levelled(" / ".join(turns)) for turns in exact]
    answers = [levelled(" / ".join(map(normalised, entry.answers))) for entry in entries]
    found: dict[tuple[int, int], Near] = {}
    for what, texts in (
        ("question", questions),
        ("question", [in_word_order(text) for text in questions]),
        ("pair", [f"{question} : {answer}" for question, answer in zip(questions, answers, strict=True)]),
    ):
        for pair in similar_pairs(texts, families, threshold):
            if exact[pair.one] != exact[pair.other]:
                found.setdefault((pair.one, pair.other), Near(what, *pair))
    return sorted(found.values(), key=lambda near: (near.one, near.other))


def near_violations(nears: Sequence[Near], entries: Sequence[Entry]) -> Iterator[Violation]:
    for near in nears:
        one, other = entries[near.one], entries[near.other]
        message = f"the {near.what} {one.users[0]!r} is nearly {other.users[0]!r} ({near.similarity:.2f})"
        yield Violation("near duplicate", message, (one.source, other.source))


def leaks(nears: Sequence[Near], entries: Sequence[Entry], valid: Collection[int]) -> Iterator[Violation]:
    """Near duplicates, or equal questions, with one in train and the other in valid."""
    for near in nears:
        if (near.one in valid) != (near.other in valid):
            inside, outside = (near.one, near.other) if near.one in valid else (near.other, near.one)
            message = f"{entries[inside].users[0]!r} is in valid and nearly the same, {entries[outside].users[0]!r}, in train"
            yield Violation("leak", message, (entries[inside].source, entries[outside].source))
    sides: dict[tuple[str, ...], dict[bool, str]] = {}
    for index, entry in enumerate(entries):
        sides.setdefault(tuple(map(normalised, entry.users)), {}).setdefault(index in valid, entry.source)
    for question, sources in sides.items():
        if len(set(sources.values())) > 1:
            yield Violation("leak", f"the question {question[0]!r} is in valid and in train", (sources[True], sources[False]))


class Query(NamedTuple):
    """A query of an evaluation suite: its words and `file:line`."""

    text: str
    case: str
    source: str


def queries_of(suites: Mapping[str, Mapping[str, Any]], case_lines: Mapping[str, Sequence[int]]) -> list[Query]:
    """What every case asks: its query, or the last turn of its conversation."""
    return [
        Query(case["query"] if "query" in case else case["turns"][-1]["user"], f"{name}:{case['id']}", f"specs/evals/{name}.yaml:{case_lines[name][index]}")
        for name, suite in suites.items()
        for index, case in enumerate(suite["cases"])
    ]


def evaluation_leaks(entries: Sequence[Entry], queries: Sequence[Query], limits: Limits) -> Iterator[Violation]:
    """User turns that are, or hold, or nearly are an evaluation query."""
    asked = [levelled(normalised(query.text)) for query in queries]
    turns = [(index, turn) for index, entry in enumerate(entries) for turn in entry.users]
    texts = [levelled(normalised(turn)) for _, turn in turns]
    found: dict[tuple[str, int], tuple[float, str]] = {}

    def note(query: int, position: int, similarity: float) -> None:
        index, turn = turns[position]
        key = (entries[index].source, query)
        if key not in found or found[key][0] < similarity:
            found[key] = (similarity, turn)

    for pair in matches_between(asked, texts, limits.quality["eval_leak"]):
        note(pair.one, pair.other, pair.similarity)
    in_order = [in_word_order(text) for text in texts]
    for pair in matches_between([in_word_order(text) for text in asked], in_order, limits.quality["eval_leak"]):
        note(pair.one, pair.other, pair.similarity)
    for query, position in _held_whole(asked, texts):
        note(query, position, 1.0)
    for (source, query), (similarity, turn) in found.items():
        message = f"{turn!r} is the evaluation query {queries[query].case} {queries[query].text!r}, or nearly so ({similarity:.2f})"
        yield Violation("evaluation leak", message, (source, queries[query].source))


def _held_whole(asked: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(query, text) where the text is the query with up to two words before or after it ("ya bugün çok yorgunum")."""
    known: dict[str, list[int]] = {}
    for number, query in enumerate(asked):
        if len(query.split()) >= _WHOLE_QUERY:
            known.setdefault(query, []).append(number)
    for position, text in enumerate(texts):
        said = text.split()
        for before in range(_MORE_WORDS + 1):
            for after in range(_MORE_WORDS + 1 - before):
                for query in known.get(" ".join(said[before : len(said) - after]), ()) if before + after else ():
                    yield query, position
