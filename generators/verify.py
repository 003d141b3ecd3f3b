"""`doit verify`: is what lies in build/ still what the specs give, byte for byte, and what the lock says?

The text of the build is rendered anew in a scratch folder and compared; weights are compared by their hashes. Findings come in the order
of the build, so that the first one is the cause of those after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from generators import lock as locks
from generators.errors import UserError

# A line of a spec, as `source` names it: a comment above an example moves it, and renders nothing anew.
_PLACE = re.compile(r"(specs/[^\s\"':]+\.ya?ml):\d+")
_KINDS = ("templates", "generators", "samples", "dataset", "frames", "base", "adapter", "gguf", "modelfiles")


@dataclass(frozen=True)
class Finding:
    """what: a file or a field of the lock. note: worth knowing, and no difference of content."""

    what: str
    message: str
    note: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.message}"


def verify(
    root: Path,
    lock: Path,
    specs: Mapping[str, Any],
    files: Mapping[str, Iterable[Path]],
    rendered: Mapping[str, Path],
    report: Callable[[str], None],
) -> list[Finding]:
    """All findings, notes among them; each is reported. rendered: folders of build/ (`samples`) to the same, rendered anew.

    specs, files: as they were given to `lock.write`. Raises UserError, naming the first finding that is no note.
    """
    written = locks.read(lock)
    findings = [] if written is None else [*_specs(written, specs)]
    for name, fresh in rendered.items():
        findings += compare_folders(root / "build" / name, fresh, f"build/{name}")
    if written is None:
        findings.append(Finding(lock.relative_to(root).as_posix(), "is missing, so that weights cannot be verified; run: doit report"))
    else:
        findings += [*_artefacts(root, written, files), *_surroundings(written)]
    for finding in findings:
        report(f"{'note: ' if finding.note else ''}{finding}")
    differences = [finding for finding in findings if not finding.note]
    if differences:
        count = f"{len(differences)} difference{'s' if len(differences) > 1 else ''}"
        raise UserError(f"{count}, the first: {differences[0]}")
    return findings


def _specs(lock: Mapping[str, Any], specs: Mapping[str, Any]) -> Iterator[Finding]:
    was = lock["specs"]
    for file in sorted({*was, *specs}):
        if file not in specs:
            yield Finding(file, "is gone since the lock was written; run: doit")
        elif file not in was:
            yield Finding(file, "is new since the lock was written; run: doit")
        elif locks.hash_of(specs[file]) != was[file]:
            yield Finding(file, "was changed since the lock was written; run: doit")


def compare_folders(built: Path, fresh: Path, name: str) -> Iterator[Finding]:
    """Every file of both, in the order of their names."""
    paths = {path.relative_to(folder) for folder in (built, fresh) for path in folder.rglob("*") if _counts(path)}
    for path in sorted(paths):
        yield from _compare_files(built / path, fresh / path, f"{name}/{path.as_posix()}")


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and not path.name.endswith((".partial", ".rejected.json"))


def _compare_files(built: Path, fresh: Path, name: str) -> Iterator[Finding]:
    if not built.is_file():
        yield Finding(name, "is missing; run: doit")
        return
    if not fresh.is_file():
        yield Finding(name, "is left over: the specs give no such file; run: doit")
        return
    moved = 0
    with (
        built.open(encoding="utf-8", errors="replace", newline="") as one,
        fresh.open(encoding="utf-8", errors="replace", newline="") as other,
    ):
        for number, (left, right) in enumerate(zip_longest(one, other), 1):
            if left == right:
                continue
            if left is None or right is None or _PLACE.sub(r"\1", left) != _PLACE.sub(r"\1", right):
                yield Finding(name, f"is stale: line {number} is not what the specs give; run: doit")
                return
            moved += 1
    if moved:
        yield Finding(
            name, f"{moved} lines of specs/ in it have moved, by comments or by other examples; the content is the same", note=True
        )


def _artefacts(root: Path, lock: Mapping[str, Any], files: Mapping[str, Iterable[Path]]) -> Iterator[Finding]:
    """Files of the lock that are gone or have other bytes, and files that the lock does not know."""
    for kind in _KINDS:
        was = lock.get(kind, {})
        now = locks.hashes(root, {*files.get(kind, ()), *(root / file for file in was)})
        for file in sorted({*was, *now}):
            if file not in now:
                yield Finding(file, "is missing; the lock has it; run: doit")
            elif file not in was:
                yield Finding(file, "is not in the lock; run: doit")
            elif now[file] != was[file]:
                yield _other_bytes(kind, file)


def _other_bytes(kind: str, file: str) -> Finding:
    """Code may be changed without changing what it gives, and what it gives was compared already."""
    if kind == "generators":
        return Finding(file, "was changed since the lock was written", note=True)
    return Finding(file, "has other bytes than when the lock was written; run: doit")


def _surroundings(lock: Mapping[str, Any]) -> Iterator[Finding]:
    """Versions and machine: they may change what a training gives, and change nothing that lies there."""
    for name, was, now in (("packages", lock["packages"], locks.packages_here()), ("platform", lock["platform"], locks.platform_here())):
        for key in sorted({*was, *now}):
            if was.get(key) != now.get(key):
                yield Finding(f"{name}.{key}", f"{was.get(key, 'none')} when the lock was written, {now.get(key, 'none')} here", note=True)
