"""The guide, typed into a real shell: what a newcomer sees, kept word for word for docs/guide.md and docs/rehber.md.

It runs in a copy of this project, with the real base, so that nothing in this project's `build/` changes. What is typed stands here, in
`STEPS`; the guide shows each of these commands with what came of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError

NAME = "nova"
_HERE, _NEW = "ownvoice", NAME  # folders beside each other
_LONGEST_S = 3600.0
_COPIED = ("specs", "templates", "docs", "generators", "dodo.py", "pyproject.toml")


@dataclass(frozen=True)
class Step:
    """folder: in which it is typed. said: lines typed while it runs. edit: (file, old, new) before it, as the guide tells to edit."""

    name: str
    folder: str
    command: str
    said: tuple[str, ...] = ()
    edit: tuple[str, str, str] | None = None
    code: int = 0


STEPS = (
    Step("doctor", _HERE, "doit doctor"),
    Step("new-persona", _HERE, f"doit new-persona --name {NAME}"),
    Step("plan", _NEW, "doit plan"),
    Step("build", _NEW, "doit"),
    Step(
        "chat", _NEW, "doit chat", ("good evening to you", "the hinge of my wardrobe creaks", "Should I sell my old car or keep it going?")
    ),
    Step("cooler", _NEW, "doit plan", edit=(f"specs/personas/{NAME}.yaml", "temperature: 0.6", "temperature: 0.4")),
    Step("rebuild", _NEW, "doit"),
    Step("sharper", _NEW, "doit plan", edit=("specs/categories/counter/greetings.yaml", "What have you brought me?", "What broke?")),
    Step("mistake", _NEW, "doit", edit=("specs/categories/counter/greetings.yaml", "tier: low", "tier: lo"), code=3),
)


def capture(root: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """{"steps": [{name, folder, command, said, edit, seconds, load, lines}]}. load: processes that wanted a core, other programs' included,
    over the last minute of the step. Raises UserError when a step ends otherwise than it should."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / _HERE
        _copy(root, home)
        return {"steps": list(_walked(Path(scratch), say))}


def _copy(root: Path, home: Path) -> None:
    home.mkdir()
    for name in _COPIED:
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, home / name)
    (home / "build").mkdir()
    shutil.copy(root / "build" / ".gitignore", home / "build" / ".gitignore")


def _walked(scratch: Path, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    for step in STEPS:
        if step.edit:
            _edit(scratch / step.folder / step.edit[0], step.edit[1], step.edit[2])
        say(f"{step.folder}$ {step.command}")
        started = time.perf_counter()
        code, text = _run(step, scratch)
        seconds = time.perf_counter() - started
        if code != step.code:
            raise UserError(f"the guide's {step.command!r} ended with code {code} instead of {step.code}: {text.strip()[-600:]}")
        yield {
            "name": step.name,
            "folder": step.folder,
            "command": step.command,
            "said": list(step.said),
            "edit": list(step.edit) if step.edit else None,
            "seconds": round(seconds, 1),
            "load": round(os.getloadavg()[0], 1),
            "lines": _lines(text, scratch),
        }


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    if old not in text:
        raise UserError(f"the guide edits {old!r} in {file.name}, and it is not there; change the step in generators/docs/terminal.py")
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def _run(step: Step, scratch: Path) -> tuple[int, str]:
    """As it is typed in a terminal, with output and errors in one."""
    environment = os.environ | {"PYTHONPATH": str(scratch / _HERE), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", *step.command.split()]
    finished = subprocess.run(
        words,
        cwd=scratch / step.folder,
        env=environment,
        input="".join(f"{line}\n" for line in step.said),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LONGEST_S,
    )
    return finished.returncode, finished.stdout


def _lines(text: str, scratch: Path) -> list[str]:
    """Without the scratch folder's path."""
    shown = text.replace(f"{scratch.resolve()}/", "").replace(f"{scratch}/", "")
    return [re.sub(r"\s+$", "", line) for line in shown.strip("\n").split("\n")]
