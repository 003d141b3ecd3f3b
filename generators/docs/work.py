"""What a training computes, counted from its real batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tokens_of_training(
    frames: Path, model: Path, chat_format: dict[str, Any], recipe: dict[str, Any], context: int, seed: int
) -> dict[str, Any] | None:
    """Steps, and the tokens that a step computes and trains on, from the batches as they would be. None where base or frames are missing.

    tokens: a shared prefix once a batch. as_rows: what a trainer computes that gives every sample its prefix, without padding.
    """
    from generators.tokens import Tokenizer
    from generators.train import data

    if not (frames.is_file() and (model / "tokenizer.json").is_file()):
        return None
    rows, training = data.load_rows(frames, Tokenizer.load(model, chat_format), context), recipe["training"]
    each = recipe["framings"]["each_epoch"]
    batches = [
        batch
        for epoch in range(training["epochs"])
        for batch in data.epoch_batches(data.rows_of_epoch(rows, epoch, each), training["batch_size"], seed, epoch)
    ]
    steps = data.plan_steps(rows, training, each, seed)
    computed = [
        sum(len(group.prefix) + sum(len(row.ids) - 1 - len(group.prefix) for row in group.rows) for group in batch) for batch in batches
    ]
    as_rows = sum(len(row.ids) - 1 for batch in batches for group in batch for row in group.rows)
    targets = sum(map(data.target_count, batches))
    return {
        "steps": steps,
        "tokens": round(sum(computed) / steps, 1),
        "as_rows": round(as_rows / steps, 1),
        "targets": round(targets / steps, 1),
        "largest": max(computed),
    }
