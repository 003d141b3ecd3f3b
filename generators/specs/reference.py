"""docs/specs.md: every field of every kind of spec file, from the schemas themselves, and the rules between files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generators.files import to_json, write_text
from generators.specs.schema import FILES, LARGEST_INTEGER, Kind, Schema

_TITLES = {
    "project": "The project",
    "tiers": "Tiers",
    "category": "Categories",
    "model": "Models",
    "chat_format": "Chat formats",
    "client": "Clients",
    "persona": "Personas",
    "recipe": "Recipes",
    "suite": "Evaluation suites",
}

_HEAD = """\
# Spec reference

This page is written by `doit schemas` from generators/specs/schema.py; change it there.

A project is what its spec files say. They are YAML 1.2 in UTF-8, kept under `specs/`; a file's own name is the name of what it
describes: `specs/personas/jessy.yaml` is the persona `jessy`, `specs/categories/turkish/slang.yaml` the category `turkish/slang`.
Names have lower-case letters, digits, `.`, `_` and `-`.

Every file is checked whenever `doit` starts, before anything is built. All mistakes are told at once, each with its place and what to
do, and `doit` ends with exit code 3:

```
ERROR: 2 problems in the specs; nothing was built.
specs/categories/turkish/slang.yaml:12:11: examples[3].tier: 'lo' is not one of low, medium, high; did you mean 'low'?
specs/recipes/jessy-mini.yaml:14:3: training.batchsize: unknown key; did you mean 'batch_size'?
```

The first line of each file, `# yaml-language-server: $schema=...`, leads editors with a YAML language server to the same schema: they
complete keys, show this help and mark mistakes while you type. Copy the line from a neighbour into a new file.

What is good to know of the YAML that is read here: `yes`, `no` and dates are text; `1e-4` is a number, in quotes as well where a number is
wanted; a key left without a value is a mistake, never a default; anchors, aliases and merge keys (`<<`) work inside a file; indentation
is spaces. Short templates (`{{ }}`) are Jinja, and a name that nothing gives is a mistake.

