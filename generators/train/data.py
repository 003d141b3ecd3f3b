"""Framed rows to token ids, and an epoch to batches: every row once, neighbours alike in prefix and length."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import read_jsonl
from generators.tokens import Tokenizer


@dataclass(frozen=True)
class Row:
    """One framed conversation. ids: its tokens. targets: positions in `ids` of the tokens that are trained on, rising, none of them 0.
    key: rows with the same key begin alike. frame: which of its sample's frames it is."""

    id: str
    source: str
    key: str
    frame: int
    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Rows that share their first tokens. prefix: the shared ids, computed once for the group; it holds no target, and each row has
    at least one token between it and its first target."""

    prefix: tuple[int, ...]
    rows: tuple[Row, ...]


Batch = tuple[Group, ...]


def load_rows(frames: Path, tokenizer: Tokenizer, max_tokens: int) -> list[Row]:
    """Raises UserError naming every sample that is longer than `max_tokens`: nothing is ever cut."""
    rows, too_long = [], []
    for framed in read_jsonl(frames):
        metadata = framed["metadata"]
        encoded = tokenizer.encode_sample(framed["messages"])
        if len(encoded.ids) > max_tokens:
            too_long.append(
                f"{metadata['source']}: {len(encoded.ids)} tokens in the framing {metadata['framing']}, {max_tokens} are allowed"
            )
        targets = tuple(position for position, is_target in enumerate(encoded.target) if is_target)
        key = f"{metadata['framing']}/{metadata.get('stage', 0)}/{metadata.get('wording', 0)}"
        rows.append(Row(metadata["id"], metadata["source"], key, metadata["frame"], tuple(encoded.ids), targets))
    if too_long:
        raise UserError("samples too long for the base model's context_length; shorten them or raise it:\n" + "\n".join(too_long))
    if not rows:
        raise UserError(f"{frames} holds no samples")
    return rows


def rows_of_epoch(rows: Sequence[Row], epoch: int, each_epoch: str) -> list[Row]:
    """`all` frames of every sample, or `one`: its frames take turns over the epochs."""
    if each_epoch == "all":
        return list(rows)
    frames = 1 + max(row.frame for row in rows)
    return [row for row in rows if row.frame == epoch % frames]


def epoch_batches(rows: Sequence[Row], batch_size: int, seed: int, epoch: int) -> list[Batch]:
    """Every row exactly once, in batches of `batch_size` (the last may be smaller), in a seeded order that changes by epoch.

    Rows of one key come together, roughly by length, so that a batch has one prefix and little padding; what is left over from the
    keys is joined to batches of several groups.
    """
    chance = random.Random(f"{seed}:{epoch}")
    by_key: dict[str, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    batches: list[list[Row]] = []
    leftovers: list[Row] = []
    for key in sorted(by_key):
        alike = _alike_in_length(by_key[key], chance)
        full = len(alike) - len(alike) % batch_size
        batches += [alike[start : start + batch_size] for start in range(0, full, batch_size)]
        leftovers += alike[full:]
    batches += [leftovers[start : start + batch_size] for start in range(0, len(leftovers), batch_size)]
    last_is_small = len(batches) > 1 and len(batches[-1]) < batch_size
    chance.shuffle(batches)
    if last_is_small:  # a small batch makes a noisy step; late is where the learning rate is lowest
        batches.sort(key=lambda batch: len(batch) < batch_size)
    return [group_rows(batch) for batch in batches]


def validation_batches(rows: Sequence[Row], batch_size: int) -> list[Batch]:
    """Every row once, in a fixed order."""
    ordered = sorted(rows, key=lambda row: (row.key, len(row.ids), row.id))
    return [group_rows(ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]


def _alike_in_length(rows: list[Row], chance: random.Random) -> list[Row]:
    """Sorted by length, with a jitter so small that padding stays rare and batches still differ from epoch to epoch."""
    jittered = [(len(row.ids) * chance.uniform(0.97, 1.03), index) for index, row in enumerate(rows)]
    return [rows[index] for _, index in sorted(jittered)]


def group_rows(rows: Iterable[Row]) -> Batch:
    """Rows of one key to one group with the longest prefix they share."""
    by_key: dict[str, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    return tuple(Group(_shared_prefix(members), tuple(members)) for members in by_key.values())


def _shared_prefix(rows: Sequence[Row]) -> tuple[int, ...]:
    """The longest run of first tokens that all rows share, one token short of the earliest target; empty for a single row."""
    if len(rows) == 1:
        return ()
    low, high = min(row.ids for row in rows), max(row.ids for row in rows)
    most = min(min(row.targets[0] for row in rows) - 1, len(low), len(high))
    length = next((index for index in range(most) if low[index] != high[index]), most)
    return low[:length]


def target_count(batch: Batch) -> int:
    return sum(len(row.targets) for group in batch for row in group.rows)


def describe(batch: Batch) -> list[str]:
    """`id (file:line)` of every sample in the batch, for messages."""
    return [f"{row.id} ({row.source})" for group in batch for row in group.rows]


def plan_steps(rows: Sequence[Row], training: dict[str, Any], each_epoch: str, seed: int) -> int:
    """How many optimiser steps the recipe makes, before early stopping."""
    steps = 0
    for epoch in range(training["epochs"]):
        batches = -(-len(rows_of_epoch(rows, epoch, each_epoch)) // training["batch_size"])
        steps += -(-batches // training["accumulation"])
    return min(steps, training["max_steps"] or steps)
