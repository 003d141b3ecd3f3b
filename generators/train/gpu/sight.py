"""Who sees whom in a batch, and where a large one is cut.

A batch of chat samples is so short that one dense product of all its queries with all its keys costs less than the launches that would
spare the masked part. A larger batch is cut into *pieces* of equally many tokens, wherever that falls, so that queries need not be moved
in memory. The queries of a piece see the keys of every prefix, and those of a *window*: the piece itself and as many before it as a segment
may lie in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from generators.device import load_mlx
from generators.train.blocks import Heads
from generators.train.fused import fused
from generators.train.layout import Layout

mx = load_mlx()
View = Mapping[str, Any]
"""bias: (C, 1, Lq * shared, Lk), 0 where a query may look and -inf elsewhere; without pieces C is 1, and Lq and Lk are T, the number of
tokens with padding.
rows: (N,) int32, in the last layer: those tokens that something is predicted from. Nothing depends on what else goes out of it.
With pieces Lq is T / C, Lk is P + n Lq for windows of n pieces, and there are, all int32,
prefixes: (P,), the tokens of all prefixes, padded with the last token, which is padding itself. keys: (C, Lk), which token each key is.
windows: (T, n), where in (C Lk) a token is in the windows that reach it; filled up with a place whose gradient is 0."""

ROUND = 64  # numbers of tokens are rounded up to a multiple: matrix units like that, and fewer shapes have to be prepared
LENGTHS = (64, 128, 192, 256, 384, 512, 768, 1024)  # tokens of a piece
_WHOLE = 2048  # a batch of more tokens is cut into pieces, unless that costs more
_fixed: ContextVar[int | None] = ContextVar("fixed", default=None)
_NOBODY = -1  # the group of padding


@contextmanager
def in_pieces(length: int = 0) -> Iterator[None]:
    """Batches of any size are cut into pieces of `length` tokens; or, without one, into so small ones that even of a few short rows some lie
    in several."""
    before = _fixed.set(length)
    try:
        yield
    finally:
        _fixed.reset(before)


def rounded(count: int) -> int:
    return -(-count // ROUND) * ROUND


class Sight:
    """Who sees whom in a batch. tokens: T, its tokens with padding, of which the last is padding."""

    def __init__(self, layout: Layout, dtype: Any):
        self.cut = cheapest_cut(layout)
        self.tokens = self.cut.tokens if self.cut else rounded(layout.tokens + 1)
        group, row = np.full(self.tokens, _NOBODY, np.int32), np.full(self.tokens, len(layout.segments) + 1, np.int32)
        position = np.zeros(self.tokens, np.int32)
        position[: layout.tokens] = layout.positions
        prefixes = {segment.prefix.start for segment in layout.segments if segment.prefix is not None}
        number_of_group = 0
        for number, segment in enumerate(layout.segments, 1):
            number_of_group += segment.prefix is None
            group[segment.rows] = number_of_group
            row[segment.rows] = 0 if segment.rows.start in prefixes else number  # 0 is seen by all of its group
        self._of_tokens = mx.array(np.stack([group, row, position]))
        self._dtype = dtype
        self._of_pieces = self.cut.view() if self.cut else {}
        self._biases: dict[tuple[int | None, int], Any] = {}

    @property
    def scores(self) -> int:
        """Those of one query head."""
        return self.tokens * (self.cut.keys.shape[1] if self.cut else self.tokens)

    def view(self, heads: Heads) -> dict[str, Any]:
        key = (heads.window, heads.shared)
        if key not in self._biases:
            self._biases[key] = mx.repeat(self._bias(heads.window), heads.shared, axis=1)[:, None]
        return {"bias": self._biases[key], **self._of_pieces}

    def _bias(self, window: int | None) -> Any:
        """(C, Lq, Lk)"""
        queries = keys = self._of_tokens[:, None]
        shared = mx.zeros((1, 1, 1), mx.bool_)
        if self.cut:  # a prefix is among the keys that all pieces have, and must not count twice
            keys = self._of_tokens[:, self._of_pieces["keys"]]
            queries = self._of_tokens.reshape(3, keys.shape[1], -1)
            shared = (mx.arange(keys.shape[2]) < len(self.cut.prefixes))[None, None]
        seen = fused(_seen_in_pieces if self.cut else _seen)(*queries[..., None], *keys[:, :, None], shared, mx.array(window or 2**30))
        return mx.where(seen, mx.array(0, self._dtype), mx.array(-mx.inf, self._dtype))


def _near(group: Any, position: Any, group_of_key: Any, position_of_key: Any, window: Any) -> Any:
    distance = position - position_of_key
    return (group == group_of_key) & (distance >= 0) & (distance < window)


def _seen(group: Any, row: Any, position: Any, key_group: Any, key_row: Any, key_position: Any, shared: Any, window: Any) -> Any:
    return _near(group, position, key_group, key_position, window) & ((row == key_row) | (key_row == 0))


def _seen_in_pieces(group: Any, row: Any, position: Any, key_group: Any, key_row: Any, key_position: Any, shared: Any, window: Any) -> Any:
    """shared: which keys are those of the prefixes."""
    own = (row == key_row) & (key_row > 0)
    return _near(group, position, key_group, key_position, window) & mx.where(shared, key_row == 0, own)


# --- where to cut

# What costs as much as one score of one query head, about, in a model of 2 billion parameters: a token of padding in all layers; and a key
# of 256 numbers that is copied into a window, with its gradient.
_OF_A_TOKEN, _OF_A_KEY = 8192, 32


class Cut:
    """A batch in pieces of `length` tokens. tokens: T. reach: n. prefixes, keys: as a `View` has them."""

    def __init__(self, layout: Layout, length: int):
        count = layout.tokens // length + 1
        self.length, self.tokens = length, count * length
        spans = {(segment.prefix.start, segment.prefix.stop) for segment in layout.segments if segment.prefix is not None}
        of_prefixes = [token for span in sorted(spans) for token in range(*span)]
        self.prefixes = np.full(rounded(len(of_prefixes)), self.tokens - 1)
        self.prefixes[: len(of_prefixes)] = of_prefixes
        own = [segment.rows for segment in layout.segments if (segment.rows.start, segment.rows.stop) not in spans]
        self.reach = max(((rows.stop - 1) // length - rows.start // length + 1 for rows in own), default=1)
        window = length * (np.arange(count)[:, None] - (self.reach - 1)) + np.arange(length * self.reach)
        window[window < 0] = self.tokens - 1
        self.keys = np.concatenate([np.broadcast_to(self.prefixes, (count, len(self.prefixes))), window], axis=1)

    @property
    def cost(self) -> int:
        """In scores of one query head."""
        return self.tokens * (_OF_A_TOKEN + self.keys.shape[1]) + self.keys.size * _OF_A_KEY

    def view(self) -> dict[str, Any]:
        """What there is with pieces."""
        tokens, later = np.arange(self.tokens)[:, None], np.arange(self.reach)
        count, keys = self.keys.shape
        # a token is among the last `length` keys of its own piece, among those before them of the next piece, ...
        piece = tokens // self.length + later
        windows = piece * keys + keys - self.length * (1 + later) + tokens % self.length
        windows[piece >= count] = self.keys.size - 1  # that is padding, which only padding sees
        return {name: mx.array(array.astype(np.int32))
                for name, array in {"prefixes": self.prefixes, "keys": self.keys, "windows": windows}.items()}  # fmt: skip


def cheapest_cut(layout: Layout) -> Cut | None:
    """None where it is best to leave the batch whole."""
    fixed = _fixed.get()
    if fixed is not None:
        return Cut(layout, fixed or max(8, layout.tokens // 4))
    whole = rounded(layout.tokens + 1)
    if whole <= _WHOLE:
        return None
    best = min((Cut(layout, length) for length in LENGTHS), key=lambda cut: cut.cost)
    return best if best.cost < whole * (_OF_A_TOKEN + whole) else None
