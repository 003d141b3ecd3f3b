"""A document against its schema: normalised values, and every mistake in the words of the person who edits the file."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from cerberus import TypeDefinition, Validator

from generators.errors import Problem, did_you_mean, one_of
from generators.specs.yaml_source import Document

_KIND_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "dict": "a mapping",
    "list": "a list",
}


class _SpecValidator(Validator):
    """Cerberus with numbers that are no booleans, and numbers accepted when they are written as text (`1e-4`)."""

    types_mapping = {
        **Validator.types_mapping,
        "number": TypeDefinition("number", (int, float), (bool,)),
    }

    def _normalize_coerce_number(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return int(value)
        except ValueError:
            try:
                return float(value)
            except ValueError:
                return value

    def _normalize_coerce_integer(self, value: Any) -> Any:
        number = self._normalize_coerce_number(value)
        return int(number) if isinstance(number, float) and number.is_integer() else number

    def _normalize_coerce_text(self, value: Any) -> Any:
        return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@cache
def _validator(kind: str) -> _SpecValidator:
    from generators.specs.schema import FILES

    return _SpecValidator(FILES[kind][0])


def validate(document: Document, kind: str, partial: bool = False) -> dict[str, Any] | None:
    """The document's value with defaults filled in, or None with its `problems` extended.

    partial: fields may be missing and none is filled in (a persona that extends another).
    """
    if document.problems:
        return None
    if not isinstance(document.value, dict):
        document.problems.append(document.problem((), f"a mapping is expected here, not {_describe(document.value)}"))
        return None
    validator = _validator(kind)
    document.problems.extend(_numbers_that_are_none(document))
    if partial:
        ok = validator.validate(document.value, update=True, normalize=False)
        value = document.value
    else:
        ok = validator.validate(document.value)
        value = validator.document
    if not ok:
        for error in validator._errors:
            document.problems.extend(_problems(document, error, validator.schema))
    return None if document.problems else value


def _problems(document: Document, error: Any, schema: Any) -> list[Problem]:
    """One cerberus error, or the errors nested in it, as problems."""
    if error.is_group_error and error.info and isinstance(error.info[0], list):
        return [problem for child in error.info[0] for problem in _problems(document, child, schema)]
    steps = tuple(error.document_path)
    where = _spell(steps)
    value, rule, constraint = error.value, error.rule, error.constraint
    if error.code == 0x02:  # required
        return [document.problem(steps[:-1], f"{where} is missing")]
    if error.code == 0x03:  # unknown field
        known = _siblings(error, schema)
        hint = did_you_mean(steps[-1], known) or (f"; known here: {one_of(sorted(known))}" if known else "")
        return [document.problem(steps, f"{where}: unknown key{hint}", at_key=True)]
    if rule == "type" or rule == "nullable":
        wanted = constraint if isinstance(constraint, list) else [constraint]
        names = " or ".join(_KIND_NAMES.get(kind, str(kind)) for kind in wanted) if rule == "type" else "a value"
        return [document.problem(steps, f"{where}: {_describe(value)} is not {names}")]
    if rule == "allowed":
        bad = value if not isinstance(value, list) else next(item for item in value if item not in constraint)
        return [document.problem(steps, f"{where}: {bad!r} is not one of {one_of(constraint)}{did_you_mean(bad, constraint)}")]
    reason = {
        "min": f"{value!r} is below {constraint!r}",
        "max": f"{value!r} is above {constraint!r}",
        "minlength": f"has {_length(value)} entries, at least {constraint} are needed",
        "maxlength": f"has {_length(value)} entries, at most {constraint} are allowed",
        "empty": "is empty",
        "regex": f"{value!r} does not look like {constraint}",
    }.get(rule)
    return [document.problem(steps, f"{where}: {reason or f'{value!r} is not allowed ({rule})'}")]


def _siblings(error: Any, schema: Any) -> list[str]:
    """The keys known where an unknown key stands, found by walking the schema along the document's path."""
    fields: Any = {"type": "dict", "schema": dict(schema)}
    for step in error.document_path[:-1]:
        inner = fields.get("schema", {})
        fields = inner if isinstance(step, int) else inner.get(step, {})
    return [str(name) for name in fields.get("schema", {})]


def _numbers_that_are_none(document: Document) -> list[Problem]:
    """`.nan` and `.inf` are YAML numbers, and no field has a use for them."""
    found: list[Problem] = []

    def walk(value: Any, steps: tuple[Any, ...]) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            found.append(document.problem(steps, f"{_spell(steps)}: {value} is not a number that can be used"))
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, (*steps, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, (*steps, index))

    walk(document.value, ())
    return found


def _spell(steps: tuple[Any, ...]) -> str:
    """`examples[3].tier`"""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the file"


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0
