"""Whether gemma:2b trains on an M2 in an hour and 10 GB: operations and bytes counted from the batches that the trainer makes.

    python tests/benchmarks/m2_target.py            # needs doit _frames:jessy-mini base:gemma-3-270m
    python tests/benchmarks/m2_target.py --rows rows.jsonl     # as train_speed.py writes them
    python tests/benchmarks/m2_target.py --check    # the count of bytes against what MLX's allocator measures, on a middling random model

Nothing is measured on an M2: the count says what share of the chip's peak the run needs to end in time, and what it holds at its largest
batch. Writes build/benchmarks/m2_target.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

RECIPE, BASE = "jessy-v2", "gemma-2b"
TOKENISED_AS = ("jessy-mini", "gemma-3-270m")  # the same samples and framings, in a tokenizer of the same line
BUDGET_S, BUDGET_BYTES = 3600, 10e9
# Apple's figures for the M2: float32 operations a second of its GPU with 8 and with 10 cores, and bytes a second of its memory.
PEAK = {"M2, 8 GPU cores": 2.9e12, "M2, 10 GPU cores": 3.6e12}
BANDWIDTH = 100e9
# Arrays of the inner size. On a CPU `--check` finds 5. An H200, where three layers wait, held 36 to 58 (train_speed.py, the peak less the rest
# of this count); on Metal one waits.
_IN_FLIGHT = 20
SHARE = 0.5  # of its peak that large matrix products of MLX can be expected to reach; the count tells what is needed of it


@dataclass(frozen=True)
class Model:
    """Of Gemma, as config.json has it."""

    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head: int
    vocabulary: int

    @classmethod
    def of(cls, shape: dict[str, Any]) -> Model:
        names = (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "vocab_size",
        )
        return cls(*(shape[name] for name in names))

    @property
    def linear(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a block's linear layers."""
        asked, kept = self.heads * self.head, self.key_heads * self.head
        return [
            (self.width, asked),
            *[(self.width, kept)] * 2,
            (asked, self.width),
            *[(self.width, self.inner)] * 2,
            (self.inner, self.width),
        ]

    @property
    def block_weights(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.linear)

    @property
    def after_attention(self) -> int:
        """Of a block's weights, those that the output of attention goes through."""
        return sum(inputs * outputs for inputs, outputs in self.linear[3:])

    @property
    def weights(self) -> int:
        """The head is the embedding."""
        return self.layers * self.block_weights + self.vocabulary * self.width

    def adapter(self, rank: int) -> int:
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.linear)


# --- operations


@dataclass(frozen=True)
class Size:
    """A batch as generators.train.gpu lays it out. tokens, targets: with padding. scores: of attention, of one head."""

    tokens: int
    targets: int
    scores: int


def size_of(batch: Any) -> Size:
    from generators.device import load_mlx
    from generators.train.gpu import sight
    from generators.train.layout import layout_of

    mx = load_mlx()
    layout = layout_of(batch)
    seen = sight.Sight(layout, mx.bfloat16)
    return Size(seen.tokens, sight.rounded(len(layout.targets)), seen.scores)


def step_operations(model: Model, size: Size, rank: int, checkpointing: bool) -> float:
    """Of one step, padding included. A product with a matrix of N weights takes 2 N operations a token, and 2 N in the backward pass, as the
    base's weights get no gradient; the adapter's do. From the last block's attention on, only those tokens go on from which a target is
    predicted. checkpointing: each block forward once more."""
    adapter, scores = model.adapter(rank) / model.layers, 2 * model.heads * model.head * size.scores
    forward = 2 * (size.tokens * (model.block_weights + adapter) + scores)
    backward = 2 * (size.tokens * (model.block_weights + 2 * adapter) + 2 * scores)
    spared = 2 * (size.tokens - size.targets) * model.after_attention
    blocks = model.layers * (forward * (2 if checkpointing else 1) + backward) - spared * (3 if checkpointing else 2)
    return blocks + size.targets * 4 * model.vocabulary * model.width


def validation_operations(model: Model, size: Size, rank: int) -> float:
    products = size.tokens * (model.block_weights + model.adapter(rank) / model.layers)
    blocks = model.layers * 2 * (products + 2 * model.heads * model.head * size.scores)
    spared = 2 * (size.tokens - size.targets) * model.after_attention
    return blocks - spared + size.targets * 2 * model.vocabulary * model.width


# --- bytes


