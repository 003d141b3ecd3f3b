"""The optimiser and its learning rate, step by step."""

from __future__ import annotations

import math
from typing import Any

from generators.device import load_mlx

mx = load_mlx()


def make_optimiser(training: dict[str, Any]) -> Any:
    """One of MLX's optimisers. Adam and AdamW with bias correction, as the papers have it (MLX leaves it out by default)."""
    import mlx.optimizers as optim

    rate, decay = training["learning_rate"], training["weight_decay"]
    makers = {
        "adam": lambda: optim.Adam(learning_rate=rate, bias_correction=True),
        "adamw": lambda: optim.AdamW(learning_rate=rate, weight_decay=decay, bias_correction=True),
        "sgd": lambda: optim.SGD(learning_rate=rate, weight_decay=decay),
        "lion": lambda: optim.Lion(learning_rate=rate, weight_decay=decay),
        "adafactor": lambda: optim.Adafactor(learning_rate=rate, relative_step=False, scale_parameter=False),
    }
    return makers[training["optimiser"]]()


def learning_rate(training: dict[str, Any], step: int, steps: int) -> float:
    """Of step `step` (from 0) of `steps`: a linear warm-up, then constant, or down to zero linearly or as a half cosine."""
    peak, warmup = training["learning_rate"], training["warmup_steps"]
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    if training["schedule"] == "linear":
        return peak * (1 - progress)
    if training["schedule"] == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    return peak


def state_arrays(optimiser: Any) -> dict[str, Any]:
    from mlx.utils import tree_flatten

    return dict(tree_flatten(optimiser.state))


def restore(optimiser: Any, arrays: dict[str, Any]) -> None:
    from mlx.utils import tree_unflatten

    optimiser.state = tree_unflatten(list(arrays.items()))
