"""The optimiser and its learning rate, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


class Update:
    """What the optimiser makes of summed gradients.

    compiled: as one function. An adapter is hundreds of small arrays, each of which would otherwise be a dozen launches on a GPU.
    """

    def __init__(self, optimiser: Any, clip: float, compiled: bool):
        """clip: greatest norm of the gradients, 0 for any."""
        self.optimiser, self._clip, self._compiled = optimiser, clip or math.inf, compiled
        self._work: Any = None

    def __call__(self, trained: Any, sums: Mapping[str, Any], tokens: int) -> tuple[Any, Any]:
        """(the new weights, in a tree like `trained`; the norm of the mean gradient before it is clipped), both lazy.

        sums: by the names of the trained parameters, each summed over `tokens` targets.
        """
        if self._work is None:  # now, since a checkpoint may have brought another state
            self.optimiser.init(trained)
            state = self.optimiser.state
            self._work = mx.compile(self._updated, inputs=state, outputs=state) if self._compiled else self._updated
        return self._work(trained, dict(sums), mx.array(tokens, dtype=mx.float32))

    def _updated(self, trained: Any, sums: dict[str, Any], tokens: Any) -> tuple[Any, Any]:
        from mlx.optimizers import clip_grad_norm
        from mlx.utils import tree_unflatten

        gradients, norm = clip_grad_norm(tree_unflatten([(name, summed / tokens) for name, summed in sums.items()]), self._clip)
        return self.optimiser.apply_gradients(gradients, trained), norm


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
