"""The processes that train one adapter together, each on its share of every batch: MLX's own engine (`mx.distributed`), over whichever of
its transports started them (ring over TCP, MPI, NCCL, JACCL).

All of them make the same steps from the same sums, so they hold the same adapter; only the first one writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generators.device import load_mlx
from generators.errors import UserError
from generators.train.data import Batch, group_rows

mx = load_mlx()


class PeerLost(UserError):
    """A process of the group does not answer any more."""


@dataclass(frozen=True)
class Peers:
    """group: of mx.distributed, or None for a process that trains alone."""

    group: Any = None

    @property
    def rank(self) -> int:
        return self.group.rank() if self.group else 0

    @property
    def count(self) -> int:
        return self.group.size() if self.group else 1

    @property
    def alone(self) -> bool:
        return self.group is None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share_of(self, batch: Batch) -> Batch:
        """This process's rows of a batch; none where there are fewer rows than processes. Every row is one process's."""
        if self.alone:
            return batch
        rows = [row for group in batch for row in group.rows]
        return group_rows(rows[self.rank :: self.count])

    def sums(self, numbers: Sequence[float], arrays: dict[str, Any], like: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
        """Over all processes, each of `numbers`, and of `arrays` those of each name, as float32. like: name to array of those that are
        summed; what is missing in `arrays` counts as zero. Raises PeerLost."""
        if self.alone:
            return list(numbers), arrays
        names = sorted(like)  # in one order everywhere
        parts = [mx.array(arrays[name]).astype(mx.float32) if name in arrays else mx.zeros(like[name].shape) for name in names]
        total = self._sum(mx.concatenate([mx.array(numbers, mx.float32), *(part.reshape(-1) for part in parts)]))
        found, start = {}, len(numbers)
        for name, part in zip(names, parts, strict=True):
            found[name] = total[start : start + part.size].reshape(part.shape)
            start += part.size
        return total[: len(numbers)].tolist(), found

    def copies(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The first process's values of `arrays`, which have the same names, shapes and dtypes in all. Raises PeerLost."""
        if self.alone:
            return arrays
        mine = arrays if self.first else {name: mx.zeros_like(array) for name, array in arrays.items()}
        return {name: self._sum(mine[name]) for name in sorted(mine)}  # in one order everywhere

    def gather(self, text: str) -> list[str]:
        """What every process says, by rank. Raises PeerLost."""
        return [self.told(text, rank) for rank in range(self.count)]

    def told(self, text: str, rank: int = 0) -> str:
        """What the process of that rank says. Raises PeerLost."""
        if self.alone:
            return text
        import numpy as np

        data = np.frombuffer(text.encode() if rank == self.rank else b"", np.uint8)
        length = int(self._sum(mx.array([data.size])).item())
        if not length:
            return ""
        return np.array(self._sum(mx.array(data) if rank == self.rank else mx.zeros(length, mx.uint8))).tobytes().decode()

    def _sum(self, array: Any) -> Any:
        try:
            total = mx.distributed.all_sum(array, group=self.group)
            mx.eval(total)
        except RuntimeError as error:
            raise PeerLost(f"another machine of the group does not answer any more ({error})") from error
        return total


ALONE = Peers()


def join(backend: str | None) -> Peers:
    """The group that mlx.launch started this process in. backend: as mlx.launch was told, or None for whichever answers.

    Raises UserError where the others cannot be reached.
    """
    try:
        group = mx.distributed.init(strict=True, backend=backend or "any")
    except RuntimeError as error:
        raise UserError(f"the other machines cannot be reached ({error})") from error
    if group.size() == 1:
        raise UserError("this process is in no group; mlx.launch starts groups")
    return Peers(group)
