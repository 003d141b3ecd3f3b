"""Threads and memory of the CPU engine.

Every task multiplies with one BLAS thread, and as many tasks run at once as there are cores. The other way, one task with a BLAS of all
cores, measured worse: between the products the cores idle, and BLAS threads that spin for the next call take time from everybody.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from generators.measure import cores

Result = TypeVar("Result")
Array = np.ndarray


class Workers:
    """A thread a core. Results do not depend on which thread runs what, nor on when."""

    def __init__(self, count: int | None = None):
        from threadpoolctl import ThreadpoolController

        self.count = count or cores()
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


def slices(rows: int, workers: int, at_most: int, at_least: int = 1) -> list[slice]:
    """`rows` in slices of nearly one size, as many as keep the workers evenly busy: none longer than `at_most`, nor, if there is more
    than one, shorter than `at_least`."""
    count = min(math.ceil(rows / (at_most * workers)) * workers, max(1, rows // at_least), rows)
    edges = [rows * share // max(1, count) for share in range(count + 1)]
    return [slice(start, end) for start, end in zip(edges[:-1], edges[1:], strict=True)]


class Arena:
    """Memory for the arrays of a step, kept from step to step: fresh memory costs a page fault every 4 KiB.

    It comes in large chunks, which the allocator takes from the system and gives back whole; buffers that grow one by one would leave
    holes behind them.
    """

    _CHUNK = 64 * 1024 * 1024 // 4  # float32 numbers

    def __init__(self) -> None:
        self._chunks: list[Array] = []
        self._used: list[int] = []  # how many numbers of each chunk are taken
        self._lock = threading.Lock()

    def restart(self) -> None:
        """What was taken may be overwritten from now on."""
        self._used = [0] * len(self._chunks)

    @property
    def taken(self) -> int:
        """How many numbers, since the restart."""
        return sum(self._used)

    def take(self, *shape: int) -> Array:
        """A float32 array of its own, with whatever was in that memory before."""
        size = math.prod(shape)
        with self._lock:
            for number, used in enumerate(self._used):
                if used + size <= len(self._chunks[number]):
                    break
            else:
                number, used = len(self._chunks), 0
                self._chunks.append(np.empty(max(size, self._CHUNK), np.float32))
                self._used.append(0)
            self._used[number] = used + -(-size // 16) * 16  # the next one starts at a cache line
        return self._chunks[number][used : used + size].reshape(shape)


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, Array] = {}


_scratch = _Scratch()


def scratch(name: str, *shape: int) -> Array:
    """A small buffer of this thread, valid until the next call with that name in it."""
    size = math.prod(shape)
    if name not in _scratch.buffers or _scratch.buffers[name].size < size:
        _scratch.buffers[name] = np.empty(size, np.float32)
    return _scratch.buffers[name][:size].reshape(shape)
