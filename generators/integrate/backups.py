"""What configuration files were before they were edited: under build/, which git ignores, readable by their owner alone.

Beside the client's file a copy with its keys could be committed by mistake.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generators.files import read_json, sha256_text, write_json


@dataclass(frozen=True)
class Backup:
    """record: what was done to which file. before: its bytes then, None where there was no file."""

    path: Path
    record: dict[str, Any]
    before: bytes | None


def keep(folder: Path, file: Path, before: bytes | None, after: bytes, values: Mapping[str, str]) -> Backup:
    """Keep the bytes that `file` has before it is edited. values: what is set in it."""
    _make_private(folder)
    number = max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0) + 1
    path = folder / f"{number:04}.json"
    if before is not None:
        descriptor = os.open(path.with_suffix(".env"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(before)
    record = {
        "file": str(file.resolve()),
        "made": before is None,
        "values": dict(values),
        "after": digest(after),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path, record)
    return Backup(path, record, before)


def last(folder: Path, file: Path) -> Backup | None:
    """The newest of a file."""
    for path in sorted(folder.glob("[0-9]*.json"), key=lambda each: int(each.stem), reverse=True):
        record = read_json(path)
        if record["file"] == str(file.resolve()):
            return Backup(path, record, None if record["made"] else path.with_suffix(".env").read_bytes())
    return None


def forget(backup: Backup) -> None:
    """A copy of keys does not stay longer than it is of use."""
    backup.path.with_suffix(".env").unlink(missing_ok=True)
    backup.path.unlink()


def digest(data: bytes) -> str:
    return sha256_text(data.decode("latin-1"))


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
