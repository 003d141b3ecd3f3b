"""What llama.cpp makes of a text that is given to it: the probability of each token, and which token it would have said instead.

llama.cpp's server tells probabilities only of what it generates, one token a pass; here a whole text goes through in a few passes, by
llama.cpp's C interface (llama.h), out of the shared library that xllamacpp brings, in a process of its own as `llama_server` does it.

`with scoring(gguf) as score: score(ids, positions)` gives what the model thinks of the tokens of `ids` at `positions`.
Run as `python -m generators.llama_logits MODEL CONTEXT THREADS` it is that process: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators import ggml, measure
from generators.errors import UserError

_CHUNK = 128  # tokens a pass: the logits of Gemma's 262144 tokens are then 134 MB
# llama.h passes its settings by value and adds fields at their end from time to time: a block larger than any of them is handed over, of
# which the library reads as much as it knows. Only the first fields are set here, and their defaults are looked at before.
_ROOM_FOR_SETTINGS = 1024
_DEFAULTS = (512, 2048, 512)  # n_ctx, n_batch, n_ubatch of llama_context_default_params()


@dataclass(frozen=True)
class Scored:
    """log_probabilities: natural logarithm of each asked token's probability. tops: the token that was likeliest in its place."""

    log_probabilities: list[float]
    tops: list[int]


Score = Callable[[Sequence[int], Sequence[int]], Scored]


@contextmanager
def scoring(gguf: Path, context: int, threads: int | None = None) -> Iterator[Score]:
    """`score(ids, positions)`: a conversation's token ids, at most `context` of them, BOS included, and the positions (from 1, rising) of
    those that are asked about. What an `ids` shares with the one before it, from the beginning, is not computed again.

    Raises UserError when llama.cpp is not installed or the file does not load.
    """
    if ggml.library() is None:
        raise UserError("llama.cpp is not installed; run: pip install -e '.[embedded]'")
    command = [sys.executable, "-m", "generators.llama_logits", str(gguf.resolve()), str(context), str(threads or measure.cores())]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).parents[1]
        )
        try:
            yield lambda ids, positions: _ask(process, log, gguf, ids, positions)
        finally:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.kill()  # there is nothing that it could lose
            process.wait()
            process.stdout.close()


def _ask(process: subprocess.Popen[str], log: Any, gguf: Path, ids: Sequence[int], positions: Sequence[int]) -> Scored:
    assert process.stdin is not None and process.stdout is not None
    answer = ""
    try:
        process.stdin.write(json.dumps([list(ids), list(positions)]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        pass  # it has ended, and its last words are in the log
    if not answer:
        process.wait()
        log.seek(0)
        reasons = [line.strip() for line in log if "error" in line.lower() or "fail" in line.lower()]
        raise UserError(f"llama.cpp cannot read {gguf}: {reasons[0] if reasons else f'it ended with code {process.returncode}'}")
    return Scored(*json.loads(answer))


# The process.


class _Settings(ctypes.Structure):
    _fields_ = (
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("rest", ctypes.c_char * (_ROOM_FOR_SETTINGS - 12)),
    )


class _Batch(ctypes.Structure):
    """llama_batch. logits: whether those after the token are wanted."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class _Model:
    """A GGUF, and what it has read so far."""

    def __init__(self, library: Any, gguf: str, context: int, threads: int):
        self._library = library
        _declare(library)
        library.llama_backend_init()
        model = library.llama_model_load_from_file(gguf.encode(), library.llama_model_default_params())
        if not model:
            raise SystemExit("error: the file cannot be loaded")
        settings = library.llama_context_default_params()
        if (settings.n_ctx, settings.n_batch, settings.n_ubatch) != _DEFAULTS:
            raise SystemExit("error: this llama.cpp orders its settings otherwise; update this program, or take xllamacpp 2026.10")
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context, _CHUNK, _CHUNK
        self._context = library.llama_init_from_model(model, settings)
        if not self._context:
            raise SystemExit("error: no memory for its context")
        library.llama_set_n_threads(self._context, threads, threads)
        self._size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        self._batch = library.llama_batch_init(_CHUNK, 0, 1)
        self._read: list[int] = []

    def score(self, ids: list[int], positions: list[int]) -> tuple[list[float], list[int]]:
        asked = {position - 1: ids[position] for position in positions}  # a token's probability stands behind the one before it
        start = self._forget_all_but(ids, min(asked, default=len(ids)))
        found: tuple[list[float], list[int]] = ([], [])
        last = max(asked, default=-1) + 1
        for first in range(start, last, _CHUNK):
            self._pass(ids, range(first, min(first + _CHUNK, last)), asked, found)
        self._read = ids[:last]
        return found

    def _forget_all_but(self, ids: list[int], most: int) -> int:
        """How many tokens of `ids`, `most` at most, stand in the cache already; what is behind them is taken out of it."""
        shared = 0
        while shared < min(most, len(self._read)) and ids[shared] == self._read[shared]:
            shared += 1
        memory = self._library.llama_get_memory(self._context)
        if shared and self._library.llama_memory_seq_rm(memory, 0, shared, -1):
            return shared
        self._library.llama_memory_clear(memory, True)
        return 0

    def _pass(self, ids: list[int], span: range, asked: dict[int, int], found: tuple[list[float], list[int]]) -> None:
        import numpy as np

        batch = self._batch
        for slot, position in enumerate(span):
            batch.token[slot], batch.pos[slot] = ids[position], position
            batch.n_seq_id[slot], batch.seq_id[slot][0] = 1, 0
            batch.logits[slot] = position in asked
        batch.n_tokens = len(span)
        if self._library.llama_decode(self._context, batch):
            raise SystemExit("error: llama.cpp failed in the middle of a text")
        for slot, position in enumerate(span):
            if position in asked:
                logits = np.ctypeslib.as_array(self._library.llama_get_logits_ith(self._context, slot), (self._size,))
                top = int(logits.argmax())
                total = np.exp(logits - logits[top]).sum(dtype=np.float64)
                found[0].append(float(logits[asked[position]] - logits[top] - np.log(total)))
                found[1].append(top)


def _declare(library: Any) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
        ("llama_backend_init", None, []),
        ("llama_model_default_params", _Settings, []),
        ("llama_context_default_params", _Settings, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Settings]),
        ("llama_init_from_model", pointer, [pointer, _Settings]),
        ("llama_set_n_threads", None, [pointer, number, number]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", number, [pointer]),
        ("llama_batch_init", _Batch, [number, number, number]),
        ("llama_decode", number, [pointer, _Batch]),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, number]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_seq_rm", ctypes.c_bool, [pointer, number, number, number]),
        ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _main(gguf: str, context: str, threads: str) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; what it means is the parent's to say
    model = _Model(ggml.library(), gguf, int(context), int(threads))
    for line in sys.stdin:
        print(json.dumps(model.score(*json.loads(line))), flush=True)
    os._exit(0)  # llama.cpp's threads need no farewell


if __name__ == "__main__":
    _main(*sys.argv[1:])
