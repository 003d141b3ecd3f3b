"""A Modelfile read as Ollama reads it: what its parser keeps, drops and refuses.

Source of the rules: ollama, parser/parser.go and api/types.go (FormatParams), 0.17 to 0.34. In short: an instruction is a word and a value;
a value is plain, `"..."` or triple-quoted, with no escapes; a quoted value ends at the first line break before which the text so far
ends with the quotes that it began with; characters that Go does not call printable are dropped without a word.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from generators.errors import UserError, did_you_mean, one_of
from generators.specs.schema import OLLAMA_PARAMETERS

Value = int | float | bool
INSTRUCTIONS = ("from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message", "requires")
ROLES = ("system", "user", "assistant")
# What Ollama still reads and then ignores, with a warning.
IGNORED_PARAMETERS = (
    "penalize_newline",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mlock",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)
_BLANK = " \t\n\r"
_LONGEST_INTEGER = 2**63

# Go's tables are of Unicode 15.0. What Python 3.11 (14.0) does not know of it, and the pictographs that came after it and are
# unknown to Go. Without them a pink heart would be refused here, and a face with bags under its eyes lost there.
_UNICODE_15 = (
    "CF3 ECE 10EFD-10EFF 1123F-11241 11B00-11B09 11F00-11F10 11F12-11F3A 11F3E-11F59 1342F 13440-13455 1B132 1B155 1D2C0-1D2D3 "
    "1DF25-1DF2A 1E030-1E06D 1E08F 1E4D0-1E4F9 1F6DC 1F774-1F776 1F77B-1F77F 1F7D9 1FA75-1FA77 1FA87-1FA88 1FAAD-1FAAF 1FABB-1FABD "
    "1FABF 1FACE-1FACF 1FADA-1FADB 1FAE8 1FAF7-1FAF8 2B739 31350-323AF"
)
_AFTER_15 = (
    "1F1AE 1F6D8-1F6D9 1F777-1F77A 1F7DA-1F7DB 1F7F1-1F7FF 1F8B2-1F8BB 1F8C0-1F8C1 1F8D0-1F8D8 1FA54-1FA57 1FA89-1FA8F 1FABE 1FAC6 1FAC8 "
    "1FACC-1FACD 1FADC-1FADD 1FADF 1FAE9-1FAEB 1FAEF 1FAF9-1FAFA"
)


@dataclass(frozen=True)
class Instruction:
    """name: in lower case. word: a PARAMETER's name or a MESSAGE's role, else empty. line: where its value ends, from 1."""

    name: str
    word: str
    value: str
    line: int


@dataclass
class Modelfile:
    """A whole file, as `ollama create` takes it. template and system are empty where the file has none."""

    source: str = ""
    template: str = ""
    system: str = ""
    parameters: dict[str, Value] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    messages: list[dict[str, str]] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)


class Refused(UserError):
    """Ollama would refuse the file. `str(error)` names the line."""


def read_file(path: Path) -> Modelfile:
    """Raises Refused, and UserError when there is no such file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); run: doit modelfile") from error
    try:
        return read(data.decode("utf-8-sig", errors="replace"))
    except Refused as error:
        raise Refused(f"{path}: {error}") from error


def read(text: str) -> Modelfile:
    """Raises Refused for a text that `ollama create` would not take. What it warns about and ignores is left out."""
    found = Modelfile()
    seen = False
    for instruction in instructions(text):
        seen = seen or instruction.name == "from"
        _take(found, instruction)
    if not seen:
        raise Refused("it has no FROM")
    return found


def _take(found: Modelfile, instruction: Instruction) -> None:
    name, value = instruction.name, instruction.value
    if name == "from":
        found.source = value
    elif name == "template":
        found.template = value
    elif name == "system":
        found.system = value
    elif name == "license":
        found.licences.append(value)
    elif name == "message":
        found.messages.append({"role": instruction.word, "content": value})
    elif name == "adapter":
        raise Refused(f"line {instruction.line}: Ollama takes no ADAPTER any more; fuse the adapter into the GGUF")
    elif name == "parameter" and instruction.word == "stop":
        found.stops.append(value)
    elif name == "parameter" and instruction.word not in IGNORED_PARAMETERS:
        found.parameters[instruction.word] = _typed(instruction)


def _typed(instruction: Instruction) -> Value:
    """A PARAMETER's value as Go's strconv reads it."""
    name, text = instruction.word, instruction.value
    kind = OLLAMA_PARAMETERS.get(name)
    if kind is None:
        known = sorted({*OLLAMA_PARAMETERS, "stop"})
        raise Refused(f"line {instruction.line}: unknown PARAMETER {name!r}; there are {one_of(known)}{did_you_mean(name, known)}")
    try:
        if kind == "boolean":
            return {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}[
                text if text in "tTfF01" else _spelled(text)
            ]
        if kind == "number":
            return _finite(text)
        number = int(text)
        if "_" not in text and text == text.strip() and -_LONGEST_INTEGER <= number < _LONGEST_INTEGER:
            return number
    except (KeyError, ValueError):
        pass  # said below, in one way for all kinds
    wanted = {"boolean": "true or false", "integer": "a whole number of 64 bits", "number": "a number"}[kind]
    raise Refused(f"line {instruction.line}: PARAMETER {name} is {text!r}, and {wanted} is expected")


