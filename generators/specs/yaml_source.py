"""YAML text to plain values that remember their place.

`parse(text, file)` gives a `Document`: the value (dict, list, str, int, float, bool or None), the place of every value and key,
and the problems found on the way (syntax, tabs, duplicate keys, bad aliases): all of them, none raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generators.errors import Problem

Place = tuple[int, int]  # line and column, both from 1
Steps = tuple[Any, ...]  # the way to a value: keys and list indices


@dataclass
class Document:
    """file: as messages name it. places: of each value. key_places: of each mapping key."""

    file: str
    value: Any = None
    places: dict[Steps, Place] = field(default_factory=dict)
    key_places: dict[Steps, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, steps: Steps, message: str, at_key: bool = False) -> Problem:
        """A problem at the value (or key) that `steps` leads to, or at its nearest known ancestor."""
        places = self.key_places if at_key else self.places
        line, column = places.get(steps) or (0, 0)
        while not line and steps:
            steps = steps[:-1]
            line, column = self.places.get(steps, (0, 0))
        return Problem(self.file, line or 1, column or 1, message)


def read(path: Path, file: str) -> Document:
    """Parse the file at `path`, called `file` in messages. An unreadable file is a problem too."""
    if path.is_dir():
        return Document(file, problems=[Problem(file, 0, 0, "is a directory; a YAML file is expected here")])
    try:
        data = path.read_bytes()
    except OSError as error:
        return Document(file, problems=[Problem(file, 0, 0, f"cannot be read: {error.strerror}")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        return Document(file, problems=[Problem(file, line, column, message)])
    return parse(text, file)


def parse(text: str, file: str) -> Document:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    document = Document(file)
    try:
        root = YAML(typ="safe", pure=False).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.problems.append(Problem(file, line, column, f"not valid YAML: {_explain(error, text, line)}"))
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        document.problems.append(Problem(file, line, column, f"character U+{ord(text[error.position]):04X} is not allowed in YAML"))
    except (YAMLError, ValueError, RecursionError) as error:
        document.problems.append(Problem(file, 1, 1, f"not valid YAML: {' '.join(str(error).split())[:200]}"))
    else:
        if root is None:
            document.problems.append(Problem(file, 0, 0, "is empty"))
        else:
            _Builder(document).build(root)
    return document


def _explain(error: Any, text: str, line: int) -> str:
    lines = text.splitlines()
    if line <= len(lines) and "\t" in lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]:
        return "a tab in the indentation; indent with spaces"
    reason = " ".join(str(error.problem or "cannot be read").split())
    context = f" {error.context}" if error.context else ""
    return reason + context


class _Builder:
    """Composed nodes to values. Aliases share what they point to; one that contains itself is a problem."""

    _MERGE = "tag:yaml.org,2002:merge"

    def __init__(self, document: Document):
        self.document = document
        self.open_nodes: set[int] = set()

    def build(self, root: Any) -> None:
        self.document.value = self._value(root, ())

    def _value(self, node: Any, steps: Steps) -> Any:
        self.document.places[steps] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if id(node) in self.open_nodes:
            self._problem(node, "an alias must not lead back into the value that it is part of")
            return None
        kind = type(node).__name__
        if kind == "ScalarNode":
            return self._scalar(node)
        self.open_nodes.add(id(node))
        try:
            if kind == "SequenceNode":
                return [self._value(item, (*steps, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, steps)
        finally:
            self.open_nodes.discard(id(node))

    def _mapping(self, node: Any, steps: Steps) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if str(key_node.tag) == self._MERGE:
                self._merge(merged, value_node, steps)
                continue
            if type(key_node).__name__ != "ScalarNode":
                self._problem(key_node, "a key must be a plain word")
                continue
            key = self._scalar(key_node)
            if key in own:
                self._problem(key_node, f"key {key!r} appears twice in the same mapping")
                continue
            self.document.key_places[(*steps, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            own[key] = self._value(value_node, (*steps, key))
        return {**{k: v for k, v in merged.items() if k not in own}, **own}

    def _merge(self, merged: dict[Any, Any], node: Any, steps: Steps) -> None:
        """`<<: *anchor` or `<<: [*one, *two]`, the first winning (YAML's merge key)."""
        sources = node.value if type(node).__name__ == "SequenceNode" else [node]
        for source in sources:
            value = self._value(source, steps)
            if not isinstance(value, dict):
                self._problem(source, "'<<' takes a mapping or a list of mappings")
                continue
            for key, item in value.items():
                merged.setdefault(key, item)

    def _scalar(self, node: Any) -> Any:
        tag, text = str(node.tag).rsplit(":", 1)[-1], node.value
        try:
            if tag == "null":
                return None
            if tag == "bool":
                return text.lower() in ("true", "yes", "on")
            if tag == "int":
                return int(text.replace("_", ""), 0) if not text.lstrip("+-").startswith("0") or len(text) < 2 else _odd_int(text)
            if tag == "float":
                return _float(text)
        except ValueError:
            self._problem(node, f"{text!r} is not a number that can be read")
            return None
        if tag not in ("str", "timestamp", "value"):
            self._problem(node, f"the tag {node.tag} is not supported here")
        return text

    def _problem(self, node: Any, message: str) -> None:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self.document.problems.append(Problem(self.document.file, line, column, message))


def _odd_int(text: str) -> int:
    """`0x1f`, `0o17`, `0b1` and plain decimals with leading zeros (YAML 1.2 reads those as decimal)."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.lstrip("+"))
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2].lower(), 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


def _float(text: str) -> float:
    special = {".inf": "inf", "-.inf": "-inf", "+.inf": "inf", ".nan": "nan"}
    return float(special.get(text.lower(), text.replace("_", "")))
