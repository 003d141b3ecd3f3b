"""Safetensors read and written a slice of rows at a time, so that no more than a slice is in memory.

Format: github.com/huggingface/safetensors: eight bytes of header length, a JSON header, then the tensors' bytes. A 1-D tensor counts as
one row. numpy has no bfloat16; it is widened to float32 when read and rounded to nearest even when written.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from generators.errors import UserError
from generators.gguf_file import row_count

if TYPE_CHECKING:
    import numpy as np

_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_LARGEST_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class StoredTensor:
    """shape: rows first. dtype: `F32`, `F16`, `BF16`. offset: from the start of the file, bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def rows(self) -> int:
        return row_count(self.shape)

    @property
    def size(self) -> int:
        return self.rows * self.shape[-1] * _BYTES[self.dtype]


class SafetensorsFile:
    """One file opened for reading; `tensors` in the file's order.

    Raises UserError when the file is none, is cut short, or holds another dtype than float32, float16 and bfloat16.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror})") from error
        try:
            self.tensors = self._read_header()
        except UserError:
            self._file.close()
            raise

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read_header(self) -> dict[str, StoredTensor]:
        file_size = self.path.stat().st_size
        head = self._file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < length <= min(_LARGEST_HEADER, file_size - 8):
            raise UserError(f"{self.path}: this is no safetensors file, or it is cut short")
        try:
            entries = json.loads(self._file.read(length))
            entries.pop("__metadata__", None)
            return {name: self._tensor(name, entry, 8 + length, file_size) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: the safetensors header cannot be read ({error})") from error

    def _tensor(self, name: str, entry: dict, data_start: int, file_size: int) -> StoredTensor:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        if dtype not in _BYTES:
            raise UserError(f"{self.path}: {name} is stored as {dtype}; only float32, float16 and bfloat16 weights are supported")
        if not shape or 0 in shape:
            raise UserError(f"{self.path}: {name} has shape {shape}")
        begin, end = entry["data_offsets"]
        tensor = StoredTensor(name, shape, dtype, data_start + begin)
        if end - begin != tensor.size or data_start + end > file_size:
            raise UserError(f"{self.path}: the file is cut short: {name} does not fit into it")
        return tensor

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(rows, bytes a row) uint8, as stored. Safe to call from several threads."""
        import numpy as np

        tensor = self.tensors[name]
        stop = tensor.rows if stop is None else stop
        width = tensor.size // tensor.rows
        data = os.pread(self._file.fileno(), (stop - start) * width, tensor.offset + start * width)
        if len(data) != (stop - start) * width:
            raise UserError(f"{self.path}: the file ends inside tensor {name}")
        return np.frombuffer(data, np.uint8).reshape(stop - start, width)

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(rows, columns) float32."""
        from generators.gguf_file import dequantise

        return dequantise(self.raw(name, start, stop), self.tensors[name].dtype)


def model_files(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face directory, as mlx_lm looks for them. Raises UserError when there is none."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no model*.safetensors in it")
    return files


def header(tensors: Sequence[tuple[str, Sequence[int], str]]) -> bytes:
    """Everything before the data of (name, shape, dtype), which follows in this order without gaps."""
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for name, shape, dtype in tensors:
        size = row_count(shape) * shape[-1] * _BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    data = json.dumps(entries).encode()
    data += b" " * (-len(data) % 8)  # tensor data starts on eight bytes
    return struct.pack("<Q", len(data)) + data


def data_size(tensors: Iterable[tuple[str, Sequence[int], str]]) -> int:
    """Bytes of the data of (name, shape, dtype)."""
    return sum(row_count(shape) * shape[-1] * _BYTES[dtype] for _, shape, dtype in tensors)
