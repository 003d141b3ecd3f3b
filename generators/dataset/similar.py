"""Texts that say nearly the same: how they are compared, and how all such pairs are found without comparing all pairs.

The similarity of two texts is 1 - d / n, where d is the Levenshtein distance and n the length of the longer (rapidfuzz's
`Levenshtein.normalized_similarity`), after letter case, punctuation and Turkish letters are levelled. So at 0.9 a text of fewer than ten
letters is like no other but itself ("selam", "selamlar"), and one of fifty may differ in five.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from generators.turkish import fold

if TYPE_CHECKING:
    import numpy

EXACT_WORK = 2 * 10**10  # squared number of texts times their mean length (20,000 of 50 letters) up to which every pair is compared
_CHUNK_LETTERS = 2**16
_BLOCK = 512
_SHINGLE, _LONG_SHINGLE = 3, 4  # letters; in long texts runs of three are too common to tell them apart
_LONG = 120  # letters, on average
_BANDS, _ROWS = 32, 4  # two texts with a Jaccard similarity of 0.55 of their shingles share a band with probability 0.95
_NEIGHBOURS = 64  # texts of one bucket that a text is compared with

_PUNCTUATION = re.compile(r"[.,!?;:…\"'’‘“”„«»()\[\]{}`]")
_BREAKS = re.compile(r"[\s\-–—]+")
_DRAWN_OUT = re.compile(r"([^\W\d_])\1{2,}")
_ASCII = str.maketrans("çğıöşüâîû", "cgiosuaiu")


class Pair(NamedTuple):
    """Indices of two texts and their similarity."""

    one: int
    other: int
    similarity: float


def normalised(text: str) -> str:
    """Turkish lower case, no punctuation, single blanks: two texts with the same are the same text."""
    folded = fold(text)
    return _BREAKS.sub(" ", _PUNCTUATION.sub("", folded)).strip() or _BREAKS.sub(" ", folded).strip()


def levelled(text: str) -> str:
    """Of a normalised text: Turkish letters as a foreign keyboard types them, drawn-out letters ("yaaaa") once."""
    return _DRAWN_OUT.sub(r"\1", text.translate(_ASCII))


def in_word_order(text: str) -> str:
    """The words sorted: Turkish says the same in many orders."""
    return " ".join(sorted(text.split()))


def similar_pairs(texts: Sequence[str], families: Sequence[str], threshold: float, exact_work: int = EXACT_WORK) -> list[Pair]:
    """Pairs of levelled texts of different families with a similarity of at least `threshold`, one pair for two families.

    Up to `exact_work` all pairs are compared; beyond, those that MinHash proposes, in time that grows with the number of texts rather
    than of pairs.
    """
    found: dict[tuple[str, str], Pair] = {}
    work = len(texts) * sum(map(len, texts))
    pairs = _compared(texts, families, threshold) if work <= exact_work else _proposed(texts, families, threshold)
    for pair in pairs:
        key = tuple(sorted((families[pair.one], families[pair.other])))
        if key not in found or found[key].similarity < pair.similarity:
            found[key] = pair  # type: ignore[index]
    return sorted(found.values())


def matches_between(queries: Sequence[str], texts: Sequence[str], threshold: float) -> Iterator[Pair]:
    """Pairs (query, text) with a similarity of at least `threshold`."""
    import numpy
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    if not queries:
        return
    for start in range(0, len(texts), _BLOCK * 8):
        block = texts[start : start + _BLOCK * 8]
        scores = cdist(queries, block, scorer=Levenshtein.normalized_similarity, score_cutoff=threshold, dtype=numpy.float32, workers=-1)
        for one, other in zip(*numpy.nonzero(scores), strict=True):
            yield Pair(int(one), start + int(other), float(scores[one, other]))


def _compared(texts: Sequence[str], families: Sequence[str], threshold: float) -> Iterator[Pair]:
    """Every pair whose lengths allow the similarity: the texts are sorted by length, and each meets those not much longer."""
    import numpy
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    lengths = numpy.array([len(texts[index]) for index in order])
    ordered = [texts[index] for index in order]
    for start in range(0, len(order), _BLOCK):
        end = min(start + _BLOCK, len(order))
        reach = int(numpy.searchsorted(lengths, lengths[end - 1] / max(threshold, 1e-9) + 1e-9, side="right"))
        scores = cdist(
            ordered[start:end],
            ordered[start:reach],
            scorer=Levenshtein.normalized_similarity,
            score_cutoff=threshold,
            dtype=numpy.float32,
            workers=-1,
        )
        for row, column in zip(*numpy.nonzero(numpy.triu(scores, 1)), strict=True):
            one, other = sorted((order[start + int(row)], order[start + int(column)]))
            if families[one] != families[other]:
                yield Pair(one, other, float(scores[row, column]))


def _proposed(texts: Sequence[str], families: Sequence[str], threshold: float) -> Iterator[Pair]:
    """MinHash (Broder 1997) over runs of three letters, banded; what shares a band is compared."""
    from rapidfuzz.distance import Levenshtein

    seen: set[tuple[int, int]] = set()
    for bucket in _buckets(_signatures(texts)):
        for one, other in _different(bucket, texts, families, threshold):
            if (one, other) in seen:
                continue
            seen.add((one, other))
            similarity = Levenshtein.normalized_similarity(texts[one], texts[other], score_cutoff=threshold)
            if similarity >= threshold:
                yield Pair(one, other, similarity)


def _different(bucket: Sequence[int], texts: Sequence[str], families: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs of a bucket, one text a family, each with those of its neighbours by length whose length allows the similarity."""
    first: dict[str, int] = {}
    for index in bucket:
        first.setdefault(families[index], index)
    members = sorted(first.values(), key=lambda index: (len(texts[index]), texts[index]))
    for position, one in enumerate(members):
        for other in members[position + 1 : position + 1 + _NEIGHBOURS]:
            if len(texts[one]) < threshold * len(texts[other]):
                break
            yield min(one, other), max(one, other)


