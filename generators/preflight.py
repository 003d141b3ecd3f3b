"""The whole chain on a tiny random model before the long run, and whether this machine has room for the long run.

The model is of the base's architecture, with two narrow layers, random weights and the base's own tokenizer. It is trained for two steps,
fused, written as GGUF, loaded by llama.cpp and asked for one answer, with the recipe's own settings wherever they do not decide about
size. All of it happens in a folder that the caller removes, and in a process of its own, `python -m generators.preflight JOB`, whose
memory is gone before training begins.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import human_bytes, human_seconds, read_json, write_json

LARGE = 1_000_000_000  # parameters: training a larger base takes so long that a minute spent before is well spent
STEPS, BATCH, ACCUMULATION = 2, 4, 2  # ACCUMULATION: at most
# At most. Narrow, because the vocabulary is the real one; the rows of ffn_down and attn_output are long enough for K-quants (256).
_LAYERS, _WIDTH, _INNER, _HEADS, _KEY_HEADS, _HEAD = 2, 64, 512, 4, 2, 64
_ANSWER_TOKENS = 8
_RESULT, _LOG = "result.json", "log.txt"

Report = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What the chain is run on. folder: everything is written there; its frames/ holds train.jsonl and valid.jsonl. base: the imported
    base, of which configuration and tokenizer are read. metadata: texts by GGUF key."""

    name: str
    folder: str
    base: str
    recipe: dict[str, Any]
    chat_format: dict[str, Any]
    context_length: int
    seed: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class Needs:
    """Of the real run. seconds: of training. memory: of the stage that takes most. weights: bytes that the base alone takes in training.
    disk: of all that is written."""

    seconds: float
    memory: int
    weights: int
    disk: int


@dataclass(frozen=True)
class Room:
    """Of this machine, in bytes. memory: of the accelerator, where it has its own. None: the system does not tell."""

    memory: int | None
    free_memory: int | None
    free_disk: int


def samples_needed(recipe: dict[str, Any]) -> int:
    """Samples for two steps in one frame each."""
    return STEPS * _batch_size(recipe) * _accumulation(recipe)


def check_room(needs: Needs, room: Room, report: Report) -> None:
    """Tell what the real run takes and what there is. Raises UserError where it cannot fit, warns where it may not."""
    free = f"{human_bytes(room.free_memory)} free of {human_bytes(room.memory)}" if room.memory and room.free_memory else "not known here"
    report(
        f"the real run: about {human_seconds(needs.seconds)} of training, {human_bytes(needs.memory)} of memory ({free}), "
        f"{human_bytes(needs.disk)} on disk ({human_bytes(room.free_disk)} free)"
    )
    if room.free_disk < needs.disk:
        raise UserError(f"the real run writes {human_bytes(needs.disk)} and {human_bytes(room.free_disk)} are free on that disk; make room")
    if room.memory and room.memory < needs.weights:
        raise UserError(
            f"the base alone takes {human_bytes(needs.weights)} of memory in training and this machine has {human_bytes(room.memory)}; "
            "set training.base_bits to 4 or 8, or choose a smaller base"
        )
    if room.free_memory and room.free_memory < needs.memory:
        report(
            f"WARNING: that is more memory than is free; close other programs, or see training.base_bits, training.batch_size and "
            f"training.gradient_checkpointing ({human_bytes(needs.memory)} is an estimate)"
        )


def run(job: Job, report: Report) -> dict[str, float]:
    """The chain in a process of its own. Returns the seconds of each of its stages. Raises UserError naming the stage that failed."""
    folder = Path(job.folder)
    request = folder / "job.json"
    write_json(request, asdict(job))
    started = time.perf_counter()
    with (folder / _LOG).open("wb") as log:
        command = [sys.executable, "-m", "generators.preflight", str(request.resolve())]
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=Path(__file__).parents[1]).returncode
    if not (folder / _RESULT).is_file():
        raise UserError(f"preflight of {job.name} {_how_it_ended(code, folder / _LOG)}")
    result = read_json(folder / _RESULT)
    if "error" in result:
        raise UserError(f"preflight of {job.name} failed {result['error']}")
    seconds: dict[str, float] = result["seconds"]
    stages = ", ".join(f"{stage} {human_seconds(taken)}" for stage, taken in seconds.items())
    report(f"the chain works on a random model of {_LAYERS} layers: {human_seconds(time.perf_counter() - started)} ({stages})")
    return seconds


