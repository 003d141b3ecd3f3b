"""What of the candidates is new, where it belongs, and which gates it would pass: the dataset's own rules, asked before anything is learnt."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from generators.dataset import quality
from generators.dataset.entries import Entry
from generators.dataset.quality import Limits, Query
from generators.dataset.similar import levelled, normalised
from generators.feedback.candidates import Candidate, LeftOut
from generators.feedback.exchanges import BETTER, GOOD
from generators.feedback.placing import Place, Placer
from generators.feedback.privacy import placeholders_in

Spec = dict[str, Any]
HELD_OUT_EVERY = 5
BRACKETS = "{} stands for what was taken out, and would be learnt as a word"
_NEW_BELOW = 0.6  # similarity to the closest question of the specs under which nothing like it is there


@dataclass(frozen=True)
class Known:
    """What a project holds already. categories: by `group/category`. tiers: the whole file. entries: its samples. queries: of its
    evaluation. persona: that the samples speak as. names: that are no personal data."""

    categories: Mapping[str, Spec]
    tiers: Spec
    entries: Sequence[Entry]
    queries: Sequence[Query]
    limits: Limits
    persona: str
    names: tuple[str, ...] = ()

    @cached_property
    def placer(self) -> Placer:
        return Placer(self.categories, self.tiers)

    @cached_property
    def asked(self) -> list[str]:
        """The last question of each entry, levelled."""
        return [levelled(normalised(entry.users[-1])) for entry in self.entries]


@dataclass(frozen=True)
class Proposed:
    """A candidate with its place. example: as its category file would have it. why: what makes it worth learning. gates: what speaks
    against it as it stands: those of one sample that it would miss, and words in brackets."""

    candidate: Candidate
    place: Place
    example: Spec
    why: tuple[str, ...]
    gates: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.candidate.id


@dataclass
class Judged:
    """proposed: the surest first. held_out: to be evaluated with and never learnt from. decided: how many were accepted or rejected
    before."""

    proposed: list[Proposed] = field(default_factory=list)
    held_out: list[Proposed] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    decided: Counter[str] = field(default_factory=Counter)


def judge(candidates: Sequence[Candidate], known: Known, decisions: Mapping[str, str], held: Sequence[Query]) -> Judged:
    """decisions: by id of a candidate. held: questions that are held out already, with their sources."""
    result = Judged()
    result.decided.update("accepted" for candidate in candidates if decisions.get(candidate.id) == "accepted")  # they are in the specs
    open_ones = [candidate for candidate in candidates if decisions.get(candidate.id) != "accepted"]
    ranked = sorted(open_ones, key=lambda candidate: (candidate.rank, candidate.id not in decisions))
    kept = _without_likes(ranked, known, result.left_out)
    kept = _without_evaluation(kept, known, held, result.left_out)
    result.decided.update(decisions[candidate.id] for candidate in kept if candidate.id in decisions)
    held_ids = {query.case for query in held}
    undecided = [candidate for candidate in kept if candidate.id not in decisions and candidate.id not in held_ids]
    for candidate in undecided:
        proposed = _proposed(candidate, known.placer.place(candidate.query, candidate.answer), known)
        is_held = not proposed.gates and is_held_out(candidate)
        (result.held_out if is_held else result.proposed).append(proposed)
    _drop_near_held(result, known)
    return result


def is_held_out(candidate: Candidate) -> bool:
    """One in HELD_OUT_EVERY, by what the user says alone, so that no wording of the answer moves it over."""
    asked = "\0".join(levelled(normalised(user)) for user in (*(user for user, _ in candidate.turns_before), candidate.query))
    return int.from_bytes(hashlib.blake2b(asked.encode(), digest_size=8).digest(), "big") % HELD_OUT_EVERY == 0


# --- what is there already --------------------------------------------------------------------------------------------------------


def _without_likes(ranked: Sequence[Candidate], known: Known, left_out: list[LeftOut]) -> list[Candidate]:
    """Without those that ask what the specs, or a surer candidate, ask already, in the same words or nearly."""
    own = [entry_of(candidate, f"#{index}") for index, candidate in enumerate(ranked)]
    entries = [*known.entries, *own]
    asked = quality.questions_of(entries)
    first, likes = len(known.entries), _likes(entries, asked, known.limits)
    kept: list[Candidate] = []
    kept_at: set[int] = set()
    for index, candidate in enumerate(ranked, first):
        same = [(other, how) for other, how in likes.get(index, ()) if other < first or other in kept_at]
        if not same:
            kept.append(candidate)
            kept_at.add(index)
            continue
        other, how = min(same)
        if other < first:
            reason = f"asked {how} in the specs"
            detail = entries[other].source + ("; the correction belongs there" if candidate.verdict == BETTER else "")
        else:
            reason, detail = f"asked {how} before", ranked[other - first].sources[0]
        left_out += [LeftOut(source, reason, detail) for source in candidate.sources]
    return kept


def _likes(entries: Sequence[Entry], asked: Sequence[quality.Question], limits: Limits) -> dict[int, list[tuple[int, str]]]:
    """For each entry the earlier ones that ask the same ("already"), or nearly ("nearly")."""
    likes: dict[int, list[tuple[int, str]]] = {}
    first: dict[quality.Question, int] = {}
    for index, question in enumerate(asked):
        if question in first:
            likes.setdefault(index, []).append((first[question], "already"))
        first.setdefault(question, index)
    for near in quality.near_duplicates(entries, asked, limits):
        one, other = sorted((near.one, near.other))
        likes.setdefault(other, []).append((one, "nearly"))
    return likes


def _without_evaluation(candidates: Sequence[Candidate], known: Known, held: Sequence[Query], left_out: list[LeftOut]) -> list[Candidate]:
    """Without those that ask what the evaluation asks, or what is held out for it. What is held out itself stays, to be known again."""
    entries = [entry_of(candidate, candidate.id) for candidate in candidates]
    leaks: dict[str, str] = {}
    for found in quality.evaluation_leaks(entries, [*known.queries, *held], known.limits):
        leaks.setdefault(found.sources[0], found.sources[1])
    held_ids = {query.case for query in held}
    kept = []
    for candidate in candidates:
        if candidate.id in leaks and candidate.id not in held_ids:
            left_out += [LeftOut(source, "in or near the evaluation", leaks[candidate.id]) for source in candidate.sources]
        else:
            kept.append(candidate)
    return kept


def _drop_near_held(result: Judged, known: Known) -> None:
    """What is nearly held out now is not proposed either."""
    held = [Query(each.candidate.query, each.id, each.candidate.sources[0]) for each in result.held_out]
    kept = _without_evaluation([each.candidate for each in result.proposed], replace(known, queries=()), held, result.left_out)
    kept_ids = {candidate.id for candidate in kept}
    result.proposed = [each for each in result.proposed if each.id in kept_ids]


def entry_of(candidate: Candidate, source: str, place: Place | None = None) -> Entry:
    """As the dataset would hold it."""
    turns = (*candidate.turns_before, (candidate.query, candidate.answer))
    category, tier, spoken = (place.category, place.tier, place.language) if place else ("", "", "")
    users, answers = tuple(user for user, _ in turns), tuple(answer for _, answer in turns)
    return Entry(candidate.id, category, source, tier, spoken, None, users, answers, 0, 0, 0)


# --- what it would be -------------------------------------------------------------------------------------------------------------


def _proposed(candidate: Candidate, place: Place, known: Known) -> Proposed:
    category = known.categories[place.category]
    entry = entry_of(candidate, "", place)
    gates = [f"{found.rule}: {found.message}" for found in quality.of_sample(entry, {"persona": known.persona}, known.limits)]
    gates += [
        BRACKETS.format(text) for text in dict.fromkeys(text for said in (*entry.users, *entry.answers) for text in placeholders_in(said))
    ]
    return Proposed(
        candidate,
        place,
        example_of(candidate, place, category),
        tuple(_why(candidate, known)),
        tuple(gates),
    )


def example_of(candidate: Candidate, place: Place, category: Spec) -> Spec:
    """What differs from the category's own values, and where it came from."""
    turns = [{"user": user, "jessy": answer} for user, answer in (*candidate.turns_before, (candidate.query, candidate.answer))]
    example: Spec = {"turns": turns} if len(turns) > 1 else turns[0]
    for field_, value in (("language", place.language), ("tier", place.tier), ("iterations", place.iterations)):
        if value != category[field_]:
            example[field_] = value
    return example | {"source": source_note(candidate)}


