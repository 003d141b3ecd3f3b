"""Training a LoRA adapter on framed samples: `train(...)` is the stage."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from generators.errors import UserError


@dataclass(frozen=True)
class Request:
    """What is trained, in plain values, so that another process can be asked to. name: of the run. base, frames: folders. adapter,
    checkpoints, metrics, summary: where the outcome goes. start: folder of an adapter that is trained on, "" for one from nothing."""

    name: str
    recipe: dict[str, Any]
    base: str
    frames: str
    chat_format: dict[str, Any]
    context_length: int
    seed: int
    adapter: str
    checkpoints: str
    metrics: str
    summary: str
    start: str = ""


def train(
    recipe: dict[str, Any],
    base: Path,
    frames: Path,
    chat_format: dict[str, Any],
    context_length: int,
    seed: int,
    outputs: Any,
    watcher: Any,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train the recipe's adapter on `frames`/{train,valid}.jsonl over the model in `base`, on all machines of `training.hosts`.

    start: folder of an adapter of the same form, which is trained on. outputs: the recipe's paths (`adapter`, `checkpoints`, `metrics`,
    `training_summary`). Returns the summary, which is written too.
    Raises UserError for samples that are too long, an interruption, a loss that is no number, a run of the same recipe that goes on
    elsewhere, a machine that is gone, or a `report_to` that cannot be reported to.
    """
    from generators.tracking import tracked
    from generators.train import launch

    folder, settings = outputs.metrics.parent, recipe["training"]
    places = (outputs.adapter, outputs.checkpoints, outputs.metrics, outputs.training_summary)
    where = (str(path.resolve()) for path in places)
    request = Request(folder.name, recipe, str(base.resolve()), str(frames.resolve()), chat_format, context_length, seed, *where)
    request = replace(request, start=str(start.resolve()) if start else "")
    with tracked(watcher, settings["report_to"], folder, folder.name, {**recipe["lora"], **settings, "base": base.name}) as watcher:
        if launch.on_several(settings["hosts"]):
            return launch.run(asdict(request), settings["hosts"], settings["backend"], folder / "launch", watcher)
        return work(request, prepare(request, watcher), watcher)


@dataclass
class Prepared:
    """model: with the adapter of the recipe's `lora` block. rows: by split."""

    model: Any
    rows: dict[str, list[Any]]

    def rows_as_text(self) -> str:
        return json.dumps({split: [list(asdict(row).values()) for row in rows] for split, rows in self.rows.items()})

    def take_rows(self, text: str) -> None:
        """Those that another process wrote with `rows_as_text`."""
        from generators.train.data import Row

        told = json.loads(text)
        self.rows = {
            split: [Row(name, source, key, frame, tuple(ids), tuple(targets)) for name, source, key, frame, ids, targets in rows]
            for split, rows in told.items()
        }


def prepare(request: Request, watcher: Any, rows_too: bool = True) -> Prepared:
    """The model with its adapter, and the samples as token ids (`rows_too`)."""
    from generators.device import load_mlx
    from generators.tokens import Tokenizer
    from generators.train import data, lora, unlearnt

    load_mlx()
    recipe, base, frames = request.recipe, Path(request.base), Path(request.frames)
    tokenizer = Tokenizer.load(base, request.chat_format)
    splits = ("train", "valid") if rows_too else ()
    rows = {split: data.load_rows(frames / f"{split}.jsonl", tokenizer, request.context_length) for split in splits}
    model = load_model(base, recipe["training"]["base_bits"])
    if told := unlearnt.warning(model, base.name, tokenizer.end_of_turn_id, request.chat_format["end_of_turn"]):
        watcher.say(told)
    lora.attach(model, recipe["lora"], request.seed)
    if request.start:
        lora.load(model, recipe["lora"], Path(request.start))
    if recipe["training"]["gradient_checkpointing"]:
        lora.recompute_activations(model)
    return Prepared(model, rows)


def work(request: Request, prepared: Prepared, watcher: Any, peers: Any = None) -> dict[str, Any]:
    """Train what is prepared; returns the run's summary. peers: who trains together (generators.train.peers), of whom the first writes."""
    from generators.files import held, write_json
    from generators.train import loop
    from generators.train.peers import ALONE

    peers, recipe = peers or ALONE, request.recipe
    job = loop.Job(
        model=prepared.model,
        base=Path(request.base).name,
        lora=recipe["lora"],
        settings=recipe["training"],
        each_epoch=recipe["framings"]["each_epoch"],
        train=prepared.rows["train"],
        valid=prepared.rows["valid"],
        seed=request.seed,
        stamp=_stamp(request) if peers.first else "",
        checkpoints=Path(request.checkpoints),
        metrics=Path(request.metrics),
        adapter=Path(request.adapter),
        peers=peers,
    )
    with held(job.metrics, f"training of {request.name}") if peers.first else nullcontext():
        summary = loop.run(job, watcher)
        if peers.first:
            write_json(Path(request.summary), summary)
    return summary


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
_COSMETIC = ("log_every", "checkpoint_every", "memory_budget_gb", "report_to", "hosts", "backend")


def _stamp(request: Request) -> str:
    """Hash of all that determines the adapter."""
    from generators.files import sha256_file, sha256_text, to_json

    recipe, base, frames = request.recipe, Path(request.base), Path(request.frames)
    settings = {key: value for key, value in recipe["training"].items() if key not in _COSMETIC}
    files = [frames / "train.jsonl", frames / "valid.jsonl", base / "model.safetensors", base / "tokenizer.json"]
    files += [Path(request.start) / "adapters.safetensors"] if request.start else []
    hashes = [sha256_file(path) for path in files if path.is_file()]
    return sha256_text(to_json([settings, recipe["lora"], recipe["framings"], request.chat_format, request.seed, hashes]))
