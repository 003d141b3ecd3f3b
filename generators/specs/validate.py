"""A document against its schema: normalised values, and every mistake in the words of the person who edits the file.

The schema is a cerberus schema and cerberus judges by it. Defaults and numbers are filled in here, from the same schema: cerberus
would put a default in place of a value that was left empty, and take a list for a mapping while it does so.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from cerberus import TypeDefinition, Validator
from cerberus import errors as codes
from cerberus.schema import UnvalidatedSchema

from generators.errors import Problem, did_you_mean, one_of
from generators.specs.yaml_source import LARGEST_NUMBER, UNUSABLE, Document, Steps, cut, spell

Schema = dict[str, Any]

_KIND_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "dict": "a mapping",
    "list": "a list",
}
_GROUPS = (codes.MAPPING_SCHEMA, codes.SEQUENCE_SCHEMA, codes.KEYSRULES, codes.VALUESRULES)
_GROUP_CODES = {error.code for error in _GROUPS}


class _SpecValidator(Validator):
    """Cerberus with numbers that are no booleans, patterns that match the whole text, and text that is more than white space."""

    types_mapping = {
        **Validator.types_mapping,
        "integer": TypeDefinition("integer", (int,), (bool,)),
        "number": TypeDefinition("number", (int, float), (bool,)),
    }

    def _normalize_coerce_number(self, value: Any) -> Any:
        """A number that is written as text (`"1e-4"`)."""
        return _number(value)

    def _normalize_coerce_integer(self, value: Any) -> Any:
        number = _number(value)
        return int(number) if isinstance(number, float) and number.is_integer() else number

    def _normalize_coerce_text(self, value: Any) -> Any:
        return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    def _validate_regex(self, pattern: str, field: str, value: Any) -> None:
        """{'type': 'string'}"""
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            self._error(field, codes.REGEX_MISMATCH)

    def _validate_empty(self, empty: bool, field: str, value: Any) -> None:
        """{'type': 'boolean'}"""
        super()._validate_empty(empty, field, value.strip() if isinstance(value, str) else value)

    def _validate_schema(self, schema: Any, field: str, value: Any) -> None:
        """
        {'type': ['dict', 'string'],
         'anyof': [{'check_with': 'schema'},
                   {'check_with': 'bulk_schema'}]}
        """
        # A validator of its own for every list, mapping and example takes ten times as long as to see that nothing is wrong there.
        if not _fits_inside(value, schema):
            super()._validate_schema(schema, field, value)


# The rules that `_fits` knows; `meta`, `default` and `coerce` are nothing to be broken. A test holds the schemas to them.
RULES = frozenset(
    (
        "type",
        "required",
        "nullable",
        "empty",
        "regex",
        "allowed",
        "forbidden",
        "min",
        "max",
        "minlength",
        "maxlength",
        "schema",
        "keysrules",
        "valuesrules",
        "meta",
        "default",
        "coerce",
    )
)
_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "dict": dict, "list": list}


def _fits(value: Any, rules: Schema) -> bool:
    """Whether a value plainly keeps all of its rules. False as well where only cerberus can tell."""
    kind = rules["type"]
    if not isinstance(value, _TYPES[kind]) or (value is True or value is False) and kind != "boolean":
        return value is None and rules.get("nullable", False)
    if kind == "string":
        formed = "regex" not in rules or bool(re.fullmatch(rules["regex"], value))
        return formed and bool(value.strip() or "empty" not in rules) and value in rules.get("allowed", (value,))
    if kind == "list" or kind == "dict":
        in_bounds = rules.get("minlength", 0) <= len(value) <= rules.get("maxlength", len(value))
        return in_bounds and _fits_inside(value, rules.get("schema"), rules)
    in_range = rules.get("min", value) <= value <= rules.get("max", value)
    return in_range and value not in rules.get("forbidden", ()) and value in rules.get("allowed", (value,))


def _fits_inside(value: Any, schema: Any, rules: Schema | None = None) -> bool:
    """schema: the rules of every entry of a list, or of each field of a mapping. rules: of a mapping whose keys are free."""
    if isinstance(value, list):
        return all(_fits(item, schema) for item in value)
    if not isinstance(value, dict):
        return False
    if schema is None:
        keys, values = (rules["keysrules"], rules["valuesrules"]) if rules else ({}, {})
        return rules is not None and all(_fits(key, keys) and _fits(item, values) for key, item in value.items())
    for key, field in schema.items():
        if key in value:
            if not _fits(value[key], field):
                return False
        elif field.get("required"):
            return False
    return value.keys() <= schema.keys()


_NUMBER = re.compile(r"\s*[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?\s*")


def _number(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > 60 or not _NUMBER.fullmatch(value):
        return value
    try:
        number: float = int(value)
    except ValueError:
        number = float(value.replace("_", ""))
    return number if abs(number) <= LARGEST_NUMBER else value


@cache
def _validator(kind: str, partial: bool) -> _SpecValidator:
    """partial: see `validate`."""
    from generators.specs.schema import FILES

    schema = FILES[kind].schema
    if partial:
        whole = ("required", "default")
        schema = {name: {rule: value for rule, value in rules.items() if rule not in whole} for name, rules in schema.items()}
    return _SpecValidator(UnvalidatedSchema(schema))  # that the schemas are schemas is a matter for the tests: it takes 0.2 s to see


def validate(document: Document, kind: str, partial: bool = False) -> dict[str, Any] | None:
    """The document's value with defaults filled in, or None when `document.problems`, extended here, are any.

    partial: fields of the first level may be missing and none is filled in (a persona that extends another).
    """
    if document.root is None:
        return None
    if not isinstance(document.value, dict):
        document.problems.append(document.problem((), f"a mapping is expected here, not {_describe(document.value)}"))
        return None
    value, problems = checked(document.value, document, kind, partial)
    document.problems.extend(problems)
    return None if document.problems else value


def checked(value: dict[str, Any], document: Document, kind: str, partial: bool = False) -> tuple[dict[str, Any], list[Problem]]:
    """`value` with defaults filled in, and what is wrong with it. document: where its parts are written, as far as they are."""
    validator = _validator(kind, partial)
    schema = dict(validator.schema)
    value = _fill_mapping(value, schema, validator)
    if validator.validate(value, normalize=False):
        return value, []
    found = [problem for error in validator._errors for problem in _problems(document, error, schema)]
    return value, found


def _fill(value: Any, rules: Schema, validator: _SpecValidator) -> Any:
    """A copy of `value` with numbers read and defaults filled in; what does not fit the rules is left for cerberus to complain about."""
    if "coerce" in rules:
        read: Callable[[Any], Any] = getattr(validator, f"_normalize_coerce_{rules['coerce']}")
        return read(value)
    if isinstance(value, dict) and rules["type"] == "dict":
        if "valuesrules" in rules:
            return {key: _fill(item, rules["valuesrules"], validator) for key, item in value.items()}
        return _fill_mapping(value, rules["schema"], validator) if "schema" in rules else value
    if isinstance(value, list) and rules["type"] == "list" and "schema" in rules:
        inside = rules["schema"]
        return [_fill(item, inside, validator) for item in value]
    return value


def _fill_mapping(value: dict[str, Any], fields: Schema, validator: _SpecValidator) -> dict[str, Any]:
    filled = {key: _fill(item, fields[key], validator) if key in fields else item for key, item in value.items()}
    for name, rules in fields.items():
        if name not in value and "default" in rules:
            filled[name] = _fill(copy.copy(rules["default"]), rules, validator)
    return filled


def _problems(document: Document, error: Any, schema: Schema, of_keys: bool = False) -> Iterator[Problem]:
    """One cerberus error, or the errors nested in it, as problems. of_keys: it is the key that breaks a rule."""
    if error.code in _GROUP_CODES:
        for child in error.info[0]:
            yield from _problems(document, child, schema, of_keys or error.code == codes.KEYSRULES.code)
        return
    steps: Steps = tuple(error.document_path)
    if error.value is UNUSABLE:
        return
    where, rules = spell(steps), _rules_at(schema, steps)
    if error.code == codes.REQUIRED_FIELD.code:
        if not _is_misspelt(steps, document, schema):
            yield document.problem(steps[:-1], f"{where} is missing")
    elif error.code == codes.UNKNOWN_FIELD.code:
        yield document.problem(steps, f"{where}: unknown key{_known_instead(steps[-1], _rules_at(schema, steps[:-1]))}", at_key=True)
    elif of_keys:
        keys = _rules_at(schema, steps[:-1]).get("keysrules", {})
        yield document.problem(steps, f"{where}: {_complaint(error, steps[-1], keys)}", at_key=True)
    else:
        yield document.problem(steps, f"{where}: {_complaint(error, error.value, rules)}")


def _is_misspelt(steps: Steps, document: Document, schema: Schema) -> bool:
    """Whether a missing key is there under a name that nobody knows, for which it is the suggestion."""
    holder, known = document.node(steps[:-1]), sorted(_rules_at(schema, steps[:-1]).get("schema", {}))
    strangers = [key for key in holder.edges if key not in known] if holder else []
    return any(did_you_mean(key, known) == did_you_mean(steps[-1], [steps[-1]]) for key in strangers)


def _known_instead(key: Any, rules: Schema) -> str:
    if elsewhere := rules.get("meta", {}).get("elsewhere", {}).get(key):
        return f"; {elsewhere}"
    known = sorted(rules.get("schema", {}))
    return did_you_mean(key, known) or (f"; known here: {one_of(known)}" if known else "")


def _complaint(error: Any, value: Any, rules: Schema) -> str:
    """What is wrong with `value`. rules: of the field, as the schema has them."""
    rule, constraint = error.rule, error.constraint
    if rule == "nullable":
        return f"nothing is given; write {_kinds(rules.get('type', 'string'))}{'' if rules.get('required') else ' or take the key out'}"
    if rule == "type":
        if value is None or isinstance(value, (dict, list)):
            return f"{_kinds(constraint)} is expected here, not {_describe(value)}"
        return f"{_describe(value)} is not {_kinds(constraint)}{_how_to_write(value, constraint)}"
    if rule == "allowed":
        return f"{_describe(value)} is not one of {one_of(constraint)}{did_you_mean(value, constraint)}"
    if rule == "regex":
        form = rules.get("meta", {}).get("form", f"of the form {constraint}")
        return f"{_describe(value)} is not {form}"
    if rule == "empty":
        return "is empty"
    if rule in ("minlength", "maxlength"):
        entries, be = f"has {len(value)} {'entry' if len(value) == 1 else 'entries'}", "is" if constraint == 1 else "are"
        return f"{entries}; at least {constraint} {be} needed" if rule == "minlength" else f"{entries}; at most {constraint} {be} taken"
    if rule in ("min", "max"):
        return f"{_describe(value)} is {'below' if rule == 'min' else 'above'} {constraint!r}"
    return f"{_describe(value)} is not allowed here"


def _kinds(kinds: Any) -> str:
    return " or ".join(_KIND_NAMES[kind] for kind in (kinds if isinstance(kinds, (list, tuple)) else [kinds]))


def _how_to_write(value: Any, kind: Any) -> str:
    if kind == "string" and isinstance(value, (bool, int, float)):
        return "; put it in quotes"
    if kind == "list" and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return f"; write [{value}]" if len(str(value)) < 40 and str(value).isprintable() else "; write it as a list"
    return ""


def _rules_at(schema: Schema, steps: Steps) -> Schema:
    """The rules of the value that `steps` lead to: `{}` for one that the schema does not know."""
    rules: Schema = {"type": "dict", "schema": schema}
    for step in steps:
        inside = rules.get("schema") or {}
        if rules.get("type") == "list":
            rules = inside
        elif "valuesrules" in rules:
            rules = rules["valuesrules"]
        else:
            rules = inside.get(step, {})
    return rules


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return cut(value)
