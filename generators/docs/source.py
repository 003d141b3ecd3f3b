"""What the program's own source says of itself: the tasks of dodo.py, and the first sentence of every module."""

from __future__ import annotations

import ast
from pathlib import Path

_TASK = "task_"


def tasks(dodo: Path) -> list[tuple[str, str]]:
    """(name as it is typed, first line of the docstring) of every task creator, in the order of the file; hidden ones are left out."""
    found = []
    for node in ast.parse(dodo.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith(_TASK) and not node.name.startswith(f"{_TASK}_"):
            found.append((node.name.removeprefix(_TASK).replace("_", "-"), _first_line(node)))
    return found


def options(dodo: Path) -> dict[str, set[str]]:
    """`--name` and the like of every task, by the name as it is typed."""
    found: dict[str, set[str]] = {}
    for node in ast.parse(dodo.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith(_TASK):
            pairs = [zip(each.keys, each.values, strict=True) for each in ast.walk(node) if isinstance(each, ast.Dict)]
            longs = [value for pair in pairs for key, value in pair if isinstance(key, ast.Constant) and key.value == "long"]
            name = node.name.removeprefix(_TASK)
            found[name if name.startswith("_") else name.replace("_", "-")] = {f"--{ast.literal_eval(value)}" for value in longs}
    return found


def modules(package: Path) -> list[tuple[str, str]]:
    """(path relative to the package's folder, first line of the docstring): modules at the top, and sub-packages by their `__init__`."""
    found = []
    for path in sorted(package.glob("*.py")) + sorted(package.glob("*/__init__.py")):
        line = _first_line(ast.parse(path.read_text(encoding="utf-8")))
        name = f"{path.parent.name}/" if path.name == "__init__.py" else path.name
        if line and path.parent != package or path.name != "__init__.py":
            found.append((name, line))
    return sorted(found)


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]
