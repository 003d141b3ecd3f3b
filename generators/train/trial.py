"""A few short rows through an engine and through the model's own code, before a run on a GPU is trusted to the engine.

The engines are tested in float32 on a CPU. What Metal's and CUDA's kernels make of them shows on the machine that trains: a second or two
for the certainty that hours are not spent on something else than the gradient. The rows share a prefix; they go through once as a small
batch does, and once in pieces, as a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from generators.device import load_mlx
from generators.train import lora
from generators.train.data import Row, group_rows
from generators.train.gpu.sight import in_pieces

mx = load_mlx()

# bfloat16 rounds to three digits, and two ways through a model differ by some of those roundings; a wrong kernel is off by its whole size.
LOSS, GRADIENT = 0.05, 0.15  # nats a target; relative
_ROWS = 2


def rows_to_try(rows: Sequence[Row]) -> list[Row]:
    """The shortest ones that begin alike, or the shortest of all."""
    by_length = sorted(rows, key=lambda row: len(row.ids))
    alike: dict[str, list[Row]] = {}
    for row in by_length:
        found = alike.setdefault(row.key, [])
        found.append(row)
        if len(found) == _ROWS:
            return found
    return by_length[:1]


def disagreement(engine: Any, model: Any, rows: Sequence[Row]) -> str | None:
    """What differs too much, or fails, or None. The adapter is random meanwhile, since one that starts at zero hides half of its gradients."""
    from mlx.utils import tree_unflatten

    before = lora.parameters(model)
    keys = mx.random.split(mx.random.key(0), len(before))
    names = zip(before.items(), keys, strict=True)
    drawn = [(name, 0.02 * mx.random.normal(array.shape, key=key).astype(array.dtype)) for (name, array), key in names]
    model.update(tree_unflatten(drawn))
    try:
        wanted = _plainly(model, rows)
        return next(filter(None, (_compared(engine, rows, pieces, *wanted) for pieces in (False, True))), None)
    finally:
        model.update(tree_unflatten(list(before.items())))


def _compared(engine: Any, rows: Sequence[Row], pieces: bool, wanted_loss: float, wanted: dict[str, Any]) -> str | None:
    try:
        with in_pieces() if pieces else nullcontext():
            loss, gradients = engine.loss_and_gradients(group_rows(rows))
            mx.eval(loss, gradients)
    except (RuntimeError, ValueError) as error:  # what MLX raises for a kernel that does not build, or arrays that do not fit
        return f"it fails with {error}"
    targets = sum(len(row.targets) for row in rows)
    if not abs(loss.item() - wanted_loss) < LOSS * targets:
        return f"its loss of {targets} targets is {loss.item():.3f}, the model's own code has {wanted_loss:.3f}"
    squares = [(_square(gradients[name].astype(mx.float32) - array), _square(array)) for name, array in wanted.items()]
    off = (sum(difference for difference, _ in squares) / sum(size for _, size in squares)) ** 0.5
    return None if off < GRADIENT else f"its gradients differ from those of the model's own code by {off:.0%}"


def _plainly(model: Any, rows: Sequence[Row]) -> tuple[float, dict[str, Any]]:
    """Each row by itself, all its logits, and MLX's own differentiation."""
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    def loss(model: Any) -> Any:
        total = mx.array(0.0)
        for row in rows:
            logits = model(mx.array([row.ids[:-1]]))[0][mx.array(row.targets) - 1]
            targets = mx.array([row.ids[position] for position in row.targets])
            total = total + nn.losses.cross_entropy(logits.astype(mx.float32), targets, reduction="sum")
        return total

    value, gradients = nn.value_and_grad(model, loss)(model)
    return float(value.item()), {name: array.astype(mx.float32) for name, array in dict(tree_flatten(gradients)).items()}


def _square(array: Any) -> float:
    return float(mx.square(array).sum().item())
