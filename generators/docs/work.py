"""What a training computes and holds, counted: tokens of the real batches, operations and bytes of a model of a known shape.

Operations: a product of a vector with a matrix of N weights takes 2 N. The forward pass takes 2 N a token, the backward pass through the
activations 2 N again; gradients of the base's own weights are not computed. The head is applied to the targets only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Of a Gemma model, as config.json has it. Source: huggingface.co/google/gemma-1.1-2b-it/blob/main/config.json."""

    hidden: int
    layers: int
    inner: int
    heads: int
    groups: int
    head: int
    vocabulary: int

    @property
    def linear(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of a block."""
        attended, kept = self.heads * self.head, self.groups * self.head
        return [
            (self.hidden, attended),
            (self.hidden, kept),
            (self.hidden, kept),
            (attended, self.hidden),
            (self.hidden, self.inner),
            (self.hidden, self.inner),
            (self.inner, self.hidden),
        ]

    @property
    def in_blocks(self) -> int:
        return self.layers * sum(one * other for one, other in self.linear)

    @property
    def in_head(self) -> int:
        return self.hidden * self.vocabulary

    def in_adapter(self, rank: int) -> int:
        return self.layers * rank * sum(one + other for one, other in self.linear)


GEMMA_2B = Shape(hidden=2048, layers=18, inner=16384, heads=8, groups=1, head=256, vocabulary=256000)


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


def operations(shape: Shape, tokens: float, targets: float, rank: int, checkpointing: bool = False) -> float:
    """Of one step, forward and backward. The adapter's own gradients are a third pass over it; with checkpointing the blocks' forward pass
    is computed twice."""
    again = 2 * (shape.in_blocks + shape.in_adapter(rank)) if checkpointing else 0
    blocks = 4 * shape.in_blocks + 6 * shape.in_adapter(rank) + again
    return tokens * blocks + targets * 4 * shape.in_head


def bytes_held(shape: Shape, tokens: float, rank: int, bits: float, checkpointing: bool) -> dict[str, float]:
    """What lies in memory during a step. bits: of a weight of the base, its scales included.

    Activations in two bytes: of every block what its backward pass reads (the inputs of the norms and of each linear layer, queries, keys,
    values, and four vectors of the inner size), or with checkpointing the block's input and one block's activations. The adapter in four
    bytes: weights, the two moments of Adam, gradients, and the best ones so far. The logits of a chunk are small beside them.
    """
    attended, kept = shape.heads * shape.head, shape.groups * shape.head
    of_block = 2 * (4 * shape.hidden + 3 * attended + 4 * kept + 4 * shape.inner)
    held = tokens * (2 * shape.hidden * shape.layers + of_block if checkpointing else of_block * shape.layers)
    return {
        "base": (shape.in_blocks + shape.in_head) * bits / 8,
        "adapter": 5 * 4 * shape.in_adapter(rank),
        "activations": held,
    }
