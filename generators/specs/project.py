"""`load(root)`: every spec of a project, checked, with defaults filled in, as one plain `Project`.

What was read is kept in `build/.cache/` keyed by the bytes of all spec files and of this package, so that a `doit` with nothing
to do parses no YAML. The cache is written only when every spec is right.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generators.errors import Problem, SpecErrors

Spec = dict[str, Any]
Lines = list[int]


@dataclass
class Project:
    """Plain values, by name. categories are named `group/category`. example_lines: line of each example, by category.
    case_lines: line of each case, by suite."""

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


# kind of file -> attribute of Project
_PLACES = {
    "category": "categories",
    "model": "models",
    "chat_format": "chat_formats",
    "client": "clients",
    "persona": "personas",
    "recipe": "recipes",
    "suite": "suites",
}


def load(root: Path, keep: bool = True) -> Project:
    """keep: whether what was read is cached. Raises SpecErrors with every problem of every file."""
    key = _digest(root)
    cache = root / "build" / ".cache" / "specs.pickle"
    cached = _from_cache(cache, key)
    if cached is not None:
        return cached
    project = _read_all(root, _spec_files(root))
    if keep:
        _to_cache(cache, key, project)
    return project


def _spec_files(root: Path) -> list[tuple[str, Path]]:
    """(kind, path) of every spec file, in a fixed order."""
    from generators.specs.schema import FILES

    return [(kind, path) for kind, (_, pattern) in FILES.items() for path in sorted((root / "specs").glob(pattern))]


def _digest(root: Path) -> str:
    """Of the names and bytes of all spec files, of the templates that they are checked against, and of the modules that read them.

    What is a spec file of which kind is not asked here: with a cache that holds, the schema need not be imported.
    """
    digest = hashlib.sha256()
    specs = [path for depth in ("*.yaml", "*/*.yaml", "*/*/*.yaml") for path in (root / "specs").glob(depth)]
    for path in sorted([*specs, *(root / "templates").rglob("*.j2")]) + sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{path}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _from_cache(cache: Path, key: str) -> Project | None:
    try:
        stored_key, project = pickle.loads(cache.read_bytes())
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError):
        return None  # no cache, or one of another version: read the specs themselves
    return project if stored_key == key else None


def _to_cache(cache: Path, key: str, project: Project) -> None:
    from generators.files import atomic_path

    with atomic_path(cache) as temporary:
        temporary.write_bytes(pickle.dumps((key, project), protocol=pickle.HIGHEST_PROTOCOL))


def _read_all(root: Path, files: list[tuple[str, Path]]) -> Project:
    from generators.specs import cross_checks, personas, validate, yaml_source

    project = Project()
    documents: dict[tuple[str, str], yaml_source.Document] = {}
    problems = _missing_files(root, files)
    for kind, path in files:
        document = yaml_source.read(path, path.relative_to(root).as_posix())
        name = f"{path.parent.name}/{path.stem}" if kind == "category" else path.stem
        documents[kind, name] = document
        extends = kind == "persona" and isinstance(document.value, dict) and "extends" in document.value
        value = validate.validate(document, kind, partial=extends)
        if value is None:
            problems += document.problems
            continue
        if kind in _PLACES:
            getattr(project, _PLACES[kind])[name] = value
        else:
            setattr(project, kind, value)
        _note_lines(project, kind, name, document)
    if problems:
        raise SpecErrors(problems)
    problems += personas.resolve(project, documents)
    if not problems:
        problems += cross_checks.check(root, project, documents)
    if problems:
        raise SpecErrors(problems)
    return project


def _note_lines(project: Project, kind: str, name: str, document: Any) -> None:
    for wanted, key, lines in (("category", "examples", project.example_lines), ("suite", "cases", project.case_lines)):
        if kind == wanted:
            lines[name] = [document.places[(key, index)][0] for index in range(len(document.value[key]))]


def _missing_files(root: Path, files: list[tuple[str, Path]]) -> list[Problem]:
    present = {kind for kind, _ in files}
    from generators.specs.schema import FILES

    return [
        Problem(f"specs/{pattern}", 0, 0, "is missing; every project has at least one such file")
        for kind, (_, pattern) in FILES.items()
        if kind not in present and kind not in ("client", "suite")
    ]
