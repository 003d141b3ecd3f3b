"""Lines of a file that may hold anything: bytes that are no text, lines without an end, a byte order mark, any line ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

LONGEST = 1_000_000  # letters of a line; a sample takes a thousandth of it
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # what a shell on Windows writes into a file
_REPLACED = "\ufffd"


class Line(NamedTuple):
    """text: without its end, empty where there is a problem. problem: why the line cannot be used."""

    number: int
    text: str
    problem: str = ""


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a file, held in memory one at a time, and none longer than LONGEST. Raises OSError alone."""
    with path.open("rb") as start:
        is_utf16 = start.read(2) in _UTF16
    # Bytes that are no UTF-8 come out as lone surrogates, which no text holds otherwise.
    encoding, errors = ("utf-16", "replace") if is_utf16 else ("utf-8-sig", "surrogateescape")
    with path.open(encoding=encoding, errors=errors) as file:
        yield from _lines(file, is_utf16)


def lines_of(text: str) -> Iterable[Line]:
    """The lines of a text that is in memory."""
    return (_line(number, line, False) for number, line in enumerate(text.split("\n"), 1))


def _lines(file: TextIO, is_utf16: bool) -> Iterator[Line]:
    number = 0
    while piece := file.readline(LONGEST):
        number += 1
        if len(piece) < LONGEST or piece.endswith("\n"):
            yield _line(number, piece, is_utf16)
            continue
        while piece and not piece.endswith("\n"):
            piece = file.readline(LONGEST)
        yield Line(number, "", f"a line of more than {LONGEST:,} letters")


def _line(number: int, piece: str, is_utf16: bool) -> Line:
    text = piece.rstrip("\r\n").removeprefix("\ufeff")  # files that were put together bring a mark each
    if is_utf16 and _REPLACED in text:
        return Line(number, "", "bytes that are no UTF-16")
    if any("\udc80" <= letter <= "\udcff" for letter in text):
        return Line(number, "", "bytes that are no UTF-8")
    return Line(number, text)
