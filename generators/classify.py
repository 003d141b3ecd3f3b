"""How much thought a query needs, guessed from rules alone: the points of its length and of the cues in it, and two thresholds.

The rules are the `classifier` block of specs/tiers.yaml. Nothing is learnt and nothing is hidden: a verdict names what it counted.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from generators import patterns
from generators.turkish import words


class Reason(NamedTuple):
    """name: of the cue, or "length". points: added. found: what in the query gave them."""

    name: str
    points: float
    found: str


class Verdict(NamedTuple):
    tier: str
    points: float
    reasons: tuple[Reason, ...]


def classify(query: str, rules: Mapping[str, Any]) -> Verdict:
    """The tier of a query. rules: bias, length, cues and thresholds, as in specs/tiers.yaml.

    Raises ValueError for a cue with a regular expression that cannot be read.
    """
    reasons = tuple(reason for reason in (_of_bias(rules), _of_length(query, rules), *_of_cues(query, rules)) if reason)
    points = round(sum(reason.points for reason in reasons), 6)
    return Verdict(_tier(points, rules["thresholds"]), points, reasons)


def explain(verdict: Verdict) -> str:
    """`medium (3 points): question of how 2 (nasıl), length 1 (9 words)`"""
    counted = ", ".join(f"{reason.name} {reason.points:+g}" + (f" ({reason.found})" if reason.found else "") for reason in verdict.reasons)
    return f"{verdict.tier} ({verdict.points:g} points): {counted or 'no cue found'}"


def _tier(points: float, thresholds: Mapping[str, float]) -> str:
    return "high" if points >= thresholds["high"] else "medium" if points >= thresholds["medium"] else "low"


def _of_bias(rules: Mapping[str, Any]) -> Reason | None:
    return Reason("bias", rules["bias"], "") if rules["bias"] else None


def _of_length(query: str, rules: Mapping[str, Any]) -> Reason | None:
    count = len(words(query))
    reached = [entry for entry in rules["length"] if count >= entry["words"]]
    if not reached:
        return None
    points = max(reached, key=lambda entry: entry["words"])["points"]
    return Reason("length", points, f"{count} words") if points else None


def _of_cues(query: str, rules: Mapping[str, Any]) -> list[Reason]:
    found = ((cue, patterns.first_match(cue["any"], query)) for cue in rules["cues"])
    return [Reason(cue["name"], cue["points"], pattern) for cue, pattern in found if pattern is not None]
