"""The loss of a batch with the prefix of each group computed once.

A group's prefix runs first, with batch size 1, through cache objects that keep its keys and values; the rows' remaining tokens then run
against those, broadcast. Gradients flow through both passes. Only the hidden states whose next token is trained on reach the head.
The model's own code is used as it is: `update_and_fetch`, `offset` and `make_mask` are all that mlx-lm asks of a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generators.device import load_mlx
from generators.train.cross_entropy import Head
from generators.train.data import Batch, Group

mx = load_mlx()


class PrefixCache:
    """Keeps the keys and values of one layer, (1, heads, prefix, size)."""

    offset = 0

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> Any:
        return _causal_mask(tokens, 0, window_size, return_array)


class SuffixCache:
    """Puts a prefix before the keys and values of every row, (rows, heads, prefix + tokens, size)."""

    def __init__(self, prefix: PrefixCache, length: int):
        self.prefix = prefix
        self.offset = length

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        rows = keys.shape[0]
        before_keys = mx.broadcast_to(self.prefix.keys, (rows, *self.prefix.keys.shape[1:]))
        before_values = mx.broadcast_to(self.prefix.values, (rows, *self.prefix.values.shape[1:]))
        return mx.concatenate([before_keys, keys], axis=2), mx.concatenate([before_values, values], axis=2)

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> Any:
        return _causal_mask(tokens, self.offset, window_size, return_array)


def _causal_mask(tokens: int, offset: int, window: int | None, return_array: bool) -> Any:
    """True where a query may look: at itself and before, no further back than `window`. Rows are padded on the right, so that no real
    token ever sees padding. The short form `"causal"` (aligned at the last key) where nothing else is needed."""
    wide = window is None or offset + tokens <= window
    if wide and not return_array:
        return "causal" if tokens > 1 else None
    queries = mx.arange(offset, offset + tokens)[:, None]
    keys = mx.arange(offset + tokens)[None]
    mask = queries >= keys
    return mask if wide else mask & (queries < keys + window)


@dataclass(frozen=True)
class GroupArrays:
    """A group as arrays. prefix: (1, P) int32 or None. suffix: (rows, L) int32, padded with 0 on the right.
    positions: (N,) int32 into the flattened (rows * L) hidden states whose next token is trained on. targets: (N,) int32, those tokens."""

    prefix: Any
    suffix: Any
    positions: Any
    targets: Any


def arrays_of(group: Group) -> GroupArrays:
    """The last token of a row predicts nothing and is left out."""
    start = len(group.prefix)
    length = max(len(row.ids) for row in group.rows) - 1 - start
    suffix, positions, targets = [], [], []
    for index, row in enumerate(group.rows):
        tail = row.ids[start:-1]
        suffix.append(list(tail) + [0] * (length - len(tail)))
        positions += [index * length + position - 1 - start for position in row.targets]
        targets += [row.ids[position] for position in row.targets]
    prefix = mx.array([group.prefix], dtype=mx.int32) if start else None
    return GroupArrays(prefix, mx.array(suffix, dtype=mx.int32), mx.array(positions, dtype=mx.int32), mx.array(targets, dtype=mx.int32))


def hidden_at_targets(model: Any, arrays: GroupArrays) -> Any:
    """(N, width): the final hidden states from which the targets are predicted."""
    if arrays.prefix is None:
        hidden = model.model(arrays.suffix)
    else:
        kept = [PrefixCache() for _ in model.layers]
        model.model(arrays.prefix, cache=kept)
        hidden = model.model(arrays.suffix, cache=[SuffixCache(layer, arrays.prefix.shape[1]) for layer in kept])
    return hidden.reshape(-1, hidden.shape[-1])[arrays.positions]


class MlxEngine:
    """Loss and gradients by MLX's own automatic differentiation: Metal, CUDA, and whatever the CPU's engine does not support."""

    def __init__(self, model: Any):
        import mlx.nn as nn

        self.model = model
        self.head = Head(model)
        self._gradient = nn.value_and_grad(model, self._surrogate)

    def loss(self, batch: Batch) -> float:
        """Summed cross-entropy of the targets, in nats."""
        self.model.eval()
        total = mx.array(0.0)
        for group in batch:
            arrays = arrays_of(group)
            total = total + self.head.loss(hidden_at_targets(self.model, arrays), arrays.targets, with_gradient=False)[0]
        return float(total.item())

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, Any]]:
        """The summed loss, and its gradients by parameter name."""
        from mlx.utils import tree_flatten

        self.model.train()
        (_, loss), gradients = self._gradient(batch)
        mx.eval(loss, gradients)
        return float(loss.item()), dict(tree_flatten(gradients))

    def _surrogate(self, batch: Batch) -> tuple[Any, Any]:
        """(surrogate, loss): the gradient of the first is that of the second. It is the hidden states times their already known
        gradients, which is how the chunked cross-entropy joins the graph."""
        surrogate, total = mx.array(0.0), mx.array(0.0)
        for group in batch:
            arrays = arrays_of(group)
            hidden = hidden_at_targets(self.model, arrays)
            loss, gradient = self.head.loss(hidden, arrays.targets, with_gradient=True)
            total = total + loss
            surrogate = surrogate + (hidden * mx.stop_gradient(gradient)).astype(mx.float32).sum()
        return surrogate, mx.stop_gradient(total)
