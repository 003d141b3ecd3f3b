"""From the base and the frames to an adapter: base, train, watch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from generators.stages.planning import preflight
from generators.stages.reading import COSMETIC, PROJECT, Slice, chat_format_of, chat_format_slice, joined_slices, only, recipe_file, without

if TYPE_CHECKING:
    from generators.paths import Paths, RecipePaths
    from generators.specs.project import Project


def base_slice(project: Project, name: str) -> Slice:
    return joined_slices(
        {f"specs/models/{name}.yaml": only(project.models[name], "architecture", "sources")}, chat_format_slice(project, name)
    )


def base(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.base import import_base
    from generators.chat_format import jinja_template

    model = project.models[name]
    chat_format = project.chat_formats[model["chat_format"]]
    progress.say(f"licence: {model['licence']['name']}, {model['licence']['url']}. {model['licence']['notice']}")
    import_base(model, name, paths.model(name), jinja_template(chat_format), progress.say, end_of_turn=chat_format["end_of_turn"])


def train_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    base = recipe["base"]
    trained = {
        "base": base,
        "lora": recipe["lora"],
        "training": without(recipe["training"], *COSMETIC),
        "framings": only(recipe["framings"], "each_epoch"),
    }
    return joined_slices(
        {
            recipe_file(name): trained,
            f"specs/models/{base}.yaml": only(project.models[base], "context_length"),
            PROJECT: only(project.project, "seed"),
        },
        chat_format_slice(project, base, "control_tokens"),
    )


def train(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.preflight import LARGE

    recipe, outputs = project.recipes[name], paths.recipe(name)
    if project.models[recipe["base"]]["parameters"] > LARGE and not any(outputs.checkpoints.glob("step-*")):
        progress.say("preflight, before a long run:")
        preflight(project, paths, name)
    train_adapter(project, paths, name, outputs.frames)


def train_adapter(project: Project, paths: Paths, name: str, frames: Path, start: Path | None = None) -> None:
    """frames: folder of the framed samples, which sweeps share. start: folder of an adapter that is trained on."""
    from generators import progress
    from generators.train import train as run

    recipe, outputs = project.recipes[name], paths.recipe(name)
    with progress.training_watcher() as watcher:
        run(
            recipe,
            paths.model(recipe["base"]),
            frames,
            chat_format_of(project, recipe),
            project.models[recipe["base"]]["context_length"],
            project.project["seed"],
            outputs,
            watcher,
            start,
        )


def watch(project: Project, paths: Paths, recipe: str) -> None:
    """recipe: empty for whichever is being trained."""
    from generators import progress
    from generators import watch as watching

    outputs = {name: paths.recipe(name) for name in project.recipes} | trials_going_on(project, paths)
    runs = {name: watching.Run(each.metrics, each.training_summary, each.checkpoints) for name, each in outputs.items()}
    watching.watch(runs, recipe, progress.training_watcher, progress.say)


def trials_going_on(project: Project, paths: Paths) -> dict[str, RecipePaths]:
    """Candidates and adapters of sweeps that are being trained now, named as their tasks are."""
    from dataclasses import replace

    from generators.files import is_held

    made = {f"retrain:{name}": (name, paths.retrain(name).candidate) for name in project.recipes}
    for name in project.recipes:
        made |= {f"sweep:{name}:{folder.name}": (name, folder) for folder in sorted(paths.sweep(name).adapters.glob("*"))}
    found = {task: replace(paths, made=folder).recipe(name) for task, (name, folder) in made.items()}
    return {task: outputs for task, outputs in found.items() if is_held(outputs.metrics)}
