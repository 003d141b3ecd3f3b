"""What was deployed, when and of what: `build/deployments/<model>/<number>/{Modelfile,record.json}`, and the GGUFs that a rollback needs.

A deployment of a recipe has one number over all its models; a model that it left as it was has no entry of that number. Nothing is ever
taken out: to roll back is a deployment of its own, which `restores` an earlier one and whose `previous` is that one's, so that rolling back
again goes on backwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import atomic_directory, atomic_path, read_json, remove_leftovers, require_disk, write_json

MODELFILE, RECORD = "Modelfile", "record.json"
_GGUFS = "_ggufs"  # no model's name begins so


@dataclass(frozen=True)
class Deployment:
    """folder: holds the Modelfile and the record. previous: number of what the model was before. sha256: of the GGUF."""

    folder: Path
    number: int
    previous: int | None
    sha256: str
    record: dict[str, Any]

    @property
    def in_effect(self) -> int:
        """Number of the deployment that is in effect after this one: the one that it restores, or itself."""
        return self.record.get("restores") or self.number

    @property
    def modelfile(self) -> Path:
        return self.folder / MODELFILE

    def is_of(self, text: str, sha256: str) -> bool:
        """Whether it deployed this Modelfile over this GGUF."""
        return self.sha256 == sha256 and self.modelfile.read_text(encoding="utf-8") == text


def _deployment(folder: Path, record: dict[str, Any]) -> Deployment:
    return Deployment(folder, record["number"], record["previous"], record["gguf"]["sha256"], record)


def all_of(root: Path, model: str) -> list[Deployment]:
    """Of one model, oldest first. Raises UserError for a record that cannot be read."""
    return [_read(path.parent) for path in sorted((root / model).glob(f"*/{RECORD}")) if path.parent.name.isdecimal()]


def _read(folder: Path) -> Deployment:
    try:
        return _deployment(folder, read_json(folder / RECORD))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / RECORD} is damaged ({error!r}); delete {folder} and deploy again") from error


def models(root: Path) -> list[str]:
    """Names of the models that were ever deployed."""
    return sorted(path.name for path in root.glob("*") if path.is_dir() and path.name != _GGUFS)


def last(root: Path, model: str) -> Deployment | None:
    found = all_of(root, model)
    return found[-1] if found else None


def before(root: Path, model: str) -> Deployment | None:
    """What the model was before its last deployment; None where that was the first, or there was none."""
    found = all_of(root, model)
    previous = found[-1].previous if found else None
    return next((each for each in found if each.number == previous), None)


def to_restore(root: Path, models: Iterable[str]) -> list[Deployment]:
    """What a rollback brings back: of the models that the newest deployment changed, what each was before it."""
    earlier = {model: found for model in models if (found := before(root, model))}
    current = {model: found.in_effect for model in earlier if (found := last(root, model))}
    return [earlier[model] for model, number in current.items() if number == max(current.values())]


def next_number(root: Path, models: Iterable[str]) -> int:
    return 1 + max((found.number for model in models if (found := last(root, model))), default=0)


def add(root: Path, model: str, number: int, modelfile: str, record: dict[str, Any]) -> Deployment:
    """Whole or not at all. modelfile: its text. record: what is to be remembered beside model and number; `previous` and `gguf` are required."""
    remove_leftovers(root / model)
    folder = root / model / f"{number:04d}"
    whole = {"number": number, "model": model, **record}
    with atomic_directory(folder) as filling:
        (filling / MODELFILE).write_text(modelfile, encoding="utf-8")
        write_json(filling / RECORD, whole)
    return _deployment(folder, whole)


# The GGUFs


def kept_gguf(root: Path, sha256: str) -> Path:
    return root / _GGUFS / f"{sha256}.gguf"


def keep_gguf(root: Path, gguf: Path, sha256: str) -> None:
    """A second name for the file's bytes, which stay when a later build puts other bytes in its place; a copy where the disk has no links."""
    target = kept_gguf(root, sha256)
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(gguf, target)
    except OSError:
        require_disk(target.parent, gguf.stat().st_size, f"a copy of {gguf.name} for rolling back")
        with atomic_path(target) as temporary:
            shutil.copyfile(gguf, temporary)


def forget_ggufs(root: Path) -> list[Path]:
    """Delete those that are neither deployed now nor what a rollback would bring back; return them."""
    wanted = {kept_gguf(root, found.sha256) for model in models(root) for found in (last(root, model), before(root, model)) if found}
    gone = [path for path in sorted((root / _GGUFS).glob("*.gguf")) if path not in wanted]
    for path in gone:
        path.unlink()
    return gone
