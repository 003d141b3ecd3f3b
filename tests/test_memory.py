"""What is remembered of one run is used in the next, and only there where it still holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from generators.memory import Memory


class Counted:
    """An answer that counts how often it was worked out."""

    def __init__(self, value: Any) -> None:
        self.value, self.asked = value, 0

    def __call__(self) -> Any:
        self.asked += 1
        return self.value


def ask(path: Path | None, basis: str, question: str, answer: Counted) -> Any:
    with Memory(path, basis) as memory:
        return memory(question, answer)


def test_the_next_run_knows_the_answer(tmp_path: Path) -> None:
    answer = Counted(["words", {"n": 3}])
    assert ask(tmp_path / "m.json", "rules", "İyi misin?", answer) == ["words", {"n": 3}]
    assert ask(tmp_path / "m.json", "rules", "İyi misin?", answer) == ["words", {"n": 3}]
    assert answer.asked == 1


def test_an_answer_that_is_none_is_remembered_too(tmp_path: Path) -> None:
    answer = Counted(None)
    ask(tmp_path / "m.json", "rules", "q", answer)
    ask(tmp_path / "m.json", "rules", "q", answer)
    assert answer.asked == 1


def test_other_rules_give_other_answers(tmp_path: Path) -> None:
    ask(tmp_path / "m.json", "rules", "q", Counted(1))
    assert ask(tmp_path / "m.json", "other rules", "q", Counted(2)) == 2


def test_what_a_run_does_not_ask_is_forgotten(tmp_path: Path) -> None:
    ask(tmp_path / "m.json", "rules", "one", Counted(1))
    ask(tmp_path / "m.json", "rules", "two", Counted(2))
    again = Counted(1)
    ask(tmp_path / "m.json", "rules", "one", again)
    assert again.asked == 1


@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff\xfe", b"[1]", b'{"basis": 3}', b'{"basis": "x", "answers": []}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "m.json").write_bytes(damaged)
    assert ask(tmp_path / "m.json", "rules", "q", Counted(1)) == 1


def test_without_a_file_an_answer_is_worked_out_once_a_run() -> None:
    answer = Counted(1)
    with Memory(None, "rules") as memory:
        assert memory("q", answer) == memory("q", answer) == 1
    assert answer.asked == 1


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert ask(tmp_path / "file" / "m.json", "rules", "q", Counted(1)) == 1
