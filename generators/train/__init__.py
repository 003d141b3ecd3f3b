"""Training a LoRA adapter on framed samples: `train(...)` is the stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.errors import UserError


def train(
    recipe: dict[str, Any],
    base: Path,
    frames: Path,
    chat_format: dict[str, Any],
    context_length: int,
    seed: int,
    outputs: Any,
    watcher: Any,
) -> dict[str, Any]:
    """Train the recipe's adapter on `frames`/{train,valid}.jsonl over the model in `base`.

    outputs: the recipe's paths (`adapter`, `checkpoints`, `metrics`, `training_summary`). Returns the summary, which is written too.
    Raises UserError for samples that are too long, an interruption, a loss that is no number, a run of the same recipe that goes on
    elsewhere, or a `report_to` that cannot be reported to.
    """
    from generators.files import held, write_json
    from generators.tracking import tracked
    from generators.train import loop

    folder, settings = outputs.metrics.parent, recipe["training"]
    with tracked(watcher, settings["report_to"], folder, folder.name, {**recipe["lora"], **settings, "base": base.name}) as watcher:
        job = _job(recipe, base, frames, chat_format, context_length, seed, outputs, watcher)
        with held(outputs.metrics, f"training of {folder.name}"):
            summary = loop.run(job, watcher)
            write_json(outputs.training_summary, summary)
    return summary


def _job(
    recipe: dict[str, Any],
    base: Path,
    frames: Path,
    chat_format: dict[str, Any],
    context_length: int,
    seed: int,
    outputs: Any,
    watcher: Any,
) -> Any:
    """The rows as token ids, and the model with its adapter."""
    from generators.device import load_mlx
    from generators.tokens import Tokenizer
    from generators.train import data, loop, lora, unlearnt

    load_mlx()
    tokenizer = Tokenizer.load(base, chat_format)
    rows = {split: data.load_rows(frames / f"{split}.jsonl", tokenizer, context_length) for split in ("train", "valid")}
    model = load_model(base, recipe["training"]["base_bits"])
    if told := unlearnt.warning(model, base.name, tokenizer.end_of_turn_id, chat_format["end_of_turn"]):
        watcher.say(told)
    lora.attach(model, recipe["lora"], seed)
    if recipe["training"]["gradient_checkpointing"]:
        from mlx_lm.tuner.trainer import grad_checkpoint

        grad_checkpoint(model.layers[0])
    return loop.Job(
        model=model,
        base=base.name,
        lora=recipe["lora"],
        settings=recipe["training"],
        each_epoch=recipe["framings"]["each_epoch"],
        train=rows["train"],
        valid=rows["valid"],
        seed=seed,
        stamp=_stamp(recipe, base, frames, chat_format, seed),
        checkpoints=outputs.checkpoints,
        metrics=outputs.metrics,
        adapter=outputs.adapter,
    )


def load_model(base: Path, bits: int | None = None) -> Any:
    """The model of an MLX directory in the device's training dtype, or with its linear layers in `bits` bits (QLoRA)."""
    from generators import device

    mx = device.load_mlx()
    import mlx.nn as nn
    from mlx_lm.utils import load_model as load

    try:
        model, _ = load(base, lazy=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the model in {base} cannot be loaded ({error}); run: doit forget base && doit base") from error
    model.set_dtype(getattr(mx, device.current().training_dtype))
    if bits:
        nn.quantize(model, group_size=64, bits=bits)
    mx.eval(model.parameters())
    return model


# What may change without changing the result of a run.
_COSMETIC = ("log_every", "checkpoint_every", "memory_budget_gb", "report_to", "hosts")


def _stamp(recipe: dict[str, Any], base: Path, frames: Path, chat_format: dict[str, Any], seed: int) -> str:
    """Hash of all that determines the adapter."""
    from generators.files import sha256_file, sha256_text, to_json

    settings = {key: value for key, value in recipe["training"].items() if key not in _COSMETIC}
    files = [frames / "train.jsonl", frames / "valid.jsonl", base / "model.safetensors", base / "tokenizer.json"]
    hashes = [sha256_file(path) for path in files if path.is_file()]
    return sha256_text(to_json([settings, recipe["lora"], recipe["framings"], chat_format, seed, hashes]))
