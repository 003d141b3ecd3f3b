"""What the stages read of the specs: a slice is a part of each file, in the file's own shape.

What differs between two slices has a file and a place in it, which is how `plan` can name the edited line. Lines are no part of a slice: a
comment moves them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.tasks import template_files

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.specs.project import Project, Spec

Slice = dict[str, Any]
Say = Callable[[str], None]
PROJECT, TIERS = "specs/project.yaml", "specs/tiers.yaml"
# What a chat format says about text. Its `stop` and `control_tokens` matter to some stages only, its description to none.
_FORMAT_OF_TEXT = ("system", "system_separator", "begin_of_sequence", "turns", "end_of_turn")
# What may change without changing what is trained.
COSMETIC = ("log_every", "checkpoint_every", "memory_budget_gb", "report_to", "hosts", "backend")


def only(spec: Spec, *names: str) -> Spec:
    return {name: spec[name] for name in names if name in spec}


def without(spec: Spec, *names: str) -> Spec:
    return {key: value for key, value in spec.items() if key not in names}


def ordered(spec: Spec, name: str) -> Spec:
    """A mapping whose order counts: what it yields depends on which key comes first."""
    return {name: spec[name], f"order of {name}": list(spec[name])}


def chat_format_of(project: Project, recipe: Spec) -> Spec:
    return project.chat_formats[project.models[recipe["base"]]["chat_format"]]


def chat_format_slice(project: Project, model: str, *more: str) -> Slice:
    name = project.models[model]["chat_format"]
    return {
        f"specs/models/{model}.yaml": {"chat_format": name},
        f"specs/chat_formats/{name}.yaml": only(project.chat_formats[name], *_FORMAT_OF_TEXT, *more),
    }


def joined_slices(*slices: Slice) -> Slice:
    """Slices that may name the same file."""
    joined: Slice = {}
    for part in slices:
        for file, read in part.items():
            joined[file] = {**joined.get(file, {}), **read}
    return joined


def template_text(paths: Paths, template: str) -> str:
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in template_files(paths.templates, template))


def spoken(project: Project, paths: Paths, name: str, *more: str) -> Slice:
    """What goes into a persona's system prompt: the fields that its template mentions. more: fields that are read besides."""
    persona = project.personas[name]
    text = template_text(paths, persona["template"])
    mentioned = {key: _mentioned(value, text) for key, value in persona.items() if key in text}
    return {persona_file(name): {**mentioned, **only(persona, "template", *more)}}


def _mentioned(value: Any, text: str) -> Any:
    """Of the entries of a list, only the fields that `text` mentions."""
    if isinstance(value, list):
        return [{key: part for key, part in entry.items() if key in text} if isinstance(entry, dict) else entry for entry in value]
    return value


def persona_file(name: str) -> str:
    return f"specs/personas/{name}.yaml"


def recipe_file(name: str) -> str:
    return f"specs/recipes/{name}.yaml"


def persona_templates(project: Project, paths: Paths, recipe: Spec, trained_only: bool = False) -> list[Path]:
    """trained_only: of the persona that the recipe trains and judges, not of those that only get a Modelfile."""
    names = recipe["personas"][:1] if trained_only else recipe["personas"]
    return template_files(paths.templates, *{project.personas[name]["template"] for name in names})


def ignore(_: Any) -> None:
    """Nobody is told."""


def deployed_as(recipe: Spec, persona: str) -> str:
    """A persona's model in Ollama."""
    name = str(recipe["deploy"]["name"])
    return name if persona == recipe["personas"][0] else f"{name}-{persona}"
