"""A client's `.env`, edited so that every byte which is not a value of ours stays as it was.

python-dotenv's parser says what each line is. Its `set_key` does not keep the bytes (line ends become those of the machine, a comment
behind a value is lost), so that the text is put together here. Nothing in this module shows a value or a comment that is not ours.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path

from generators.errors import UserError
from generators.files import atomic_path

MASK = "…"
_NEW_FILE_MODE = 0o600  # keys of providers will stand in it
_BYTE_ORDER_MARK = "\ufeff"
_BREAK = re.compile(r"\r\n|\n|\r")
_BLANKS = r"[^\S\r\n]*"
_BINDING = re.compile(
    rf"(?P<head>\s*(?:export[^\S\r\n]+)?)(?:'[^']+'|[^=\#\s]+){_BLANKS}"
    rf"(?:={_BLANKS}(?P<value>'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|(?!(?<=\s)\#)[^\r\n]*?))?"
    rf"(?P<tail>(?:[^\S\r\n]+\#[^\r\n]*)?{_BLANKS}(?:\r\n|\n|\r)?)",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class Entry:
    """A setting, or a comment or blank lines. text: as it stands, blank lines before it and its line break included. key: what it sets, or
    None. value: as python-dotenv reads it. line: where it begins, from 1."""

    text: str
    key: str | None
    value: str | None
    line: int


# --- reading ----------------------------------------------------------------------------------------------------------------------


def read(path: Path) -> bytes | None:
    """The file's bytes, None where there is none. Raises UserError for what is no file that can be edited."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise UserError(f"{path} is {what}; name the client's file with --file")
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    # Root may write anything: what counts is what the owner of the file wanted.
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise UserError(f"{path} is read-only; make it writable with: chmod u+w {path}")
    return data


def parsed(data: bytes, path: Path) -> list[Entry]:
    """Raises UserError with the line of what is neither a comment nor NAME=VALUE."""
    from dotenv.parser import parse_stream

    text = data.decode("utf-8", "surrogateescape")
    if text.startswith(_BYTE_ORDER_MARK):
        raise UserError(f"{path}:1: the file begins with a byte order mark, which a client takes for part of a name; save it without one")
    entries = []
    for found in parse_stream(io.StringIO(text, newline="")):
        whole = found.original.string
        line = found.original.line + len(_BREAK.findall(whole[: len(whole) - len(whole.lstrip())]))
        if found.error or "\0" in whole:
            what = "neither a comment nor NAME=VALUE (a quotation mark may be open)"
            raise UserError(f"{path}:{line}: {what}; mend that line; nothing was written")
        entries.append(Entry(whole, found.key, found.value, line))
    assert "".join(entry.text for entry in entries) == text, "python-dotenv left out part of the file"
    return entries


def joined(entries: Sequence[Entry]) -> bytes:
    return "".join(entry.text for entry in entries).encode("utf-8", "surrogateescape")


def settings(entries: Sequence[Entry]) -> dict[str, str]:
    """What a client that loads the file finds in its environment."""
    return {entry.key: entry.value for entry in entries if entry.key and entry.value is not None}


def doubts(entries: Sequence[Entry]) -> Iterator[str]:
    """What start scripts that load the file by `export $(grep -v '^#' .env | xargs)` stumble over, each with its line."""
    for entry in entries:
        body = entry.text.lstrip()
        if entry.key and _open_quote(body):
            yield f"line {entry.line}: a quotation mark is not closed on its line; scripts that load the file with xargs stop there"
    if any("\r" in entry.text for entry in entries):
        yield "the lines end as on Windows; scripts that load the file with xargs read a carriage return at the end of each value"


def _open_quote(text: str) -> bool:
    """Whether a line leaves a quotation mark open as xargs reads it, for which no backslash counts inside quotes."""
    for line in _BREAK.split(text):
        bare = re.sub(r"\\.|'[^']*'|\"[^\"]*\"", "", line)
        if "'" in bare or '"' in bare:
            return True
    return False


# --- editing ----------------------------------------------------------------------------------------------------------------------