def _how_it_ended(code: int, log: Path) -> str:
    if code == -9:
        return "was killed, most likely for want of memory; close other programs"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"ended with code {code}: {lines[-1].strip() if lines else 'it said nothing'}"


# --- the chain --------------------------------------------------------------------------------------------------------------------


def chain(job: Job) -> dict[str, float]:
    """Random model, train, fuse, GGUF, answer; returns the seconds of each. Raises UserError, the stage's name first."""
    from generators.fuse import fuse
    from generators.paths import RecipePaths
    from generators.train import train

    folder, chat_format = Path(job.folder), job.chat_format
    outputs = RecipePaths(folder / job.name)
    base = folder / "base"
    seconds: dict[str, float] = {}
    with _stage("in the random model", seconds):
        write_random_model(Path(job.base), base, job.seed)
    with _stage("in training", seconds):
        recipe = small_recipe(job.recipe)
        train(recipe, base, folder / "frames", chat_format, job.context_length, job.seed, outputs, _Unwatched())
    with _stage("in fusing", seconds):
        fuse(base, outputs.adapter, outputs.fused, _to_log)
    for quantisation in job.recipe["export"]["quantisations"]:
        with _stage(f"in {quantisation}", seconds):
            _export(job, base, outputs.adapter, outputs.gguf(quantisation), quantisation)
    return {stage.removeprefix("in ").removeprefix("the "): taken for stage, taken in seconds.items()}


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    seconds[name] = round(time.perf_counter() - started, 3)


def _export(job: Job, base: Path, adapter: Path, target: Path, quantisation: str) -> None:
    """Write the GGUF, check it, and hear an answer: whatever it says, it has to be one."""
    from generators.chat_format import jinja_template, render
    from generators.gguf import check_gguf, write_gguf
    from generators.llama_server import serving

    template, end = jinja_template(job.chat_format), job.chat_format["end_of_turn"]
    write_gguf(base, adapter, target, quantisation, template, job.metadata, _to_log, end_of_turn=end)
    check_gguf(target, base)
    prompt = render(job.chat_format, [{"role": "user", "content": "Merhaba!"}])
    with serving(target, context=512) as server:
        answer = server.post("/completion", {"prompt": prompt, "n_predict": _ANSWER_TOKENS, "temperature": 0, "ignore_eos": True})
    if answer["tokens_predicted"] != _ANSWER_TOKENS:
        raise UserError(f"llama.cpp predicted {answer['tokens_predicted']} tokens where {_ANSWER_TOKENS} were asked for")


def _to_log(line: str) -> None:
    print(line, flush=True)


class _Unwatched:
    """What the run says goes to the log; its pace and loss say nothing about the real one."""

    def say(self, line: str) -> None:
        _to_log(line)

    def step(self, step: int, steps: int, loss: float) -> None:
        _to_log(f"step {step} of {steps}: loss {loss}")

    def measured(self, metrics: dict[str, Any]) -> None:
        _to_log(str(metrics))


