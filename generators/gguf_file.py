"""GGUF as a container: metadata and tensors read without loading the file, and written front to back.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). Metadata is kept as the bytes that stand in
the file, so that a key nobody touches is copied unchanged; a vocabulary of 256 k strings is decoded only when asked for.

Shapes are numpy's (rows first); ggml writes them the other way round. A 1-D tensor counts as one row.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from generators import ggml
from generators.errors import UserError
from generators.files import human_bytes

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 32  # of tensor data, in bytes; llama.cpp's default

_MAGIC = b"GGUF"
_STRING, _ARRAY, _BOOL = 8, 9, 7
_UINT32, _INT32, _FLOAT32 = 4, 5, 6
# struct codes of the scalar kinds, by GGUF's number of the kind
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", _UINT32: "I", _INT32: "i", _FLOAT32: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMENSIONS = 4
_MAX_NESTING = 4


@dataclass(frozen=True)
class Entry:
    """One metadata value. kind: GGUF's number of its type. data: its bytes as they stand in a file."""

    kind: int
    data: bytes

    @cached_property
    def value(self) -> Any:
        """int, float, bool, str, or a list of these."""
        value, _ = _decode(self.data, 0, self.kind)
        return value


@dataclass(frozen=True)
class Tensor:
    """shape: rows first. type: ggml's name (`F32`, `Q4_K`). offset: from the start of the file, bytes. size: bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int

    @property
    def rows(self) -> int:
        return row_count(self.shape)


class GgufFile:
    """A GGUF opened for reading. `metadata` and `tensors` are in the file's order.

    Raises UserError when the file is none, is cut short, repeats a tensor or uses a type that ggml does not know.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror})") from error
        self.file_size = path.stat().st_size
        try:
            self.metadata, self.tensors = _read_header(self._file, self.file_size)
        except _Damaged as error:
            self._file.close()
            raise UserError(f"{path}: {error}") from error

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def value(self, key: str, default: Any = None) -> Any:
        entry = self.metadata.get(key)
        return default if entry is None else entry.value

    def require(self, key: str) -> Any:
        """Raises UserError when the metadata has no such key."""
        if key not in self.metadata:
            raise UserError(f"{self.path}: the metadata has no {key}")
        return self.metadata[key].value

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(rows, bytes a row) uint8: rows start to stop of a tensor as they are stored. Safe to call from several threads."""
        import os

        import numpy as np

        tensor = self.tensors[name]
        stop = tensor.rows if stop is None else stop
        width = tensor.size // tensor.rows
        data = os.pread(self._file.fileno(), (stop - start) * width, tensor.offset + start * width)
        if len(data) != (stop - start) * width:
            raise UserError(f"{self.path}: the file ends inside tensor {name}")
        return np.frombuffer(data, np.uint8).reshape(stop - start, width)

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(rows, columns) float32: rows start to stop of a tensor, dequantised."""
        return dequantise(self.raw(name, start, stop), self.tensors[name].type)


class _Damaged(Exception):
    """What is wrong with the file, without its name."""


def row_count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape[:-1]:
        count *= size
    return count


