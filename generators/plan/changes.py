"""What differs between two slices of the specs, and where in the files it stands.

A slice is `{file: part of that file, in its own shape}` (see `generators.stages`), so the way to a difference is the way in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

Steps = tuple[Any, ...]
ORDER_OF = "order of "  # before the name of a mapping whose order counts; a slice holds its keys as a list beside it
CHANGED, NEW, GONE, ORDER = "changed", "new", "gone", "order"
_SHOWN = 44  # characters of a value
_LEAD = 12  # characters of a long text before the first that differs


@dataclass(frozen=True)
class Change:
    """kind: CHANGED, NEW, GONE or ORDER. steps: in the new slice; for what is gone, in the old one."""

    file: str
    steps: Steps
    kind: str
    old: Any = None
    new: Any = None


def changes(old: Any, new: Any) -> list[Change]:
    """Every difference, file by file; none where one of them is no slice. A file that only one of them reads is one, with no steps."""
    if not (_is_slice(old) and _is_slice(new)):
        return []
    found: list[Change] = []
    for file in [*new, *(file for file in old if file not in new)]:
        if file not in old:
            found.append(Change(file, (), NEW, new=new[file]))
        elif file not in new:
            found.append(Change(file, (), GONE, old=old[file]))
        else:
            found += _differences(file, (), old[file], new[file])
    return found


def _is_slice(value: Any) -> bool:
    return isinstance(value, dict) and all(str(file).endswith(".yaml") for file in value)


def _differences(file: str, steps: Steps, old: Any, new: Any) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            if key not in old:
                yield Change(file, (*steps, key), NEW, new=new[key])
            elif key not in new:
                yield Change(file, (*steps, key), GONE, old=old[key])
            else:
                yield from _differences(file, (*steps, key), old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        yield from _of_lists(file, steps, old, new)
    else:
        yield Change(file, steps, CHANGED, old, new)


def _of_lists(file: str, steps: Steps, old: list[Any], new: list[Any]) -> Iterator[Change]:
    """Entries are matched by their content, so that one that is added makes no others differ."""
    one, other = ([json.dumps(item, sort_keys=True) for item in items] for items in (old, new))
    if sorted(one) == sorted(other):
        yield Change(file, (*steps[:-1], str(steps[-1]).removeprefix(ORDER_OF)), ORDER)
        return
    if str(steps[-1]).startswith(ORDER_OF):
        return  # what was added or removed is told where it stands
    for tag, i, i_end, j, j_end in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        paired = min(i_end - i, j_end - j)
        for offset in range(paired):
            yield from _differences(file, (*steps, j + offset), old[i + offset], new[j + offset])
        for index in range(i + paired, i_end):
            yield Change(file, (*steps, index), GONE, old=old[index])
        for index in range(j + paired, j_end):
            yield Change(file, (*steps, index), NEW, new=new[index])


# --- in words ---------------------------------------------------------------------------------------------------------------------


def spell(steps: Steps) -> str:
    """`examples[3].jessy`"""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def describe(change: Change) -> str:
    """What was and what is, shortened to where they differ."""
    field = spell(change.steps)
    if not field:
        return "is read now" if change.kind == NEW else "is no longer read"
    if change.kind == ORDER:
        return f"{field}: in another order"
    if change.kind == NEW:
        return f"{field}: new, {shorten(change.new)}"
    if change.kind == GONE:
        return f"{field}: gone, {shorten(change.old)}"
    start = _first_difference(change.old, change.new)
    return f"{field}: {shorten(change.old, start)} -> {shorten(change.new, start)}"


def shorten(value: Any, start: int = 0) -> str:
    """The value on one line, no longer than fits; of a long text, what stands from about `start` on."""
    if isinstance(value, str):
        text, begin = " ".join(value.split()), max(0, start - _LEAD) if len(value) > _SHOWN else 0
        text = ("…" if begin else "") + text[begin:]
        return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _first_difference(old: Any, new: Any) -> int:
    if not isinstance(old, str) or not isinstance(new, str):
        return 0
    one, other = " ".join(old.split()), " ".join(new.split())
    shared = min(len(one), len(other))
    return next((index for index in range(shared) if one[index] != other[index]), shared)


# --- where ------------------------------------------------------------------------------------------------------------------------


class Places:
    """Lines of the spec files as they are now. root: the folder that holds specs/."""

    def __init__(self, root: Path):
        self._root = root
        self._documents: dict[str, Any] = {}

    def has(self, file: str) -> bool:
        return (self._root / file).is_file()

    def find(self, change: Change, read: Any) -> tuple[str, int]:
        """(file, line) of a change, the line 0 where the file is not there. read: what the new slice holds of that file.

        What a persona takes over from another stands in that one's file; a value that is not written down is a default, and the line is
        that of what it belongs to.
        """
        steps = change.steps
        for file in self._files_of(change.file):
            line = self._line(file, steps) or self._line_by_value(file, steps, change, read)
            if line:
                return file, line
        while steps:
            steps = steps[:-1]
            line = self._line(change.file, steps)
            if line:
                return change.file, line
        return change.file, 0

    def _document(self, file: str) -> Any:
        from generators.specs import yaml_source

        if file not in self._documents:
            self._documents[file] = yaml_source.read(self._root / file, file)
        return self._documents[file]

    def _files_of(self, file: str) -> Iterator[str]:
        """The file, and for a persona those that it extends, the nearest first."""
        seen: list[str] = []
        while file not in seen:
            seen.append(file)
            yield file
            value = self._document(file).value
            if not (file.startswith("specs/personas/") and isinstance(value, dict) and "extends" in value):
                return
            file = f"specs/personas/{value['extends']}.yaml"

    def _line(self, file: str, steps: Steps) -> int:
        document = self._document(file)
        place = document.key_places.get(steps) or document.places.get(steps)
        return int(place[0]) if place else 0

    def _line_by_value(self, file: str, steps: Steps, change: Change, read: Any) -> int:
        """Entries that a persona appends or removes, found by what they say."""
        value = self._document(file).value
        if len(steps) < 2 or not isinstance(value, dict):
            return 0
        for edit in ("append", "remove"):
            for index, entry in enumerate((value.get(edit) or {}).get(steps[0]) or []):
                whole = change.old if change.kind == GONE else _at(read, steps[:2])
                if whole is not None and entry in (whole, *_names(whole)):
                    return self._line(file, (edit, steps[0], index))
        return 0


def _names(entry: Any) -> tuple[Any, ...]:
    """By what `remove` names an entry."""
    return (entry.get("name"), entry.get("user")) if isinstance(entry, dict) else ()


def _at(value: Any, steps: Steps) -> Any:
    try:
        for step in steps:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return None
    return value
