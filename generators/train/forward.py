"""The loss of a batch in one pass of MLX, with the prefix of each group computed once.

Conversations are cut into rows of one length, the shared prefix of a group into rows of its own, and all of them are rows of one batch: in
every layer a row attends to the keys of the rows before it in its conversation, computed in the same pass, and to its own. So a step has
the launches of a plain forward, hardly more tokens than are new, and gradients flow into the prefix by themselves.
The model's own code is used as it is: `offset`, `update_and_fetch` and `make_mask` are all that mlx-lm asks of a cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from generators import device
from generators.device import load_mlx
from generators.train import shapes
from generators.train.accelerator import leave_room
from generators.train.cross_entropy import Head
from generators.train.data import Batch
from generators.train.shapes import Size

mx = load_mlx()


@dataclass(frozen=True)
class Packed:
    """A batch as arrays. R rows of L tokens: first the prefixes of all groups in pieces of L, then the samples' remainders.

    tokens: (R, L) int32, padded with 0 on the right. offsets: (R,) int32, position of a row's first token in its conversation.
    context: (R, C) int32, the rows before a row in its conversation, in order, padded with 0; C may be 0.
    shared: (R,) int32, how many tokens of its context are of the group's prefix, in whose last row there may be padding.
    positions: (N,) int32 into the flattened hidden states (R * L) whose next token is trained on. targets: (N,) int32, those tokens.
    weights: (N,) float32, 1 for a target and 0 for padding.
    """

    tokens: Any
    offsets: Any
    context: Any
    shared: Any
    positions: Any
    targets: Any
    weights: Any

    def arrays(self) -> tuple[Any, ...]:
        return (self.tokens, self.offsets, self.context, self.shared, self.positions, self.targets, self.weights)


@dataclass
class _Rows:
    """Rows as they are laid down."""

    length: int
    tokens: list[list[int]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    context: list[list[int]] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)

    def lay(self, ids: Sequence[int], offset: int, context: list[int], shared: int | None) -> list[int]:
        """`ids` in rows, of which each follows those before it; their indices. shared: None for a prefix, which has nothing else before it."""
        laid: list[int] = []
        for start in range(0, len(ids), self.length):
            self.context.append(context + laid)
            self.offsets.append(offset + start)
            self.shared.append(offset + start if shared is None else shared)
            laid.append(len(self.tokens))
            self.tokens.append(list(ids[start : start + self.length]))
        return laid


def pack(batch: Batch, size: Size | None = None) -> Packed:
    """size: what the batch is padded to; without one, rows are as long as the longest remainder. The last token of a sample predicts
    nothing and is left out."""
    rows = _Rows(size.length if size else max(len(row.ids) - 1 - len(group.prefix) for group in batch for row in group.rows))
    prefixes = [rows.lay(group.prefix, 0, [], None) for group in batch]
    positions, targets = list[int](), list[int]()
    for group, context in zip(batch, prefixes, strict=True):
        start = len(group.prefix)
        for row in group.rows:
            first = len(rows.tokens) * rows.length - start - 1
            positions += [first + position for position in row.targets]
            targets += [row.ids[position] for position in row.targets]
            rows.lay(row.ids[start:-1], start, context, start)
    return _padded(rows, positions, targets, size)


def _padded(rows: _Rows, positions: list[int], targets: list[int], size: Size | None) -> Packed:
    most = size.context if size else max(map(len, rows.context))
    spare = size.rows - len(rows.tokens) if size else 0
    padding = size.targets - len(targets) if size else 0
    context = [before + [0] * (most - len(before)) for before in [*rows.context, *[[]] * spare]]
    return Packed(
        tokens=_integers([row + [0] * (rows.length - len(row)) for row in [*rows.tokens, *[[]] * spare]]),
        offsets=_integers(rows.offsets + [0] * spare),
        context=_integers(context).reshape(len(context), most),
        shared=_integers(rows.shared + [0] * spare),
        positions=_integers(positions + [0] * padding),
        targets=_integers(targets + [0] * padding),
        weights=mx.array([1.0] * len(targets) + [0.0] * padding),
    )


def _integers(values: Any) -> Any:
    return mx.array(values, dtype=mx.int32)


class PackedCache:
    """What every layer sees instead of a cache: rotary offsets by row, the keys of the rows before a row's own, and who sees what."""

    def __init__(self, packed: Packed, five_dimensional: bool):
        self.offset = packed.offsets
        self._context, self._shared = packed.context, packed.shared
        self._five_dimensional = five_dimensional
        self._masks: dict[int | None, Any] = {}

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """(R, heads, L, size) to (R, heads, C * L + L, size)."""
        return self._with_context(keys), self._with_context(values)

    def _with_context(self, own: Any) -> Any:
        pieces = self._context.shape[1]
        if not pieces:
            return own
        rows, heads, length, size = own.shape
        before = own[self._context].transpose(0, 2, 1, 3, 4).reshape(rows, heads, pieces * length, size)
        return mx.concatenate([before, own], axis=2)

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """(R, 1, L, C * L + L), true where a query may look. One dimension more where the model's own attention groups its heads."""
        if window_size not in self._masks:
            self._masks[window_size] = self._mask(tokens, window_size)
        mask = self._masks[window_size]
        return mask[:, :, None] if return_array and self._five_dimensional else mask

    def _mask(self, length: int, window: int | None) -> Any:
        """A key of the context is seen when it is a token of the conversation, so no padding; an own key when it is not later."""
        rows, span = len(self.offset), self._context.shape[1] * length
        offsets, shared = self.offset[:, None, None], self._shared[:, None, None]
        queries = offsets + mx.arange(length)[None, :, None]
        own = offsets + mx.arange(length)[None, None, :]
        place = mx.arange(span)[None, None, :]
        after = place - (shared + length - 1) // length * length  # how far behind the rows of the prefix
        position = mx.where(after < 0, place, shared + after)
        known = (place < shared) | ((after >= 0) & (position < offsets))
        seen = mx.concatenate([mx.broadcast_to(known, (rows, length, span)), own <= queries], axis=2)
        if window is not None:
            places = mx.concatenate([mx.broadcast_to(position, (rows, 1, span)), own], axis=2)
            seen = seen & (queries - places < window)
        return seen[:, None]