def dequantise(raw: np.ndarray, type_name: str) -> np.ndarray:
    """raw: (rows, bytes a row) uint8 in ggml type `type_name`. Returns (rows, columns) float32."""
    import numpy as np

    if type_name == "F32":
        return raw.view(np.float32)
    if type_name == "F16":
        return raw.view(np.float16).astype(np.float32)
    if type_name == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    dequantiser = ggml.dequantiser(type_name)
    if dequantiser is None:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        return dequantize(raw, GGMLQuantizationType[type_name]).astype(np.float32, copy=False)
    values, size = block_size(type_name)
    rows = np.empty((raw.shape[0], raw.shape[1] // size * values), np.float32)
    dequantiser(raw.ctypes.data, rows.ctypes.data, rows.size)
    return rows


@cache
def block_size(type_name: str) -> tuple[int, int]:
    """(values, bytes) of one block of ggml type `type_name`."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]


def stored_size(shape: Sequence[int], type_name: str) -> int:
    """Bytes that a tensor takes. The last dimension is a whole number of blocks."""
    values, size = block_size(type_name)
    return row_count(shape) * (shape[-1] // values) * size


# Metadata values to write.


def text(value: str) -> Entry:
    return Entry(_STRING, _string(value))


def uint32(value: int) -> Entry:
    return Entry(_UINT32, struct.pack("<I", value))


def float32(value: float) -> Entry:
    return Entry(_FLOAT32, struct.pack("<f", value))


def flag(value: bool) -> Entry:
    return Entry(_BOOL, struct.pack("<?", value))


def texts(values: Sequence[str]) -> Entry:
    return Entry(_ARRAY, struct.pack("<IQ", _STRING, len(values)) + b"".join(map(_string, values)))


def int32s(values: Sequence[int]) -> Entry:
    return Entry(_ARRAY, struct.pack(f"<IQ{len(values)}i", _INT32, len(values), *values))


def float32s(values: Sequence[float]) -> Entry:
    return Entry(_ARRAY, struct.pack(f"<IQ{len(values)}f", _FLOAT32, len(values), *values))


def plan(tensors: Iterable[tuple[str, Sequence[int], str]]) -> list[Tensor]:
    """Lay out (name, shape, type) one after the other. Offsets count from the start of the tensor data."""
    planned, offset = [], 0
    for name, shape, type_name in tensors:
        size = stored_size(shape, type_name)
        planned.append(Tensor(name, tuple(shape), type_name, offset, size))
        offset += size + padding(size)
    return planned


def padding(size: int) -> int:
    """Bytes from `size` to the next aligned place."""
    return -size % ALIGNMENT


def header(metadata: Mapping[str, Entry], tensors: Sequence[Tensor]) -> bytes:
    """Everything before the tensor data; `tensors` as `plan` laid them out. The data follows, each tensor padded to ALIGNMENT."""
    from gguf import GGMLQuantizationType

    parts = [_MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, entry in metadata.items():
        parts += [_string(key), struct.pack("<I", entry.kind), entry.data]
    for tensor in tensors:
        dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        parts += [_string(tensor.name), dimensions, struct.pack("<IQ", GGMLQuantizationType[tensor.type].value, tensor.offset)]
    head = b"".join(parts)
    return head + bytes(padding(len(head)))


def _string(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Entry], dict[str, Tensor]]:
    if size < 24 or file.read(4) != _MAGIC:
        raise _Damaged("this is no GGUF file")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            version, tensor_count, entry_count = struct.unpack_from("<IQQ", data, 4)
            if version not in (2, 3):
                raise _Damaged(f"GGUF version {version} is not supported, only 2 and 3 (little-endian)")
            metadata, at = _read_metadata(data, 24, entry_count)
            infos, at = _read_tensor_infos(data, at, tensor_count)
        except (struct.error, IndexError) as error:
            raise _Damaged("the file ends inside its header: it is cut short") from error
    alignment = metadata["general.alignment"].value if "general.alignment" in metadata else ALIGNMENT
    if not isinstance(alignment, int) or alignment <= 0:
        raise _Damaged(f"general.alignment is {alignment}")
    return metadata, _place(infos, at + -at % alignment, size)


def _read_metadata(data: mmap.mmap, at: int, count: int) -> tuple[dict[str, Entry], int]:
    metadata: dict[str, Entry] = {}
    for _ in range(count):
        key, at = _read_string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        end = _skip(data, at + 4, kind)
        metadata[key] = Entry(kind, data[at + 4 : end])
        at = end
    return metadata, at


_Info = tuple[str, tuple[int, ...], int, int]


def _read_tensor_infos(data: mmap.mmap, at: int, count: int) -> tuple[list[_Info], int]:
    infos: list[_Info] = []
    for _ in range(count):
        name, at = _read_string(data, at)
        (dimensions,) = struct.unpack_from("<I", data, at)
        if not 0 < dimensions <= _MAX_DIMENSIONS:
            raise _Damaged(f"tensor {name} has {dimensions} dimensions")
        *shape, kind, offset = struct.unpack_from(f"<{dimensions}QIQ", data, at + 4)
        infos.append((name, tuple(reversed(shape)), kind, offset))
        at += 4 + dimensions * 8 + 12
    return infos, at


def _place(infos: list[_Info], data_start: int, file_size: int) -> dict[str, Tensor]:
    from gguf import GGMLQuantizationType

    tensors: dict[str, Tensor] = {}
    for name, shape, kind, offset in infos:
        try:
            type_name = GGMLQuantizationType(kind).name
        except ValueError as error:
            raise _Damaged(f"tensor {name} has type {kind}, which is unknown") from error
        if name in tensors:
            raise _Damaged(f"tensor {name} is there twice")
        if 0 in shape or shape[-1] % block_size(type_name)[0]:
            raise _Damaged(f"tensor {name} has shape {shape}, which {type_name} cannot hold")
        tensor = Tensor(name, shape, type_name, data_start + offset, stored_size(shape, type_name))
        if tensor.offset + tensor.size > file_size:
            raise _Damaged(
                f"the file is cut short: {human_bytes(file_size)}, but tensor {name} ends at {human_bytes(tensor.offset + tensor.size)}"
            )
        tensors[name] = tensor
    return tensors


def _read_string(data: mmap.mmap, at: int) -> tuple[str, int]:
    end = _skip(data, at, _STRING)
    return data[at + 8 : end].decode("utf-8", errors="replace"), end


def _skip(data: Any, at: int, kind: int, nesting: int = 0) -> int:
    """Where the value of `kind` that starts at `at` ends. Raises struct.error past the end, _Damaged on an unknown kind."""
    if kind in _SCALARS:
        end = at + struct.calcsize(_SCALARS[kind])
    elif kind == _STRING:
        (length,) = struct.unpack_from("<Q", data, at)
        end = at + 8 + length
    elif kind == _ARRAY and nesting < _MAX_NESTING:
        item, count = struct.unpack_from("<IQ", data, at)
        end = at + 12
        if item in _SCALARS:
            end += count * struct.calcsize(_SCALARS[item])
        else:
            for _ in range(count):
                end = _skip(data, end, item, nesting + 1)
    else:
        raise _Damaged(f"the metadata has a value of kind {kind}, which is unknown")
    if end > len(data):
        raise struct.error
    return end


def _decode(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    end = _skip(data, at, kind)
    if kind in _SCALARS:
        return struct.unpack_from("<" + _SCALARS[kind], data, at)[0], end
    if kind == _STRING:
        return data[at + 8 : end].decode("utf-8", errors="replace"), end
    item, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if item in _SCALARS:
        return list(struct.unpack_from(f"<{count}{_SCALARS[item]}", data, at)), end
    values = []
    for _ in range(count):
        value, at = _decode(data, at, item)
        values.append(value)
    return values, end
