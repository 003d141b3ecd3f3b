"""Everything that is rendered by Jinja, rendered once before anything is built: with the real values, where undefined names are errors.

The templates under templates/, and the short ones that stand in specs: a client's wordings, the marker of the iterations. What goes
wrong becomes a problem at the line of the template, naming what was being rendered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from generators.errors import Problem, SpecErrors, UserError, did_you_mean, one_of

if TYPE_CHECKING:
    from generators.specs.cross_checks import Specs
    from generators.specs.yaml_source import Document, Steps

Spec = dict[str, Any]


def check(specs: Specs) -> Iterator[Problem]:
    broken = list(_files(specs))
    unreadable = any(isinstance(data, Problem) for data in specs.templates.values())
    yield from broken
    yield from _named_templates(specs)
    yield from _markers(specs)
    yield from _clients(specs)
    yield from _slots_by_mistake(specs)
    if not broken and not unreadable:
        yield from _samples(specs)
        yield from _prompts_and_modelfiles(specs)


# --- template files ---------------------------------------------------------------------------------------------------------------


def _files(specs: Specs) -> Iterator[Problem]:
    """Templates that are not UTF-8 or do not parse, and those that use filters, tests or other templates which are not there.

    They are parsed and not compiled, which would cost more than all the rest; what compiling would find beyond this is found where a
    template is rendered.
    """
    known = tuple(path.removeprefix("templates/") for path in specs.templates)
    for path, data in specs.templates.items():
        if isinstance(data, bytes):  # what cannot be read is told where it is read
            yield from _problems_of_file(specs.root / "templates", path, data, known)
    if specs.project.recipes and "templates/Modelfile.j2" not in specs.templates:
        yield Problem("templates/Modelfile.j2", 0, 0, "is missing; the Modelfiles are rendered from it")


@lru_cache(maxsize=64)
def _problems_of_file(folder: Path, path: str, data: bytes, known: tuple[str, ...]) -> list[Problem]:
    """known: names of all templates."""
    from jinja2 import TemplateSyntaxError

    from generators.templates import environment

    try:
        tree = environment(folder).parse(data.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [Problem(path, line, 1, f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8")]
    except TemplateSyntaxError as error:
        return [Problem(path, error.lineno, 1, f"not a valid template: {error.message}")]
    except RecursionError:
        return [Problem(path, 1, 1, "not a valid template: it nests too deeply")]
    return [*_unknown_filters(folder, path, tree), *_missing_references(path, tree, known)]


def _unknown_filters(folder: Path, path: str, tree: Any) -> Iterator[Problem]:
    from jinja2 import nodes

    from generators.templates import environment

    env = environment(folder)
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        what, known = ("filter", env.filters) if isinstance(node, nodes.Filter) else ("test", env.tests)
        if node.name not in known:
            yield Problem(path, node.lineno, 1, f"no {what} {node.name!r}{did_you_mean(node.name, known)}")


def _missing_references(path: str, tree: Any, known: tuple[str, ...]) -> Iterator[Problem]:
    from jinja2 import nodes

    for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        named = node.template.value if isinstance(node.template, nodes.Const) else None  # chosen at run time: found when it is rendered
        if isinstance(named, str) and named not in known and not getattr(node, "ignore_missing", False):
            yield Problem(path, node.lineno, 1, f"templates/{named} does not exist{did_you_mean(named, known)}")


def _named_templates(specs: Specs) -> Iterator[Problem]:
    """`template:` of categories and personas."""
    known = [path.removeprefix("templates/") for path in specs.templates]
    for kind, values in (("category", specs.project.categories), ("persona", specs.project.personas)):
        for name, value in values.items():
            template = value["template"]
            if not _is_there(specs, template):
                outside = template.startswith("/") or ".." in PurePosixPath(template).parts
                said = "must lie under templates/" if outside else f"templates/{template} does not exist{did_you_mean(template, known)}"
                yield specs.documents[kind, name].wrong(("template",), said)


def _is_there(specs: Specs, template: str) -> bool:
    return f"templates/{template}" in specs.templates


# --- short templates in specs -----------------------------------------------------------------------------------------------------


def _markers(specs: Specs) -> Iterator[Problem]:
    if not specs.project.tiers:
        return
    document, steps = specs.documents["tiers", "tiers"], ("marker",)
    rendered, problems = _render_text(document, steps, specs.project.tiers["marker"], {"iterations": 3})
    yield from problems
    if rendered is not None and "3" not in rendered:
        yield document.wrong(steps, "does not show the number; write {{ iterations }} where it stands")


def _clients(specs: Specs) -> Iterator[Problem]:
    seen = {"stage": "explore", "confidence": "0.50", "layers": "C02,C04", "text": "What was seen."}
    for name, client in specs.project.clients.items():
        document = specs.documents["client", name]
        yield from _shown(document, ("observation",), client["observation"], seen, "text")
        yield from _shown(document, ("answer",), client["answer"], {key: seen[key] for key in ("confidence", "layers", "text")}, "text")
        for index, stage in enumerate(client["stages"]):
            for number, prompt in enumerate(stage["prompts"]):
                given = {"query": "What is asked?", "stage": stage["name"], "observations": "What was seen." if index else ""}
                yield from _shown(document, ("stages", index, "prompts", number), prompt, given, "query")
        for key, value in client.get("configuration", {}).get("keys", {}).items():
            yield from _environment_value(document, ("configuration", "keys", key), value)
        yield from _read_back(document, client)


def _shown(document: Document, steps: Steps, text: str, given: Spec, needed: str) -> Iterator[Problem]:
    """Whether it renders, and shows what it is there to show."""
    rendered, problems = _render_text(document, steps, text, given)
    yield from problems
    if rendered is not None and given[needed] not in rendered:
        yield document.wrong(steps, f"never shows {{{{ {needed} }}}}")


def _environment_value(document: Document, steps: Steps, value: str) -> Iterator[Problem]:
    """The client's start scripts read `.env` word by word: a space or a quote would break the file."""
    rendered, problems = _render_text(document, steps, value, {"model": "jessy-v2", "max_iterations": 9})
    yield from problems
    if rendered is not None and re.search(r"[\s'\"#$`\\]", rendered):
        yield document.wrong(steps, f"{rendered!r} holds a space, a quote, '#', '$' or '\\', which a .env file of this client cannot carry")


