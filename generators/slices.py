"""Large tensors a slice of rows at a time, in several threads, results in order: the memory a stage takes does not grow with the model."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Iterable, Iterator, Sequence, TypeVar

from generators.gguf_file import row_count

SLICE_VALUES = 2**21  # 8 MB as float32; dequantising takes a few times that while it lasts
WORKERS = min(os.cpu_count() or 1, 8)

Result = TypeVar("Result")


def row_slices(shape: Sequence[int], whole: bool = False) -> Iterator[tuple[int, int]]:
    """(start, stop) rows of a tensor, about SLICE_VALUES values each. whole: all rows at once, for work that mixes rows."""
    rows = row_count(shape)
    step = rows if whole else max(1, SLICE_VALUES // shape[-1])
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def in_order(jobs: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """Results of `jobs` in their order, computed WORKERS at a time and no further ahead than that. The first failure is raised."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
