"""One short row through an engine and through the model's own code, before a run on a GPU is trusted to the engine.

The engines are tested in float32 on a CPU. What Metal's and CUDA's kernels make of them shows on the machine that trains: a second for
the certainty that hours are not spent on something else than the gradient.
"""

from __future__ import annotations

from typing import Any

from generators.device import load_mlx
from generators.train import lora
from generators.train.data import Batch, Group, Row

mx = load_mlx()

# bfloat16 rounds to three digits, and two ways through a model differ by some of those roundings; a wrong kernel is off by its whole size.
LOSS, GRADIENT = 0.03, 0.15  # relative


def disagreement(engine: Any, model: Any, row: Row) -> str | None:
    """What differs too much, or None. The adapter is random meanwhile, since one that starts at zero hides half of its gradients."""
    from mlx.utils import tree_unflatten

    before = lora.parameters(model)
    keys = mx.random.split(mx.random.key(0), len(before))
    names = zip(before.items(), keys, strict=True)
    drawn = [(name, 0.02 * mx.random.normal(array.shape, key=key).astype(array.dtype)) for (name, array), key in names]
    model.update(tree_unflatten(drawn))
    try:
        return _compared(engine, model, row)
    finally:
        model.update(tree_unflatten(list(before.items())))


def _compared(engine: Any, model: Any, row: Row) -> str | None:
    batch: Batch = (Group((), (row,)),)
    loss, gradients = engine.loss_and_gradients(batch)
    wanted_loss, wanted = _plainly(model, row)
    off = abs(float(loss) - wanted_loss) / wanted_loss
    if not off < LOSS:
        return f"its loss of one row is {float(loss):.3f}, the model's own code has {wanted_loss:.3f}"
    squares = [(_square(gradients[name].astype(mx.float32) - array), _square(array)) for name, array in wanted.items()]
    off = (sum(difference for difference, _ in squares) / sum(size for _, size in squares)) ** 0.5
    return None if off < GRADIENT else f"its gradients of one row differ from those of the model's own code by {off:.0%}"


def _plainly(model: Any, row: Row) -> tuple[float, dict[str, Any]]:
    """All logits of the row, and MLX's own differentiation."""
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    positions, targets = mx.array(row.targets) - 1, mx.array([row.ids[position] for position in row.targets])

    def loss(model: Any) -> Any:
        logits = model(mx.array([row.ids[:-1]]))[0][positions]
        return nn.losses.cross_entropy(logits.astype(mx.float32), targets, reduction="sum")

    value, gradients = nn.value_and_grad(model, loss)(model)
    return float(value.item()), {name: array.astype(mx.float32) for name, array in dict(tree_flatten(gradients)).items()}


def _square(array: Any) -> float:
    return float(mx.square(array).sum().item())