def _read_back(document: Document, client: Spec) -> Iterator[Problem]:
    """The form of answer that is trained on is one that the client can parse."""
    from jinja2 import TemplateError

    from generators.clients import Observation, Unparsable, parse_answer, render_answer

    seen = Observation("Sor kanka, dinliyorum.", 0.97, ("C04", "C01"))
    try:
        read = parse_answer(client, render_answer(client, seen))
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        return  # told already
    except Unparsable as error:
        yield document.wrong(("answer",), f"the client could not read it: {error}")
        return
    if read != seen:
        found = f"{read.text!r} with confidence {read.confidence:g} and layers {one_of(read.layers) or 'none'}"
        yield document.wrong(("answer",), f"the client would read {found} in it")


def _render_text(document: Document, steps: Steps, text: str, given: Spec) -> tuple[str | None, list[Problem]]:
    """What a template of a spec gives, or None and why. Names that are never given are found in branches not taken as well."""

    def at(line: int, message: str) -> Problem:
        return _in_block(document, steps, line, message)

    try:
        names, template = _compiled(text)
        unknown = [(name, line) for name, line in names if name not in given]
        if unknown:
            here = f"is undefined; given here: {one_of(given)}"
            return None, [at(line, f"{name!r} {here}{did_you_mean(name, given)}") for name, line in unknown]
        return template.render(**given), []
    except Exception as error:  # whatever a template of the user's raises
        return None, [at(_line(error, "<template>"), _words(error, given))]


