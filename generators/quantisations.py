"""What quantisation costs: the table of a recipe's GGUFs beside F16, whether F16 is the model that was trained, and the choice of `auto`.

All of it is measured on the answers of the same validation samples, in the frames that they are trained in, so that perplexity is the
exponential of what training calls validation loss. A loss is in nats a token: the natural logarithm of the perplexity's ratio to F16's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import human_bytes, read_json, read_jsonl, write_json
from generators.llama_logits import Scored, scoring
from generators.tokens import Tokenizer

Report = Callable[[str], None]

AUTO = "auto"
# Twenty answers and the first tokens of each, a thousand positions at most: an agreement is known to half a per cent, and no file takes
# two cores longer than a quantisation takes to be written. A vocabulary of 256 thousand makes each position dear.
SAMPLES = 20
TOKENS = 48  # of an answer
# Of the likeliest tokens of the fused model in MLX and of F16 in llama.cpp: rounding, and nothing else, lies between the two.
LEAST_AGREEMENT = 0.99
# Bytes of a model as it is stored, in half precision, that is held in float32 on a GPU too; twice as much is then in memory.
_ROOM_FOR_FLOAT32 = 2 * 10**9
# What `auto` chooses from. F16 is the last resort: it is what the others are held against, so it loses nothing.
CANDIDATES = ("Q4_0", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0", "F16")


@dataclass(frozen=True)
class Text:
    """A sample as it is measured. ids: the conversation's tokens. positions: of those in `ids` that the assistant says, which are asked for."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]


def draw_texts(frames: Path, tokenizer: Tokenizer, seed: int, count: int = SAMPLES) -> list[Text]:
    """`count` framed samples of a JSONL file, or all where there are fewer, drawn by `seed`, with TOKENS of each; neighbours begin alike.

    Raises UserError when there is none.
    """
    rows = list(read_jsonl(frames)) if frames.is_file() else []
    if not rows:
        raise UserError(f"{frames} holds no samples to measure on; run: doit dataset")
    drawn = random.Random(f"{seed}/quantisations").sample(rows, min(count, len(rows)))
    encoded = [tokenizer.encode_sample(row["messages"]) for row in drawn]
    texts = [Text(tuple(each.ids), tuple(index for index, said in enumerate(each.target) if said)[:TOKENS]) for each in encoded]
    return sorted(texts, key=lambda text: text.ids)


def score_in_llama(gguf: Path, texts: Sequence[Text], threads: int | None = None) -> Scored:
    """Every answer token of `texts`, in their order, in llama.cpp. Raises UserError when the file does not load."""
    found = Scored([], [])
    with scoring(gguf, max(len(text.ids) for text in texts), threads) as score:
        for text in texts:
            part = score(text.ids, text.positions)
            found.log_probabilities.extend(part.log_probabilities)
            found.tops.extend(part.tops)
    return found


