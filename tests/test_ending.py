"""The last lines of a build say what there is, how it scored and what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.files import write_json
from generators.report.ending import ending


def measures(passed: float) -> dict[str, Any]:
    return {name: {"value": passed} for name in ("passed", "accuracy", "appropriateness")}


def scores(tmp_path: Path, **changes: Any) -> Path:
    gates = [{"name": "turkish", "passed": False}, {"name": "technical", "passed": True}]
    showcase = {"query": "sana bisi sorucam", "framing": "jessy-cli", "base": {"seconds": 83.0}, "tuned": {"seconds": 1.94}}
    found = {
        "recipe": "mini", "framing": "persona", "gates": gates, "enforce": False, "showcase": showcase,
        "overall": [{"framing": "persona", "base": measures(0.0), "tuned": measures(0.5)}],
    }  # fmt: skip
    write_json(tmp_path / "scores.json", found | changes)
    return tmp_path / "scores.json"


def told(tmp_path: Path, default: bool = True, **changes: Any) -> list[str]:
    (tmp_path / "mini-Q8_0.gguf").write_bytes(b"0" * 2_000_000)
    modelfiles = tmp_path / "modelfiles"
    modelfiles.mkdir(exist_ok=True)
    (modelfiles / "jessy.Modelfile").write_text("")
    return ending([tmp_path / "mini-Q8_0.gguf"], modelfiles, scores(tmp_path, **changes), default)


def test_what_was_built_and_how_it_scored_is_told(tmp_path: Path) -> None:
    built, scored, gates, _ = told(tmp_path)
    assert built.startswith("built: mini-Q8_0.gguf (2.0 MB); 1 Modelfile in ")
    assert "every check passed 0 % -> 50 %" in scored and "'sana bisi sorucam' through jessy-cli: 83.0 s -> 1.9 s" in scored
    assert gates == "gates: 1 of 2 passed; missed: turkish (shown only: enforce is false)"


def test_the_next_command_names_a_recipe_that_is_not_the_default(tmp_path: Path) -> None:
    assert "; doit deploy puts" in told(tmp_path)[-1]
    assert "; doit deploy:mini puts" in told(tmp_path, default=False)[-1]


def test_all_gates_passed_is_one_word(tmp_path: Path) -> None:
    assert told(tmp_path, gates=[{"name": "turkish", "passed": True}])[2] == "gates: all 1 passed"