def _in_block(document: Document, steps: Steps, line: int, message: str) -> Problem:
    """At a line of a text: in a literal block that is a line of its own, in any other scalar it cannot be told."""
    problem, node = document.wrong(steps, message), document.node(steps)
    return replace(problem, line=problem.line + line, column=1) if node is not None and node.style == "|" else problem


@lru_cache(maxsize=256)
def _compiled(text: str) -> tuple[list[tuple[str, int]], Any]:
    """The names that a short template must be given, each with its first line, and the template."""
    from generators.templates import environment

    return list(_names_needed(environment(None).parse(text))), environment(None).from_string(text)


def _names_needed(tree: Any) -> Iterator[tuple[str, int]]:
    """Names that nothing in the template sets, except where it asks whether they are defined."""
    from jinja2 import meta, nodes

    undeclared = meta.find_undeclared_variables(tree)
    asked = {
        id(node.node)
        for node in tree.find_all((nodes.Test, nodes.Filter))
        if isinstance(node, nodes.Test | nodes.Filter) and node.name in ("defined", "undefined", "default", "d")
    }
    for name in sorted(undeclared):
        lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == name and node.ctx == "load" and id(node) not in asked]
        if lines:
            yield name, min(lines)


# --- samples ----------------------------------------------------------------------------------------------------------------------

_SLOTS = re.compile(r"\{\{[^{}]*\bslots\s*[.\[][^{}]*\}?\}?")


def _slots_by_mistake(specs: Specs) -> Iterator[Problem]:
    """Text that means a slot and does not say so would be trained on as it stands."""
    for name, category in specs.project.categories.items():
        names = "|".join(map(re.escape, category["slots"]))
        pattern = re.compile(rf"\{{\{{\s*(?:slot\s*[.\[]\s*|slots?\s*\}}|(?:{names})\b)[^{{}}]*\}}?\}}?") if names else _SLOTS
        for steps, text in _texts(category):
            if "{{" in text and (found := pattern.search(text)):
                known = f"write {{{{ slots.NAME }}}} with one of {one_of(category['slots'])}" if names else "the category declares no slots"
                yield specs.documents["category", name].wrong(steps, f"{found[0]!r} would stay as it is; {known}")


def _texts(category: Spec) -> Iterator[tuple[Steps, str]]:
    for index, example in enumerate(category["examples"]):
        for key in ("user", "jessy", "mood"):
            if key in example:
                yield ("examples", index, key), example[key]
        for number, turn in enumerate(example.get("turns", ())):
            for key in ("user", "jessy"):
                yield ("examples", index, "turns", number, key), turn[key]
        for number, thought in enumerate(example.get("thoughts", ())):
            yield ("examples", index, "thoughts", number, "text"), thought["text"]


def _samples(specs: Specs) -> Iterator[Problem]:
    """The first example of every category, every one that uses slots, and all of them where a template reads more than the turns."""
    if not (specs.project.tiers and specs.project.project):
        return
    rendered_with = _digest_of(specs)
    for name, category in specs.project.categories.items():
        if _is_there(specs, category["template"]):
            document = specs.documents["category", name]
            yield from document.once(rendered_with, partial(_problems_of_category, specs, name, category))


def _digest_of(specs: Specs) -> str:
    """Of all that a sample is rendered with beside its category."""
    return _digest(specs, specs.project.project["persona"], specs.project.project["seed"], specs.project.tiers["tiers"])


def _digest(specs: Specs, *given: Any) -> str:
    """Of `given` and all templates."""
    return hashlib.sha256(repr([*given, specs.templates_digest]).encode("utf-8", "surrogatepass")).hexdigest()


def _problems_of_category(specs: Specs, name: str, category: Spec) -> Iterator[Problem]:
    told: set[tuple[str, int]] = set()
    unfilled = {index for index, _ in specs.survey(name).problems} if category["slots"] else set()  # told already
    tables: dict[str, Sequence[str]] = {}
    for index in [index for index in _to_render(specs, category) if index not in unfilled]:
        for problem in _problems_of_example(specs, name, category, index, tables):
            if (problem.file, problem.line) not in told:  # one mistake in a template, not one an example
                told.add((problem.file, problem.line))
                yield problem


