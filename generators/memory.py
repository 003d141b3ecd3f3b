"""What pure functions answered, kept from one run to the next: after an edit of one sample, one is judged anew and not four hundred."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from generators.errors import UserError
from generators.files import atomic_path, to_json

Remember = Callable[[str, Callable[[], Any]], Any]
MOST_ANSWERS = 100_000  # beyond them, reading what is remembered takes as long as working it out


def nothing_remembered(question: str, answer: Callable[[], Any]) -> Any:
    """Stands in for a `Memory` where none is kept."""
    return answer()


class Memory:
    """`memory(question, answer)` is `answer()`, which is called only where an earlier run with the same `basis` has not asked the same.

    Answers are JSON values. What a run does not ask is forgotten at its end, so the file does not grow. path: None to remember nothing
    beyond this run. basis: all else that the answers depend on.
    """

    def __init__(self, path: Path | None, basis: str) -> None:
        self._path, self._basis = path, hashlib.sha256(basis.encode()).hexdigest()
        self._known = self._read()
        self._asked: dict[str, Any] = {}

    def __call__(self, question: str, answer: Callable[[], Any]) -> Any:
        name = hashlib.blake2b(question.encode(), digest_size=16).hexdigest()
        if name not in self._asked:
            self._asked[name] = self._known[name] if name in self._known else answer()
        return self._asked[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._path is None or len(self._asked) > MOST_ANSWERS or self._asked == self._known:
            return
        try:
            with atomic_path(self._path) as temporary:
                temporary.write_text(to_json({"basis": self._basis, "answers": self._asked}), encoding="utf-8")
        except (OSError, UserError):
            return  # a full disk: what is not remembered is worked out again

    def _read(self) -> dict[str, Any]:
        """Nothing without a file, with one of another basis, and with one that something has damaged."""
        if self._path is None:
            return {}
        try:
            kept = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        usable = isinstance(kept, dict) and kept.get("basis") == self._basis and isinstance(kept.get("answers"), dict)
        return kept["answers"] if usable else {}


def source_of(modules: Iterable[ModuleType]) -> str:
    """The source of modules, for a basis: another program gives other answers."""
    return "\0".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
