"""The loss of a batch in one pass of MLX, with the prefix of each group computed once.

The shared prefix of a group is cut into rows as long as the padded remainders of its samples, and all of them are rows of one batch:
in every layer a sample's row attends to the keys of its group's prefix rows, computed in the same pass, and to its own before it. So a
step has the launches of a plain forward, hardly more tokens than are new, and gradients flow into the prefix by themselves.
The model's own code is used as it is: `offset`, `update_and_fetch` and `make_mask` are all that mlx-lm asks of a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generators import device
from generators.device import load_mlx
from generators.train.cross_entropy import Head
from generators.train.data import Batch, target_count

mx = load_mlx()


@dataclass(frozen=True)
class Packed:
    """A batch as arrays. R rows of L tokens: first the prefixes of all groups in pieces of L, then the samples' remainders.

    tokens: (R, L) int32, padded with 0 on the right. offsets: (R,) int32, position of a row's first token in its conversation.
    owner: (R,) int32, the row's group. prefix_rows: (groups, C) int32, which rows hold a group's prefix, in order, padded with 0; C may be 0.
    positions: (N,) int32 into the flattened hidden states (R * L) whose next token is trained on. targets: (N,) int32, those tokens.
    weights: (N,) float32, 1 for a target and 0 for padding.
    """

    tokens: Any
    offsets: Any
    owner: Any
    prefix_rows: Any
    positions: Any
    targets: Any
    weights: Any

    def arrays(self) -> tuple[Any, ...]:
        return (self.tokens, self.offsets, self.owner, self.prefix_rows, self.positions, self.targets, self.weights)


def pack(batch: Batch, row_multiple: int = 1, target_multiple: int = 1) -> Packed:
    """The multiples round L and N up, so that few different shapes occur. The last token of a sample predicts nothing and is left out."""
    longest = max(len(row.ids) - 1 - len(group.prefix) for group in batch for row in group.rows)
    length = -(-longest // row_multiple) * row_multiple
    rows: list[list[int]] = []
    offsets: list[int] = []
    owner: list[int] = []
    prefix_rows: list[list[int]] = []
    for index, group in enumerate(batch):
        pieces = range(0, len(group.prefix), length)
        prefix_rows.append(list(range(len(rows), len(rows) + len(pieces))))
        rows += [list(group.prefix[start : start + length]) for start in pieces]
        offsets += pieces
        owner += [index] * len(pieces)
    positions, targets = [], []
    for index, group in enumerate(batch):
        start = len(group.prefix)
        for row in group.rows:
            base = len(rows) * length - start - 1
            positions += [base + position for position in row.targets]
            targets += [row.ids[position] for position in row.targets]
            rows.append(list(row.ids[start:-1]))
            offsets.append(start)
            owner.append(index)
    most = max(map(len, prefix_rows))
    padding = -len(targets) % target_multiple
    return Packed(
        tokens=_integers([row + [0] * (length - len(row)) for row in rows]),
        offsets=_integers(offsets),
        owner=_integers(owner),
        prefix_rows=_integers([indices + [0] * (most - len(indices)) for indices in prefix_rows]).reshape(len(batch), most),
        positions=_integers(positions + [0] * padding),
        targets=_integers(targets + [0] * padding),
        weights=mx.array([1.0] * len(targets) + [0.0] * padding),
    )


def _integers(values: Any) -> Any:
    return mx.array(values, dtype=mx.int32)


class PackedCache:
    """What every layer sees instead of a cache: rotary offsets by row, the keys of the group's prefix before the row's own, and who sees what."""

    def __init__(self, packed: Packed, five_dimensional: bool):
        self.offset = packed.offsets
        self._owner, self._prefix_rows = packed.owner, packed.prefix_rows
        self._five_dimensional = five_dimensional
        self._masks: dict[int | None, Any] = {}

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """(R, heads, L, size) to (R, heads, C * L + L, size)."""
        return self._with_prefix(keys), self._with_prefix(values)

    def _with_prefix(self, own: Any) -> Any:
        groups, pieces = self._prefix_rows.shape
        if not pieces:
            return own
        _, heads, length, size = own.shape
        prefix = own[self._prefix_rows].transpose(0, 2, 1, 3, 4).reshape(groups, heads, pieces * length, size)
        return mx.concatenate([prefix[self._owner], own], axis=2)

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """(R, 1, L, C * L + L), true where a query may look. One dimension more where the model's own attention groups its heads."""
        if window_size not in self._masks:
            self._masks[window_size] = self._mask(tokens, window_size)
        mask = self._masks[window_size]
        return mask[:, :, None] if return_array and self._five_dimensional else mask

    def _mask(self, length: int, window: int | None) -> Any:
        """A prefix key is seen when it lies before the row's first token, which its own padding never does; an own key when it is not later."""
        span = self._prefix_rows.shape[1] * length
        offsets = self.offset[:, None, None]
        queries = offsets + mx.arange(length)[None, :, None]
        before = mx.arange(span)[None, None, :]
        own = offsets + mx.arange(length)[None, None, :]
        seen = mx.concatenate([mx.broadcast_to(before < offsets, (len(self.offset), length, span)), own <= queries], axis=2)
        if window is not None:
            places = mx.concatenate([mx.broadcast_to(before, (len(self.offset), 1, span)), own], axis=2)
            seen = seen & (queries - places < window)
        return seen[:, None]


