"""What is written for people who write specs: a project of their own, schemas, documents."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generators.stages.reading import chat_format_of

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.specs.project import Project


def new_persona(project: Project, paths: Paths, name: str, into: str) -> None:
    """into: empty for a folder of that name beside this project's."""
    from generators import progress
    from generators.new_persona import new_persona as make

    base = project.recipes[project.project["default_recipe"]]["base"]
    folder = Path(into).expanduser() if into else Path("..") / (name or "persona")
    make(name, paths.root / folder, paths.root, base, project.models[base], progress.say)


def schemas(paths: Paths) -> None:
    from generators import progress
    from generators.specs import json_schema, reference

    written = json_schema.write_schemas(paths.root / json_schema.FOLDER)
    reference.write_reference(paths.root / "docs" / "specs.md")
    progress.say(f"{len(written)} schemas in {json_schema.FOLDER}/, and docs/specs.md")


def docs(project: Project, paths: Paths, figures: bool, terminal: bool) -> None:
    from generators import docs as documents
    from generators import progress
    from generators.docs import figures as snapshot
    from generators.docs.terminal import capture as typed
    from generators.docs.work import tokens_of_training

    name = project.project["default_recipe"]
    recipe, outputs = project.recipes[name], paths.recipe(name)
    if figures:
        model = project.models[recipe["base"]]
        count = partial(
            tokens_of_training,
            outputs.frames / "train.jsonl",
            paths.model(recipe["base"]),
            chat_format_of(project, recipe),
            recipe,
            model["context_length"],
            project.project["seed"],
        )
        snapshot.write_figures(paths.root.resolve(), name, recipe["base"], count, progress.say)
    if terminal:
        snapshot.put_terminal(paths.root.resolve(), typed(paths.root.resolve(), progress.say))
    documents.write_docs(paths.root, project, progress.say)
