"""New examples put into the text of a category file: behind its last example, `count` raised by as many, every other byte as it was.

The examples are written as the file's own are (plain where YAML allows, folded when long, literal with line breaks), and what comes out is
parsed: only the new examples and the count may differ from what was there, or nothing is written at all.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from generators.errors import UserError
from generators.specs import yaml_source

Example = dict[str, Any]
_WIDTH = 120  # columns from which text is folded
_BOM = b"\xef\xbb\xbf"


def inserted(data: bytes, file: str, examples: Sequence[Example]) -> bytes:
    """The bytes of a category file with `examples` in it. file: as messages name it.

    Raises UserError where the file is written in a way that cannot be added to by lines (examples in brackets, a count that is an alias).
    """
    mark = _BOM if data.startswith(_BOM) else b""
    text = data.decode("utf-8-sig")
    before = yaml_source.parse(text, file).value
    if not isinstance(before, dict) or not isinstance(before.get("examples"), list):
        raise UserError(f"{file} holds no list of examples")
    place, dash, offset = _end_of_examples(text, file)
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = [line for example in examples for line in _item(example, dash, offset)]
    head = text[:place] + ("" if text[:place].endswith("\n") else ending)
    after = head + "".join(line + ending for line in lines) + text[place:]
    if "count" in before:
        after = _counted(after, file, before["count"] + len(examples))
    _check(before, yaml_source.parse(after, file), examples, file)
    return mark + after.encode()


def _check(before: dict[str, Any], after: yaml_source.Document, examples: Sequence[Example], file: str) -> None:
    wanted = {**before, "examples": [*before["examples"], *examples]}
    if "count" in before:
        wanted["count"] = before["count"] + len(examples)
    if after.problems or after.value != wanted:
        raise UserError(
            f"{file} cannot be added to by lines; write its examples in block form, one `- user: …` a line, and without aliases"
        )


# --- where ------------------------------------------------------------------------------------------------------------------------


def _end_of_examples(text: str, file: str) -> tuple[int, int, int]:
    """(where the line behind the last example begins, the column of its dash, that of its keys from there)."""
    from ruamel.yaml import YAML

    root = YAML(typ="safe", pure=True).compose(text)
    examples = next(value for key, value in root.value if key.value == "examples")
    if examples.flow_style or not examples.value:
        raise UserError(f"{file} cannot be added to by lines: its examples stand in brackets; write them in block form")
    last = examples.value[-1]
    end = max(_ends(last))
    if end == 0 or text[end - 1] != "\n":  # else a block of text, which ends where the line behind it begins
        line_end = text.find("\n", end)
        end = len(text) if line_end < 0 else line_end + 1
    dash = examples.start_mark.column
    return end, dash, max(last.start_mark.column - dash, 2) if last.start_mark.column > dash else 2


def _ends(node: Any) -> Iterator[int]:
    """Where the scalars and bracketed values in a node end."""
    if isinstance(node.value, str) or node.flow_style:
        yield node.end_mark.index
        return
    for item in node.value:
        for part in item if isinstance(item, tuple) else (item,):
            yield from _ends(part)


_COUNT = re.compile(r"^(count[ \t]*:[ \t]*)(\d+)(?=[ \t]*(?:#.*)?\r?$)", re.MULTILINE)


def _counted(text: str, file: str, count: int) -> str:
    found = _COUNT.search(text)
    if found is None:
        raise UserError(f"{file}: `count` stands in no line of its own as a plain number; write it as `count: {count}`")
    return text[: found.start(2)] + str(count) + text[found.end(2) :]


# --- how ----------------------------------------------------------------------------------------------------------------------------


def as_yaml(value: dict[str, Any]) -> str:
    """A mapping of text, numbers, lists and mappings, as the files of this project are written."""
    return "".join(line + "\n" for line in _mapping(value, 0))


def _item(value: Any, dash: int, offset: int) -> list[str]:
    """A list item with its dash, indented."""
    if not isinstance(value, dict):
        return [" " * dash + "-" + " " * (offset - 1) + _inline(value)]
    lines = _mapping(value, dash + offset)
    return [" " * dash + "-" + " " * (offset - 1) + lines[0].lstrip(), *lines[1:]]


def _mapping(value: dict[str, Any], indent: int) -> list[str]:
    lines: list[str] = []
    for key, inside in value.items():
        if isinstance(inside, str):
            lines += _text(key, inside, indent)
        elif isinstance(inside, list) and inside and isinstance(inside[0], dict):
            lines.append(" " * indent + f"{key}:")
            lines += [line for item in inside for line in _item(item, indent + 2, 2)]
        else:
            lines.append(" " * indent + f"{key}: {_inline(inside)}")
    return lines


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    is_plain = re.fullmatch(r"\w[\w ./-]*", value) and _reads_as(f"key: [{value}]", [value])
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _text(key: str, value: str, indent: int) -> list[str]:
    """The first way of writing the value that is read back as it is."""
    for lines in _ways(key, value, indent):
        if _reads_as("\n".join(line[indent:] if line.strip() else "" for line in lines) + "\n", value):
            return lines
    return [" " * indent + f"{key}: {_escaped(value)}"]


def _ways(key: str, value: str, indent: int) -> Iterator[list[str]]:
    lead, inside = " " * indent + f"{key}: ", " " * (indent + 2)
    if "\n" in value:
        yield [f"{lead}|-", *(inside + line if line else "" for line in value.split("\n"))]
        return
    folded = textwrap.wrap(value, max(_WIDTH - len(inside), 40), break_long_words=False, break_on_hyphens=False)
    if len(lead) + len(value) > _WIDTH and len(folded) > 1:
        yield [f"{lead}>-", *(inside + line for line in folded)]
    yield [lead + value]
    yield [f"{lead}'{value.replace(chr(39), chr(39) * 2)}'"]


def _escaped(value: str) -> str:
    """In double quotes. JSON's escapes are YAML's."""
    return json.dumps(value, ensure_ascii=not value.isprintable())


def _reads_as(text: str, value: Any) -> bool:
    document = yaml_source.parse(text, "")
    return not document.problems and isinstance(document.value, dict) and list(document.value.values()) == [value]