def _spelled(text: str) -> str:
    """`true`, `True` and `TRUE` are the same to Go; `tRUE` is none of its words."""
    return text.lower() if text in (text.lower(), text.upper(), text.title()) else text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or "_" in text or text != text.strip():
        raise ValueError(text)
    return number


_LINE_END = re.compile("[\\r\\n]")


def instructions(text: str) -> Iterator[Instruction]:
    """Every instruction in order, in any case of letters. Raises Refused where Ollama's parser stops."""
    state, name, word = "start", "", ""
    buffer: list[str] = []
    line, position, text = 1, 0, text.removeprefix("\ufeff")
    while position < len(text):
        if state == "value":  # all of a line at once: only at its end can a value end
            end = _LINE_END.search(text, position)
            rest = text[position : end.start() if end else len(text)]
            buffer.append(_printable(rest))
            position += len(rest)
            if end is None:
                break
        character = text[position]
        position += 1
        line += character in "\r\n"
        if state == "value":
            value = unquoted("".join(buffer))
            if value is None:
                buffer.append(character)
                continue
            yield Instruction(name, word, value, line - 1)
            state, word, buffer = "start", "", []
        elif state == "comment":
            state = "start" if character in "\r\n" else state
        elif state == "start":
            if character == "#":
                state = "comment"
            elif character not in _BLANK:
                state, buffer = "name", [character] if is_printable(character) else []
        elif character in " \t":
            state, name, word = _after_word(state, "".join(buffer), name, line)
            buffer = []
        else:
            _check_letter(state, character, line)
            buffer.append(character)
    if state == "value":
        value = unquoted("".join(buffer))
        if value is None:
            raise Refused(f"line {line}: the quotes of {name.upper()} are never closed")
        yield Instruction(name, word, value, line)
    elif state not in ("start", "comment"):
        raise Refused(f"line {line}: the file ends in the middle of an instruction")


def _after_word(state: str, read_word: str, name: str, line: int) -> tuple[str, str, str]:
    """What follows a word and a blank: (state, instruction, word)."""
    if state == "name":
        name = read_word.lower()
        if name not in INSTRUCTIONS:
            raise Refused(f"line {line}: no instruction {read_word!r}; there are {one_of(INSTRUCTIONS)}{did_you_mean(name, INSTRUCTIONS)}")
        return {"parameter": "parameter", "message": "role"}.get(name, "value"), name, ""
    if state == "role" and read_word not in ROLES:
        raise Refused(f"line {line}: a MESSAGE is of {one_of(ROLES)}, not {read_word!r}")
    return "value", name, read_word


def _check_letter(state: str, character: str, line: int) -> None:
    letter = character.isascii() and character.isalpha()
    if not letter and not (state == "parameter" and (character == "_" or character.isascii() and character.isdigit())):
        raise Refused(f"line {line}: {character!r} inside the word that an instruction begins with")


def unquoted(text: str) -> str | None:
    """The value that `text`, read so far, stands for; None where its quotes are still open."""
    text = text.strip(_BLANK)
    if text.startswith('"""'):
        return text[3:-3] if len(text) >= 6 and text.endswith('"""') else None
    if text.startswith('"'):
        return text[1:-1] if len(text) >= 2 and text.endswith('"') else None
    return text


def _printable(text: str) -> str:
    """What the parser keeps of a line inside a value."""
    return text if text.isascii() and text.isprintable() else "".join(filter(lambda one: one in " \t" or is_printable(one), text))


@lru_cache(maxsize=4096)
def is_printable(character: str) -> bool:
    """Go's strconv.IsPrint (Unicode 15.0): letters, marks, numbers, punctuation, symbols, the ASCII space. The rest is dropped."""
    if character.isascii():
        return " " <= character <= "~"
    if unicodedata.category(character)[0] in "LMNPS":
        return ord(character) not in _members(_AFTER_15)
    return ord(character) in _members(_UNICODE_15)


_SETS: dict[str, frozenset[int]] = {}


def _members(ranges: str) -> frozenset[int]:
    """The code points of `41-5A 61`, kept once they were spelled out."""
    if ranges not in _SETS:
        spans = [part.split("-") for part in ranges.split()]
        _SETS[ranges] = frozenset(code for span in spans for code in range(int(span[0], 16), int(span[-1], 16) + 1))
    return _SETS[ranges]
