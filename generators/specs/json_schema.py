"""The schemas of the spec files as JSON Schema, for editors: completion, help on hover and checks while one types.

Draft 7, which yaml-language-server understands whole. A spec file names its schema in its first line (`language_server_line`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.files import write_json
from generators.specs.schema import FILES, Kind, Schema

FOLDER = "docs/schemas"  # tracked by git, so that the relative path in a spec leads there in a fresh clone
_DRAFT = "http://json-schema.org/draft-07/schema#"
_TYPES = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "dict": "object", "list": "array"}
# cerberus's rule -> JSON Schema's keyword
_LIMITS = {
    "string": {},
    "integer": {"min": "minimum", "max": "maximum"},
    "number": {"min": "minimum", "max": "maximum"},
    "boolean": {},
    "list": {"minlength": "minItems", "maxlength": "maxItems"},
    "dict": {"minlength": "minProperties", "maxlength": "maxProperties"},
}


def write_schemas(folder: Path) -> list[Path]:
    """One `<kind>.json` for every kind of spec file. Returns their paths; those that were up to date keep their time stamp."""
    paths = []
    for kind in FILES:
        paths.append(folder / f"{kind}.json")
        write_json(paths[-1], json_schema(kind))
    return paths


def language_server_line(path: str) -> str:
    """The first line of a spec file, by which an editor finds the schema. path: of the spec, relative to the project, with `/`.

    Raises ValueError for a path where no spec file is kept.
    """
    from fnmatch import fnmatchcase

    for kind, known in FILES.items():
        pattern = f"specs/{known.pattern}"
        if fnmatchcase(path, pattern) and path.count("/") == pattern.count("/"):
            return f"# yaml-language-server: $schema={'../' * path.count('/')}{FOLDER}/{kind}.json"
    raise ValueError(f"{path} is no spec file")


def json_schema(kind: str) -> Schema:
    """The schema of one kind of file. Numbers must be written as numbers in it, though a quoted one (`"1e-4"`) is read as well."""
    known: Kind = FILES[kind]
    made: Schema = {"$schema": _DRAFT, "title": f"specs/{known.pattern}", "description": known.help} | _fields(known.schema)
    if kind == "persona":  # one that extends another takes over what it leaves out
        made["if"] = {"required": ["extends"]}
        made["then"] = {}
        made["else"] = {"required": made.pop("required")}
    return made


def _fields(fields: Schema) -> Schema:
    required = [name for name, rules in fields.items() if rules.get("required")]
    made: Schema = {"type": "object", "properties": {name: _value(rules) for name, rules in fields.items()}, "additionalProperties": False}
    return made | ({"required": required} if required else {})


def _value(rules: Schema) -> Schema:
    kind = rules["type"]
    made: Schema = {"description": rules["meta"]["help"], "type": _TYPES[kind]}
    made |= {keyword: rules[rule] for rule, keyword in _LIMITS[kind].items() if rule in rules}
    if kind == "string":
        made |= _text(rules)
    elif kind == "list":
        made["items"] = _value(rules["schema"])
    elif kind == "dict":
        made |= _fields(rules["schema"]) if "schema" in rules else _free_keys(rules)
    if "forbidden" in rules:
        made["not"] = {"enum": rules["forbidden"]}
    if "allowed" in rules:
        made["enum"] = [*rules["allowed"], *([None] if rules.get("nullable") else [])]
    if rules.get("nullable"):
        made["type"] = [made["type"], "null"]
    if "default" in rules and not (kind == "dict" and "schema" in rules):  # fields inside have defaults of their own
        made["default"] = rules["default"]
    return made


def _text(rules: Schema) -> Schema:
    made: dict[str, Any] = {}
    if rules.get("coerce") == "text":
        made["type"] = ["string", "number"]
    if "regex" in rules:
        made["pattern"] = f"^(?:{rules['regex']})$"
        made["patternErrorMessage"] = f"This is not {rules['meta']['form']}."
    elif "empty" in rules and "allowed" not in rules:
        made["pattern"] = r"\S"
        made["patternErrorMessage"] = "This is empty."
    return made


def _free_keys(rules: Schema) -> Schema:
    keys = _value(rules["keysrules"])
    names = {name: keys[name] for name in ("pattern", "patternErrorMessage", "enum") if name in keys}
    return {"propertyNames": names, "additionalProperties": _value(rules["valuesrules"])}
