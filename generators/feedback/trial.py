"""A change of the specs tried out in a folder of its own: does the project load with it, and which gates of the dataset would be missed?

The folder is the project with a copy of its specs and an empty build/; everything else in it is a link. Nothing in the project changes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

# The gates that the specs under a root miss, a line each. Raises SpecErrors where they cannot be loaded.
Gates = Callable[[Path], list[str]]


class Trial:
    """folder: where specs are tried out."""

    def __init__(self, folder: Path, root: Path, gates: Gates):
        self._folder, self._root, self._gates = folder, root, gates

    @cached_property
    def _missed_already(self) -> set[str]:
        return set(self._gates(self._folder))

    def missed(self, changes: Mapping[str, bytes]) -> list[str]:
        """The gates that would be missed with these files in place of the project's, and are not without them. changes: by path from the
        root. Raises SpecErrors where the project would not load."""
        self._take_over(self._root)
        if not changes:
            return []
        for file, data in changes.items():
            (self._folder / file).write_bytes(data)
        try:
            missed = self._gates(self._folder)
        finally:
            self._take_over(self._root)
        return [line for line in missed if line not in self._missed_already] if missed else []

    def _take_over(self, root: Path) -> None:
        """The specs as they are now: a person may edit them meanwhile."""
        shutil.rmtree(self._folder / "specs", ignore_errors=True)
        shutil.copytree(root / "specs", self._folder / "specs")


@contextmanager
def opened(root: Path, gates: Gates) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in root.iterdir():
            if entry.name not in ("specs", "build"):
                (folder / entry.name).symlink_to(entry.resolve())
        (folder / "build").mkdir()
        if (root / "build" / "clients").is_dir():  # captured clients stand in for those of the specs
            (folder / "build" / "clients").symlink_to((root / "build" / "clients").resolve())
        yield Trial(folder, root, gates)