def kept_of_block(model: Model, size: Size) -> int:
    """Numbers that a block keeps for its backward pass: its input and the sum in its middle; queries, keys and values; what attention gave, and
    its weights; gate and up."""
    asked, kept = model.heads * model.head, model.key_heads * model.head
    return size.tokens * (2 * model.width + 2 * asked + 2 * kept + 2 * model.inner) + model.heads * size.scores


def step_bytes(
    model: Model, size: Size, rank: int, bits: int, checkpointing: bool, number: int = 2, chunk: float = 128 * 2**20
) -> dict[str, float]:
    """What a step holds, at most. bits: of a weight of the base's linear layers. number: bytes of an activation. chunk: of logits in float32.

    adapter: weights, gradients, two moments, the best so far, the scales, all float32. With 4 bits a weight the scales of 64 weights take 32
    more; the head is unpacked. logits: those of two chunks and their gradients, in the dtype of the activations. in_flight: results of operations
    that wait for their turn.
    """
    a_block = kept_of_block(model, size)
    activations = (size.tokens * model.layers * model.width + a_block if checkpointing else model.layers * a_block) * number
    bits_held = bits if bits >= 16 else bits + 0.5
    head = model.vocabulary * model.width * (number + (bits_held / 8 if bits < 16 else 0))
    return {
        "base": model.layers * model.block_weights * bits_held / 8 + head,
        "adapter": 6 * 4 * model.adapter(rank),
        "activations": activations,
        "logits": 4 * min(chunk / 4, size.targets * model.vocabulary) * number,
        "in_flight": (_IN_FLIGHT * size.tokens * model.inner + 2 * model.heads * size.scores) * number,
    }


# --- the run


def count(rows: dict[str, list[Any]], recipe: dict[str, Any], seed: int, model: Model) -> dict[str, Any]:
    """The whole run of a recipe on a GPU: its tokens, operations, and bytes at its largest batch, in the ways it can be run."""
    from generators.train import data
    from generators.train.layout import layout_of

    training, each = recipe["training"], recipe["framings"]["each_epoch"]
    epochs = [
        data.epoch_batches(data.rows_of_epoch(rows["train"], epoch, each), training["batch_size"], seed, epoch)
        for epoch in range(training["epochs"])
    ]
    steps = [batch for epoch in epochs for batch in epoch]
    sizes = list(map(size_of, steps))
    judged = list(map(size_of, data.validation_batches(rows["valid"], training["batch_size"])))
    validations = 1 + len(steps) // training["validate_every"] + bool(len(steps) % training["validate_every"])
    tokens = [layout_of(batch).tokens for batch in steps]
    ways = (
        ("16 bits", 16, False),
        ("16 bits, gradient_checkpointing", 16, True),
        ("8 bits, gradient_checkpointing", 8, True),
        ("4 bits", 4, False),
        ("4 bits, gradient_checkpointing", 4, True),
    )
    return {
        "steps": len(steps),
        "largest_tokens": max(tokens),
        "samples_an_epoch": sum(len(group.rows) for batch in epochs[0] for group in batch),
        "tokens": sum(tokens),
        "padded_tokens": sum(size.tokens for size in sizes),
        "target_tokens": sum(map(data.target_count, steps)),
        "ways": {name: _way(model, sizes, judged * validations, recipe["lora"]["rank"], *way) for name, *way in ways},
    }


def _way(model: Model, steps: list[Size], judged: list[Size], rank: int, bits: int, checkpointing: bool) -> dict[str, Any]:
    operations = sum(step_operations(model, size, rank, checkpointing) for size in steps)
    operations += sum(validation_operations(model, size, rank) for size in judged)
    held = [step_bytes(model, size, rank, bits, checkpointing) for size in steps]
    largest = max(held, key=lambda parts: sum(parts.values()))
    passes = (3 if checkpointing else 2) * len(steps) + len(judged)
    return {
        "operations": operations,
        "seconds_reading_weights": passes * largest["base"] / BANDWIDTH,
        "needed_share_of_peak": {chip: operations / BUDGET_S / peak for chip, peak in PEAK.items()},
        "minutes_at_share": {chip: operations / (SHARE * peak) / 60 for chip, peak in PEAK.items()},
        "bytes": largest,
        "bytes_in_all": sum(largest.values()),
        "in_time": all(operations / (SHARE * peak) < BUDGET_S for peak in PEAK.values()),
        "in_memory": sum(largest.values()) < BUDGET_BYTES,
    }


