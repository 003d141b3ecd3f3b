"""What is at hand, and what a build would do: doctor, preflight, plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.stages.corpus import build_dataset, frames, samples
from generators.stages.export import metadata_of
from generators.stages.modelfiles import modelfiles
from generators.stages.reading import chat_format_of, ignore, recipe_file

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.plan import Reason, Stage, Step, Success, Work
    from generators.specs.project import Project


def doctor(project: Project, paths: Paths) -> None:
    from generators import progress
    from generators.doctor import doctor as examine

    examine(project.models, paths.build, progress.say)


def plan(project: Project, paths: Paths, stages_before: Callable[[str], list[Stage]], recipe: str, as_json: bool) -> None:
    """stages_before: gives the stages that a task needs, itself the last, as dodo.py declares them."""
    import tempfile

    from generators import plan as planning
    from generators.errors import chosen
    from generators.files import to_json
    from generators.tasks import successes

    chosen(project.recipes, recipe, "recipe")
    remembered = successes(paths.build / ".doit.db")
    stages = stages_before(f"report:{recipe}")
    with tempfile.TemporaryDirectory() as scratch:
        renders = {stage.name: render for stage in stages if (render := cheap_render(project, stage.name))}
        steps = planning.forecast(paths.root, stages, remembered, Path(scratch), renders, _kept)  # type: ignore[arg-type]
    machine, work = planning.Machine.here(), work_of(project, recipe)
    estimates = {
        step.stage.name: _estimate(step, remembered.get(step.stage.name), work, machine, paths)
        for step in steps
        if step.status == planning.RUNS
    }
    told = (recipe, steps, estimates, planning.touched(paths.root, steps, remembered))
    if as_json:
        print(to_json(planning.as_json(*told), indent=2))
    else:
        planning.show(*told)


def cheap_render(project: Project, task: str) -> Callable[[Path], None] | None:
    """For a stage that takes no more than a second or two: its work, done without a word in the project at another root."""
    from generators.paths import Paths

    basename, _, name = task.partition(":")
    if basename == "dataset":
        return lambda root: ignore(build_dataset(project, Paths(root), ignore))
    stage = {"samples": samples, "_frames": frames, "modelfile": modelfiles}.get(basename)
    return (lambda root: stage(project, Paths(root), name)) if stage else None


def _kept(stage: Stage, past: Success | None, reasons: list[Reason]) -> set[str]:
    """A GGUF depends on its own quantisation only: those that were written before keep their bytes when others join them or go."""
    if not stage.name.startswith("gguf:") or past is None or past.reads is None:
        return set()
    quantisations, changes = ("export", "quantisations"), [reason.change for reason in reasons if reason.kind != "missing target"]
    if any(change is None or change.steps[:2] != quantisations for change in changes):
        return set()
    before = past.reads[recipe_file(stage.name.partition(":")[2])]["export"]["quantisations"]
    return {target for target in stage.targets if any(target.endswith(f"-{quantisation}.gguf") for quantisation in before)}


def work_of(project: Project, recipe: str) -> Work:
    from generators.plan import Work

    spec = project.recipes[recipe]
    letters = 0.0
    for category in project.categories.values():
        said = [turn for example in category["examples"] for turn in example.get("turns") or [example]]
        share = category.get("count", len(category["examples"])) / len(category["examples"])
        letters += share * sum(len(turn.get("user", "")) + len(turn.get("jessy", "")) for turn in said)
    suites = spec["evaluation"]["suites"] or list(project.suites)
    return Work(
        project.models[spec["base"]]["parameters"],
        int(letters),
        spec["training"]["epochs"],
        sum(len(project.suites[suite]["cases"]) for suite in suites) * len(spec["evaluation"]["framings"]),
        tuple(spec["export"]["quantisations"]),
    )


def _estimate(step: Step, past: Success | None, work: Work, machine: Any, paths: Paths) -> Any:
    """What was measured is scaled to what there is to do now."""
    from dataclasses import replace

    from generators.plan import estimate

    basename, _, recipe = step.stage.name.partition(":")
    then = work
    if past is not None and basename in ("train", "gguf"):
        read = (past.reads or {}).get(recipe_file(recipe), {})  # none where only a digest was kept
        then = replace(
            work,
            epochs=read.get("training", {}).get("epochs", work.epochs),
            quantisations=tuple(read.get("export", {}).get("quantisations", work.quantisations)),
        )
    written = [paths.root / target for target in step.stage.targets]
    if basename in ("base", "fuse"):  # the weights come in as many files as they were published in
        written = sorted(written[0].parent.glob("*")) or written
    return estimate(basename, work, then, past.taken if past else {}, written, machine)


def preflight(project: Project, paths: Paths, name: str) -> None:
    """Raises UserError when a part of the chain fails, or the real run has no room here, or the base is not imported."""
    import tempfile

    from generators import preflight as chain
    from generators import progress
    from generators.errors import UserError
    from generators.paths import Paths as PathsAt
    from generators.plan import Machine

    recipe, base = project.recipes[name], project.recipes[name]["base"]
    if not (paths.model(base) / "source.json").is_file():
        raise UserError(f"preflight takes the tokenizer of {base}, which is not imported yet; run: doit base:{base}")
    machine = Machine.here()
    chain.check_room(_needs(project, paths, name, machine), chain.room_here(machine.kind, paths.build), progress.say)
    with tempfile.TemporaryDirectory() as folder:
        scratch = PathsAt(Path(folder))
        (scratch.root / "templates").symlink_to(paths.templates.resolve())
        render_a_few(project, scratch, name, chain.samples_needed(recipe))
        job = chain.Job(
            name,
            str(scratch.recipe(name).root),
            str(paths.model(base).resolve()),
            recipe,
            chat_format_of(project, recipe),
            project.models[base]["context_length"],
            project.project["seed"],
            metadata_of(project, name),
        )
        chain.run(job, progress.say)


def _needs(project: Project, paths: Paths, name: str, machine: Any) -> Any:
    """What the stages that follow the base take; as measured, where they ran here before."""
    from generators.plan import estimate
    from generators.preflight import Needs
    from generators.tasks import successes

    recipe, work, remembered = project.recipes[name], work_of(project, name), successes(paths.build / ".doit.db")
    stages = ("train", "fuse", "gguf", "parity", "evaluate")
    found = {
        stage: estimate(stage, work, work, past.taken if (past := remembered.get(f"{stage}:{name}")) else {}, [], machine)
        for stage in stages
    }
    bits = recipe["training"]["base_bits"] or (32 if machine.kind == "cpu" else 16)
    memory = max(each.memory for each in found.values())
    return Needs(found["train"].seconds, memory, work.parameters * bits // 8, sum(each.disk for each in found.values()))


def render_a_few(project: Project, scratch: Paths, name: str, count: int) -> None:
    """At `scratch`: samples of every group in turn, in the recipe's frames, and its Modelfiles."""
    from itertools import chain, islice, zip_longest

    from generators.files import read_jsonl, write_jsonl

    of_each_group = {category.partition("/")[0]: category for category in reversed(project.categories)}
    for category in of_each_group.values():
        samples(project, scratch, category)
    in_turn = zip_longest(*(read_jsonl(scratch.samples(category)) for category in of_each_group.values()))
    rows = list(islice((row for row in chain.from_iterable(in_turn) if row), count + 2))
    write_jsonl(scratch.dataset / "train.jsonl", rows[:count])
    write_jsonl(scratch.dataset / "valid.jsonl", rows[count:] or rows[:1])
    frames(project, scratch, name)
    modelfiles(project, scratch, name)
