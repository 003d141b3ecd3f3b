"""The quality gates: each rule a function that yields what breaks it, with the file and line of the samples.

Rules of one sample read its row while it streams by; rules of a category or of the whole dataset read the figures and the entries.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from generators import language, patterns
from generators.dataset.entries import Entry
from generators.dataset.similar import in_word_order, levelled, matches_between, normalised, similar_pairs
from generators.errors import EXIT_SPECS, UserError
from generators.needles import may_hold
from generators.turkish import fold, words

Question = tuple[str, ...]

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


def of_sample(entry: Entry, metadata: Mapping[str, Any], limits: Limits) -> Iterator[Violation]:
    """What breaks a rule in one sample, at most one violation a rule. metadata: the sample's, for its persona and earlier thoughts."""
    answers = [(_turn(entry, number), answer) for number, answer in enumerate(entry.answers, 1)]
    thoughts = [(f"thought {number}: ", seen["text"]) for number, seen in enumerate(metadata.get("thoughts", ()), 1)]
    users = [(_turn(entry, number) + "the user's text: ", text) for number, text in enumerate(entry.users, 1)]
    said, everything = answers + thoughts, answers + thoughts + users
    rules: dict[str, Iterable[str]] = {
        "words": _found(answers, lambda text: _word_range(text, limits.words.get(entry.category))),
        "language": _found(everything, lambda text: _other_language(text, entry.language)),
        "forbidden": _found(said, lambda text: _forbidden(text, limits.quality["forbidden"])),
        "opinion": _opinion(entry, metadata["persona"], limits),
        "control token": _found(everything, lambda text: _control_token(text, limits.control_tokens)),
        "unicode": _found(everything, _not_nfc),
        "quotes": _found(said, quote_problem),
        "code fence": _found(said, fence_problem),
        "white space": _found(everything, _white_space),
        "tokens": _tokens([text for _, text in everything], limits.quality["tokens"]),
    }
    for rule, messages in rules.items():
        message = "; ".join(messages)
        if message:
            yield Violation(rule, message, (entry.source,))


def _turn(entry: Entry, number: int) -> str:
    return f"turn {number}: " if len(entry.answers) > 1 else ""


def _found(texts: Sequence[tuple[str, str]], problem: Callable[[str], str | None]) -> Iterator[str]:
    """The problems of texts, each with its place in the sample."""
    for place, text in texts:
        message = problem(text)
        if message:
            yield place + message


def _word_range(answer: str, limits: tuple[int, int] | None) -> str | None:
    count = len(words(answer))
    if limits is None or limits[0] <= count <= limits[1]:
        return None
    return f"the answer has {count} words, this category takes {limits[0]} to {limits[1]}"


def _other_language(answer: str, declared: str) -> str | None:
    seen = language.detect(answer)
    return None if seen in (None, declared) else f"the text is in {seen!r}, {declared!r} is declared"


def _forbidden(answer: str, phrases: Sequence[str]) -> str | None:
    read = patterns.readings(answer)
    said = [phrase for phrase in phrases if may_hold(phrase, read) and patterns.matches(phrase, answer)]
    return f"the text says {', '.join(map(repr, said))}" if said else None


def _opinion(entry: Entry, persona: str, limits: Limits) -> Iterator[str]:
    if entry.group not in limits.quality["opinion_required"]:
        return
    markers = limits.markers.get(persona, {}).get(entry.language, ())
    if not any(patterns.matches(marker, answer) for marker in markers for answer in entry.answers):
        wanted = ", ".join(map(repr, markers)) or "those that its persona declares"
        yield f"no opinion marker; the group {entry.group} needs one of {wanted}"


def _control_token(text: str, tokens: Collection[str]) -> str | None:
    held = sorted(token for token in tokens if token in text)
    return f"the control token {', '.join(map(repr, held))} stands in it" if held else None


def _not_nfc(text: str) -> str | None:
    if unicodedata.is_normalized("NFC", text):
        return None
    first = next((word for word in text.split() if not unicodedata.is_normalized("NFC", word)), text)
    return f"{unicodedata.normalize('NFC', first)!r} is not written in NFC"


def _white_space(text: str) -> str | None:
    return "white space at the end of a line" if text != text.rstrip() or any(line != line.rstrip() for line in text.split("\n")) else None


def _tokens(texts: Sequence[str], most: int) -> Iterator[str]:
    """A bound instead of a count: the dataset serves every recipe, each with a tokenizer of its own, and is made before a base is there.

    It is never too low. A token stands for one byte of its text at least, since the tokenizers of all supported architectures fall back
    to bytes; and some put a blank before a text, which may be a token more. So what passes here fits, with the frame's own text in the
    rest of the context. The exact count, frame and all, is taken against `context_length` before the first step of training.
    """
    count = sum(len(text.encode()) + 1 for text in texts)
    if count > most:
        yield f"the conversation may take {count} tokens, one a byte, and {most} are allowed; shorten it, or raise quality.tokens"


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


def balance(entries: Sequence[Entry], limits: Limits) -> Iterator[Violation]:
    total = len(entries)
    for group, declared in limits.balance.items():
        members = [entry for entry in entries if entry.group == group]
        share = len(members) / total if total else 0.0
        if abs(share - declared) > limits.tolerance + 1e-9:
            found = f"the group {group} has {len(members)} of {total} samples ({share:.1%})"
            yield Violation("balance", f"{found}; {declared:.1%} ± {limits.tolerance:.1%} is declared", _where_they_begin(members))