class MlxEngine:
    """Loss and gradients by the model's own code and MLX's automatic differentiation, on any device: what the engines made for one do not
    support (dropout, DoRA, other architectures)."""

    def __init__(self, model: Any):
        self.model = model
        self.head = Head(model)
        mx.eval(self.head.weight)
        arguments = model.args
        heads, groups = arguments.num_attention_heads, arguments.num_key_value_heads
        self._five_dimensional = arguments.model_type == "gemma2" and heads != groups
        self._on_gpu = device.current().kind != "cpu"
        self._sizes: list[Size] = []
        self._judged = False  # since the last gradients
        self._loss = self._compiled(self._loss_of)
        self._gradients = self._compiled(self._gradients_of)

    def expect(self, batches: Iterable[Batch]) -> None:
        """All batches of the run. On a GPU, where each size is compiled, they are padded to a few sizes."""
        if self._on_gpu:
            here = device.current()
            self._sizes = shapes.choose(batches, shapes.MOST[here.kind])
            leave_room(here)

    def soon(self, batch: Batch) -> None:
        """Nothing to prepare."""

    def loss(self, batch: Batch) -> float:
        """Summed cross-entropy of the targets, in nats."""
        self.model.eval()
        self._judged = True
        return float(self._loss(*self._pack(batch).arrays()).item())

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, Any]]:
        """The summed loss, and its gradients by parameter name."""
        from mlx.utils import tree_flatten

        if self._judged and self._on_gpu:
            mx.clear_cache()  # what a validation leaves has no size that a step would ask for
        self._judged = False
        self.model.train()
        loss, gradients = self._gradients(*self._pack(batch).arrays())
        mx.eval(loss, gradients)
        return float(loss.item()), dict(tree_flatten(gradients))

    def _pack(self, batch: Batch) -> Packed:
        size = shapes.smallest(self._sizes, batch)
        return pack(batch, shapes.size_of(batch, shapes.LENGTHS[0]) if size is None and self._on_gpu else size)

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