def small_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with two steps, each logged, the first kept in a checkpoint, validated before and after, reported nowhere else."""
    short: dict[str, Any] = {
        "batch_size": _batch_size(recipe),
        "accumulation": _accumulation(recipe),
        "epochs": 1,
        "max_steps": STEPS,
        "validate_every": STEPS,
        "checkpoint_every": 1,
        "log_every": 1,
        "patience": 0,
        "report_to": None,
        "hosts": [],
    }
    layers = min(recipe["lora"]["layers"], _LAYERS)
    return {**recipe, "training": {**recipe["training"], **short}, "lora": {**recipe["lora"], "layers": layers}}


def _batch_size(recipe: dict[str, Any]) -> int:
    return min(BATCH, recipe["training"]["batch_size"])


def _accumulation(recipe: dict[str, Any]) -> int:
    return min(ACCUMULATION, recipe["training"]["accumulation"])


# --- the random model -------------------------------------------------------------------------------------------------------------


def small_config(config: dict[str, Any], where: object) -> dict[str, Any]:
    """The base's config.json (as `base` writes it) with two narrow layers. Heads share keys where they do in the base."""
    from generators.architectures import of_config

    architecture = of_config(config, where)
    width = min(_WIDTH, config["hidden_size"])
    queries, keys = config["num_attention_heads"], config["num_key_value_heads"]
    key_heads = min(_KEY_HEADS, keys)
    heads = key_heads * min(queries // keys, _HEADS // key_heads)
    small = {
        **config,
        "num_hidden_layers": _LAYERS,
        "hidden_size": width,
        "intermediate_size": min(_INNER, config["intermediate_size"]),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": min(config["head_dim"], _HEAD) if architecture.head_dim_free else width // heads,
    }
    if "query_pre_attn_scalar" in config:
        small["query_pre_attn_scalar"] = small["head_dim"]
    if "sliding_window_pattern" in config:  # so that one of the two sees everything
        small["sliding_window_pattern"] = min(_LAYERS, config["sliding_window_pattern"])
    if "layer_types" in config:
        small["layer_types"] = config["layer_types"][-_LAYERS:]
    return small


def write_random_model(base: Path, folder: Path, seed: int) -> None:
    """A model directory with the base's tokenizer and `small_config`'s random float16 weights, of which as many give a spread next-token
    distribution as in a trained model: each layer keeps the scale of its input."""
    import shutil

    import numpy as np

    from generators import architectures, safetensors_stream
    from generators.quantise import encode
    from generators.slices import row_slices

    config = small_config(read_json(base / "config.json"), base)
    architecture = architectures.of_config(config, base)
    weights = list(architecture.weights(config))
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {**config, "dtype": "float16"})
    for name in ("tokenizer.json", "tokenizer_config.json", "source.json"):
        shutil.copyfile(base / name, folder / name)
    with (folder / "model.safetensors").open("wb") as out:
        out.write(safetensors_stream.header([(name, shape, "F16") for name, shape in weights]))
        for name, shape in weights:
            make = partial(_norm if name.endswith("norm.weight") else _matrix, rng, architecture.norm_offset)
            for start, stop in row_slices(shape):
                out.write(encode(make(stop - start, shape[-1]), "F16").data)


def _matrix(rng: Any, _: float, rows: int, columns: int) -> Any:
    """(rows, columns) float32 of variance 1 / columns. Uniform: a vocabulary's worth of normal numbers takes a second."""
    import numpy as np

    return (rng.random((rows, columns), dtype=np.float32) - np.float32(0.5)) * np.float32((12 / columns) ** 0.5)


def _norm(rng: Any, offset: float, rows: int, columns: int) -> Any:
    """(rows, columns) float32 around 1, as the model directory holds it: Gemma's stand there less 1."""
    return 1 - offset + 0.2 * _matrix(rng, offset, rows, columns)


# --- this machine -----------------------------------------------------------------------------------------------------------------


def room_here(kind: str, folder: Path) -> Room:
    """kind: cpu, metal or cuda. folder: where the build is written."""
    import shutil

    import psutil

    free_disk = shutil.disk_usage(folder).free
    if kind == "cuda":
        from generators.train.accelerator import cuda_memory

        total, free = cuda_memory() or (None, None)
        return Room(total, free, free_disk)
    memory = psutil.virtual_memory()
    return Room(memory.total, memory.available, free_disk)


def _main(request: str) -> None:
    job = Job(**read_json(Path(request)))
    try:
        result: dict[str, Any] = {"seconds": chain(job)}
    except UserError as error:
        result = {"error": str(error)}
    write_json(Path(job.folder) / _RESULT, result)


if __name__ == "__main__":
    _main(*sys.argv[1:])