class MlxEngine:
    """Loss and gradients by MLX's own automatic differentiation: Metal, CUDA, and whatever the CPU's engine does not support."""

    def __init__(self, model: Any):
        self.model = model
        self.head = Head(model)
        mx.eval(self.head.weight)
        arguments = model.args
        heads, groups = arguments.num_attention_heads, arguments.num_key_value_heads
        self._five_dimensional = arguments.model_type == "gemma2" and heads != groups
        self._on_gpu = device.current().kind != "cpu"
        self._loss = self._compiled(self._loss_of)
        self._gradients = self._compiled(self._gradients_of)

    def loss(self, batch: Batch) -> float:
        """Summed cross-entropy of the targets, in nats."""
        self.model.eval()
        return float(self._loss(*self._pack(batch).arrays()).item())

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, Any]]:
        """The summed loss, and its gradients by parameter name."""
        from mlx.utils import tree_flatten

        self.model.train()
        loss, gradients = self._gradients(*self._pack(batch).arrays())
        mx.eval(loss, gradients)
        return float(loss.item()), dict(tree_flatten(gradients))

    def _pack(self, batch: Batch) -> Packed:
        """On a GPU in few shapes, since each is compiled once."""
        if not self._on_gpu:
            return pack(batch)
        return pack(batch, row_multiple=32, target_multiple=64 if target_count(batch) < 1024 else 256)

    def _compiled(self, function: Any) -> Any:
        """Compiling pays where launches are what costs; on a CPU it would need a C++ compiler on the user's machine."""
        if not self._on_gpu:
            return function
        state = [self.model.state, self.head.state, mx.random.state]
        return mx.compile(function, inputs=state, outputs=state)

    def _hidden(self, packed: Packed) -> Any:
        """(N, width): the final hidden states from which the targets are predicted."""
        cache = PackedCache(packed, self._five_dimensional)
        hidden = self.model.model(packed.tokens, cache=[cache] * len(self.model.layers))
        return hidden.reshape(-1, hidden.shape[-1])[packed.positions]

    def _loss_of(self, *arrays: Any) -> Any:
        packed = Packed(*arrays)
        return self.head.loss(self._hidden(packed), packed.targets, packed.weights, with_gradient=False)[0]

    def _gradients_of(self, *arrays: Any) -> tuple[Any, Any]:
        trained = self.model.trainable_parameters()
        (_, loss), gradients = mx.value_and_grad(self._surrogate)(trained, Packed(*arrays))
        self.model.update(trained)  # differentiation leaves its own stand-ins in the model
        return loss, gradients

    def _surrogate(self, trained: Any, packed: Packed) -> tuple[Any, Any]:
        """(surrogate, loss): the gradient of the first is that of the second. It is the hidden states times their already known
        gradients, which is how the chunked cross-entropy joins the graph."""
        self.model.update(trained)
        hidden = self._hidden(packed)
        loss, gradient = self.head.loss(hidden, packed.targets, packed.weights, with_gradient=True)
        return (hidden * mx.stop_gradient(gradient)).astype(mx.float32).sum(), mx.stop_gradient(loss)
