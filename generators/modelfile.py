"""The persona as a system prompt, and the Modelfile that carries it into Ollama.

Ollama's Modelfile has no escapes, and its parser drops characters without a word (`generators.modelfile_reader` has the rules). What
would come back different is an error with the line of the spec that holds it, not a broken file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators import modelfile_reader
from generators.errors import Problem, SpecErrors, UserError
from generators.modelfile_reader import instructions, is_printable
from generators.templates import environment

if TYPE_CHECKING:
    from generators.specs.project import Project

Spec = dict[str, Any]
Steps = tuple[Any, ...]  # the way to a value of a persona: keys and list indices
Places = Mapping[Steps, tuple[str, int, int]]  # file, line and column of each value, in the persona that declares it
_LARGEST_INTEGER = 2**63 - 1


class NotWritable(UserError):
    """A value that a Modelfile cannot carry."""


def system_prompt(persona: Spec, templates: Path) -> str:
    """The persona's SYSTEM text, rendered by its template. Raises SpecErrors, naming the template's line, when it cannot be."""
    from jinja2 import TemplateError

    name = persona["template"]
    try:
        return environment(templates).get_template(name).render(persona=persona).strip()
    except TemplateError as error:
        raise SpecErrors([Problem(f"templates/{name}", _line_in(error, name), 1, error.message or type(error).__name__)]) from error


def _line_in(error: Any, template: str) -> int:
    """Jinja rewrites the traceback of a failed rendering, so that it leads to the template's line."""
    line, frame = getattr(error, "lineno", None) or 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.endswith(template):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def render_modelfile(persona: Spec, chat_format: Spec, licence: Spec, gguf: str, go_template: str, templates: Path) -> str:
    """The Modelfile's text. gguf: path as FROM names it.

    Raises NotWritable for text that Ollama would read back differently, UserError when the template gives a file that it would refuse.
    """
    text = (
        environment(templates)
        .get_template("Modelfile.j2")
        .render(
            gguf=gguf,
            template=go_template,
            system=system_prompt(persona, templates),
            parameters=[(name, plain(value)) for name, value in persona["parameters"].items()],
            stops=chat_format["stop"],
            messages=persona["messages"],
            licence=licence_text(licence),
        )
        .strip()
        + "\n"
    )
    try:
        modelfile_reader.read(text)
    except modelfile_reader.Refused as error:
        raise UserError(f"templates/Modelfile.j2 gives a file that Ollama refuses: {error}") from error
    return text


def licence_text(licence: Spec) -> str:
    return f"{licence['name']}\n{licence['url']}"


def plain(value: Any) -> str:
    """A PARAMETER's value as Ollama spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@lru_cache(maxsize=1024)
def quoted(text: str) -> str:
    """A value as Ollama's parser reads it back: in double quotes on one line, in triple quotes on several. Raises NotWritable."""
    single, triple = f'"{text}"', f'"""{text}"""'
    for candidate in (triple, single) if "\n" in text or '"' in text else (single, triple):
        if _read_back(candidate) == [text]:
            return candidate
    raise NotWritable(why_not_writable(text))


def _read_back(value: str) -> list[str]:
    try:
        return [found.value for found in instructions(f"SYSTEM {value}\n")]
    except modelfile_reader.Refused:
        return []


def why_not_writable(text: str) -> str:
    """What of `text` the parser would change."""
    dropped = dropped_characters(text)
    if dropped:
        names = ", ".join(f"U+{ord(character):04X} ({unicodedata.name(character, 'unnamed')})" for character in dropped)
        return f"Ollama's Modelfile parser drops {names} without a word; take it out of {_around(text, dropped[0])}"
    line = next((line for line in text.splitlines() if line.rstrip().endswith('"""')), text)
    return f'a line ends in """, which ends the value early in a Modelfile; write it otherwise: {_excerpt(line[-60:])}'


def dropped_characters(text: str) -> list[str]:
    """Those that the parser drops, each once, in the order of their code points."""
    return sorted({character for character in text if character not in "\t\n\r" and not is_printable(character)})


def _around(text: str, character: str) -> str:
    at = text.index(character)
    return _excerpt(text[max(0, at - 25) : at + 25])


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


# What the specs hold that a Modelfile cannot carry, found before anything is built


def problems(templates: Path, project: Project, documents: Mapping[tuple[str, str], Any]) -> Iterator[Problem]:
    """Of every persona, chat format and licence of a project whose files have passed their schemas."""
    personas = {name: document for (kind, name), document in documents.items() if kind == "persona"}
    for name, persona in project.personas.items():
        yield from problems_of_persona(persona, persona_places(name, personas), templates)
    for name, chat_format in project.chat_formats.items():
        for index, stop in enumerate(chat_format["stop"]):
            yield from _problem_of(stop, documents["chat_format", name].problem, ("stop", index))
    for name, model in project.models.items():
        for key in ("name", "url"):
            yield from _problem_of(model["licence"][key], documents["model", name].problem, ("licence", key))


