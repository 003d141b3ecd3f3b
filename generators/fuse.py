"""Base and adapter as one model in Hugging Face layout, that `mlx_lm.load` loads. Streamed: a slice of rows is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators import safetensors_stream
from generators.errors import UserError
from generators.files import atomic_directory, human_bytes, require_disk
from generators.lora_delta import Delta, check_deltas, load_deltas

if TYPE_CHECKING:
    import numpy as np

    from generators.safetensors_stream import SafetensorsFile, StoredTensor

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
    with ExitStack() as opened:
        sources = [opened.enter_context(safetensors_stream.SafetensorsFile(file)) for file in files]
        shapes = {name: tensor.shape for source in sources for name, tensor in source.tensors.items()}
        check_deltas(deltas, shapes, adapter)
        with atomic_directory(target) as folder:
            for source in sources:
                _fuse_file(source, deltas, folder / source.path.name)
            _copy_other_files(base, folder)
            size = sum(path.stat().st_size for path in folder.iterdir())
    report(f"fused {len(deltas)} of {len(shapes)} tensors into {target} ({human_bytes(size)})")
    return {"tensors": len(shapes), "changed": len(deltas), "size": size}


def _fuse_file(source: SafetensorsFile, deltas: dict[str, Delta], target: Path) -> None:
    from generators.slices import in_order, row_slices

    tensors = list(source.tensors.values())
    jobs = (partial(_fused_slice, source, t, *rows, deltas.get(t.name)) for t in tensors for rows in row_slices(t.shape))
    with target.open("wb") as out:
        out.write(safetensors_stream.header([(t.name, t.shape, t.dtype) for t in tensors]))
        for data in in_order(jobs):
            out.write(data.data)


def _fused_slice(source: SafetensorsFile, tensor: StoredTensor, start: int, stop: int, delta: Delta | None) -> np.ndarray:
    from generators.quantise import encode

    if delta is None:
        return source.raw(tensor.name, start, stop)
    try:
        return encode(delta.apply(source.rows(tensor.name, start, stop), start), tensor.dtype)
    except UserError as error:
        raise UserError(f"fused {tensor.name} {error}") from error


def _copy_other_files(base: Path, folder: Path) -> None:
    import shutil

    for name in _OTHER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise UserError(f"{base}: no config.json or no tokenizer.json in it; run: doit base")
