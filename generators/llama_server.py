"""A real llama.cpp over HTTP, in a process of its own, so that a damaged file ends that process and not the build.

`with serving(gguf) as server:` gives a running server; `server.post("/tokenize", {...})` returns its JSON. Endpoints are llama.cpp's:
`/completion`, `/v1/chat/completions`, `/tokenize`, `/apply-template`, `/health`.
Run as `python -m generators.llama_server MODEL ...` it is that process: it prints `{"url": ...}` once the model is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from generators import measure
from generators.errors import UserError

_START_TIMEOUT_S = 300


@dataclass(frozen=True)
class LlamaServer:
    """url: where it listens, on loopback. slots: requests it works on side by side. load_seconds: from start to ready."""

    url: str
    slots: int
    load_seconds: float

    def post(self, path: str, body: dict[str, Any], timeout: float = 600) -> Any:
        """POST JSON, return the decoded answer. Raises UserError with the server's own message when it refuses."""
        import httpx

        try:
            response = _client().post(self.url + path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise UserError(f"llama.cpp stopped answering ({type(error).__name__} on {path})") from error
        if response.status_code != 200:
            raise UserError(f"llama.cpp refused {path}: {response.status_code} {response.text[:500]}")
        return response.json()

    def tokenize(self, text: str, add_special: bool = False, parse_special: bool = True) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return self.post("/tokenize", body)["tokens"]

    def apply_template(self, messages: list[dict[str, str]]) -> str:
        """The GGUF's own chat template over `messages`, generation prompt included."""
        return self.post("/apply-template", {"messages": messages})["prompt"]


@cache
def _client() -> Any:
    """One for all: making one takes 80 ms, for certificates that loopback has no use for. A proxy of the environment is not asked."""
    import httpx

    return httpx.Client(trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))


def is_installed() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


@contextmanager
def serving(gguf: Path, context: int = 4096, slots: int = 1, threads: int | None = None) -> Iterator[LlamaServer]:
    """Start llama.cpp on `gguf` with `context` tokens a slot. Raises UserError when it is not installed or the file does not load."""
    import time

    if not is_installed():
        raise UserError("llama.cpp is not installed; run: pip install -e '.[embedded]'")
    threads = threads or measure.cores()
    command = [sys.executable, "-m", "generators.llama_server", str(gguf.resolve()), str(context * slots), str(slots), str(threads)]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).parents[1]
        )
        try:
            url = _wait_until_ready(process, log, gguf)
            yield LlamaServer(url, slots, time.perf_counter() - start)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[str], log: Any, gguf: Path) -> str:
    timer = threading.Timer(_START_TIMEOUT_S, process.kill)
    timer.start()
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith('{"url"'):
                return json.loads(line)["url"]
    finally:
        timer.cancel()
    process.wait()
    log.seek(0)
    reasons = [line.strip() for line in log if "error" in line.lower() or "fail" in line.lower()]
    raise UserError(f"llama.cpp cannot load {gguf}: {reasons[0] if reasons else f'it ended with code {process.returncode}'}")


def _stop(process: subprocess.Popen[str]) -> None:
    """Closing its standard input ends the process by itself, also when this one is killed."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _main(gguf: str, context: str, slots: str, threads: str) -> None:
    import signal

    import xllamacpp

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; what it means is the parent's to say

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.n_ctx = int(context)
    params.n_parallel = int(slots)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.use_jinja = True
    params.swa_full = True  # a sliding window's cache would otherwise forget the prompt's beginning, and every request pay for it again
    params.warmup = False
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    sys.stdin.read()  # until the parent closes it or dies
    os._exit(0)  # llama.cpp's threads need no farewell


if __name__ == "__main__":
    _main(*sys.argv[1:])
