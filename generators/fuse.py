"""Base and adapter as one model in Hugging Face layout, that `mlx_lm.load` loads. Streamed: a slice of rows is in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

from generators import safetensors_stream
from generators.errors import UserError
from generators.files import atomic_directory, human_bytes, require_disk
from generators.lora_delta import Delta, check_deltas, load_deltas

if TYPE_CHECKING:
    import numpy as np

    from generators.safetensors_stream import SafetensorsFile

# What a model directory has beside its weights.
_OTHER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "source.json")


def fuse(base: Path, adapter: Path, target: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Write base + adapter to `target`, in the base's dtypes and files. Returns {tensors, changed, size}.

    Raises UserError, with `target` as it was, when base or adapter is missing or they do not fit, when a value of the sum is not finite,
    or when the disk has no room.
    """
    files = safetensors_stream.model_files(base)
    deltas = load_deltas(adapter)
    require_disk(target.parent, sum(file.stat().st_size for file in files), f"the fused model {target.name}")
    shapes: dict[str, tuple[int, ...]] = {}
    with atomic_directory(target) as folder:
        for file in files:
            with safetensors_stream.SafetensorsFile(file) as source:
                shapes |= {name: tensor.shape for name, tensor in source.tensors.items()}
                _fuse_file(source, deltas, folder / file.name)
        check_deltas(deltas, shapes, adapter)
        _copy_other_files(base, folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
    report(f"fused {len(deltas)} of {len(shapes)} tensors into {target} ({human_bytes(size)})")
    return {"tensors": len(shapes), "changed": len(deltas), "size": size}


def _fuse_file(source: SafetensorsFile, deltas: dict[str, Delta], target: Path) -> None:
    from generators.slices import in_order, row_slices

    def jobs() -> Iterator[Callable[[], np.ndarray]]:
        for tensor in source.tensors.values():
            for start, stop in row_slices(tensor.shape):
                yield lambda name=tensor.name, a=start, b=stop: _fused_slice(source, name, a, b, deltas.get(name))  # type: ignore[misc]

    with target.open("wb") as out:
        out.write(safetensors_stream.header([(t.name, t.shape, t.dtype) for t in source.tensors.values()]))
        for data in in_order(jobs()):
            out.write(data)


def _fused_slice(source: SafetensorsFile, name: str, start: int, stop: int, delta: Delta | None) -> np.ndarray:
    from generators.quantise import encode

    tensor = source.tensors[name]
    if delta is None or delta.shape != tensor.shape:  # one that does not fit is told of when all files are known
        return source.raw(name, start, stop)
    try:
        return encode(delta.apply(source.rows(name, start, stop), start), tensor.dtype)
    except UserError as error:
        raise UserError(f"fused {name} {error}") from error


def _copy_other_files(base: Path, folder: Path) -> None:
    import shutil

    for name in _OTHER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise UserError(f"{base}: no config.json or no tokenizer.json in it; run: doit base")