def _to_render(specs: Specs, category: Spec) -> list[int]:
    everything = range(len(category["examples"]))
    path = f"templates/{category['template']}"
    data = specs.templates[path]
    if isinstance(data, bytes) and _reads_only_turns(specs.root / "templates", path, data):
        using = [steps[1] for steps, text in _texts(category) if category["slots"] and _SLOTS.search(text)]
        return sorted({*everything[:1], *using})
    return list(everything)


@lru_cache(maxsize=64)
def _reads_only_turns(folder: Path, path: str, data: bytes) -> bool:
    from jinja2 import meta

    from generators.templates import environment

    tree = environment(folder).parse(data.decode("utf-8"), path)
    return meta.find_undeclared_variables(tree) <= {"turns"} and not list(meta.find_referenced_templates(tree))


def _problems_of_example(specs: Specs, name: str, category: Spec, index: int, tables: dict[str, Sequence[str]]) -> Iterator[Problem]:
    """One example as the only one of its category, so that no other hides what is wrong with it. tables: see `render_samples`."""
    from generators.samples.render import render_samples

    example = category["examples"][index]
    if not ("turns" in example or "user" in example and "jessy" in example):
        return  # told already
    alone = {key: value for key, value in category.items() if key not in ("count", "spelling")} | {"examples": [example]}
    context = {
        "name": name,
        "file": f"specs/categories/{name}.yaml",
        "lines": [specs.project.example_lines[name][index]],
        "persona": specs.project.project["persona"],
        "tiers": specs.project.tiers["tiers"],
        "seed": specs.project.project["seed"],
    }
    try:
        for _ in render_samples(alone, context, specs.root / "templates", tables):
            pass
    except SpecErrors as errors:
        for problem in errors.problems:
            if problem.file.startswith("templates/") and errors.__cause__ is not None:
                given = {"turns": [{}], "example": example, "category": category, "slots": category["slots"], "persona": {"name": ""}}
                where = f"the example at {context['file']}:{context['lines'][0]}"
                yield _of_template(specs, errors.__cause__, category["template"], where, given)
            else:
                yield specs.documents["category", name].wrong(("examples", index), problem.message.removeprefix("examples[0]: "))
    except UserError as error:
        yield specs.documents["category", name].wrong(("examples", index), str(error))
    except Exception as error:  # whatever a template of the user's raises when it is loaded
        yield _of_template(specs, error, category["template"], f"the example at {context['file']}:{context['lines'][0]}", {})


# --- system prompts and Modelfiles ------------------------------------------------------------------------------------------------


def _prompts_and_modelfiles(specs: Specs) -> Iterator[Problem]:
    from generators import modelfile

    folder, fine = specs.root / "templates", {}
    for name, persona in specs.project.personas.items():
        if _is_there(specs, persona["template"]):
            try:
                modelfile.system_prompt(persona, folder)
                fine[name] = persona
            except Exception as error:  # whatever a template of the user's raises
                yield _of_template(specs, error, persona["template"], f"the system prompt of the persona {name}", {"persona": persona})
    unwritable = list(modelfile.problems(folder, replace(specs.project, personas=fine), specs.documents))
    yield from unwritable
    if not unwritable:
        yield from _modelfiles(specs, fine)


def _modelfiles(specs: Specs, personas: dict[str, Spec]) -> Iterator[Problem]:
    """Modelfile.j2 with every persona in every chat format that it meets, up to the first that does not render."""
    rendered: set[tuple[str, str]] = set()
    for recipe_name, recipe in specs.project.recipes.items():
        model = specs.project.models.get(recipe["base"], {})
        chat_format = specs.project.chat_formats.get(model.get("chat_format", ""))
        if chat_format is None or chat_format["system"] == "own_turn" and "system" not in chat_format["turns"]:
            continue  # told already
        for name in recipe["personas"]:
            if name in personas and (name, model["chat_format"]) not in rendered:
                rendered.add((name, model["chat_format"]))
                rule = ("modelfile", recipe_name, _digest(specs, personas[name], chat_format, model["licence"]))
                judge = partial(
                    _problems_of_modelfile, specs, personas[name], chat_format, model["licence"], f"{recipe_name} for the persona {name}"
                )
                found = specs.documents["persona", name].once(rule, judge)
                yield from found
                if found:
                    return


