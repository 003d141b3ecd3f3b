"""Training speed: `mlx_lm.lora`'s trainer, torch with PEFT, and ours, in turn, on the same rows, rank, batch size, optimiser and dtype.

    python tests/benchmarks/train_speed.py --shape gemma3-270m --steps 6
    python tests/benchmarks/train_speed.py --device gpu --shape gemma-2b --steps 40
    python tests/benchmarks/train_speed.py --write-rows rows.jsonl      # for a machine without a build: --rows rows.jsonl there

Weights are random in the shape of the real model (speed does not depend on their values); rows are the framed corpus of the default
recipe (`doit _frames:jessy-mini base:gemma-3-270m` first) or a file of `{"key", "ids", "targets"}` lines. Each contender runs in a process
of its own, with the BLAS that training takes; the first steps of each are not counted. Prints samples and target tokens a second, peak
memory and the ratios, and writes them to build/benchmarks/train_speed-<shape>-<batch size>.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

SHAPES: dict[str, dict[str, Any]] = {
    "gemma3-270m": dict(
        model_type="gemma3_text", hidden_size=640, num_hidden_layers=18, intermediate_size=2048, num_attention_heads=4, head_dim=256,
        num_key_value_heads=1, vocab_size=262144, query_pre_attn_scalar=256, sliding_window=512, sliding_window_pattern=6,
    ),
    "gemma-2b": dict(
        model_type="gemma", hidden_size=2048, num_hidden_layers=18, intermediate_size=16384, num_attention_heads=8, head_dim=256,
        num_key_value_heads=1, vocab_size=256000, rms_norm_eps=1e-6,
    ),
    "tiny": dict(  # of no real model: shows in seconds that the contenders run
        model_type="gemma", hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=2, head_dim=32,
        num_key_value_heads=1, vocab_size=4000, rms_norm_eps=1e-6,
    ),
}  # fmt: skip
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0, "layers": -1, "dora": False,
        "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}  # fmt: skip
WARM_UP = 3  # steps; compilation and the first touch of memory
LEARNING_RATE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="gemma3-270m")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "gpu"), help="that of MLX, when it has both")
    parser.add_argument("--checkpointing", action="store_true", help="activations computed twice, by ours and mlx_lm")
    parser.add_argument("--rows", type=Path, help="a file of rows, in place of the default recipe's")
    parser.add_argument("--write-rows", type=Path, help="write such a file and stop")
    parser.add_argument("--contenders", default="mlx_lm,ours")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write_rows:
        lines = [json.dumps({"key": row.key, "ids": row.ids, "targets": row.targets}) for row in _rows(options)]
        options.write_rows.write_text("\n".join(lines) + "\n")
        return
    if options.only:
        _use(options.device)
        print(json.dumps(CONTENDERS[options.only](options)))
        return
    figures = {}
    for name in options.contenders.split(","):
        figures[name] = _in_a_process_of_its_own(name)
        print(name, json.dumps(figures[name]), flush=True)
        ratios = _write(options, figures)  # each time: the next one may be stopped for want of time or memory
    _print_table(figures, ratios)


def _use(device: str | None) -> None:
    from generators.device import load_mlx

    mx = load_mlx()
    if device == "cpu":
        mx.set_default_device(mx.cpu)
    elif device == "gpu" and mx.default_device() == mx.Device(mx.cpu):
        raise SystemExit("MLX has no GPU here; pip install 'mlx[cuda13]' on Linux")


def _in_a_process_of_its_own(name: str) -> dict[str, Any]:
    finished = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", name], capture_output=True, text=True)
    if finished.returncode:
        return {"error": finished.stderr.strip()[-2000:]}
    return json.loads(finished.stdout.strip().splitlines()[-1])


def _write(options: argparse.Namespace, figures: dict[str, Any]) -> dict[str, float | None]:
    import platform
    from importlib import metadata

    def ratio(field: str, other: str) -> float | None:
        mine, theirs = figures.get("ours", {}).get(field), figures.get(other, {}).get(field)
        return mine / theirs if mine and theirs else None

    made: dict[str, Any] = {
        "shape": options.shape, "batch_size": options.batch_size, "steps": options.steps, "checkpointing": options.checkpointing,
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "device": figures.get("ours", {}).get("device")},
        "versions": {name: _version(metadata, name) for name in ("mlx", "mlx-lm", "torch", "peft", "numpy")},
        "contenders": figures,
        "ratios": {f"{field} to {other}": ratio(field, other)
                   for other in figures if other != "ours" for field in ("samples_per_s", "target_tokens_per_s", "peak_bytes")},
    }  # fmt: skip
    target = ROOT / "build" / "benchmarks" / f"train_speed-{options.shape}-{options.batch_size}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(made, indent=2) + "\n")
    return made["ratios"]


def _print_table(figures: dict[str, Any], ratios: dict[str, float | None]) -> None:
    print(f"{'':12} {'samples/s':>10} {'targets/s':>10} {'s a step':>10} {'peak GB':>10}")
    for name, found in figures.items():
        if "error" in found:
            print(f"{name:12} failed: {found['error'].splitlines()[-1] if found['error'] else 'without a word'}")
            continue
        numbers = (found["samples_per_s"], found["target_tokens_per_s"], found["seconds_per_step"], found["peak_bytes"] / 1e9)
        print(f"{name:12} " + " ".join(f"{number:10.3f}" for number in numbers))
    for what, ratio in ratios.items():
        print(f"ours, {what}: " + (f"{ratio:.2f}" if ratio else "not known"))


def _version(metadata: Any, name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _rows(options: argparse.Namespace) -> list[Any]:
    """One epoch's rows: the first frame of every sample."""
    from generators.train.data import Row, load_rows

    if options.rows:
        lines = [json.loads(line) for line in options.rows.read_text().splitlines()]
        size = SHAPES[options.shape]["vocab_size"]  # which token it is does not matter to speed, that the model has it does
        return [
            Row(str(index), "", line["key"], 0, tuple(id % size for id in line["ids"]), tuple(line["targets"]))
            for index, line in enumerate(lines)
        ]
    from dataclasses import replace

    from generators.specs.project import load
    from generators.tokens import Tokenizer

    tokenizer = Tokenizer.load(ROOT / "build/models/gemma-3-270m", load(ROOT).chat_formats["gemma"])
    rows = load_rows(ROOT / "build/recipes/jessy-mini/frames/train.jsonl", tokenizer, 4096)
    size = SHAPES[options.shape]["vocab_size"]
    return [replace(row, ids=tuple(id % size for id in row.ids)) for row in rows if row.frame == 0]