def source_note(candidate: Candidate) -> str:
    """`feedback/chat.jsonl:12, corrected by a person`"""
    said = {BETTER: ", corrected by a person", GOOD: ", marked good by a person"}.get(candidate.verdict or "", "")
    return candidate.sources[0] + said


def _why(candidate: Candidate, known: Known) -> Iterator[str]:
    if candidate.verdict == BETTER:
        yield "a person wrote the answer that would have been right"
    elif candidate.verdict == GOOD:
        yield "a person marked the answer good"
    else:
        yield "nobody judged the answer: read it with care"
    if len(candidate.sources) > 1:
        yield f"asked {len(candidate.sources)} times"
    closest = _closest(candidate.query, known.asked)
    if closest is None:
        yield "the specs ask nothing yet"
        return
    similarity, entry = closest[0], known.entries[closest[1]]
    like = "nothing in the specs is like it" if similarity < _NEW_BELOW else "the specs ask something like it"
    yield f"{like}; the closest is {entry.users[-1]!r} ({entry.source}, {similarity:.2f})"


def _closest(query: str, asked: Sequence[str]) -> tuple[float, int] | None:
    """(similarity, index) of the most similar."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import extractOne

    found = extractOne(levelled(normalised(query)), asked, scorer=Levenshtein.normalized_similarity)
    return (float(found[1]), found[2]) if found else None
