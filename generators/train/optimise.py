"""The optimiser and its learning rate, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from generators.device import load_mlx
from generators.train.vector import Vector

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
    """What the optimiser makes of summed gradients, and the state that it has of them.

    vector: as which it sees all arrays, in one compiled function; None for each by itself.
    """

    def __init__(self, training: dict[str, Any], trained: Mapping[str, Any], vector: Vector | None):
        """training: the recipe's block. trained: the weights by name."""
        from mlx.utils import tree_unflatten

        self._optimiser, self._clip = make_optimiser(training), training["clip"] or math.inf
        self._compiled = vector is not None
        self._vector = vector if training["optimiser"] not in _SEES_SHAPES else None
        self._work: Any = None  # compiled when first called, since a checkpoint may have brought another state
        self._optimiser.init({_ALL: self._vector.joined(trained)} if self._vector else tree_unflatten(list(trained.items())))

    def __call__(self, trained: Mapping[str, Any], sums: Mapping[str, Any], tokens: int, learning_rate: float) -> tuple[dict[str, Any], Any]:
        """(the new weights by name, the norm of the mean gradient before it is clipped), all lazy.

        sums: by the names of the trained parameters, each summed over `tokens` targets.
        """
        from mlx.utils import tree_flatten, tree_unflatten

        self._optimiser.learning_rate = learning_rate
        count = mx.array(tokens, dtype=mx.float32)
        work = self._ready()
        if self._vector is None:
            updated, norm = work(tree_unflatten(list(trained.items())), tree_unflatten(list(sums.items())), count)
            return dict(tree_flatten(updated)), norm
        updated, norm = work({_ALL: self._vector.of(trained)}, {_ALL: self._vector.joined(sums)}, count)
        return self._vector.taken_apart(updated[_ALL]), norm

    def _ready(self) -> Any:
        if self._work is None:
            state = self._optimiser.state
            self._work = mx.compile(self._updated, inputs=state, outputs=state) if self._compiled else self._updated
        return self._work

    def _updated(self, trained: Any, sums: Any, tokens: Any) -> tuple[Any, Any]:
        from mlx.optimizers import clip_grad_norm
        from mlx.utils import tree_map

        gradients, norm = clip_grad_norm(tree_map(lambda summed: summed.astype(mx.float32) / tokens, sums), self._clip)
        return self._optimiser.apply_gradients(gradients, trained), norm

    @property
    def state(self) -> dict[str, Any]:
        """Name to array, the same with and without a vector."""
        from mlx.utils import tree_flatten

        found = dict(tree_flatten(self._optimiser.state))
        if self._vector is None:
            return found
        apart = {name: array for name, array in found.items() if not name.startswith(f"{_ALL}.")}
        for name in found.keys() - apart.keys():
            apart |= {f"{part}{name.removeprefix(_ALL)}": array for part, array in self._vector.split(found[name]).items()}
        return apart

    def restore(self, state: Mapping[str, Any]) -> None:
        """state: as `state` has it."""
        from mlx.utils import tree_unflatten

        arrays, self._work = dict(state), None
        if self._vector is not None:
            names = list(self._vector.shapes)
            for kind in [name.removeprefix(names[0]) for name in state if name.startswith(f"{names[0]}.")]:
                arrays[f"{_ALL}{kind}"] = self._vector.joined({name: arrays.pop(f"{name}{kind}") for name in names})
        self._optimiser.state = tree_unflatten(list(arrays.items()))
        mx.eval(self._optimiser.state)

    def arrays(self) -> Any:
        """What has to be evaluated after an update."""
        return self._optimiser.state


_ALL = "all"  # name of the vector
_SEES_SHAPES = ("adafactor",)  # it keeps sums of rows and of columns


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
