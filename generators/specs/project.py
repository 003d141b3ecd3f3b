"""`load(root)`: every spec of a project, checked, with defaults filled in, as one plain `Project`.

What was read is kept in `build/.cache/` keyed by the bytes of all specs and templates and by the state of this package, so that a `doit`
with nothing to do parses no YAML. The cache is written only when every spec is right: a mistake leaves `build/` as it was.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.errors import Problem, SpecErrors, UserError
from generators.specs.on_disk import File, files_in

if TYPE_CHECKING:
    from generators.specs.yaml_source import Document

Spec = dict[str, Any]
Lines = list[int]


@dataclass
class Project:
    """Plain values, by name. categories are named `group/category`. example_lines: line of each example, by category.
    case_lines: line of each case, by suite. client_files: where each client stands, the specs or `build/clients/`."""

    project: Spec = field(default_factory=dict)
    tiers: Spec = field(default_factory=dict)
    categories: dict[str, Spec] = field(default_factory=dict)
    models: dict[str, Spec] = field(default_factory=dict)
    chat_formats: dict[str, Spec] = field(default_factory=dict)
    clients: dict[str, Spec] = field(default_factory=dict)
    personas: dict[str, Spec] = field(default_factory=dict)
    recipes: dict[str, Spec] = field(default_factory=dict)
    suites: dict[str, Spec] = field(default_factory=dict)
    example_lines: dict[str, Lines] = field(default_factory=dict)
    case_lines: dict[str, Lines] = field(default_factory=dict)
    client_files: dict[str, str] = field(default_factory=dict)


# kind of file -> attribute of Project
ATTRIBUTES = {
    "category": "categories",
    "model": "models",
    "chat_format": "chat_formats",
    "client": "clients",
    "persona": "personas",
    "recipe": "recipes",
    "suite": "suites",
}
# (kind, path, bytes) of a file -> what was made of it
Seen = MutableMapping[tuple[str, str, "bytes | Problem"], "tuple[Document, Spec | None]"]


def load(root: Path, keep: bool = True, seen: Seen | None = None, captured: bool = True) -> Project:
    """keep: whether what was read is cached under `build/`. seen: for a caller that loads again and again, the files that it has loaded
    before, in place of that cache. captured: whether a client that was captured counts in place of the shipped one of its name.

    Raises SpecErrors with every problem of every file.
    """
    files = list(files_in(root, "specs", (".yaml", ".yml"), levels=4))
    if captured:
        files = _with_captured(root, files)
    templates = list(files_in(root, "templates", (".j2",), levels=8))
    if seen is not None:
        return _checked(root, files, templates, seen)
    key = _digest([*files, *templates])
    cache = root / "build" / ".cache" / "specs.pickle"
    project = _from_cache(cache, key)
    if project is None:
        project = _checked(root, files, templates, {})
        if keep:
            _to_cache(cache, key, project)
    return project


def _with_captured(root: Path, files: list[File]) -> list[File]:
    """What `doit capture` made takes the place of the file in specs/clients/ that has its name."""
    if not (root / "build" / "clients").is_dir():
        return files
    private = list(files_in(root, "build/clients", (".yaml",), levels=1))
    replaced = {file.path.removeprefix("build/") for file in private}
    return [file for file in files if file.path.removeprefix("specs/") not in replaced] + private


def spec_files(root: Path) -> list[tuple[str, Path]]:
    """(kind, path) of every spec file, by name."""
    found = [(_kind(file)[0], root / file.path) for file in files_in(root, "specs", (".yaml", ".yml"), levels=4)]
    return [(kind, path) for kind, path in found if kind is not None]


_spec_files = spec_files  # the name that tests of other stages know


# --- the cache --------------------------------------------------------------------------------------------------------------------


def _digest(files: list[File]) -> str:
    """Of what the specs and templates say, and of the state of the program that judges them."""
    digest = hashlib.sha256(f"{sys.version_info}\n".encode())
    for path, data in files:
        content = data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")
        digest.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    for folder, folders, names in os.walk(Path(__file__).parents[1]):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                digest.update(f"{folder}/{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _from_cache(cache: Path, key: str) -> Project | None:
    """None without a cache, with one of other specs, and with one that something has damaged."""
    try:
        stored = cache.read_bytes()
    except OSError:
        return None
    head, payload = stored[:96], stored[96:]
    if head != key.encode() + hashlib.sha256(payload).digest():
        return None
    project = pickle.loads(payload)
    return project if isinstance(project, Project) else None


def _to_cache(cache: Path, key: str, project: Project) -> None:
    from generators.files import atomic_path

    payload = pickle.dumps(project, protocol=pickle.HIGHEST_PROTOCOL)
    try:
        with atomic_path(cache) as temporary:
            temporary.write_bytes(key.encode() + hashlib.sha256(payload).digest() + payload)
    except (OSError, UserError):
        return  # a full disk or a folder that is read-only: the specs are right all the same, and are read again the next time


# --- reading and checking ---------------------------------------------------------------------------------------------------------


def _checked(root: Path, files: list[File], templates: list[File], seen: Seen) -> Project:
    from generators.specs import cross_checks, personas

    project = Project()
    documents: dict[tuple[str, str], Document] = {}
    problems = [file.data for file in templates if isinstance(file.data, Problem)]
    for file in files:
        kind, misplaced = _kind(file)
        if kind is None:
            problems.append(misplaced or Problem(file.path, 0, 0, "is no spec"))
            continue
        name = _name(kind, file.path)
        document, value = seen.get((kind, file.path, file.data)) or seen.setdefault((kind, file.path, file.data), _read(kind, file))
        documents[kind, name] = document
        problems += document.problems + list(_problems_of_name(kind, name, file.path, documents))
        if value is not None:
            _put(project, kind, name, value, document)
    problems += _missing(root, documents)
    problems += personas.resolve(project, documents)
    problems += cross_checks.check(root, project, documents, {file.path: file.data for file in templates})
    if problems:
        raise SpecErrors(problems)
    return project


def _read(kind: str, file: File) -> tuple[Document, Spec | None]:
    from generators.specs import validate, yaml_source

    document = yaml_source.decode(file.data, file.path)
    extends = kind == "persona" and isinstance(document.value, dict) and "extends" in document.value
    return document, validate.validate(document, kind, partial=extends)


def _put(project: Project, kind: str, name: str, value: Spec, document: Document) -> None:
    if kind not in ATTRIBUTES:
        setattr(project, kind, value)
        return
    getattr(project, ATTRIBUTES[kind])[name] = value
    if kind == "client":
        project.client_files[name] = document.file
    for wanted, key, lines in (("category", "examples", project.example_lines), ("suite", "cases", project.case_lines)):
        if kind == wanted:
            lines[name] = [document.problem((key, index), "").line for index in range(len(value[key]))]


def _name(kind: str, path: str) -> str:
    parts = path.removesuffix(".yaml").split("/")
    return "/".join(parts[-2:]) if kind == "category" else parts[-1]


def _kind(file: File) -> tuple[str | None, Problem | None]:
    """The kind of spec that a file is by its place, or what to do with a file that is of none."""
    from generators.errors import did_you_mean, one_of
    from generators.specs.schema import FILES

    inside = file.path.removeprefix("specs/").removeprefix("build/")
    for kind, (_, pattern, *_rest) in FILES.items():
        if fnmatchcase(inside, pattern) and inside.count("/") == pattern.count("/"):
            return kind, None
    if isinstance(file.data, Problem):
        return None, file.data
    folder = inside.split("/")[0]
    folders = sorted({pattern.split("/")[0] for _, pattern, *_rest in FILES.values()})
    if inside.endswith(".yml"):
        remedy = f"name it {inside.split('/')[-1].removesuffix('.yml')}.yaml"
    elif folder == "categories":
        remedy = "a category is kept as specs/categories/GROUP/NAME.yaml"
    elif folder in folders:
        remedy = f"keep it directly in specs/{folder}/"
    else:
        remedy = f"specs/ holds {one_of(folders)}{did_you_mean(folder, folders)}"
    return None, Problem(file.path, 0, 0, f"nothing reads this file; {remedy}")


def _problems_of_name(kind: str, name: str, path: str, documents: dict[tuple[str, str], Document]) -> Iterator[Problem]:
    """A file's name goes into task names, paths and Ollama; on many machines Slang.yaml and slang.yaml are one file."""
    import re

    from generators.specs.schema import NAME_PATTERN

    twins = [other for of_kind, other in documents if of_kind == kind and other != name and other.casefold() == name.casefold()]
    if twins:
        other = documents[kind, twins[0]].file
        yield Problem(path, 0, 0, f"differs from {other} by letter case alone; on many machines they are one file, so rename one of them")
        return
    for part in name.split("/"):
        if not re.fullmatch(NAME_PATTERN, part):
            what = "folder" if "/" in name and part == name.split("/")[0] else "file"
            yield Problem(path, 0, 0, f"{part!r} is not a name of lower-case letters, digits, '.', '_' and '-'; rename the {what}")


def _missing(root: Path, documents: dict[tuple[str, str], Document]) -> list[Problem]:
    from generators.specs.schema import FILES

    if not (root / "specs").exists():
        return [Problem("specs", 0, 0, "is missing; a project keeps its specs in this folder beside dodo.py")]
    present = {kind for kind, _ in documents}
    return [
        Problem(f"specs/{known.pattern}", 0, 0, "is missing; a project has at least one such file")
        for kind, known in FILES.items()
        if kind not in present and not known.optional
    ]