def write_m2_target(target: Path, rows: dict[str, list[Any]]) -> dict[str, Any]:
    """Count the recipe jessy-v2 as the specs have it and write the figures, with what they assume, to `target`."""
    from train_speed import SHAPES

    from generators.docs.figures import COUNTED
    from generators.files import write_json
    from generators.specs.project import load

    project, model = load(ROOT), Model.of(SHAPES[BASE])
    recipe = project.recipes[RECIPE]
    counted = count(rows, recipe, project.project["seed"], model)
    made = {
        "recipe": RECIPE,
        "machine": COUNTED,
        "rows_tokenised_as": TOKENISED_AS[1],
        "rank": recipe["lora"]["rank"],
        "recipe_has": {name: recipe["training"][name] for name in ("batch_size", "epochs", "base_bits", "gradient_checkpointing")},
        "weights": model.weights,
        "weights_of_head": model.vocabulary * model.width,
        "adapter": model.adapter(recipe["lora"]["rank"]),
        "assumed": {"peak_operations_per_s": PEAK, "bytes_per_s": BANDWIDTH, "share_of_peak": SHARE},
        "target": {"seconds": BUDGET_S, "bytes": BUDGET_BYTES},
        **counted,
    }
    write_json(target, made)
    return made


def check() -> None:
    """A gemma of middling size in float32 on this machine, forward and backward once: counted and measured bytes of activations."""
    from generators.device import load_mlx

    mx = load_mlx()
    import random

    from mlx_lm.utils import _get_classes
    from train_speed import LORA

    from generators.train import data, lora
    from generators.train.gpu_engine import GpuEngine

    shape = dict(model_type="gemma", hidden_size=256, num_hidden_layers=6, intermediate_size=2048, num_attention_heads=4, head_dim=64,
                 num_key_value_heads=1, vocab_size=2000, rms_norm_eps=1e-6)  # fmt: skip
    model_class, arguments_class = _get_classes(shape)
    chance = random.Random(0)
    prefix = [chance.randrange(2000) for _ in range(200)]
    rows = []
    for index in range(8):
        ids = (*prefix, *(chance.randrange(2000) for _ in range(100)))
        rows.append(data.Row(str(index), "", "k", 0, ids, tuple(range(210, 300))))
    batch = data.group_rows(rows)
    for checkpointing in (False, True):
        model = model_class(arguments_class.from_dict(shape))
        lora.attach(model, LORA, 0)
        engine = GpuEngine(model, LORA, {"gradient_checkpointing": checkpointing})
        mx.eval(engine.loss_and_gradients(batch))
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(engine.loss_and_gradients(batch))
        counted = step_bytes(Model.of(shape), size_of(batch), LORA["rank"], 32, checkpointing, number=4)
        print(
            f"checkpointing {checkpointing}: counted {(sum(counted.values()) - counted['base'] - counted['adapter']) / 1e6:.0f} MB, "
            f"measured {(mx.get_peak_memory() - before) / 1e6:.0f} MB"
        )


def _rows(path: Path | None) -> dict[str, list[Any]]:
    """By split. Of a file, which holds the train split only, every tenth row stands for the validation split."""
    from generators.train.data import Row, load_rows

    if path:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [Row(str(index), "", line["key"], 0, tuple(line["ids"]), tuple(line["targets"])) for index, line in enumerate(lines)]
        return {"train": rows, "valid": rows[::10]}
    from generators.specs.project import load
    from generators.tokens import Tokenizer

    recipe, base = TOKENISED_AS
    tokenizer = Tokenizer.load(ROOT / "build" / "models" / base, load(ROOT).chat_formats["gemma"])
    frames = ROOT / "build" / "recipes" / recipe / "frames"
    return {split: load_rows(frames / f"{split}.jsonl", tokenizer, 8192) for split in ("train", "valid")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        check()
        return
    made = write_m2_target(ROOT / "build" / "benchmarks" / "m2_target.json", _rows(options.rows))
    print(f"{made['steps']} steps, {made['tokens']} tokens, padded {made['padded_tokens']}, {made['target_tokens']} targets")
    for name, way in made["ways"].items():
        minutes = ", ".join(f"{found:.0f} min on {chip}" for chip, found in way["minutes_at_share"].items())
        share = max(way["needed_share_of_peak"].values())
        print(
            f"{name:32} {way['operations'] / 1e15:5.2f} POP: {minutes} at {SHARE:.0%} of peak (an hour needs {share:.0%} at most); "
            f"{way['bytes_in_all'] / 1e9:5.1f} GB ({', '.join(f'{part} {size / 1e9:.1f}' for part, size in way['bytes'].items())})"
        )


if __name__ == "__main__":
    main()
