"""Jinja in one place: sandboxed, undefined names are errors, and the closure of a template over its includes and imports."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from generators.errors import Problem
from generators.files import to_json

if TYPE_CHECKING:
    from jinja2 import Environment, Template


@cache
def environment(folder: Path | None) -> Environment:
    """Of the templates under `folder`, or with none to load. Text from specs is text: nothing in it is escaped, run or looked up."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    from generators.turkish_suffixes import FILTERS

    env = SandboxedEnvironment(
        loader=FileSystemLoader(folder) if folder else None,
        undefined=StrictUndefined,
        keep_trailing_newline=False,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    env.filters.update(FILTERS)
    env.filters["messages_json"] = _messages_json
    env.filters["quoted"] = _quoted
    return env


def _messages_json(turns: list[dict[str, str]]) -> str:
    """The turns of an example as the JSON list of chat messages that a sample template writes."""
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": turn["user"]})
        messages.append({"role": "assistant", "content": turn["jessy"]})
    return to_json(messages)


def _quoted(text: str) -> str:
    """A value for a Modelfile."""
    from generators.modelfile import quoted

    return quoted(text)


def render_text(text: str, /, **values: object) -> str:
    """A short template that stands in a spec. Raises jinja2.TemplateError for what is wrong in it."""
    return str(_compiled(text).render(**values))


@lru_cache(maxsize=256)
def _compiled(text: str) -> Template:
    """Compiling takes 3 ms, and a client's prompts are rendered for every sample and query."""
    return environment(None).from_string(text)


def closure(folder: Path, name: str) -> list[Path]:
    """The template and everything it includes, imports or extends, as paths. Names chosen at run time cannot be followed."""
    from jinja2 import meta

    found: list[Path] = []
    waiting = [name]
    while waiting:
        path = folder / waiting.pop()
        if path in found or not path.is_file():
            continue
        found.append(path)
        tree = environment(folder).parse(path.read_text(encoding="utf-8"))
        waiting += [reference for reference in meta.find_referenced_templates(tree) if reference]
    return sorted(found)


def problems_of_template(folder: Path, name: str) -> Iterator[Problem]:
    """Syntax errors, unknown filters, and references to templates that do not exist."""
    from jinja2 import TemplateSyntaxError, meta

    file = f"templates/{name}"
    try:
        source = (folder / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        yield Problem(file, 1, 1, "is not UTF-8; save the file as UTF-8")
        return
    try:
        env = environment(folder)
        tree = env.parse(source, name)
        env.compile(source, name)
    except TemplateSyntaxError as error:
        yield Problem(file, error.lineno, 1, f"not a valid template: {error.message}")
        return
    for reference in meta.find_referenced_templates(tree):
        if reference and not (folder / reference).is_file():
            line = next((number for number, text in enumerate(source.splitlines(), 1) if reference in text), 1)
            yield Problem(file, line, 1, f"templates/{reference} does not exist")