def _buckets(signatures: numpy.ndarray) -> Iterator[list[int]]:
    """Indices of texts that agree in all rows of a band. signatures: (texts, bands * rows) uint32."""
    import numpy

    for band in range(_BANDS):
        rows = signatures[:, band * _ROWS : (band + 1) * _ROWS].astype(numpy.uint64)
        keys = rows[:, 0] * numpy.uint64(0x9E3779B97F4A7C15)
        for column in range(1, _ROWS):
            keys = (keys ^ rows[:, column]) * numpy.uint64(0x9E3779B97F4A7C15)
        order = numpy.argsort(keys, kind="stable")
        edges = numpy.flatnonzero(numpy.diff(keys[order])) + 1
        starts, ends = numpy.concatenate(([0], edges)), numpy.concatenate((edges, [len(order)]))
        for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
            yield order[start:end].tolist()


def _signatures(texts: Sequence[str]) -> numpy.ndarray:
    """(texts, bands * rows) uint32: for each of so many hash functions the smallest hash of any shingle of the text."""
    import numpy

    size = _LONG_SHINGLE if sum(map(len, texts)) > _LONG * len(texts) else _SHINGLE
    functions = numpy.random.default_rng(0).integers(1, 2**32, size=(2, _BANDS * _ROWS), dtype=numpy.uint32) | numpy.uint32(1)
    signatures = numpy.empty((len(texts), _BANDS * _ROWS), dtype=numpy.uint32)
    for start, end in _chunks(texts):
        hashes, starts = _shingles(texts[start:end], size)
        mixed = numpy.empty_like(hashes)
        for column in range(functions.shape[1]):
            numpy.multiply(hashes, functions[0, column], out=mixed)
            numpy.add(mixed, functions[1, column], out=mixed)
            numpy.minimum.reduceat(mixed, starts, out=signatures[start:end, column])
    return signatures


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(start, end) of runs of texts whose letters together fit a processor's cache."""
    start, letters = 0, 0
    for index, text in enumerate(texts):
        letters += len(text)
        if letters >= _CHUNK_LETTERS:
            yield start, index + 1
            start, letters = index + 1, 0
    if start < len(texts):
        yield start, len(texts)


def _shingles(texts: Sequence[str], size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(hashes of the runs of `size` letters of every text, uint32; where each text's runs start)."""
    import numpy

    padded = [f" {text}" + " " * (size - 1) for text in texts]  # at least one run each
    letters = numpy.frombuffer("".join(padded).encode("utf-32-le"), dtype=numpy.uint32).astype(numpy.uint64)
    lengths = numpy.array([len(text) for text in padded])
    hashes = numpy.zeros(len(letters), dtype=numpy.uint64)
    for step in range(size):
        hashes[: len(letters) - step] = (hashes[: len(letters) - step] ^ letters[step:]) * numpy.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> numpy.uint64(32)
    ends = numpy.cumsum(lengths)
    inside = numpy.ones(len(letters), dtype=bool)
    for step in range(1, size):
        inside[ends - step] = False  # a run that reaches over the text's end
    starts = numpy.concatenate(([0], numpy.cumsum(lengths - size + 1)[:-1]))
    return hashes[inside].astype(numpy.uint32), starts
