"""Broken specs by the hundred: none gives a traceback other than SpecErrors, hangs, or changes `build/`.

2,000 seeded mutations; FUZZ=N runs N of them. A failure names its number, and FUZZ_ONLY=N runs it alone.
"""

from __future__ import annotations

import faulthandler
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from generators.errors import SpecErrors
from generators.specs.project import Seen, load

REPOSITORY = Path(__file__).parents[1]
COUNT = int(os.environ.get("FUZZ", "2000"))
ONLY = os.environ.get("FUZZ_ONLY")
LONGEST_S = 5.0  # of CPU time, for one load; the slowest measured takes a tenth of it

Lines = list[bytes]
Mutation = Callable[[Lines, random.Random], Lines]


def _some_line(lines: Lines, dice: random.Random, wanted: Callable[[bytes], bool] = lambda line: bool(line.strip())) -> int:
    choices = [number for number, line in enumerate(lines) if wanted(line)]
    return dice.choice(choices or [0])


def _has_key(line: bytes) -> bool:
    return b":" in line and not line.lstrip().startswith(b"#")


def delete(lines: Lines, dice: random.Random) -> Lines:
    at = _some_line(lines, dice)
    return lines[:at] + lines[at + dice.choice((1, 1, 1, 2, 5)) :]


def rename_key(lines: Lines, dice: random.Random) -> Lines:
    at = _some_line(lines, dice, _has_key)
    key, colon, rest = lines[at].partition(b":")
    letters = list(key)
    place = dice.randrange(len(letters)) if letters else 0
    changed = bytes(letters[:place] + [dice.choice(b"abcxyz_- 0")] + letters[place + dice.choice((0, 1)) :])
    return [*lines[:at], changed + colon + rest, *lines[at + 1 :]]


VALUES = [
    b"",
    b"null",
    b"true",
    b"yes",
    b"-1",
    b"0",
    b"3.7",
    b"1e400",
    b"1e-4",
    b".nan",
    b'"1e-4"',
    b"9" * 44,
    b"[]",
    b"{}",
    b"[1, two, {three: 3}]",
    b"{a: {b: [c]}}",
    b'""',
    b'" "',
    b"some text",
    b"'{{ nobody }}'",
    b"'{% if %}'",
    b"*nobody",
    b"&a [*a]",
    b"!!python/object:x.y {}",
    b"|-\n    several\n    lines",
    b"2025-12-07",
    b"0x1f",
    b'"\\ud83d"',
    b'"\\0"',
    b'\'"""\'',
    b"-",
    b"?",
    b"<<: 3",
    b"&x {<<: *x}",
    b"../../etc/passwd",
    b"'/(/'",
]


def retype(lines: Lines, dice: random.Random) -> Lines:
    at = _some_line(lines, dice, _has_key)
    key, colon, _ = lines[at].partition(b":")
    return [*lines[:at], key + colon + b" " + dice.choice(VALUES) + b"\n", *lines[at + 1 :]]


def truncate(lines: Lines, dice: random.Random) -> Lines:
    data = b"".join(lines)
    return [data[: dice.randrange(len(data))]]