def tier_shares(entries: Sequence[Entry], limits: Limits) -> Iterator[Violation]:
    total = len(entries)
    for tier, (least, most) in limits.quality["tiers"].items():
        members = [entry for entry in entries if entry.tier == tier]
        share = len(members) / total if total else 0.0
        if not least - 1e-9 <= share <= most + 1e-9:
            found = f"{tier} has {len(members)} of {total} samples ({share:.1%})"
            yield Violation("tiers", f"{found}; {least:.0%} to {most:.0%} is allowed", _where_they_begin(members))


def _where_they_begin(entries: Iterable[Entry]) -> tuple[str, ...]:
    """The first sample of each category: all of them would be a list that nobody reads."""
    first: dict[str, str] = {}
    for entry in entries:
        first.setdefault(entry.category, entry.source)
    return tuple(first.values())


# --- pairs ------------------------------------------------------------------------------------------------------------------------


class Near(NamedTuple):
    """Two samples that say nearly the same. what: question or pair."""

    what: str
    one: int
    other: int
    similarity: float


def questions_of(entries: Iterable[Entry]) -> list[Question]:
    """The user turns of each sample, levelled in letter case and punctuation: samples with the same ask the same."""
    return [tuple(map(normalised, entry.users)) for entry in entries]


def duplicates(entries: Sequence[Entry], questions: Sequence[Question]) -> Iterator[Violation]:
    """Samples with the same question. Expansions of one example, whose spelling is varied on purpose, only count where they are the same
    to the letter."""
    same: dict[Question, list[int]] = {}
    for index, question in enumerate(questions):
        same.setdefault(question, []).append(index)
    repeated: dict[str, list[str]] = {}
    for indices in same.values():
        sources = tuple(dict.fromkeys(entries[index].source for index in indices))
        if len(sources) > 1:
            answers = {tuple(map(normalised, entries[index].answers)) for index in indices}
            what = "question and answer" if len(answers) == 1 else "question"
            yield Violation("duplicate", f"the same {what} {len(indices)} times: {entries[indices[0]].users[0]!r}", sources)
        elif len({entries[index].users for index in indices}) < len(indices):
            repeated.setdefault(sources[0], []).append(entries[indices[0]].users[0])
    for source, asked in repeated.items():
        times = f"the example yields {len(asked)} questions more than once, such as {asked[0]!r}"
        yield Violation("duplicate", f"{times}: its answer has slots that its question lacks", (source,))


def near_duplicates(entries: Sequence[Entry], questions: Sequence[Question], limits: Limits) -> list[Near]:
    """Questions, and questions with their answers, that are nearly alike. Samples of one example are not compared, and equal questions
    are duplicates."""
    threshold, families = limits.quality["near_duplicate"], [entry.source for entry in entries]
    asked = [levelled(" / ".join(turns)) for turns in questions]
    answers = [levelled(" / ".join(map(normalised, entry.answers))) for entry in entries]
    found: dict[tuple[int, int], Near] = {}
    for what, texts in (
        ("question", asked),
        ("question", [in_word_order(text) for text in asked]),
        ("pair", [f"{question} : {answer}" for question, answer in zip(asked, answers, strict=True)]),
    ):
        for pair in similar_pairs(texts, families, threshold):
            if questions[pair.one] != questions[pair.other]:
                found.setdefault((pair.one, pair.other), Near(what, *pair))
    return sorted(found.values(), key=lambda near: (near.one, near.other))


def near_violations(nears: Sequence[Near], entries: Sequence[Entry]) -> Iterator[Violation]:
    for near in nears:
        one, other = entries[near.one], entries[near.other]
        message = f"the {near.what} {one.users[0]!r} is nearly {other.users[0]!r} ({near.similarity:.2f})"
        yield Violation("near duplicate", message, (one.source, other.source))


def leaks(nears: Sequence[Near], entries: Sequence[Entry], questions: Sequence[Question], valid: Collection[int]) -> Iterator[Violation]:
    """Near duplicates, or equal questions, with one in train and the other in valid."""
    for near in nears:
        if (near.one in valid) != (near.other in valid):
            inside, outside = (near.one, near.other) if near.one in valid else (near.other, near.one)
            message = f"{entries[inside].users[0]!r} is in valid and nearly the same, {entries[outside].users[0]!r}, in train"
            yield Violation("leak", message, (entries[inside].source, entries[outside].source))
    sides: dict[Question, dict[bool, str]] = {}
    for index, asked in enumerate(questions):
        sides.setdefault(asked, {}).setdefault(index in valid, entries[index].source)
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
        Query(case["query"] if "query" in case else case["turns"][-1]["user"], f"{name}:{case['id']}", f"specs/evals/{name}.yaml:{line}")
        for name, suite in suites.items()
        for case, line in zip(suite["cases"], case_lines[name], strict=True)
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
    for number, position in _held_whole(asked, texts):
        note(number, position, 1.0)
    for (source, number), (similarity, turn) in found.items():
        query = queries[number]
        message = f"{turn!r} is the evaluation query {query.case} {query.text!r}, or nearly so ({similarity:.2f})"
        yield Violation("evaluation leak", message, (source, query.source))


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
                for number in known.get(" ".join(said[before : len(said) - after]), ()) if before + after else ():
                    yield number, position
