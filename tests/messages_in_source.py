"""Every message that the program can say when something goes wrong, read out of its source.

A message is what is handed to one of the few things that carry one to the person: an exception of this program, a `Problem` of the specs, a
`Violation` of the dataset's gates, a `Finding` of the doctor, a line that begins with `WARNING:`. What is handed over is followed back to
the text: through names that are assigned in the function, conditions, sums, functions of the module that return text, and parameters, whose
callers then carry messages as well. A value put into a text becomes `{}`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "generators"
# What carries a message: name -> which argument it is. Exceptions of the program join them as they are found.
CARRIERS = {"Problem": 3, "problem": 1, "wrong": 1, "Violation": 1, "Finding": 1, "TaskFailed": 0, "TaskError": 0, "InvalidDodoFile": 0,
            "SystemExit": 0, "ValueError": 0, "UserError": 0}  # fmt: skip
# Functions whose text reaches the person by a way that is not followed: through a list, a callback, a word put into another message.
TELLERS = {
    "classify.py": ("problems_of_rules",),
    "dataset/quality.py": ("_word_range", "_other_language", "_forbidden", "_opinion", "_control_token", "_not_nfc", "_white_space", "_tokens",
                           "fence_problem", "quote_problem"),
    "deploy/checks.py": ("_differences",),
    "modelfile.py": ("why_not_writable",),
    "preflight.py": ("_how_it_ended",),
    "specs/rendering_checks.py": ("_words",),
    "specs/validate.py": ("_complaint",),
    "specs/yaml_source.py": ("_explain",),
}  # fmt: skip
# A ValueError there is a mistake of the program's own, and no person's.
SILENT = {"specs/json_schema.py"}
PASSED_ON = "{}"  # a text that came from elsewhere, whole
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, order=True)
class Message:
    """text: with `{}` for every value that is put into it. place: `gguf.py:96`."""

    place: str
    text: str


@cache
def messages(package: Path = PACKAGE) -> tuple[Message, ...]:
    """All messages of a package, by file and line, each text once a place."""
    paths = sorted(package.rglob("*.py"))
    return messages_of({path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in paths})


def messages_of(sources: dict[str, str]) -> tuple[Message, ...]:
    """sources: text of each module, by its path in the package."""
    files = {name: ast.parse(text) for name, text in sources.items()}
    carriers = CARRIERS | _exceptions(files)
    found = {message for name, tree in files.items() for message in _Module(name, tree, carriers).messages()}
    return tuple(sorted(message for message in found if re.sub(r"[\s:;,.()'{}]", "", message.text)))


def level(text: str) -> str:
    """A message of the catalogue, whose values have names (`{file}`), and one of the source, made comparable."""
    return re.sub(r"\s+", " ", re.sub(r"\{[^{}]*\}", "{}", text)).strip()


def _exceptions(files: dict[str, ast.Module]) -> dict[str, int]:
    """Every exception that the program defines, with the place of its message among the arguments; none that words it itself."""
    classes = [node for tree in files.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = {node.name: [ast.unparse(base) for base in node.bases] for node in classes}

    def is_raised(name: str) -> bool:
        return name in ("Exception", "SystemExit") or any(map(is_raised, bases.get(name, ())))

    found: dict[str, int] = {}
    for node in classes:
        at = _place_of_message(node) if is_raised(node.name) else None
        if at is not None:
            found[node.name] = max(at, found.get(node.name, 0))  # of two classes of one name, see `_handed_over`
    return found


def _place_of_message(node: ast.ClassDef) -> int | None:
    initialiser = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if initialiser is None:
        return 0
    names = [argument.arg for argument in initialiser.args.args[1:]]
    handed = [ast.unparse(call.args[0]) for call in ast.walk(initialiser) if isinstance(call, ast.Call) and _is_super(call) and call.args]
    return names.index(handed[0]) if handed and handed[0] in names else None


def _is_super(call: ast.Call) -> bool:
    named = isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
    return named and ast.unparse(call.func) == "super().__init__"


class _Module:
    def __init__(self, name: str, tree: ast.Module, carriers: dict[str, int]):
        self.name, self.tree, self.carriers = name, tree, dict(carriers)
        if name in SILENT:
            del self.carriers["ValueError"]
        self.functions: dict[str, list[Function]] = {}
        self.holder: dict[ast.AST, Function] = {}
        self.constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        self.calls: list[ast.Call] = []
        self.classes: list[ast.ClassDef] = []
        self.texts: list[ast.expr] = []  # those in an f-string left out
        self._note(tree, None)

    def _note(self, node: ast.AST, holder: Function | None) -> None:
        for child in ast.iter_child_nodes(node):
            if holder is not None:
                self.holder[child] = holder
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions.setdefault(child.name, []).append(child)
            elif isinstance(child, ast.Call):
                self.calls.append(child)
            elif isinstance(child, ast.ClassDef):
                self.classes.append(child)
            elif isinstance(child, ast.JoinedStr) or isinstance(child, ast.Constant) and not isinstance(node, ast.JoinedStr):
                self.texts.append(child)
            self._note(child, child if isinstance(child, Function) else holder)

    def messages(self) -> Iterator[Message]:
        known: set[str] = set()
        while set(self.carriers) - known:  # a function that hands a parameter on carries messages too
            fresh, known = set(self.carriers) - known, set(self.carriers)
            for call, handed in self._handed_over(fresh):
                for text in self._texts(handed):
                    yield self._message(call, text)
        for name in TELLERS.get(self.name, ()):
            for function in self.functions[name]:
                for told in _told_by(function):
                    yield from (self._message(told, text) for text in self._texts(told))
        for node in self.texts:
            if (text := self._text_of(node)).startswith("WARNING:"):
                yield self._message(node, text)

    def _message(self, node: ast.AST, text: str) -> Message:
        return Message(f"{self.name}:{node.lineno}", re.sub(r"\s+", " ", text).strip())  # type: ignore[attr-defined]

    def _handed_over(self, carriers: set[str]) -> Iterator[tuple[ast.Call, ast.expr]]:
        for node in self.calls:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
            if _is_super(node) and self._in_exception(node) and node.args:
                yield node, node.args[0]
            elif name in carriers and node.args and not _is_fine(node):
                yield node, node.args[min(self.carriers[name], len(node.args) - 1)]

    def _in_exception(self, call: ast.Call) -> bool:
        function = self.holder.get(call)
        owner = next((node for node in self.classes if function in node.body), None)
        return owner is not None and any(re.search(r"Error|Exception|Exit", ast.unparse(base)) for base in owner.bases)

    def _texts(self, node: ast.expr, seen: tuple[ast.AST, ...] = ()) -> list[str]:
        """What `node` may be, with `{}` for what is not known."""
        if node in seen or len(seen) > 12:
            return [PASSED_ON]
        way = (*seen, node)
        if isinstance(node, ast.Constant | ast.JoinedStr):
            return [self._text_of(node)]
        if isinstance(node, ast.IfExp):
            return self._texts(node.body, way) + self._texts(node.orelse, way)
        if isinstance(node, ast.BoolOp):
            return [text for value in node.values for text in self._texts(value, way)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [one + other for one in self._texts(node.left, way) for other in self._texts(node.right, way)]
        if isinstance(node, ast.NamedExpr):
            return self._texts(node.value, way)
        if isinstance(node, ast.Name):
            return self._texts_of_name(node, way)
        if isinstance(node, ast.Call):
            return self._texts_of_call(node, way)
        return [PASSED_ON]

    def _text_of(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else PASSED_ON
        assert isinstance(node, ast.JoinedStr)
        return "".join(part.value if isinstance(part, ast.Constant) else PASSED_ON for part in node.values)  # type: ignore[misc]

    def _texts_of_name(self, node: ast.Name, way: tuple[ast.AST, ...]) -> list[str]:
        holder = self.holder.get(node)
        while holder is not None:
            parameters = [argument.arg for argument in holder.args.args]
            if node.id in parameters and not isinstance(holder, ast.Lambda):
                at = parameters.index(node.id) - (parameters[0] in ("self", "cls"))
                self.carriers.setdefault(holder.name, at)
            found = [text for value in _assigned(holder, node.id) for text in self._texts(value, way)]
            if found or node.id in parameters:
                return found or [PASSED_ON]
            holder = self.holder.get(holder)
        return [PASSED_ON]

    def _texts_of_call(self, node: ast.Call, way: tuple[ast.AST, ...]) -> list[str]:
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "format":
                return [level(text) for text in self._texts(node.func.value, way)]
            if node.func.attr == "get" and isinstance(node.func.value, ast.Name):
                table = self.constants.get(node.func.value.id)
                return [text for value in table.values for text in self._texts(value, way)] if isinstance(table, ast.Dict) else [PASSED_ON]
            name = node.func.attr if ast.unparse(node.func.value) == "self" else ""
        else:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
        known = self.functions.get(name, [])
        if len(known) != 1 or name in TELLERS.get(self.name, ()):
            return [PASSED_ON]
        return [text for told in _told_by(known[0]) for text in self._texts(told, way)] or [PASSED_ON]


def _is_fine(node: ast.Call) -> bool:
    """A finding of the doctor that nothing is wrong with."""
    return ast.unparse(node.func) == "Finding" and ast.unparse(node.args[0]) == "OK"


def _assigned(function: Function, name: str) -> list[ast.expr]:
    return _assignments(function).get(name, [])


@cache
def _assignments(function: Function) -> dict[str, list[ast.expr]]:
    """What is given to each name in a function."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(node.targets[0].elts, node.value.elts, strict=False))
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            pairs = [(node.target, node.value)]
        else:
            continue
        for target, value in pairs:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append(value)
    return found


def _told_by(function: Function) -> Iterator[ast.expr]:
    """What it returns or yields; of a tuple, the last part."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
            value = node.value.elts[-1] if isinstance(node.value, ast.Tuple) else node.value
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield value


if __name__ == "__main__":
    for message in messages():
        print(f"{message.place}\t{message.text}")
