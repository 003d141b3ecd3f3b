"""Where an exchange belongs: the category whose examples it is most like, its tier by the project's own rules, its language.

An exchange and every category are vectors of what they are made of: runs of three and four letters of each word, the cues that the tier
classifier finds, and how long question and answer are; each part weighs more the fewer examples have it (tf-idf). The category with the
nearest centroid is proposed (Rocchio). On the 350 shipped examples outside of iteration control, nine parts in ten learnt from and the
tenth asked, the group was right 96 times in a hundred and the category 66 times, or 79 with the runner-up, which a person is shown as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from generators import language
from generators.classify import classify
from generators.dataset.similar import levelled, normalised
from generators.samples.expand import first_question
from generators.turkish import words

Spec = Mapping[str, Any]
Vector = dict[str, float]
_RUNS = (3, 4)  # letters
_CUE, _LENGTH = 6.0, 3.0  # what a cue and a length weigh against a run of letters
_CODE = "`"


class Place(NamedTuple):
    """category, runner_up: `group/category`; runner_up is empty where there is no other. iterations: inside the tier's range."""

    category: str
    runner_up: str
    language: str
    tier: str
    iterations: int


class Placer:
    """categories: by `group/category`. tiers: the whole tiers file."""

    def __init__(self, categories: Mapping[str, Spec], tiers: Spec):
        self._categories, self._tiers = categories, tiers
        open_ones = {name: spec for name, spec in categories.items() if not _teaches_iterations(spec)} or dict(categories)
        self._speaks = {name: _languages(spec) for name, spec in open_ones.items()}
        examples = [(name, parts) for name, spec in open_ones.items() for parts in self._examples(spec)]
        seen = Counter(part for _, parts in examples for part in parts)
        self._rarity = {part: math.log(len(examples) / count) + 0.1 for part, count in seen.items()}
        self._centroids: dict[str, Vector] = {name: {} for name in open_ones}
        for name, parts in examples:
            for part, weight in self._vector(parts).items():
                self._centroids[name][part] = self._centroids[name].get(part, 0.0) + weight
        self._centroids = {name: _normed(vector) for name, vector in self._centroids.items()}

    def place(self, query: str, answer: str) -> Place:
        spoken = language.detect(f"{query}\n{answer}") or language.detect(query)
        vector = self._vector(self._parts(query, answer))
        ranked = sorted(self._centroids, key=lambda name: (-_product(vector, self._centroids[name]), name))
        fitting = [name for name in ranked if spoken is None or spoken in self._speaks[name]] or ranked
        category = self._categories[fitting[0]]
        tier = classify(query, self._tiers["classifier"]).tier
        return Place(
            fitting[0], fitting[1] if len(fitting) > 1 else "", spoken or category["language"], tier, self._iterations(category, tier)
        )

    def _iterations(self, category: Spec, tier: str) -> int:
        """The category's own, or the middle of another tier's range."""
        if tier == category["tier"]:
            return int(category["iterations"])
        low, high = self._tiers["tiers"][tier]["iterations"]
        return int((low + high) // 2)

    def _examples(self, category: Spec) -> Iterator[Vector]:
        for example in category["examples"]:
            last = (example.get("turns") or [example])[-1]
            yield self._parts(first_question(example, dict(category)), last["jessy"])

    def _parts(self, query: str, answer: str) -> Vector:
        """What an exchange is made of, with how much of it."""
        asked = _runs(query)
        counts = Counter(asked)
        counts.update(_runs(answer))
        counts.update(f"asked {run}" for run in set(asked))
        parts = {part: 1 + math.log(count) for part, count in counts.items()}
        verdict = classify(query, self._tiers["classifier"])
        cues = [*(f"cue {reason.name}" for reason in verdict.reasons), f"tier {verdict.tier}", *(["code"] if _CODE in answer else [])]
        lengths = [f"{who} {int(math.log2(len(words(text)) + 1))}" for who, text in (("query", query), ("answer", answer))]
        return parts | dict.fromkeys(cues, _CUE) | dict.fromkeys(lengths, _LENGTH)

    def _vector(self, parts: Vector) -> Vector:
        return _normed({part: weight * self._rarity[part] for part, weight in parts.items() if part in self._rarity})


def _teaches_iterations(category: Spec) -> bool:
    """Whether its examples are written for the client's protocol, with the confidence of each pass: no log holds such."""
    return all("confidence" in example for example in category["examples"])


def _languages(category: Spec) -> set[str]:
    return {category["language"], *(example["language"] for example in category["examples"] if "language" in example)}


def _runs(text: str) -> list[str]:
    """Words, and the runs of letters in each, its edges marked."""
    found = []
    for word in levelled(normalised(text)).split():
        found.append(f"word {word}")
        padded = f" {word} "
        found += [padded[start : start + size] for size in _RUNS for start in range(len(padded) - size + 1)]
    return found


def _normed(vector: Vector) -> Vector:
    length = math.sqrt(sum(weight * weight for weight in vector.values())) or 1.0
    return {part: weight / length for part, weight in vector.items()}


def _product(one: Vector, other: Vector) -> float:
    return sum(weight * other[part] for part, weight in one.items() if part in other)
