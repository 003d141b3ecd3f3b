"""How much memory and how much of the accelerator a run uses, by what each platform offers without special rights."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

from generators.device import Device, load_mlx


@dataclass(frozen=True)
class Use:
    """memory, peak: bytes held by this process on the accelerator (on the CPU: resident). busy: share of the accelerator, 0 to 1, or None."""

    memory: int
    peak: int
    busy: float | None


class Meter:
    """Reads the use since the last reading."""

    def __init__(self, device: Device):
        import psutil

        self.device = device
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._nvml = _nvml_handle() if device.kind == "cuda" else None

    def read(self) -> Use:
        if self.device.kind == "cpu":
            return Use(self._process.memory_info().rss, peak_resident(), self._cpu_share())
        mx = load_mlx()
        busy = _metal_share() if self.device.kind == "metal" else self._cuda_share()
        return Use(mx.get_active_memory(), mx.get_peak_memory(), busy)

    def _cpu_share(self) -> float:
        import psutil

        return min(1.0, self._process.cpu_percent() / 100 / (psutil.cpu_count() or 1))

    def _cuda_share(self) -> float | None:
        if self._nvml is None:
            return None
        import pynvml

        return pynvml.nvmlDeviceGetUtilizationRates(self._nvml).gpu / 100


# Of a GPU's memory, what MLX may hold. By default it keeps freed buffers up to 95 %, and what it does not count itself (CUDA's context, its
# graphs and the plans of its libraries) finds no room when batches of many sizes were seen.
_SHARE = 0.75
_KEPT_ON_METAL = 1_000_000_000  # bytes of freed buffers, where memory is the whole system's


def leave_room(device: Device) -> None:
    """Have MLX give freed memory back before it fills the accelerator, or on Metal the system's memory."""
    mx = load_mlx()
    if device.kind == "metal":
        mx.set_cache_limit(_KEPT_ON_METAL)
    elif device.kind == "cuda":
        told = mx.device_info()
        total = told.get("total_memory") or told.get("memory_size")
        if total:
            mx.set_memory_limit(int(_SHARE * int(total)))


def peak_resident() -> int:
    """Bytes of this process's largest resident size so far (getrusage counts kB on Linux, bytes on macOS)."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cuda_memory() -> tuple[int, int] | None:
    """Bytes of the first GPU: in all, and free now. None where NVIDIA's library does not tell."""
    handle = _nvml_handle()
    if handle is None:
        return None
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.free)


def _nvml_handle() -> Any:
    """None where NVIDIA's library or its Python binding is missing: use is then not reported."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # ImportError, or NVMLError of any kind
        return None


def _metal_share() -> float | None:
    """`Device Utilization %` of the GPU's IORegistry entry; readable without sudo."""
    try:
        found = subprocess.run(["ioreg", "-r", "-d", "1", "-c", "IOAccelerator"], capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    share = re.search(r'"Device Utilization %"\s*=\s*(\d+)', found)
    return int(share[1]) / 100 if share else None
