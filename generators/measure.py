"""What a stage takes on this machine: seconds and memory."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Measure:
    """From its creation to `taken`."""

    def __init__(self) -> None:
        self._memory_is_ours = _reset_peak_memory()
        self._children = _greatest("RUSAGE_CHILDREN")
        self._started = time.monotonic()

    def taken(self) -> dict[str, Any]:
        """{"taken": {seconds, memory_bytes, at, machine}}. memory_bytes: the process's peak meanwhile, with its largest child, if any;
        where the system cannot tell, the peak since the process began."""
        memory = _peak_memory() if self._memory_is_ours else _greatest("RUSAGE_SELF")
        children = _greatest("RUSAGE_CHILDREN")
        memory += children if children > self._children else 0
        return {
            "taken": {
                "seconds": round(time.monotonic() - self._started, 3),
                "memory_bytes": memory,
                "at": round(time.time(), 3),
                "machine": this_machine(),
            }
        }


def cores() -> int:
    """Processors that this process may use, where the system tells: fewer than the machine has, in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> str:
    """Told from others, so that a figure measured elsewhere is not taken for one of here."""
    return f"{platform.node()} {platform.machine()} {os.cpu_count()}"


def _reset_peak_memory() -> bool:
    """Linux forgets the peak of the resident set on request (proc(5), clear_refs)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return _STATUS.is_file()


def _peak_memory() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def _greatest(who: str) -> int:
    import resource

    peak = resource.getrusage(getattr(resource, who)).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
