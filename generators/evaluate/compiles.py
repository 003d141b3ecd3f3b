"""Whether the code in an answer compiles. It is compiled, never run."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

LANGUAGES = {"rust": ("rust", "rs"), "python": ("python", "py", "python3")}
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#-]*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_TIMEOUT_S = 30


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of `text` in `language`; blocks that name no language count as well."""
    return [code for tag, code in _FENCE.findall(text) if tag.lower() in (*LANGUAGES[language], "")]


def is_available(language: str) -> bool:
    return language == "python" or _runs(shutil.which("rustc"))


@lru_cache(maxsize=8)
def _runs(rustc: str | None) -> bool:
    """rustup leaves a `rustc` on the path that only fails where no toolchain is chosen: good code must not fail with it."""
    return rustc is not None and subprocess.run([rustc, "--version"], capture_output=True).returncode == 0


def problem(text: str, language: str) -> str | None:
    """What keeps the code of an answer from compiling, in a line; None when all of it does. Blocks may build on those before them."""
    blocks = code_blocks(text, language)
    if not blocks:
        return f"no fenced {language} code"
    compile_one = _python_problem if language == "python" else _rust_problem
    for index, block in enumerate(blocks):
        found = compile_one(block)
        if found and index:
            found = compile_one("\n".join(blocks[: index + 1]))
        if found:
            return found
    return None


@lru_cache(maxsize=512)
def _python_problem(code: str) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(code, "<answer>", "exec")
        except (SyntaxError, ValueError) as error:
            return f"Python: {error}"
    return None


@lru_cache(maxsize=512)
def _rust_problem(code: str) -> str | None:
    """As a library, and if that fails as the body of a function: answers often show statements only."""
    first = _rustc(code)
    if first is None or _rustc("fn answer() {\n" + code + "\n}\n") is None:
        return None
    return f"rustc: {first}"


def _rustc(code: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "answer.rs"
        source.write_text(code, encoding="utf-8")
        command = ["rustc", "--edition", "2021", "--crate-type", "lib", "--emit", "metadata", "--cap-lints", "allow", "--out-dir", folder]
        try:
            done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=folder)
        except subprocess.TimeoutExpired:
            return f"still compiling after {_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    return errors[0] if errors else f"ended with code {done.returncode}"