def _random_model(shape: str, adapters: bool) -> Any:
    """In the training dtype of this device, with small weights so that nothing overflows; with our adapters or none."""
    from generators import device

    mx = device.load_mlx()
    from mlx.utils import tree_map
    from mlx_lm.utils import _get_classes

    config = SHAPES[shape]
    model_class, arguments_class = _get_classes(config)
    model = model_class(arguments_class.from_dict(config))
    if shape == "gemma3-270m":
        model.sanitize({})
    dtype = getattr(mx, device.current().training_dtype)
    mx.random.seed(0)
    model.update(tree_map(lambda array: (0.02 * mx.random.normal(array.shape)).astype(dtype), model.parameters()))
    mx.eval(model.parameters())
    if adapters:
        from generators.train import lora

        lora.attach(model, LORA, 0)
    mx.clear_cache()
    mx.reset_peak_memory()  # making random weights is no part of training
    return model


class _Marks:
    """A watcher that notes when each step is done."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def say(self, line: str) -> None:
        print(line, file=sys.stderr)

    def step(self, step: int, steps: int, loss: float) -> None:
        self.at.append(time.perf_counter())

    def measured(self, metrics: dict[str, Any]) -> None:
        """Its rates are of the whole run, the warm-up too."""


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """The training loop as `doit train` runs it, its clipping and its lines of metrics included; validations and checkpoints are not counted."""
    import tempfile

    from generators import device
    from generators.specs.schema import RECIPE
    from generators.train import data, loop, lora

    device.load_mlx()
    model, rows = _random_model(options.shape, adapters=True), _rows(options)
    if options.checkpointing:
        lora.recompute_activations(model)  # of the model's own code; the engines read it from the settings
    per_epoch = -(-len(rows) // options.batch_size)
    warm = per_epoch if device.current().kind != "cpu" else WARM_UP  # on a GPU every size is compiled once
    epochs, rare = -(-(warm + options.steps) // per_epoch), 10**9
    settings = {name: field["default"] for name, field in RECIPE["training"]["schema"].items()} | {
        "optimiser": "adam", "learning_rate": LEARNING_RATE, "batch_size": options.batch_size, "epochs": epochs, "memory_budget_gb": rare,
        "gradient_checkpointing": options.checkpointing,
        "max_steps": warm + options.steps, "validate_every": rare, "checkpoint_every": rare, "patience": 0,
    }  # fmt: skip
    marks = _Marks()
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        loop.run(
            loop.Job(model, options.shape, LORA, settings, "one", rows, rows[: options.batch_size], 0, "", at / "c", at / "m", at / "a"),
            marks,
        )
    batches = [batch for epoch in range(epochs) for batch in data.epoch_batches(rows, options.batch_size, 0, epoch)]
    counted = batches[warm : warm + options.steps]
    samples = sum(len(group.rows) for batch in counted for group in batch)
    return _figures(marks.at[-1] - marks.at[warm - 1], samples, sum(map(data.target_count, counted)), options.steps)


def mlx_lm(options: argparse.Namespace) -> dict[str, Any]:
    """The stock trainer's own batching, loss and compiled step."""
    from generators import device

    mx = device.load_mlx()
    import mlx.optimizers as optim
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = _random_model(options.shape, adapters=False)
    model.freeze()
    keys = [f"self_attn.{name}" for name in LORA["targets"][:4]] + [f"mlp.{name}" for name in LORA["targets"][4:]]
    linear_to_lora_layers(model, len(model.layers), {"rank": 16, "scale": 2.0, "dropout": 0.0, "keys": keys})
    rows = _rows(options)
    dataset = [(list(row.ids), row.targets[0]) for row in rows]
    marks: list[float] = []
    seen: list[tuple[int, int]] = []

    def batches(**arguments: Any) -> Any:
        for batch, lengths in trainer.iterate_batches(**arguments):
            mx.synchronize()
            marks.append(time.perf_counter())
            seen.append((len(lengths), int((lengths[:, 1] - lengths[:, 0]).sum().item())))
            yield batch, lengths

    warm = len(rows) // options.batch_size if device.current().kind != "cpu" else WARM_UP
    arguments = trainer.TrainingArgs(
        batch_size=options.batch_size,
        iters=warm + options.steps + 1,
        steps_per_report=1,
        steps_per_eval=10**9,
        steps_per_save=10**9,
        max_seq_length=4096,
        adapter_file="/dev/null",
        grad_checkpoint=options.checkpointing,
    )
    sys.stdout = sys.stderr
    adam = optim.Adam(learning_rate=LEARNING_RATE, bias_correction=True)
    trainer.train(model, adam, dataset, args=arguments, iterate_batches=batches)
    sys.stdout = sys.__stdout__
    seconds = marks[warm + options.steps] - marks[warm]
    counted = seen[warm : warm + options.steps]
    return _figures(seconds, sum(rows for rows, _ in counted), sum(targets for _, targets in counted), options.steps)


