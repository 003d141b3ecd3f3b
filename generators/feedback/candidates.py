"""From exchanges to what may be learnt: made fit to be shown, and left out with a reason where they are not.

The order matters. What a person marked bad takes every other copy of that answer with it; what looks like an attack is not looked at any
further; personal data goes before anything is compared, so that nothing that is kept was ever derived from it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from generators.dataset.similar import levelled, normalised
from generators.feedback.attacks import attack_in
from generators.feedback.exchanges import BAD, BETTER, GOOD, Exchange, Turn
from generators.feedback.privacy import Stripped, strip, without_placeholders
from generators.feedback.texts import cleaned, unframed
from generators.turkish import words

LONGEST = 20_000  # letters of a text; nobody makes a sample of it
_REMEMBERED = 2048  # texts; what is said in a conversation is met again with each of its later exchanges
MOST_TURNS = 3  # before the last, in a sample of several
# Words that stand for something said before, in a short question; and words that with those alone make no question of their own.
_POINTING = frozenset("bunu şunu onu bunun onun buna ona bundan ondan öyle böyle it that those they them he she".split())
_BARE = frozenset(
    "peki ya ama ve yani sonra evet hayır yok niye neden nasıl devam başka o bu and but so then why how yes no more this what about".split()
)
_OPENING = frozenset("peki ama ve yani and but so then".split())
_SHORT = 5  # words


class LeftOut(NamedTuple):
    """source: `file:line`. detail: what it is like, as `file:line` or a few words; empty where the reason says all."""

    source: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Candidate:
    """An exchange that may become an example, without personal data.

    said: the answer that the model gave, where a person corrected it. conversation: the turns before, the oldest first. sources: where it was
    found, the one with the verdict first. taken_out: how many of each kind of personal data.
    """

    query: str
    answer: str
    sources: tuple[str, ...]
    conversation: tuple[Turn, ...] = ()
    verdict: str | None = None
    said: str = ""
    taken_out: Counter[str] = field(default_factory=Counter)

    @property
    def id(self) -> str:
        """Of the content alone, levelled in letter case, punctuation and spelling of letters: the same on every machine."""
        said = [part for turn in (*self.turns_before, (self.query, self.answer)) for part in turn]
        text = "\0".join(levelled(normalised(part)) for part in said)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def turns_before(self) -> tuple[Turn, ...]:
        """The turns without which the query says nothing; none where it stands for itself."""
        return self.conversation[-MOST_TURNS:] if leans(self.query) else ()

    @property
    def rank(self) -> int:
        """The lower, the surer that it is worth learning."""
        return (BETTER, GOOD, None).index(self.verdict)


def leans(query: str) -> bool:
    """Whether the words of a question point back to what was said before it."""
    said = [word.lower() for word in words(query)]
    if not said or len(said) > _SHORT:
        return False
    return said[0] in _OPENING or not _POINTING.isdisjoint(said) or _is_bare(query)


def _is_bare(query: str) -> bool:
    """Whether nothing in it says what it is about ("peki ya o"), so that no answer to it means anything by itself."""
    return all(word.lower() in _BARE | _POINTING for word in words(query))


def candidates_of(
    exchanges: Iterable[Exchange], control_tokens: frozenset[str], keep: tuple[str, ...], unmarked: Callable[[str], str]
) -> Iterator[Candidate | LeftOut]:
    """Each different exchange once, in the order in which they were read. keep: names that are no personal data. unmarked: takes the marker
    of iterations off an answer."""
    plain: list[Exchange] = []
    for exchange in exchanges:
        found = _plain(exchange, unmarked)
        if isinstance(found, LeftOut):
            yield found
        else:
            plain.append(found)
    groups: dict[tuple[str, str], list[Exchange]] = {}
    for exchange in plain:
        groups.setdefault(_key((exchange.query, exchange.answer)), []).append(exchange)
    judged = {key: _verdict(group) for key, group in groups.items()}
    for key, group in groups.items():
        verdict, correction = judged[key]
        if verdict == BAD:
            yield from (LeftOut(exchange.source, "marked bad without a correction") for exchange in group)
            continue
        first = next((exchange for exchange in group if exchange.verdict == verdict), group[0])
        merged = replace(first, verdict=verdict, correction=correction, conversation=_judged_turns(first.conversation, judged))
        sources = tuple(dict.fromkeys((first.source, *(exchange.source for exchange in group))))
        harmless = _without_attacks(merged, control_tokens)
        if isinstance(harmless, str):
            yield from (LeftOut(source, "looks like an attack", harmless) for source in sources)
        else:
            yield _stripped(harmless, sources, keep)


def _plain(exchange: Exchange, unmarked: Callable[[str], str]) -> Exchange | LeftOut:
    """With texts that are what they look like."""
    texts = [exchange.query, exchange.answer, exchange.correction or "", *(text for turn in exchange.conversation for text in turn)]
    if any(len(text) > LONGEST for text in texts):
        return LeftOut(exchange.source, "too long")
    answer = unframed(exchange.answer)
    if answer is None:
        return LeftOut(exchange.source, "an answer that the client cannot read")
    query, answer, correction = cleaned(exchange.query), unmarked(cleaned(answer)), cleaned(exchange.correction or "")
    if not words(query) or not words(correction or answer):
        return LeftOut(exchange.source, "no words")
    turns = tuple((cleaned(user), unmarked(cleaned(unframed(said) or said))) for user, said in exchange.conversation)
    return replace(exchange, query=query, answer=answer, correction=correction or None, conversation=turns)


def _key(turn: Turn) -> tuple[str, str]:
    return normalised(turn[0]), normalised(turn[1])


def _verdict(group: Sequence[Exchange]) -> tuple[str | None, str | None]:
    """A correction stands, the latest of them; else the last thumb counts."""
    corrections = [exchange.correction for exchange in group if exchange.correction]
    if corrections:
        return BETTER, corrections[-1]
    thumbs = [exchange.verdict for exchange in group if exchange.verdict]
    return (thumbs[-1] if thumbs else None), None


def _judged_turns(turns: Sequence[Turn], judged: dict[tuple[str, str], tuple[str | None, str | None]]) -> tuple[Turn, ...]:
    """What was said before, with the corrections that it was given, from behind the last answer that was bad and stayed so."""
    found: list[Turn] = []
    for turn in turns:
        verdict, correction = judged.get(_key(turn), (None, None))
        if verdict == BAD:
            found = []
        else:
            found.append((turn[0], correction or turn[1]))
    return tuple(found)


def _without_attacks(exchange: Exchange, control_tokens: frozenset[str]) -> Exchange | str:
    """The exchange with what was said since the last attack, or what the attack is where it holds one, or leans on one."""
    attack = _attack((exchange.query, exchange.answer, exchange.correction or ""), control_tokens)
    turns = list(exchange.conversation)
    for number in range(len(turns) - 1, -1, -1):
        earlier = None if attack else _attack(turns[number], control_tokens)
        if earlier:
            attack = earlier if leans(exchange.query) and len(turns) - number <= MOST_TURNS else None
            turns = turns[number + 1 :]
            break
    return attack or replace(exchange, conversation=tuple(turns))


def _attack(texts: Iterable[str], control_tokens: frozenset[str]) -> str | None:
    return next((found for text in texts if text and (found := _attack_in(text, control_tokens))), None)


_attack_in, _strip = lru_cache(_REMEMBERED)(attack_in), lru_cache(_REMEMBERED)(strip)


def _stripped(exchange: Exchange, sources: tuple[str, ...], keep: tuple[str, ...]) -> Candidate | LeftOut:
    def without(text: str) -> Stripped:
        return _strip(text, exchange.speaker, exchange.known, keep)

    query, answer, said = map(without, (exchange.query, exchange.correction or exchange.answer, exchange.answer))
    turns = [(without(user), without(answer)) for user, answer in exchange.conversation]
    candidate = Candidate(
        query.text,
        answer.text,
        sources,
        tuple((user.text, answer.text) for user, answer in turns),
        exchange.verdict,
        said.text if exchange.correction else "",
    )
    shown = [query, answer, *(text for turn in turns[len(turns) - len(candidate.turns_before) :] for text in turn)]
    candidate = replace(candidate, taken_out=sum((text.counts for text in shown), Counter()))
    if not _says_something(candidate.query) or not _says_something(candidate.answer):
        return LeftOut(candidate.sources[0], "nothing but personal data")
    if not candidate.conversation and _is_bare(candidate.query):
        return LeftOut(candidate.sources[0], "leans on a conversation that is not there")
    return candidate


def _says_something(text: str) -> bool:
    return bool(words(without_placeholders(text)))
