"""Large tensors a slice of rows at a time, in several threads, results in order: the memory a stage takes does not grow with the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from generators import measure
from generators.gguf_file import row_count

if TYPE_CHECKING:
    import numpy as np

SLICE_VALUES = 2**21  # 8 MB as float32; dequantising takes a few times that while it lasts
WORKERS = min(measure.cores(), 8)

Result = TypeVar("Result")


def row_slices(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) rows of a tensor, about SLICE_VALUES values each."""
    rows = row_count(shape)
    step = max(1, SLICE_VALUES // shape[-1])
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def reordered_rows(
    read: Callable[[int, int], np.ndarray], shape: Sequence[int], start: int, stop: int, order: np.ndarray | None
) -> np.ndarray:
    """Rows start to stop of a tensor whose row i is row order[i] of what `read(start, stop)` gives; the values themselves when it is 1-D.

    Only the span that these rows come from is read: an order that stays within heads needs little more than the slice.
    """
    if order is None:
        return read(start, stop)
    if len(shape) == 1:
        return read(0, 1)[:, order]
    wanted = order[start:stop]
    low = int(wanted.min())
    return read(low, int(wanted.max()) + 1)[wanted - low]


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
