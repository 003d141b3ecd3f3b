"""From a failed case back to the specs: the training samples nearest to its query, by file and line, and the categories they are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import log, sqrt
from typing import Any

from generators.turkish import fold, words

Row = dict[str, Any]
_NEAREST = 3


class Trace:
    """The training samples, ready to be searched by what their user says.

    Likeness is the cosine of the texts' letter sequences (three to five, words padded by a blank), rare ones counting more (tf-idf):
    suffixes and missing Turkish letters move it little.
    """

    def __init__(self, samples: Iterable[Row]):
        self._samples = [_Sample(row) for row in samples]
        documents = [set(_sequences(sample.user)) for sample in self._samples]
        seen = Counter(sequence for document in documents for sequence in document)
        self._weights = {sequence: log((1 + len(documents)) / (1 + count)) + 1 for sequence, count in seen.items()}
        self._vectors = [self._vector(sample.user) for sample in self._samples]

    def nearest(self, query: str, count: int = _NEAREST) -> list[dict[str, Any]]:
        """{source, category, user, answer, similarity} of the samples most like `query`, the most like first; similarity in [0, 1]."""
        wanted = self._vector(query)
        found = sorted((-_dot(wanted, vector), number) for number, vector in enumerate(self._vectors))
        return [self._samples[number].entry(-negative) for negative, number in found[:count] if negative]

    def categories(self, query: str, count: int = 8) -> list[str]:
        """`group/category`s to edit, the likeliest first: those of the nearest samples by the sum of their likeness."""
        points: Counter[str] = Counter()
        for found in self.nearest(query, count):
            points[found["category"]] += found["similarity"]
        return [category for category, _ in points.most_common(2)]

    def _vector(self, text: str) -> dict[str, float]:
        counts = Counter(_sequences(text))
        vector = {sequence: (1 + log(count)) * self._weights.get(sequence, 0.0) for sequence, count in counts.items()}
        length = sqrt(sum(value * value for value in vector.values())) or 1.0
        return {sequence: value / length for sequence, value in vector.items() if value}


class _Sample:
    def __init__(self, row: Row):
        users = [message["content"] for message in row["messages"] if message["role"] == "user"]
        self.user = users[-1]
        self._answer = row["messages"][-1]["content"]
        self._source = row["metadata"].get("source", "")
        self._category = f"{row['metadata'].get('group', '')}/{row['metadata'].get('category', '')}"

    def entry(self, similarity: float) -> dict[str, Any]:
        told = {"source": self._source, "category": self._category, "user": self.user, "answer": self._answer}
        return told | {"similarity": round(similarity, 3)}


def _sequences(text: str) -> list[str]:
    """Letter sequences of each folded word, Turkish letters without their marks, since users leave them out."""
    plain = fold(text).translate(_PLAIN)
    return [
        padded[start : start + order]
        for word in words(plain)
        for padded in [f" {word} "]
        for order in (3, 4, 5)
        for start in range(max(0, len(padded) - order + 1))
    ]


_PLAIN = str.maketrans("çğıöşüâîû", "cgiosuaiu")


def _dot(one: dict[str, float], other: dict[str, float]) -> float:
    if len(other) < len(one):
        one, other = other, one
    return sum(value * other.get(sequence, 0.0) for sequence, value in one.items())