def score_in_mlx(model: Path, texts: Sequence[Text], adapter: Path | None = None) -> Scored:
    """The same in MLX, in float32 where there is room for it. model: in Hugging Face layout. Raises UserError when it cannot be loaded."""
    from generators.device import load_mlx

    mx, network = load_mlx(), _network(model, adapter)
    from generators.train.cross_entropy import Head

    head, found = Head(network), Scored([], [])
    for text in texts:
        logits = _logits(network, head, text)
        wanted = mx.array([text.ids[position] for position in text.positions])[:, None]
        chosen = mx.take_along_axis(logits, wanted, axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
        found.log_probabilities.extend(chosen.tolist())
        found.tops.extend(mx.argmax(logits, axis=-1).tolist())
    return found


def _network(model: Path, adapter: Path | None) -> Any:
    """llama.cpp computes in float32 between the weights, whatever those are stored in; half precision alone would turn some tokens."""
    from generators.device import current, load_mlx

    mx = load_mlx()
    from mlx_lm.utils import load_adapters, load_model

    try:
        network, _ = load_model(model)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the model in {model} cannot be loaded ({error}); run: doit forget fuse && doit") from error
    if adapter is not None:
        network = load_adapters(network, str(adapter))
    if current().kind == "cpu" or sum(path.stat().st_size for path in model.glob("*.safetensors")) < _ROOM_FOR_FLOAT32:
        network.set_dtype(mx.float32)
    network.eval()
    return network


def _logits(network: Any, head: Any, text: Text) -> Any:
    """(answer tokens, vocabulary) float32. Only the hidden states that an answer token follows go through the head, which is most of
    a small model's arithmetic."""
    from generators.device import load_mlx

    mx = load_mlx()
    hidden = network.model(mx.array([text.ids[:-1]]))[0, mx.array([position - 1 for position in text.positions])]
    logits = (hidden @ head.weight.T).astype(mx.float32)
    return mx.tanh(logits / head.soft_cap) * head.soft_cap if head.soft_cap else logits


def agreement(one: Scored, other: Scored) -> float:
    """Share of positions, 0 to 1, at which both have the same likeliest token."""
    return sum(a == b for a, b in zip(one.tops, other.tops, strict=True)) / len(one.tops)


def perplexity(scored: Scored) -> float:
    return math.exp(-sum(scored.log_probabilities) / len(scored.log_probabilities))


def loss(scored: Scored, reference: Scored) -> float:
    """Nats a token that `scored` does worse than `reference`; below 0 where it does better."""
    return (sum(reference.log_probabilities) - sum(scored.log_probabilities)) / len(scored.log_probabilities)


# The table, and the gate between MLX and llama.cpp.


def measure(
    ggufs: dict[str, Path],
    figures: dict[str, dict[str, Any]],
    fused: Path,
    texts: Sequence[Text],
    budget: float,
    write_f16: Callable[[Path], dict[str, Any]],
    target: Path,
    report: Report,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write `target`: {quantisations: [a row each, F16 first], agreement: MLX beside F16, tokens, samples, loss_budget}.

    ggufs: by the name in the recipe. figures: of each, what `write_gguf` gave. fused: the model in Hugging Face layout. budget: nats a
    token. write_f16: writes F16 to a path where the recipe has none, and gives its figures; the file is deleted afterwards.
    Raises UserError, the file written, when fused model and F16 disagree on more than a hundredth of the positions.
    """
    with _f16(ggufs, figures, target.parent, write_f16) as (path, size):
        reference = score_in_llama(path, texts, threads)
    rows = [_row("F16", size, reference, reference, "F16" in ggufs)]
    for name, gguf in ggufs.items():
        if name != "F16":
            rows.append(_row(name, figures[name], score_in_llama(gguf, texts, threads), reference, True))
    engines = _compared(score_in_mlx(fused, texts), reference)
    found = {"quantisations": rows, "agreement": engines, "samples": len(texts), "tokens": len(reference.tops), "loss_budget": budget}
    write_json(target, found)
    for line in told(found):
        report(line)
    if engines["top_agreement"] < LEAST_AGREEMENT:
        raise UserError(
            f"the fused model in MLX and F16 in llama.cpp name the same token at {100 * engines['top_agreement']:.1f} % of "
            f"{len(reference.tops)} positions, {100 * LEAST_AGREEMENT:.0f} % are due: what is exported is not what was trained; "
            "run: doit forget fuse gguf && doit"
        )
    return found


@contextmanager
def _f16(
    ggufs: dict[str, Path], figures: dict[str, dict[str, Any]], folder: Path, write: Callable[[Path], dict[str, Any]]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    import tempfile

    if "F16" in ggufs:
        yield ggufs["F16"], figures["F16"]
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, suffix=".partial") as scratch:
        yield Path(scratch) / "F16.gguf", write(Path(scratch) / "F16.gguf")


def _row(name: str, figures: dict[str, Any], scored: Scored, reference: Scored, kept: bool) -> dict[str, Any]:
    """kept: whether the file is one of the release, not only what the others are held against."""
    return {
        "quantisation": name,
        **({"chosen": figures["quantisation"]} if name == AUTO else {}),
        "size": figures["size"],
        "bits_per_weight": figures["bits_per_weight"],
        "perplexity": perplexity(scored),
        "loss": loss(scored, reference),
        "top_agreement": agreement(scored, reference),
        "released": kept,
    }


def _compared(mlx: Scored, llama: Scored) -> dict[str, float]:
    differences = [abs(a - b) for a, b in zip(mlx.log_probabilities, llama.log_probabilities, strict=True)]
    return {
        "top_agreement": agreement(mlx, llama),
        "mean_difference": sum(differences) / len(differences),
        "perplexity_in_mlx": perplexity(mlx),
    }


def told(found: dict[str, Any]) -> list[str]:
    """For the terminal: a line a quantisation, and one for the gate."""
    lines = []
    for row in found["quantisations"]:
        name = f"{row['quantisation']} ({row['chosen']})" if "chosen" in row else row["quantisation"]
        over = f", over the budget of {found['loss_budget']:g}" if row["loss"] > found["loss_budget"] else ""
        against = f", {row['loss']:+.4f} nats a token against F16{over}, same token at {100 * row['top_agreement']:.1f} %"
        lines.append(
            f"{name}: {human_bytes(row['size'])}, {row['bits_per_weight']:.2f} bits a weight, perplexity {row['perplexity']:.2f}"
            + (against if name != "F16" else "")
        )
    engines = found["agreement"]
    lines.append(
        f"MLX and llama.cpp (F16) name the same token at {100 * engines['top_agreement']:.2f} % of {found['tokens']} positions of "
        f"{found['samples']} samples; their log-probabilities differ by {engines['mean_difference']:.4f} on average"
    )
    return lines


# `auto`.


def choose(
    sizes: dict[str, int],
    write: Callable[[str, Path], dict[str, Any]],
    target: Path,
    texts: Sequence[Text],
    budget: float,
    report: Report,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write the smallest quantisation that loses at most `budget` nats a token against F16 to `target`. Returns its figures.

    sizes: of the candidates, in bytes, F16 among them. write(quantisation, path) writes one and gives its figures. F16 and the
    candidates that lose too much are deleted again.
    """
    import os
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, suffix=".partial") as folder:
        f16 = Path(folder) / "F16.gguf"
        of_f16 = write("F16", f16)
        reference = score_in_llama(f16, texts, threads)
        for name in sorted(sizes, key=lambda name: sizes[name]):
            path = Path(folder) / f"{name}.gguf"
            figures = of_f16 if name == "F16" else write(name, path)
            lost = 0.0 if name == "F16" else loss(score_in_llama(path, texts, threads), reference)
            report(f"auto: {name}, {human_bytes(figures['size'])}, loses {lost:.4f} nats a token; {budget:g} are allowed")
            if lost <= budget:
                os.replace(path, target)
                return figures
            path.unlink()
    raise AssertionError("F16 loses nothing against itself")


def planned_sizes(base: Path, candidates: Sequence[str] = CANDIDATES) -> dict[str, int]:
    """Bytes of the tensors of the model in `base` in each quantisation, without writing one. Raises UserError when there is no model."""
    from generators import architectures
    from generators.gguf_file import stored_size
    from generators.quantise import tensor_type

    try:
        config = read_json(base / "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"there is no base model in {base}; run: doit base") from error
    architecture = architectures.of_config(config, base)
    shapes = {str(architecture.gguf_name(name)): shape for name, shape in architecture.weights(config)}
    layers, tied = config["num_hidden_layers"], "output.weight" not in shapes

    def size(quantisation: str) -> int:
        return sum(stored_size(shape, tensor_type(name, shape, quantisation, layers, tied)) for name, shape in shapes.items())

    return {quantisation: size(quantisation) for quantisation in candidates}
