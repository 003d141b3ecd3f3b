"""Files written whole or not at all, JSON lines, and hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from generators.errors import UserError

_TEMPORARY_SUFFIX = ".partial"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`, renamed to it when the block ends well and removed when it does not.

    Raises UserError when the disk is full, with the last good `target` left as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(target.parent).free
            raise UserError(
                f"no space left to write {target}: {human_bytes(free)} free on that disk; the last good file is kept"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Like `atomic_path` for a directory: filled under a temporary name, then swapped in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        old = target.with_name(f"{target.name}.{os.getpid()}.old{_TEMPORARY_SUFFIX}")
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left to write {target}; the last good one is kept") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left under a temporary name in `folder`."""
    for leftover in folder.glob(f"*{_TEMPORARY_SUFFIX}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """UTF-8, as it is, atomically. A file that already has these bytes keeps its time stamp."""
    data = text.encode("utf-8")
    if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
        return
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def private_folder(folder: Path) -> Path:
    """`folder`, made where it is missing, with a `.gitignore` in it that keeps all of it out of git, wherever the project stands."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".gitignore").exists():
        write_text(folder / ".gitignore", "*\n")
    return folder


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON with text left readable (`ensure_ascii=False`) and keys in the order given."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def write_json(target: Path, value: Any) -> None:
    write_text(target, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(target: Path, rows: Iterable[Any]) -> int:
    """One JSON object a line, streamed. Returns the number of rows."""
    count = 0
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(to_json(row) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def sha256_file(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold `path`, made where it is missing, for this process: nobody else can, and `is_held` says so until the block or the process ends.

    Raises UserError, saying that `what` goes on already, when another process holds it.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{what} goes on already, in another process; doit watch follows it") from error
        yield


def is_held(path: Path) -> bool:
    import fcntl

    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Raises UserError when `folder`'s disk has fewer than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {human_bytes(needed)} under {folder}, and {human_bytes(free)} are free; make room and run doit again"
        )


def human_bytes(count: float) -> str:
    """`1.5 GB`, in powers of ten as disks and memory limits are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