def flip_bytes(lines: Lines, dice: random.Random) -> Lines:
    data = bytearray(b"".join(lines))
    for _ in range(dice.choice((1, 1, 1, 4, 20))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return [bytes(data)]


def overwrite_bytes(lines: Lines, dice: random.Random) -> Lines:
    data = bytearray(b"".join(lines))
    data[dice.randrange(len(data))] = dice.choice(b"\0\t\n\r:#-[]{}&*!|>'\"%@`?,\xff\xc3\x85 ")
    return [bytes(data)]


def swap(lines: Lines, dice: random.Random) -> Lines:
    one, other = _some_line(lines, dice), _some_line(lines, dice)
    lines = list(lines)
    lines[one], lines[other] = lines[other], lines[one]
    return lines


def repeat_line(lines: Lines, dice: random.Random) -> Lines:
    at = _some_line(lines, dice)
    return lines[: at + 1] + lines[at:]


def repeat_key(lines: Lines, dice: random.Random) -> Lines:
    """A line with a key, put somewhere else in the file."""
    line = lines[_some_line(lines, dice, _has_key)]
    at = dice.randrange(len(lines) + 1)
    return [*lines[:at], line, *lines[at:]]


def indent(lines: Lines, dice: random.Random) -> Lines:
    at = _some_line(lines, dice)
    changed = dice.choice((b" ", b"  ", b"\t")) + lines[at] if dice.random() < 0.7 else lines[at][1:]
    return [*lines[:at], changed, *lines[at + 1 :]]


def alias(lines: Lines, dice: random.Random) -> Lines:
    """An anchor on one value, an alias to it or a merge of it somewhere after."""
    one = _some_line(lines, dice, _has_key)
    key, colon, rest = lines[one].partition(b":")
    lines = [*lines[:one], key + colon + b" &fuzz" + rest, *lines[one + 1 :]]
    other = dice.randrange(one, len(lines))
    key, colon, _ = lines[other].partition(b":")
    space = lines[other][: len(lines[other]) - len(lines[other].lstrip())]
    return [*lines[:other], space + b"<<: *fuzz\n" if dice.random() < 0.3 else key + b": *fuzz\n", *lines[other + 1 :]]


def nest(lines: Lines, dice: random.Random) -> Lines:
    at = _some_line(lines, dice, _has_key)
    key, colon, rest = lines[at].partition(b":")
    opened, closed = dice.choice(((b"[", b"]"), (b"{a: ", b"}")))
    deep = dice.choice((2, 20, 40, 5000))
    return [*lines[:at], key + colon + b" " + opened * deep + rest.strip() + closed * deep + b"\n", *lines[at + 1 :]]


MUTATIONS: list[Mutation] = [
    delete,
    rename_key,
    retype,
    retype,
    truncate,
    flip_bytes,
    flip_bytes,
    overwrite_bytes,
    swap,
    repeat_line,
    repeat_key,
    indent,
    alias,
    nest,
]


def mutations(root: Path, count: int) -> Iterator[tuple[int, Path, bytes, str]]:
    """(number, file, what it is to hold, name of the mutation). Each depends on its number alone."""
    files = sorted((root / "specs").rglob("*.yaml"))
    for number in range(count):
        dice = random.Random(number)
        path = dice.choice(files)
        mutation = dice.choice(MUTATIONS)
        lines = path.read_bytes().splitlines(keepends=True)
        for _ in range(dice.choice((1, 1, 1, 1, 2, 4))):
            lines = [*b"".join(mutation(lines or [b"\n"], dice)).splitlines(keepends=True)]
        yield number, path, b"".join(lines), mutation.__name__


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    for name in ("specs", "templates"):
        shutil.copytree(REPOSITORY / name, root / name)
    (root / "build").mkdir()
    load(root)
    return root


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_mutation_of_the_shipped_specs_gives_anything_but_problems(project: Path) -> None:
    seen: Seen = {}
    outcomes: Counter[str] = Counter()
    before = state(project / "build")
    faulthandler.dump_traceback_later(120, exit=True)  # what hangs is shown, and ended
    try:
        for number, path, data, name in mutations(project, COUNT if ONLY is None else int(ONLY) + 1):
            if ONLY is not None and number != int(ONLY):
                continue
            faulthandler.dump_traceback_later(120, exit=True)
            original = path.read_bytes()
            path.write_bytes(data)
            started = time.process_time()
            try:
                load(project, keep=False, seen=seen)
                outcomes["loads"] += 1
            except SpecErrors as errors:
                outcomes["refused"] += 1
                assert errors.problems and all(_is_told_well(str(problem)) for problem in errors.problems), (number, name, str(errors))
            except BaseException as error:
                raise AssertionError(f"mutation {number} ({name} of {path.name}): {type(error).__name__}: {error}") from error
            finally:
                path.write_bytes(original)
                for key in [key for key in seen if key[2] == data and data != original]:
                    del seen[key]
            assert time.process_time() - started < LONGEST_S, (number, name)
            assert state(project / "build") == before, (number, name)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if ONLY is None:
        assert outcomes["refused"] > COUNT * 0.5 and outcomes["loads"] > COUNT * 0.05, outcomes


def _is_told_well(problem: str) -> bool:
    place, _, message = problem.partition(": ")
    return place.startswith(("specs", "templates")) and bool(message) and problem.isprintable() and len(problem) < 1000


def test_mutations_that_are_refused_leave_no_cache_behind(project: Path) -> None:
    """As `doit` calls it, with the cache: only specs that are right may write it."""
    cache = project / "build/.cache/specs.pickle"
    for number, path, data, name in mutations(project, 15):
        original, before = path.read_bytes(), cache.read_bytes()
        path.write_bytes(data)
        try:
            load(project)
        except SpecErrors:
            assert cache.read_bytes() == before, (number, name)
        finally:
            path.write_bytes(original)
    load(project)


def test_the_quick_check_finds_the_same_as_cerberus_and_the_json_schema() -> None:
    """What plainly fits by the shortcut fits by cerberus, and where an editor sees a mistake there is one."""
    import jsonschema

    from generators.specs import json_schema, validate, yaml_source
    from generators.specs.on_disk import File
    from generators.specs.project import _kind
    from generators.specs.schema import FILES

    editors = {kind: jsonschema.Draft7Validator(json_schema.json_schema(kind)) for kind in FILES}
    compared = Counter[bool]()
    for number, path, data, name in mutations(REPOSITORY, min(COUNT, 600)):
        relative = path.relative_to(REPOSITORY).as_posix()
        document = yaml_source.decode(data, relative)
        kind, _ = _kind(File(relative, data))
        if kind is None or document.problems or not isinstance(document.value, dict):
            continue
        partial = kind == "persona" and "extends" in document.value
        value, found = validate.checked(document.value, document, kind, partial)
        slow = validate._validator(kind, partial)
        quick = validate._fits_inside(value, dict(slow.schema))
        slow._validate_schema = super(validate._SpecValidator, slow)._validate_schema  # type: ignore[method-assign]
        assert quick == (not found), (number, name, found)
        if not _numbers_in_quotes(document.value, value):
            assert quick == editors[kind].is_valid(document.value), (number, name, found)
        compared[quick] += 1
    assert compared[True] > 10 and compared[False] > 10


def _numbers_in_quotes(raw: object, read: object) -> bool:
    """Whether the specs read a text as a number, which the JSON schemas do not."""
    if isinstance(raw, dict) and isinstance(read, dict):
        return any(_numbers_in_quotes(value, read.get(key)) for key, value in raw.items())
    if isinstance(raw, list) and isinstance(read, list):
        return any(_numbers_in_quotes(one, other) for one, other in zip(raw, read, strict=True))
    return type(raw) is not type(read) and not isinstance(raw, bool)
