"""Rows of an evaluation as plain values, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from generators.evaluate.kept import Judged

Row = dict[str, Any]
MACHINE = {"system": "Linux", "cores": 2, "python": "3.11"}
SAMPLING = {"max_tokens": 8, "temperature": 0.0, "seed": 1}


def row(number: int, passed: bool, **changes: Any) -> Row:
    """One case of the suite turkish under the persona; the first half of every four cases is dev."""
    answer = "Sor kanka." if passed else "Size nasıl yardımcı olabilirim?"
    made: Row = {
        "id": f"turkish/case-{number}", "suite": "turkish", "case": f"case-{number}", "framing": "persona", "repeat": 0,
        "half": "dev" if number % 4 < 2 else "test", "tier": "low", "language": "tr", "query": f"naber {number}", "history": [],
        "answer": answer, "replies": [answer], "checks": [{"check": "words", "dimension": "accuracy", "passed": passed, "reason": ""}],
        "accuracy": passed, "appropriateness": passed, "persona": None, "iterations": None, "passed": passed, "generic": not passed,
        "seconds": 1.0, "first_token_s": 0.2, "tokens": 5, "prompt_tokens": 20, "ended": "stop", "stages": 1, "used": None,
        "confidence": [], "alone": False, "cached": False, "error": "",
    }  # fmt: skip
    return made | changes


def rows(passed: str, **changes: Any) -> list[Row]:
    """`++-`: two cases that passed, one that did not."""
    return [row(number, sign == "+", **changes) for number, sign in enumerate(passed)]


def judged(found: list[Row], **told: Any) -> Judged:
    engine = {"name": "llama.cpp tiny.gguf", "digest": "a" * 64, "load_seconds": 0.5, "slots": 4}
    return Judged(found, {"engine": engine, "half": None, "sampling": SAMPLING, "machine": MACHINE} | told)