In the tables, `examples[].user` is the key `user` of each entry of the list `examples`, and `slots.*` a key of your own choice. A field
that is neither required nor has a default may be left out.
"""

# (what renders, where it stands, the names it is given)
_TEMPLATES = (
    ("a sample", "`template` of a category, under `templates/`", ("turns", "example", "category", "slots", "persona")),
    ("a system prompt", "`template` of a persona, under `templates/`", ("persona",)),
    ("a Modelfile", "`templates/Modelfile.j2`", ("gguf", "template", "system", "parameters", "stops", "messages", "licence")),
    ("the texts of an example", "`user`, `jessy`, `mood` and `thoughts` of a category with `slots`", ("slots",)),
    ("the start of an answer that names its iterations", "`marker` of the tiers", ("iterations",)),
    ("a client's question", "`stages[].prompts[]` of a client", ("query", "stage", "observations")),
    ("an earlier observation in a client's question", "`observation` of a client", ("stage", "confidence", "layers", "text")),
    ("an answer in a client's form", "`answer` of a client", ("confidence", "layers", "text")),
    ("a value for a client's configuration", "`configuration.keys.*` of a client", ("model", "max_iterations")),
)


def write_reference(target: Path) -> None:
    write_text(target, reference())


def reference() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD, *(_section(kind, known) for kind, known in FILES.items()), _rules(), _templates(), _filters()]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def fields(kind: str) -> Iterator[tuple[str, Schema]]:
    """(`examples[].user`, its rules) of every field of a kind of file, in the order of the schema."""
    for name, rules in FILES[kind].schema.items():
        yield from _inside(name, rules)


def _inside(way: str, rules: Schema) -> Iterator[tuple[str, Schema]]:
    yield way, rules
    if rules["type"] == "list" and rules["schema"]["type"] in ("dict", "list"):
        yield from list(_inside(f"{way}[]", rules["schema"]))[1:]
    elif rules["type"] == "dict":
        for name, inner in rules.get("schema", {}).items():
            yield from _inside(f"{way}.{name}", inner)
        if "valuesrules" in rules:
            yield from _inside(f"{way}.*", rules["valuesrules"])


def _section(kind: str, known: Kind) -> str:
    rows = [_row(f"`{way}`", _kind_of(rules), _default(rules), rules["meta"]["help"]) for way, rules in fields(kind)]
    optional = " A project may have none." if known.optional else ""
    head = [f"## {_TITLES[kind]}: `specs/{known.pattern}`", "", known.help + optional, ""]
    return "\n".join([*head, _row("field", "what it takes", "default", "what it is"), "|---|---|---|---|", *rows])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "\\n") for cell in cells) + " |"


def _kind_of(rules: Schema) -> str:
    """`a whole number from 1 to 99`"""
    kind = rules["type"]
    if "allowed" in rules:
        said = "one of " + ", ".join(f"`{value}`" for value in rules["allowed"])
    elif "form" in rules["meta"]:
        said = rules["meta"]["form"].removesuffix(" of lower-case letters, digits, '.', '_' and '-'")
    elif kind == "list":
        inner = rules["schema"]
        entries = "mappings" if inner["type"] == "dict" else "lists" if inner["type"] == "list" else f"entries, each {_kind_of(inner)}"
        said = f"a list of {_bounds(rules, 'minlength', 'maxlength')}{entries}"
    elif kind == "dict":
        said = "a mapping" if "schema" in rules else f"a mapping; each key is {_kind_of(rules['keysrules'])}"
    else:
        said = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "`true` or `false`"}[kind]
        said += _limits(rules)
    return said + (", or `null`" if rules.get("nullable") else "")


def _bounds(rules: Schema, least: str, most: str) -> str:
    low, high = rules.get(least), rules.get(most)
    if low == high:
        return f"{low} " if low is not None else ""
    return f"{low or 0} to {high} " if high is not None else f"{low} or more "


def _limits(rules: Schema) -> str:
    low, high = rules.get("min"), rules.get("max")
    high = None if high == LARGEST_INTEGER else high
    but = " but not " + ", ".join(map(str, rules["forbidden"])) if "forbidden" in rules else ""
    if low is not None and high is not None:
        return f" from {low} to {high}{but}"
    return f", {low} or more{but}" if low is not None else f", {high} or less{but}" if high is not None else but


def _default(rules: Schema) -> str:
    if rules.get("required"):
        return "required"
    if "default" not in rules or rules["default"] == {} and "schema" in rules:
        return ""
    default = rules["default"]
    return f"`{to_json(default)}`" if not isinstance(default, str) or not default.strip() else f"`{default}`"


def _rules() -> str:
    from generators.specs.cross_checks import RULES

    lines = ["## Rules between fields and files", "", "What no single field can say is checked as well, and told in the same way:", ""]
    return "\n".join([*lines, *(f"- {_sentence(rule)}" for rule in RULES)])


def _sentence(rule: Any) -> str:
    return re.sub(r"\s+", " ", (rule.__doc__ or "").strip())


def _templates() -> str:
    rows = [_row(what, where, ", ".join(f"`{name}`" for name in names)) for what, where, names in _TEMPLATES]
    said = (
        "All templates are Jinja, sandboxed, and a name that is not given is a mistake with the template's file and line. Each is rendered "
        "once before anything is built. The filter `messages_json` writes turns as JSON messages, `quoted` a value for a Modelfile."
    )
    head = _row("what is rendered", "where the template stands", "names")
    return "\n".join(["## What templates are given", "", said, "", head, "|---|---|---|", *rows])


def _filters() -> str:
    from generators.turkish_suffixes import usage

    lines = ["## Turkish filters", "", "Suffixes that follow vowel harmony, consonants, numbers and proper names. In any template:", ""]
    for name, text in usage().items():
        said, *examples = [line for line in text.split("\n") if line.strip()]
        split = [line.strip().partition(" -> ") for line in examples]
        shown = "; ".join(f"`{before}` gives {after}" for before, _, after in split if after)
        lines.append(f"- `{name}`: {said}{' ' + shown + '.' if shown else ''}")
    return "\n".join(lines)
