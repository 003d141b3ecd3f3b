"""YAML text to plain values that remember their place.

`read(path, file)` and `parse(text, file)` give a `Document`: the value (dict, list, str, int, float, bool or None), the way back from
every value to its line and column, and the problems found on the way (encoding, syntax, tabs, duplicate keys, bad aliases): all of
them, none raised.

The text is read as libyaml's events, by the rules of YAML 1.2's core schema (so `yes` and `2025-12-07` are text, `1e-4` is a number),
without recursion: nesting, repeated aliases and size are bounded here and not by the memory of the machine.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from generators.errors import Problem

Place = tuple[int, int]  # line and column, both from 1
Steps = tuple[Any, ...]  # the way to a value: keys and list indices

MOST_VALUES = 250_000  # of a file, those that an alias repeats counted each time: some 30,000 examples
LARGEST_NUMBER = 1e40  # beyond it there is no quantity, only a slip of the finger
MOST_LEVELS = 32  # of nesting; the deepest field of a spec has 7


class _Unusable:
    """Stands in for a value that a problem has already been told about, so that nobody complains about it a second time."""

    def __repr__(self) -> str:
        return "(unusable)"


UNUSABLE = _Unusable()


class Node:
    """Where a value stands, and what is inside it. size: values in it, itself included. levels: of nesting below it."""

    __slots__ = ("line", "column", "style", "value", "edges", "size", "levels")

    def __init__(self, line: int, column: int, value: Any, style: str | None = None):
        self.line, self.column, self.value, self.style = line, column, value, style
        self.edges: dict[Any, Edge] = {}
        self.size, self.levels = 1, 0


class Edge(NamedTuple):
    """One step down. key: place of the mapping key. via: line of the alias or merge key that leads to `node`, 0 where none does."""

    node: Node
    key: Place
    via: int


@dataclass
class Document:
    """file: as messages name it. value: None as well when there is none, and then `problems` says why."""

    file: str
    value: Any = None
    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)
    _judged: dict[Any, list[Problem]] = field(default_factory=dict, repr=False, compare=False)

    def once(self, rule: Any, judge: Callable[[], Iterable[Problem]]) -> list[Problem]:
        """What `judge` finds in this document, found once for each `rule`, which names all that it depends on besides: a file that has
        not changed since the last load (see `load`, seen) is not judged again."""
        if rule not in self._judged:
            self._judged[rule] = list(judge())
        return self._judged[rule]

    @cached_property
    def places(self) -> dict[Steps, Place]:
        """Line and column of every value, by the way to it; what an alias repeats stands where it is written."""
        return {steps: (edge.node.line, edge.node.column) for steps, edge in self._walk()}

    @cached_property
    def key_places(self) -> dict[Steps, Place]:
        """Line and column of every mapping key, by the way to its value."""
        return {steps: edge.key for steps, edge in self._walk() if steps and isinstance(steps[-1], str)}

    def place(self, steps: Steps) -> Place | None:
        """`places[steps]` without walking the whole file; None when the value is not written in it."""
        found = self.node(steps)
        return (found.line, found.column) if found else None

    def node(self, steps: Steps) -> Node | None:
        way = self._way(steps)
        return way[-1].node if way and len(way) == len(steps) + 1 else None

    def problem(self, steps: Steps, message: str, at_key: bool = False) -> Problem:
        """A problem at the value (or the key) that `steps` lead to, or at its nearest ancestor that is written in this file.

        What an alias or a merge key brings in is shown where it is written, since that is the text to edit; the message says by which.
        """
        way = self._way(steps)
        if not way:
            return Problem(self.file, 1, 1, message)
        line, column = way[-1].key if at_key and len(way) == len(steps) + 1 else (way[-1].node.line, way[-1].node.column)
        via = next((edge.via for edge in reversed(way) if edge.via), 0)
        return Problem(self.file, line, column, message + (f" (used by the alias in line {via})" if via else ""))

    def wrong(self, steps: Steps, message: str, at_key: bool = False) -> Problem:
        """`problem` with the way to the value before the message."""
        return self.problem(steps, f"{spell(steps)}: {message}", at_key)

    def _walk(self) -> Iterator[tuple[Steps, Edge]]:
        waiting: list[tuple[Steps, Edge]] = [((), Edge(self.root, (self.root.line, self.root.column), 0))] if self.root else []
        while waiting:
            steps, edge = waiting.pop()
            yield steps, edge
            waiting += [((*steps, step), inside) for step, inside in edge.node.edges.items()]

    def _way(self, steps: Steps) -> list[Edge]:
        """The edges from the root (whose own edge comes first) as far down as there are any."""
        if self.root is None:
            return []
        way = [Edge(self.root, (self.root.line, self.root.column), 0)]
        for step in steps:
            edge = way[-1].node.edges.get(step)
            if edge is None:
                break
            way.append(edge)
        return way


def read(path: Path, file: str) -> Document:
    """Parse the file at `path`, called `file` in messages. An unreadable file is a problem too."""
    from generators.specs.on_disk import read_bytes

    return decode(read_bytes(path, file), file)


def decode(data: bytes | Problem, file: str) -> Document:
    """UTF-8 bytes, or the problem that stood in the way of reading them, to a document."""
    if isinstance(data, Problem):
        return Document(file, problems=[data])
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Document(file, problems=[Problem(file, 1, 1, "is UTF-16; save the file as UTF-8")])
    try:
        return parse(data.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        bad = error.object
        line = bad.count(b"\n", 0, error.start) + 1
        column = len(bad[bad.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8", "replace")) + 1
        message = f"byte 0x{bad[error.start]:02x} is not UTF-8; save the file as UTF-8"
        return Document(file, problems=[Problem(file, line, column, message)])


def parse(text: str, file: str) -> Document:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    document = Document(file)
    forbidden = list(_forbidden_characters(text, file))
    if forbidden:
        document.problems += forbidden
        return document
    try:
        _Builder(document).build(_events(text))
    except MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error, text, file))
    except _Bounded as error:
        document.problems.append(Problem(file, error.line, error.column, str(error)))
    except (YAMLError, ValueError) as error:
        document.problems.append(Problem(file, 1, 1, f"not valid YAML: {_one_line(str(error))}"))
    return document


def _events(text: str) -> Iterator[Any]:
    """libyaml's events; ruamel.yaml's own parser, ten times slower, where its C extension is not installed."""
    try:
        from _ruamel_yaml import CParser
    except ImportError:
        from ruamel.yaml import YAML

        yield from YAML(typ="safe", pure=True).parse(text)
        return
    parser = CParser(text)
    while (event := parser.get_event()) is not None:
        yield event


# What YAML does not allow anywhere, and the byte order mark, which is an accident anywhere but at the start.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _forbidden_characters(text: str, file: str) -> Iterator[Problem]:
    """The first of each kind."""
    seen: set[str] = set()
    for found in _FORBIDDEN.finditer(text):
        if found[0] not in seen:
            seen.add(found[0])
            before = text[: found.start()]
            name = {"\0": "NUL", "\ufeff": "a byte order mark"}.get(found[0]) or unicodedata.name(found[0], "a control character")
            message = f"the character U+{ord(found[0]):04X} ({name}) is not allowed in YAML; take it out"
            yield Problem(file, before.count("\n") + 1, len(before) - before.rfind("\n"), message)


# libyaml's words -> words for the person who edits the file. {line} is the line of the construct that the error is in.
_PLAIN_WORDS = {
    "mapping values are not allowed in this context": (
        "a ':' that does not fit here; put a value that holds ': ' in quotes, and indent keys of one mapping alike"
    ),
    "did not find expected key": (
        "this line fits neither the mapping that begins in line {line} nor what is around it; check its indentation and the quotes above it"
    ),
    "did not find expected '-' indicator": "this line does not fit the list that begins in line {line}; check its indentation",
    "did not find expected ',' or ']'": "the list opened by '[' in line {line} lacks a ',' or is not closed by ']'",
    "did not find expected ',' or '}'": "the mapping opened by '{{' in line {line} lacks a ',' or is not closed by '}}'",
    "did not find expected node content": "a value is missing here",
    "could not find expected ':'": "a key without ':'; write `key: value`, and put text of several lines in a block after '|-' or '>-'",
    "block sequence entries are not allowed in this context": "a list item that does not fit here; begin the list in a line of its own",
    "found unexpected end of stream": "the quote opened in line {line} is not closed",
    "found unexpected document indicator": "the quote opened in line {line} is not closed",
    "found undefined tag handle": "a tag that is not declared; put a value that begins with '!' in quotes",
    "found unknown escape character": "an unknown escape after '\\'; double it, or use single quotes",
    "found invalid Unicode character escape code": "an escape that is no character",
    "did not find expected hexdecimal number": "an escape that lacks hexadecimal digits; double the '\\', or use single quotes",
    "did not find expected comment or line break": "text after the sign that opens a block; begin it in the next line",
    "did not find expected alphabetic or numeric character": "a '&' or '*' without a name; put a value that begins with it in quotes",
    "did not find expected <document start>": "text that belongs to no key; check the indentation of this line and of those above",
}


def _syntax_problem(error: Any, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    lines = text.split("\n")
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if line > len(lines) or (line == len(lines) and not lines[-1] and line > 1):  # the end of the file, behind its last line
        line = max(1, len(lines) - 1)
        column = len(lines[line - 1]) + 1
    return Problem(file, line, column, f"not valid YAML: {_explain(error, lines[line - 1], line, column)}")


def _explain(error: Any, content: str, line: int, column: int) -> str:
    if "\t" in content[: len(content) - len(content.lstrip())]:
        return "a tab in the indentation; indent with spaces"
    problem = _one_line(str(error.problem or "cannot be read"))
    if problem == "found character that cannot start any token":
        return f"a value cannot begin with {content[column - 1 : column]!r}; put it in quotes"
    within = error.context_mark.line + 1 if error.context_mark else line
    words = _PLAIN_WORDS.get(problem)
    return words.format(line=within) if words else problem + (f" {_one_line(error.context)}" if error.context else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


class _Bounded(Exception):
    """The file goes beyond a limit of this module."""

    def __init__(self, line: int, column: int, message: str):
        super().__init__(message)
        self.line, self.column = line, column


class _Open:
    """A list or mapping whose end has not been read. merges: mappings that `<<` takes, with the line of the alias (0 for none)."""

    __slots__ = ("node", "anchor", "key", "merges", "is_mapping", "unusable")

    def __init__(self, node: Node, anchor: str | None):
        self.node, self.anchor = node, anchor
        self.is_mapping = isinstance(node.value, dict)
        self.key: tuple[Any, Place] | None = None  # read, its value not yet
        self.merges: list[tuple[Node, int]] = []
        self.unusable = False


_MERGE = object()  # in place of a key: `<<`
_NO_KEY = object()  # in place of a key that cannot be used


class _Builder:
    """Events to values and nodes. Aliases share what they point to; one that leads back into itself is a problem."""

    def __init__(self, document: Document):
        self.document = document
        self.open: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}  # None while the value is being read
        self.values = 0

    def build(self, events: Iterator[Any]) -> None:
        for event in events:
            kind = type(event).__name__
            if kind == "ScalarEvent":
                self._scalar(event)
            elif kind == "MappingStartEvent" or kind == "SequenceStartEvent":
                self._start(event, {} if kind == "MappingStartEvent" else [])
            elif kind == "MappingEndEvent" or kind == "SequenceEndEvent":
                self._end(event)
            elif kind == "AliasEvent":
                self._alias(event)
            elif kind == "DocumentStartEvent" and self.document.root is not None:
                raise _Bounded(*_place(event), "a second document begins here; one file holds one, so take out the '---'")
        if self.document.root is None:
            self.document.problems.append(Problem(self.document.file, 0, 0, "is empty"))

    def _scalar(self, event: Any) -> None:
        line, column = _place(event)
        if self._expects_key():
            self._key(event, (line, column))
            return
        self._count(1, line, column)
        try:
            value = _value(event.value, event.tag, event.implicit)
            if event.style == '"' and (found := _FORBIDDEN.search(event.value)):
                raise ValueError(f"the escaped character U+{ord(found[0]):04X} has no place in a spec; take it out")
        except ValueError as error:
            self._problem(event, str(error))
            value = UNUSABLE
        node = Node(line, column, value, event.style)
        if event.anchor:
            self.anchors[event.anchor] = node
        self._add(node, 0)

    def _key(self, event: Any, place: Place) -> None:
        """Keys are text, as they are written: `on:`, `1:` and `null:` as well."""
        holder = self.open[-1]
        if event.anchor:
            self.anchors[event.anchor] = Node(*place, event.value)
        key: Any = event.value
        if key == "<<" and event.implicit[0]:
            key = _MERGE
        elif key in holder.node.value:
            self._problem(event, f"the key {cut(key)} appears twice in the same mapping")
            key = _NO_KEY
        holder.key = (key, place)

    def _start(self, event: Any, value: Any) -> None:
        line, column = _place(event)
        self._count(1, line, column)
        if len(self.open) >= MOST_LEVELS:
            raise _Bounded(line, column, f"nests deeper than {MOST_LEVELS} levels")
        if self._expects_key():
            self._problem(event, "a key must be plain text, not a list or a mapping")
            self.open[-1].key = (_NO_KEY, (line, column))
            self.open.append(_Open(Node(line, column, value), None))
            self.open[-1].anchor = ""  # read and forgotten: see _end
            return
        if event.anchor:
            self.anchors[event.anchor] = None
        self.open.append(_Open(Node(line, column, value), event.anchor))
        if event.tag and event.tag not in (_TAG + "map", _TAG + "seq"):
            self._problem(event, f"the tag {cut(event.tag)} is not supported here")
            self.open[-1].unusable = True

    def _end(self, event: Any) -> None:
        closed = self.open.pop()
        if closed.is_mapping:
            for source, via in closed.merges:
                self._merge(closed.node, source, via)
        if closed.anchor == "":
            return
        if closed.unusable:
            closed.node = Node(closed.node.line, closed.node.column, UNUSABLE)
        if closed.anchor:
            self.anchors[closed.anchor] = closed.node
        self._add(closed.node, 0)

    def _alias(self, event: Any) -> None:
        line, column = _place(event)
        node = self.anchors.get(event.anchor, UNUSABLE)
        if self._expects_key():
            usable = isinstance(node, Node) and isinstance(node.value, str)
            self.open[-1].key = (node.value if usable else _NO_KEY, (line, column))  # type: ignore[union-attr]
            if not usable:
                self._problem(event, "a key must be plain text, not an alias")
            return
        if not isinstance(node, Node):
            why = "leads back into the value that it is part of" if node is None else f"has no anchor '&{event.anchor}' before it"
            self._problem(event, f"the alias '*{event.anchor}' {why}")
            node = Node(line, column, UNUSABLE)
        self._count(node.size, line, column)
        if len(self.open) + node.levels > MOST_LEVELS:
            raise _Bounded(line, column, f"nests deeper than {MOST_LEVELS} levels")
        self._add(node, line)

    def _expects_key(self) -> bool:
        return bool(self.open) and self.open[-1].is_mapping and self.open[-1].key is None

    def _add(self, node: Node, via: int) -> None:
        """Put a finished value where it belongs."""
        if not self.open:
            self.document.root, self.document.value = node, node.value
            return
        holder = self.open[-1]
        inside = holder.node
        if not holder.is_mapping:
            inside.edges[len(inside.value)] = Edge(node, (node.line, node.column), via)
            inside.value.append(node.value)
        else:
            assert holder.key is not None
            (key, place), holder.key = holder.key, None
            if key is _MERGE:
                self._note_merge(holder, node, place[0], via)
                return
            if key is _NO_KEY:
                return
            inside.edges[key] = Edge(node, place, via)
            inside.value[key] = node.value
        inside.size += node.size
        inside.levels = max(inside.levels, node.levels + 1)

    def _note_merge(self, holder: _Open, node: Node, line: int, via: int) -> None:
        """`<<: *anchor` or `<<: [*one, *two]`, the first winning (YAML's merge key)."""
        sources = [(edge.node, edge.via) for edge in node.edges.values()] if isinstance(node.value, list) else [(node, via)]
        for source, alias in sources:
            if isinstance(source.value, dict):
                holder.merges.append((source, alias))
            elif source.value is not UNUSABLE:
                message = f"'<<' in line {line} takes a mapping or a list of mappings"
                self.document.problems.append(Problem(self.document.file, source.line, source.column, message))

    def _merge(self, into: Node, source: Node, via: int) -> None:
        """Keys that are there stay. Merged ones come first, as defaults do."""
        new = {key: edge for key, edge in source.edges.items() if key not in into.edges}
        self._count(sum(edge.node.size for edge in new.values()), into.line, into.column)
        into.edges = {key: Edge(edge.node, edge.key, via or edge.via) for key, edge in new.items()} | into.edges
        merged = {key: source.value[key] for key in new} | into.value
        into.value.clear()
        into.value.update(merged)
        into.size += sum(edge.node.size for edge in new.values())
        into.levels = max([into.levels, *(edge.node.levels + 1 for edge in new.values())])

    def _count(self, values: int, line: int, column: int) -> None:
        self.values += values
        if self.values > MOST_VALUES:
            many = f"more than {MOST_VALUES:,} values, those that aliases repeat counted each time"
            raise _Bounded(line, column, f"holds {many}; split it up")

    def _problem(self, event: Any, message: str) -> None:
        self.document.problems.append(Problem(self.document.file, *_place(event), message))


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1


# YAML 1.2, 10.3.2: the core schema's tag resolution.
_TAG = "tag:yaml.org,2002:"
_NULL = ("", "~", "null", "Null", "NULL")
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER = re.compile(
    r"(?P<int>[-+]?[0-9]+)|0o(?P<oct>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)|(?P<inf>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
_MAY_BE_A_NUMBER = frozenset("0123456789+-.")


def _value(text: str, tag: str | None, implicit: tuple[bool, bool]) -> Any:
    """Raises ValueError, with a message for the user, for what cannot be a value of a spec."""
    if tag is None or tag == "!":
        return _plain(text) if implicit[0] else text
    if tag == _TAG + "str":
        return text
    if tag in (_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"):
        return _plain(text)
    raise ValueError(f"the tag {cut(tag)} is not supported here; put a value that begins with '!' in quotes")


def _plain(text: str) -> Any:
    if text[:1] not in _MAY_BE_A_NUMBER:
        return None if text in _NULL else _BOOLEAN.get(text, text)
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    kind = found.lastgroup
    if kind == "float" or kind == "inf":
        number: float = float(text) if kind == "float" else math.inf
    else:
        digits = found[kind or "int"]
        number = int(digits, {"oct": 8, "hex": 16}.get(kind or "", 10)) if len(digits) <= 40 else math.inf
    if abs(number) > LARGEST_NUMBER:
        bound = f"; the largest is {LARGEST_NUMBER:g}" if kind != "inf" else ""
        raise ValueError(f"{cut(text)} is not a number that can be used{bound}")
    return number


def spell(steps: Steps) -> str:
    """`examples[3].tier`"""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = str(step) if str(step).isprintable() and 0 < len(str(step)) <= 60 else cut(str(step))
            text += f".{name}" if text else name
    return text or "the file"


def cut(value: Any) -> str:
    """As Python shows it, on one line and no longer than a message can take."""
    shown = repr(value)
    return shown if len(shown) <= 70 else f"{shown[:67]}...{shown[-1] if isinstance(value, str) else ''}"