def torch_peft(options: argparse.Namespace) -> dict[str, Any]:
    """transformers' model, PEFT's LoRA, padded batches sorted by length, bfloat16."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, GemmaConfig

    if options.shape != "gemma-2b":
        raise SystemExit("torch_peft runs the shape gemma-2b only")
    shape = {name: value for name, value in SHAPES[options.shape].items() if name != "model_type"}
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(GemmaConfig(**shape), dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=LORA["targets"], task_type="CAUSAL_LM"))
    optimiser = torch.optim.AdamW([array for array in model.parameters() if array.requires_grad], lr=LEARNING_RATE)
    rows = sorted(_rows(options), key=lambda row: len(row.ids))
    batches = [rows[start : start + options.batch_size] for start in range(0, len(rows) - options.batch_size + 1, options.batch_size)]

    def step(batch: list[Any]) -> None:
        longest = max(len(row.ids) for row in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        labels = torch.full((len(batch), longest), -100)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for index, row in enumerate(batch):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
            mask[index, : len(row.ids)] = 1
            labels[index, list(row.targets)] = ids[index, list(row.targets)]
        model(input_ids=ids.cuda(), attention_mask=mask.cuda(), labels=labels.cuda()).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    for batch in batches[:WARM_UP]:
        step(batch)
    counted = [batches[(index * 7) % len(batches)] for index in range(options.steps)]
    torch.cuda.synchronize()
    start = time.perf_counter()
    for batch in counted:
        step(batch)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    figures = _rates(seconds, sum(map(len, counted)), sum(len(row.targets) for batch in counted for row in batch), options.steps)
    return figures | {"peak_bytes": torch.cuda.max_memory_allocated(), "device": torch.cuda.get_device_name()}


def _figures(seconds: float, samples: int, targets: int, steps: int) -> dict[str, Any]:
    from generators import device
    from generators.train.accelerator import Meter

    here = device.current()
    return _rates(seconds, samples, targets, steps) | {
        "peak_bytes": Meter(here).read().peak,
        "device": f"{here.kind}: {here.name}, BLAS {here.blas}",
    }


def _rates(seconds: float, samples: int, targets: int, steps: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "seconds_per_step": seconds / steps,
        "samples_per_s": samples / seconds,
        "target_tokens_per_s": targets / seconds,
    }


CONTENDERS = {"ours": ours, "mlx_lm": mlx_lm, "torch_peft": torch_peft}

if __name__ == "__main__":
    main()
