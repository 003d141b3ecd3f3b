"""Small training runs on tiny random models: rows of random tokens, and a job around them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from generators.specs.schema import RECIPE
from generators.train import loop, lora
from generators.train.data import Row

LORA: dict[str, Any] = {
    "rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "layers": -1, "dora": False,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    **{name: field["default"] for name, field in RECIPE["training"]["schema"].items()},
    "batch_size": 4, "epochs": 2, "learning_rate": 5e-3, "validate_every": 3, "patience": 0, "checkpoint_every": 2, "log_every": 2,
}  # fmt: skip


class Silent:
    """A watcher that keeps what it is told. at_step: called with each finished step."""

    def __init__(self, at_step: Any = None):
        self.lines: list[str] = []
        self.metrics: list[dict[str, Any]] = []
        self._at_step = at_step

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, step: int, steps: int, loss: float) -> None:
        if self._at_step:
            self._at_step(step)

    def measured(self, metrics: dict[str, Any]) -> None:
        self.metrics.append(metrics)


def random_rows(count: int, vocabulary: int, seed: int = 0, prefixes: tuple[int, ...] = (0, 9, 17), longest: int = 24) -> list[Row]:
    """Rows under several shared prefixes (of the given lengths), of ragged length, some with targets in two runs as in multi-turn samples."""
    chance = random.Random(seed)
    shared = [[chance.randrange(3, vocabulary) for _ in range(length)] for length in prefixes]
    rows = []
    for index in range(count):
        which = chance.randrange(len(prefixes))
        ids = [2, *shared[which], *(chance.randrange(3, vocabulary) for _ in range(chance.randint(6, longest)))]
        start = 1 + len(shared[which]) + chance.randint(2, 4)
        targets = list(range(start, len(ids)))
        if len(targets) > 6 and chance.random() < 0.4:
            del targets[2:4]
        rows.append(Row(f"row/{index}", f"specs/x.yaml:{index}", f"prefix-{which}", 0, tuple(ids), tuple(targets)))
    return rows


def tiny_job(
    model_folder: Path,
    target: Path,
    settings: dict[str, Any] | None = None,
    seed: int = 3,
    stamp: str = "same",
    lora_block: dict[str, Any] | None = None,
    bits: int | None = None,
) -> loop.Job:
    """A run of 14 rows in 8 steps over the tiny model in `model_folder`, writing below `target`. settings, lora_block: over what stands
    above. bits: of the base."""
    from generators.train import load_model

    model, block = load_model(model_folder, bits), LORA | (lora_block or {})
    lora.attach(model, block, seed)
    vocabulary = model.args.vocab_size
    return loop.Job(
        model=model,
        base=model_folder.name,
        lora=block,
        settings=SETTINGS | {"base_bits": bits} | (settings or {}),
        each_epoch="one",
        train=random_rows(14, vocabulary, seed),
        valid=random_rows(5, vocabulary, seed + 1),
        seed=seed,
        stamp=stamp,
        checkpoints=target / "checkpoints",
        metrics=target / "metrics.jsonl",
        adapter=target / "adapter",
    )
