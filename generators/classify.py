"""How much thought a query needs, guessed from rules alone: the points of its length and of the cues in it, and two thresholds.

The rules are the `classifier` block of specs/tiers.yaml. Nothing is learnt and nothing is hidden: a verdict names what it counted.
A cue is *found* by one of its patterns, or by one of the cues it names; it *counts* when its conditions hold too (`with`, `unless`,
`words`), so that "why" can weigh more in an everyday question than in a technical one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from generators import patterns
from generators.errors import did_you_mean
from generators.memory import Remember, nothing_remembered
from generators.needles import beginnings, first_words
from generators.specs.schema import TIERS
from generators.turkish import fold, words

Rules = Mapping[str, Any]
Cue = Mapping[str, Any]


class Reason(NamedTuple):
    """name: of the cue, or "length". points: added. found: what gave them, words of the query or their number."""

    name: str
    points: float
    found: str


class Verdict(NamedTuple):
    tier: str
    points: float
    reasons: tuple[Reason, ...]


class Authored(NamedTuple):
    """A query with the tier that its author gave it. source: `file:line`."""

    source: str
    query: str
    tier: str


def classify(query: str, rules: Rules) -> Verdict:
    """The tier of a query. rules: bias, length, cues and thresholds, as in specs/tiers.yaml.

    Raises ValueError for rules in which `problems_of_rules` finds something.
    """
    return Classifier(rules).classify(query)


class Classifier:
    """`classify` for many queries: the rules are made ready once. Hundreds of patterns meet each query, and few of them begin with one
    of its words; only those, and the regular expressions, are looked for."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._cues = {cue["name"]: cue for cue in rules["cues"]}
        self._by_beginning: dict[str, list[tuple[str, int]]] = {}
        self._anywhere: list[tuple[str, int]] = []
        for cue in rules["cues"]:
            for index, pattern in enumerate(cue.get("any", ())):
                needles = first_words(pattern)
                for needle in set(needles or ()):
                    self._by_beginning.setdefault(needle, []).append((cue["name"], index))
                if needles is None:
                    self._anywhere.append((cue["name"], index))

    def classify(self, query: str) -> Verdict:
        count = len(words(query))
        reasons = [*_of_bias(self.rules), *_of_length(count, self.rules), *self._of_cues(query, count)]
        points = round(sum(reason.points for reason in reasons), 6)
        return Verdict(_tier(points, self.rules["thresholds"]), points, tuple(reasons))

    def _of_cues(self, query: str, count: int) -> list[Reason]:
        found = self._found(query)
        return [
            Reason(cue["name"], cue["points"], found[cue["name"]] or f"{count} words")
            for cue in self.rules["cues"]
            if cue["points"] and found[cue["name"]] is not None and _counts(cue, found, count)
        ]

    def _found(self, query: str) -> dict[str, str | None]:
        """What each cue is found by: words of the query, "" where it looks for none, None where it is not found."""
        likely = self._likely(query)
        found: dict[str, str | None] = {}

        def look(name: str, way: tuple[str, ...]) -> str | None:
            if name in found:
                return found[name]
            if name not in self._cues or name in way:
                raise ValueError(f"the cue {name!r} " + ("leads back to itself" if name in way else "does not exist"))
            cue = self._cues[name]
            wanted = (cue["any"][index] for index in sorted(likely.get(name, ())))
            by = _words_found(patterns.first_match(wanted, query), query)
            for other in cue.get("cues", ()):
                by = look(other, (*way, name)) if by is None else by
            found[name] = by if by is not None or cue.get("any") or cue.get("cues") else ""
            return found[name]

        for name in self._cues:
            look(name, ())
        return found

    def _likely(self, query: str) -> dict[str, set[int]]:
        """The indices of the patterns that the query may hold, by cue."""
        likely: dict[str, set[int]] = {}
        for name, index in chain(self._anywhere, *(self._by_beginning.get(word, ()) for word in beginnings(query))):
            likely.setdefault(name, set()).add(index)
        return likely


def explain(verdict: Verdict) -> str:
    """`medium (2.5 points): everyday why +2 (neden), question of five words +0.5 (6 words)`"""
    counted = ", ".join(f"{reason.name} {reason.points:+g}" + (f" ({reason.found})" if reason.found else "") for reason in verdict.reasons)
    return f"{verdict.tier} ({verdict.points:g} points): {counted or 'no cue found'}"


