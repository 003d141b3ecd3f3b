"""The two functions of llama.cpp's ggml that we call ourselves, out of the shared library that xllamacpp brings.

ctypes lets go of the interpreter's lock while they run, so several threads may call them at once. Without xllamacpp they are None, and
the callers fall back on the gguf package, which is slower and cannot make K-quants.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def quantiser() -> Callable[..., Any] | None:
    """`(type, source, target, first value, rows, columns, importance) -> bytes written`: ggml_quantize_chunk."""
    return _function("ggml_quantize_chunk", ctypes.c_size_t, ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p)


def dequantiser(type_name: str) -> Callable[..., Any] | None:
    """`(source, target, values)` for a quantised type such as `Q4_K`: dequantize_row_q4_K."""
    return _function(f"dequantize_row_q{type_name[1:]}", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@cache
def _function(name: str, result: type | None, *arguments: type) -> Callable[..., Any] | None:
    found = library()
    if found is None or not hasattr(found, name):
        return None
    function = getattr(found, name)
    function.restype, function.argtypes = result, arguments
    return function


@cache
def library() -> ctypes.CDLL | None:
    """xllamacpp's shared library, ggml and llama.cpp in one, or None where it is not installed."""
    import importlib.util

    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    for path in [*folder.glob("*.so"), *folder.rglob("*ggml*.dylib"), *folder.rglob("*ggml*.so")]:
        try:
            found = ctypes.CDLL(str(path))
        except OSError:
            continue  # cannot be loaded by itself; another one may be
        if hasattr(found, "ggml_quantize_chunk"):
            return found
    return None
