"""An adapter as one array.

It is hundreds of small arrays, each of which costs a GPU a launch for whatever is done to it. End to end, they are one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from generators.device import load_mlx

mx = load_mlx()


class Vector:
    """The arrays of some names, in one order. It remembers the last vector that was taken apart or put together, and need not put that
    together again."""

    def __init__(self, arrays: Mapping[str, Any]):
        """arrays: of the right names and shapes."""
        self.shapes = {name: array.shape for name, array in arrays.items()}
        self._edges = list(accumulate((array.size for array in arrays.values()), initial=0))
        self._last: Any = None
        self._parts: dict[str, Any] = {}  # of the last vector

    def joined(self, arrays: Mapping[str, Any]) -> Any:
        return mx.concatenate([arrays[name].reshape(-1) for name in self.shapes])

    def filled(self, numbers: Mapping[str, float]) -> Any:
        """A vector that has a number wherever the array of that name is, and 1 elsewhere."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        return mx.array(np.repeat(np.array([numbers.get(name, 1) for name in self.shapes], np.float32), sizes))

    def split(self, vector: Any) -> dict[str, Any]:
        """Views of it, by name."""
        pieces = zip(self._edges, self._edges[1:], strict=False)
        return {name: vector[start:end].reshape(shape) for (name, shape), (start, end) in zip(self.shapes.items(), pieces, strict=True)}

    def taken_apart(self, vector: Any) -> dict[str, Any]:
        """`split`, and remembered."""
        self._last, self._parts = vector, self.split(vector)
        return self._parts

    def of(self, arrays: Mapping[str, Any]) -> Any:
        """The last vector, if `arrays` are its parts; else a new one."""
        if self._last is None or any(arrays[name] is not part for name, part in self._parts.items()):
            self._last, self._parts = self.joined(arrays), {name: arrays[name] for name in self.shapes}
        return self._last