def compare(queries: Iterable[Authored], rules: Rules, remember: Remember = nothing_remembered) -> dict[str, Any]:
    """How rules and authors agree: queries, agreement (a share), confusion (authored tier to predicted tier to number), and
    disagreements, each with source, query, authored, predicted and why."""
    confusion = {authored: dict.fromkeys(TIERS, 0) for authored in TIERS}
    disagreements, classifier = [], Classifier(rules)

    def predicted(query: str) -> tuple[str, str]:
        verdict = classifier.classify(query)
        return verdict.tier, explain(verdict)

    for source, query, authored in queries:
        tier, why = remember(query, partial(predicted, query))
        confusion[authored][tier] += 1
        if tier != authored:
            disagreements.append({"source": source, "query": query, "authored": authored, "predicted": tier, "why": why})
    total, agreed = sum(sum(row.values()) for row in confusion.values()), sum(confusion[tier][tier] for tier in TIERS)
    share = round(agreed / total, 4) if total else 0.0
    return {"queries": total, "agreement": share, "confusion": confusion, "disagreements": disagreements}


def matrix(found: Mapping[str, Any]) -> list[str]:
    """The share and the confusion matrix of `compare`, as lines."""
    lines = [f"classifier: {found['agreement']:.1%} of {found['queries']} queries as authored"]
    for authored, row in found["confusion"].items():
        lines.append(f"  {authored:>6} taken for " + ", ".join(f"{tier} {count}" for tier, count in row.items()))
    return lines


def review(found: Mapping[str, Any]) -> str:
    """All that `compare` found, as text: what an author goes through to mend a tier or a cue."""
    lines = matrix(found)
    for item in found["disagreements"]:
        lines += ["", f"{item['source']}: {item['authored']}, seen as {item['why']}", f"  {item['query']}"]
    return "\n".join(lines)


def problems_of_rules(rules: Rules) -> Iterator[tuple[int, str, str]]:
    """(index of the cue, field, message) for everything that would keep the rules from being used."""
    names = [cue["name"] for cue in rules["cues"]]
    known = {cue["name"]: cue for cue in rules["cues"]}
    for index, cue in enumerate(rules["cues"]):
        if names.index(cue["name"]) != index:
            yield index, "name", f"the name {cue['name']!r} is used twice"
        if not any(cue.get(field) for field in ("any", "cues", "with", "words")):
            yield index, "name", f"the cue {cue['name']!r} says nothing to look for; give it `any`, `cues`, `with` or `words`"
        for pattern in cue.get("any", ()):
            message = patterns.problem(pattern)
            if message:
                yield index, "any", message
        for field in ("cues", "with", "unless"):
            for name in cue.get(field, ()):
                if name not in known:
                    yield index, field, f"no cue {name!r}{did_you_mean(name, names)}"
        if _goes_round(cue, known):
            yield index, "cues", f"the cue {cue['name']!r} leads back to itself"


def _goes_round(cue: Cue, known: Mapping[str, Cue]) -> bool:
    seen: set[str] = set()
    waiting = list(cue.get("cues", ()))
    while waiting:
        name = waiting.pop()
        if name == cue["name"]:
            return True
        if name in known and name not in seen:
            seen.add(name)
            waiting += known[name].get("cues", ())
    return False


def _tier(points: float, thresholds: Mapping[str, float]) -> str:
    return "high" if points >= thresholds["high"] else "medium" if points >= thresholds["medium"] else "low"


def _of_bias(rules: Rules) -> list[Reason]:
    return [Reason("bias", rules["bias"], "")] if rules["bias"] else []


def _of_length(count: int, rules: Rules) -> list[Reason]:
    reached = [entry for entry in rules["length"] if count >= entry["words"]]
    points = max(reached, key=lambda entry: entry["words"])["points"] if reached else 0
    return [Reason("length", points, f"{count} words")] if points else []


def _counts(cue: Cue, found: Mapping[str, str | None], count: int) -> bool:
    limits = cue.get("words", {})
    return (
        all(found[name] is not None for name in cue.get("with", ()))
        and all(found[name] is None for name in cue.get("unless", ()))
        and limits.get("min", 0) <= count <= limits.get("max", count)
    )


def _words_found(pattern: str | None, query: str) -> str | None:
    """What an explanation shows of a pattern: itself, or what a regular expression matched."""
    if pattern is None or not (pattern.startswith("/") and pattern.endswith("/") and len(pattern) > 2):
        return pattern.removesuffix("$") if pattern else pattern
    hit = re.search(pattern[1:-1], fold(query), re.MULTILINE) or re.search(pattern[1:-1], query.lower(), re.MULTILINE)
    return hit[0].strip() if hit and hit[0].strip() else pattern
