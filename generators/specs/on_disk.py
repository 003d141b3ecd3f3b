"""Files as they are found below a folder: their bytes, or why they cannot be read. Nothing here blocks, goes round in a circle or raises."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from generators.errors import Problem

MOST_BYTES = 16_000_000  # of a file


class File(NamedTuple):
    """path: relative to the project, with `/`. data: its bytes, or why it cannot be read."""

    path: str
    data: bytes | Problem


def files_in(root: Path, folder: str, endings: tuple[str, ...], levels: int) -> Iterator[File]:
    """Every file below `root`/`folder` with one of `endings`, by name; hidden ones (of editors and of macOS) are left out.

    Links are followed, and no deeper than `levels`, so that one that leads back up comes to an end.
    """
    try:
        entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        yield File(folder, Problem(folder, 0, 0, "is a file; a folder is expected here"))
        return
    except OSError as error:
        yield File(folder, Problem(folder, 0, 0, f"cannot be read: {error.strerror or error}"))
        return
    for entry in entries:
        path = f"{folder}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.name.endswith(endings):
            yield File(path, read_bytes(root / path, path))
        elif levels > 1 and _is_folder(entry):
            yield from files_in(root, path, endings, levels - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads round in a circle


def read_bytes(path: Path, file: str) -> bytes | Problem:
    """The content of a regular file of a sensible size. Anything else, a pipe that would block for ever included, is a problem."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return Problem(file, 0, 0, "is a directory; a file is expected here")
        if not stat.S_ISREG(status.st_mode):
            return Problem(file, 0, 0, "is not a regular file")
        if status.st_size > MOST_BYTES:
            return Problem(file, 0, 0, f"is {status.st_size / 1e6:.0f} MB large; a spec may take {MOST_BYTES / 1e6:.0f} MB, so split it up")
        return path.read_bytes()
    except OSError as error:
        return Problem(file, 0, 0, f"cannot be read: {error.strerror or error}")