def _problems_of_modelfile(specs: Specs, persona: Spec, chat_format: Spec, licence: Spec, whose: str) -> Iterator[Problem]:
    from generators import modelfile
    from generators.chat_format import go_template

    try:
        modelfile.render_modelfile(persona, chat_format, licence, "model.gguf", go_template(chat_format), specs.root / "templates")
    except Exception as error:  # whatever a template of the user's raises, and what Ollama would refuse
        given: Spec = dict.fromkeys(("gguf", "template", "system", "parameters", "stops", "messages", "licence"), {})
        yield _of_template(specs, error, "Modelfile.j2", f"the Modelfile of {whose}", given)


# --- what Jinja raises, in plain words --------------------------------------------------------------------------------------------


def _of_template(specs: Specs, error: BaseException, template: str, where: str, given: Spec) -> Problem:
    """At the innermost template that the error went through: an included one, where it lies there."""
    while isinstance(error, SpecErrors) and error.__cause__ is not None:
        error = error.__cause__
    folder = str(specs.root / "templates")
    file, line = template, 1
    frame = error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if Path(folder) in Path(name).parents:
            file, line = Path(name).relative_to(folder).as_posix(), frame.tb_lineno
        frame = frame.tb_next
    if getattr(error, "filename", None) and getattr(error, "lineno", None):  # a template that is loaded at run time does not parse
        file, line = Path(str(error.filename)).name if file == template else file, error.lineno  # type: ignore[attr-defined]
    return Problem(f"templates/{file}", line, 1, f"{_words(error, given)} (rendering {where})")


def _line(error: BaseException, filename: str) -> int:
    """Jinja rewrites the traceback of a failed rendering, so that it leads to the template's line."""
    line, frame = getattr(error, "lineno", None) or 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == filename:
            line = frame.tb_lineno
        frame = frame.tb_next
    return int(line)


_UNDEFINED = re.compile(r"^'([^']+)' is undefined$")
_NO_SUCH = re.compile(r"^No (filter|test) named '([^']+)'")
_NO_ATTRIBUTE = re.compile(r"has no attribute '([^']+)'$")


def _words(error: BaseException, given: Spec) -> str:
    if isinstance(error, RecursionError):
        return "includes or calls itself without end"
    if isinstance(error, MemoryError | OverflowError):
        return "asks for more than can be computed"
    if isinstance(error, json.JSONDecodeError):
        return f"does not write the JSON of messages: {error}"
    message = " ".join(str(getattr(error, "message", None) or error or type(error).__name__).split())
    if found := _UNDEFINED.match(message):
        return f"{message}; given here: {one_of(sorted(given))}{did_you_mean(found[1], given)}"
    if found := _NO_SUCH.match(message):
        from generators.templates import environment

        env = environment(None)
        return f"no {found[1]} {found[2]!r}{did_you_mean(found[2], env.filters if found[1] == 'filter' else env.tests)}"
    if found := _NO_ATTRIBUTE.search(message):
        return f"there is no {found[1]!r} here{did_you_mean(found[1], _keys(given))}"
    if type(error).__name__ == "TemplateNotFound":
        return f"templates/{message} does not exist"
    return message if len(message) <= 300 else message[:297] + "..."


def _keys(given: Any, levels: int = 3) -> list[str]:
    """The names that values have inside, for a suggestion."""
    if not levels:
        return []
    if isinstance(given, dict):
        return sorted({*map(str, given), *(name for value in given.values() for name in _keys(value, levels - 1))})
    if isinstance(given, list):
        return sorted({name for value in given[:3] for name in _keys(value, levels - 1)})
    return []