def _problem_of(text: str, at: Callable[[Steps, str], Problem], steps: Steps) -> Iterator[Problem]:
    try:
        quoted(text)
    except NotWritable as error:
        yield at(steps, f"{spell(steps)}: {error}")


def problems_of_persona(persona: Spec, places: Places, templates: Path) -> Iterator[Problem]:
    """Texts and numbers of a whole persona that its Modelfile could not carry, at the line that declares them."""

    def at(steps: Steps, message: str) -> Problem:
        known = steps
        while known and known not in places:
            known = known[:-1]
        return Problem(*places.get(known, ("specs/personas", 0, 0)), message)

    for name, value in persona["parameters"].items():
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            yield at(("parameters", name), f"parameters.{name}: {value} does not fit into the 64 bits that Ollama has for it")
    for index, message in enumerate(persona["messages"]):
        for side in ("user", "jessy"):
            yield from _problem_of(message[side], at, ("messages", index, side))
    try:
        system = system_prompt(persona, templates)
        quoted(system)
    except SpecErrors as errors:
        yield from errors.problems
    except NotWritable:
        yield from _blamed(persona, system, at, templates)


def _blamed(persona: Spec, system: str, at: Callable[[Steps, str], Problem], templates: Path) -> Iterator[Problem]:
    """The fields that bring into the system prompt what cannot be written; where no field does, the template."""
    dropped = dropped_characters(system)
    found = False
    for steps, text in texts_of(persona):
        guilty = [character for character in dropped if character in text] if dropped else '"""' in text
        if guilty and steps[0] != "messages":
            found = True
            yield at(steps, f"{spell(steps)}: {why_not_writable(text)}")
    if not found:
        name = persona["template"]
        wanted = dropped[0] if dropped else '"""'
        lines = (templates / name).read_text(encoding="utf-8").split("\n")
        line = next((number for number, text in enumerate(lines, 1) if wanted in text), 1)
        yield Problem(f"templates/{name}", line, 1, why_not_writable(system))


def texts_of(persona: Spec) -> Iterator[tuple[Steps, str]]:
    """What a persona says of itself, by its place in the spec: what its template may put into the system prompt."""
    for key in ("display_name", "description", "identity", "brevity"):
        yield (key,), persona[key]
    for index, principle in enumerate(persona["principles"]):
        for key in ("name", "text"):
            yield ("principles", index, key), principle[key]
    for index, line in enumerate(persona["style"]):
        yield ("style", index), line
    for language, markers in persona["opinion_markers"].items():
        for index, marker in enumerate(markers):
            yield ("opinion_markers", language, index), marker


def persona_places(name: str, documents: Mapping[str, Any]) -> dict[Steps, tuple[str, int, int]]:
    """Where each value of the whole persona stands, through all that it extends: by the same steps as in the resolved persona.

    documents: of every persona, by name, as `generators.specs.yaml_source` reads them; they have passed their schema.
    """
    fields, lists = _origins(name, documents)
    origins = fields | {
        (key, index): (document, steps) for key, entries in lists.items() for index, (_, document, steps) in enumerate(entries)
    }
    places = {}
    for steps, (document, own) in origins.items():
        for at, place in document.places.items():
            if at[: len(own)] == own:
                places[steps + at[len(own) :]] = (document.file, *place)
    document = documents[name]
    return {**places, (): (document.file, *document.places[()])}


def _origins(name: str, documents: Mapping[str, Any]) -> tuple[dict[Steps, Any], dict[str, list[Any]]]:
    """(document and steps of every field, of every entry of every list with the entry), merged as `generators.specs.personas` does."""
    from generators.specs.personas import _NAMED_BY

    document = documents[name]
    value = document.value
    fields, lists = _origins(value["extends"], documents) if "extends" in value else ({}, {key: [] for key in _NAMED_BY})
    for key, own in value.items():
        if key in lists:
            lists[key] = [(entry, document, (key, index)) for index, entry in enumerate(own)]
        elif key == "parameters":
            fields |= {(key, parameter): (document, (key, parameter)) for parameter in own}
        elif key not in ("extends", "append", "remove"):
            fields[(key,)] = (document, (key,))
    for key, names in value.get("remove", {}).items():
        lists[key] = [found for found in lists[key] if _NAMED_BY[key](found[0]) not in names]
    for key, entries in value.get("append", {}).items():
        lists[key] = lists[key] + [(entry, document, ("append", key, index)) for index, entry in enumerate(entries)]
    return fields, lists


def spell(steps: Steps) -> str:
    """`principles[2].text`"""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