def with_values(entries: Sequence[Entry], values: Mapping[str, str]) -> list[Entry]:
    """Every setting of a key of `values` given its value, and those that are missing added at the end, in the order of `values`.

    A key that stands in several places is set in all: which one counts differs between loaders.
    """
    # What is read as our value may still be written with quotes or blanks, which the client's loader takes literally or splits at.
    edited = [_set(entry, values[entry.key]) if entry.key and entry.key in values else entry for entry in entries]
    there = {entry.key for entry in entries}
    line_break = _line_break(entries)
    added = [Entry(f"{key}={value}{line_break}", key, value, 0) for key, value in values.items() if key not in there]
    return [*_ended(edited, line_break), *added] if added else edited


def _set(entry: Entry, value: str) -> Entry:
    found = _BINDING.fullmatch(entry.text)
    assert found and entry.key, f"line {entry.line}: python-dotenv reads a setting where there is none"
    return Entry(f"{found['head']}{entry.key}={value}{found['tail']}", entry.key, value, entry.line)


def _line_break(entries: Sequence[Entry]) -> str:
    """The file's own."""
    found = _BREAK.search("".join(entry.text for entry in entries))
    return found[0] if found else "\n"


def _ended(entries: Sequence[Entry], line_break: str) -> list[Entry]:
    """Each with a line break at its end, so that another can follow."""
    return [entry if entry.text.endswith(("\n", "\r")) else replace(entry, text=entry.text + line_break) for entry in entries]


def without_values(now: Sequence[Entry], before: Sequence[Entry], values: Mapping[str, str]) -> list[Entry]:
    """`now`, in which other things were edited since, with the settings of `before` where those of `values` still stand.

    What was not there before goes; a key that somebody has set otherwise since stays so.
    """
    earlier = {key: [entry for entry in before if entry.key == key] for key in values}
    kept = []
    for entry in now:
        if entry.key is None or entry.key not in values or values[entry.key] != entry.value:
            kept.append(entry)
        elif earlier[entry.key]:
            kept.append(earlier[entry.key].pop(0))
    return [*_ended(kept[:-1], _line_break(now)), *kept[-1:]]


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, with the mode and owner that the file has; a new one for its owner alone. Links lead to what is written.

    Raises UserError when the folder does not let it.
    """
    target = path.resolve()
    try:
        status = target.stat() if target.exists() else None
        with atomic_path(target) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _NEW_FILE_MODE)
            with os.fdopen(descriptor, "wb") as out:
                out.write(data)
            if status is not None:
                _copy_owner(temporary, status)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def _copy_owner(path: Path, status: os.stat_result) -> None:
    made = path.stat()
    if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
        os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))


# --- showing ----------------------------------------------------------------------------------------------------------------------


def masked_diff(before: Sequence[Entry], after: Sequence[Entry], ours: Mapping[str, str], name: str) -> list[str]:
    """The lines of a unified diff. Values of other keys, and comments, which may hold a key that is out of use, are masked."""
    old, new = (_masked(entries, ours) for entries in (before, after))
    return list(unified_diff(old, new, name, f"{name} (new)", n=2, lineterm=""))


def _masked(entries: Sequence[Entry], ours: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for entry in entries:
        body = entry.text.lstrip()
        lines += [""] * len(_BREAK.findall(entry.text[: len(entry.text) - len(body)]))
        if body:
            lines.append(_masked_line(entry, ours))
    return lines


def _masked_line(entry: Entry, ours: Mapping[str, str]) -> str:
    if entry.key is None:
        return f"# {MASK}"
    found = _BINDING.fullmatch(entry.text)
    if entry.key not in ours or found is None:
        return f"{entry.key}={MASK}" if entry.value is not None and _NAME.fullmatch(entry.key) else MASK  # a key may be a line of its own
    value = "" if found["value"] is None else f"={_CREDENTIALS.sub(MASK, found['value'])}"
    return f"{found['head'].lstrip()}{entry.key}{value}{f' # {MASK}' if '#' in found['tail'] else ''}"


def without_secrets(text: str, entries: Sequence[Entry], ours: Mapping[str, str]) -> str:
    """Text of another program without the values of keys that are not ours. Short ones (`1`, `true`, `de`) are no secrets, and everywhere."""
    secrets = {entry.value for entry in entries if entry.key not in ours and entry.value and len(entry.value) >= 6}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
