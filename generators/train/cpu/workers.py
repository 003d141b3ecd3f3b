"""Threads and memory of the CPU engine.

Every task multiplies with one BLAS thread, and as many tasks run at once as there are cores. The other way, one task with a BLAS of all
cores, measured worse: between the products the cores idle, and BLAS threads that spin for the next call take time from everybody.
"""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Callable, Iterator, Sequence, TypeVar

import numpy as np

Result = TypeVar("Result")
Array = np.ndarray


class Workers:
    """A thread a core. Results do not depend on which thread runs what, nor on when."""

    def __init__(self, count: int | None = None):
        from threadpoolctl import ThreadpoolController

        self.count = count or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="cpu-engine")
        self._blas = ThreadpoolController().select(user_api="blas")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """One BLAS thread a task inside, and as before outside."""
        with self._blas.limit(limits=1):
            yield

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """The results of the tasks, in their order. The first error of a task is raised."""
        if len(tasks) == 1 or self.count == 1:
            return [task() for task in tasks]
        return [future.result() for future in [self._pool.submit(task) for task in tasks]]


def slices(rows: int, workers: int, at_most: int) -> list[slice]:
    """`rows` in slices of nearly one size, as many as fill the workers evenly, none longer than `at_most`."""
    rounds = max(1, math.ceil(rows / (at_most * workers)))
    count = max(1, min(rows, rounds * workers))
    edges = [rows * share // count for share in range(count + 1)]
    return [slice(start, end) for start, end in zip(edges[:-1], edges[1:], strict=True)]


class Arena:
    """Named float32 buffers that are kept from step to step: fresh memory costs a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def get(self, name: str, *shape: int) -> Array:
        """An array with whatever was in it before; it is the only one of that name."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            self._buffers.pop(name, None)
            del buffer
            buffer = self._buffers[name] = np.empty(size, np.float32)
        return buffer[:size].reshape(shape)


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.arena = Arena()


_scratch = _Scratch()


def scratch(name: str, *shape: int) -> Array:
    """A buffer of this thread, valid until the next call with that name in it."""
    return _scratch.arena.get(name, *shape)
