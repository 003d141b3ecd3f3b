"""Train and valid: exact by category, drawn by hashes of the samples' ids, so that what one category does moves nothing in another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from generators.dataset.entries import Entry

_LEAST_FOR_VALID = 5  # a category with so many samples has at least one in valid


@dataclass(frozen=True)
class Split:
    """Indices of the samples of each split, in the order of their files. divided: sources whose expansions lie in both."""

    train: list[int]
    valid: list[int]
    divided: list[str]


def split(entries: Sequence[Entry], valid_share: float, seed: int) -> Split:
    """Every category gives the whole number nearest to its share (a half goes to train), and at least 1 of 5 or more, to valid.

    Those with the smallest keyed hash of seed and id are taken. Samples expanded from one example say nearly the same thing, so they
    go together; where the number cannot be met otherwise, one example of a category is divided.
    """
    by_category: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        by_category.setdefault(entry.category, []).append(index)
    valid: set[int] = set()
    divided: list[str] = []
    for indices in by_category.values():
        chosen, cut = _choose(entries, indices, valid_count(len(indices), valid_share), seed)
        valid |= chosen
        divided += cut
    return Split([i for i in range(len(entries)) if i not in valid], sorted(valid), divided)


def valid_count(samples: int, valid_share: float) -> int:
    """How many of a category's samples go to valid."""
    nearest = int(samples * valid_share + 0.5 - 1e-9)
    return max(nearest, 1) if samples >= _LEAST_FOR_VALID and valid_share > 0 else nearest


def _choose(entries: Sequence[Entry], indices: list[int], wanted: int, seed: int) -> tuple[set[int], list[str]]:
    """Indices for valid, and the source that had to be divided, if any."""
    families: dict[str, list[int]] = {}
    for index in indices:
        families.setdefault(entries[index].source, []).append(index)
    ranked = sorted(families.values(), key=lambda family: keyed_hash(seed, "split", min(entries[index].id for index in family)))
    chosen: set[int] = set()
    passed_over: list[list[int]] = []
    for family in ranked:
        if len(family) <= wanted - len(chosen):
            chosen.update(family)
        else:
            passed_over.append(family)
    missing = wanted - len(chosen)
    if not missing:
        return chosen, []
    family = passed_over[0]
    members = sorted(family, key=lambda index: keyed_hash(seed, "split", entries[index].id))
    return chosen | set(members[:missing]), [entries[family[0]].source]


def shuffled(entries: Sequence[Entry], indices: Iterable[int], seed: int) -> list[int]:
    """In the order of a keyed hash of their ids: a shuffle in which a new sample finds its place and moves no other past another."""
    return sorted(indices, key=lambda index: keyed_hash(seed, "order", entries[index].id))


def keyed_hash(seed: int, purpose: str, name: str) -> bytes:
    """16 bytes, the same on every machine."""
    return hashlib.blake2b(f"{purpose}\0{name}".encode(), digest_size=16, key=str(seed).encode()).digest()
