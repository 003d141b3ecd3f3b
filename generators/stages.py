"""From the specs to each stage: the slice that it reads, and the call that does its work.

For every stage there is a `<stage>_slice(project, ...)` that decides whether the stage must run again, and a function of the stage's name
that runs it. dodo.py puts the two together; the stages themselves know neither.

A slice is the part of each spec file that the stage reads: the file's name to what is read of it, in the file's own shape. So what
differs between two slices has a file and a place in it, which is how `plan` can name the edited line. Lines are no part of a slice: a
comment moves them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.tasks import template_files

if TYPE_CHECKING:
    from generators.evaluate.kept import Judged
    from generators.feedback.judging import Known
    from generators.paths import Paths, RecipePaths
    from generators.plan import Reason, Stage, Step, Success, Work
    from generators.specs.project import Project, Spec

Slice = dict[str, Any]
Say = Callable[[str], None]
_PROJECT, _TIERS = "specs/project.yaml", "specs/tiers.yaml"
# What a chat format says about text. Its `stop` and `control_tokens` matter to some stages only, its description to none.
_FORMAT_OF_TEXT = ("system", "system_separator", "begin_of_sequence", "turns", "end_of_turn")
# Of a client: what its queries look like, and what an evaluation plays besides.
_CLIENT_FRAME = ("systems", "stages", "observation", "separator", "answer", "confidence")
_CLIENT_LOOP = ("systems", "stages", "observation", "separator", "protocol", "stop", "timeout_s")
# What may change without changing what is trained.
_COSMETIC = ("log_every", "checkpoint_every", "memory_budget_gb", "report_to", "hosts", "backend")
# What is tried beside a recipe, and changes nothing of what it makes.
_OF_TRIALS = ("sweep", "retrain")
# What report and model card tell of the base.
_TOLD_OF_BASE = ("description", "licence", "sources")
# What training reads of a framed sample. Where it came from, or how long its answer may take, teaches nothing.
_TRAINED = ("id", "framing", "frame", "stage", "wording")


def _only(spec: Spec, *names: str) -> Spec:
    return {name: spec[name] for name in names if name in spec}


def _without(spec: Spec, *names: str) -> Spec:
    return {key: value for key, value in spec.items() if key not in names}


def _ordered(spec: Spec, name: str) -> Spec:
    """A mapping whose order counts: what it yields depends on which key comes first."""
    return {name: spec[name], f"order of {name}": list(spec[name])}


def _chat_format(project: Project, recipe: Spec) -> Spec:
    return project.chat_formats[project.models[recipe["base"]]["chat_format"]]


def _chat_format_slice(project: Project, model: str, *more: str) -> Slice:
    name = project.models[model]["chat_format"]
    return {
        f"specs/models/{model}.yaml": {"chat_format": name},
        f"specs/chat_formats/{name}.yaml": _only(project.chat_formats[name], *_FORMAT_OF_TEXT, *more),
    }


def _joined(*slices: Slice) -> Slice:
    """Slices that may name the same file."""
    joined: Slice = {}
    for part in slices:
        for file, read in part.items():
            joined[file] = {**joined.get(file, {}), **read}
    return joined


def _template_text(paths: Paths, template: str) -> str:
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in template_files(paths.templates, template))


def _spoken(project: Project, paths: Paths, name: str, *more: str) -> Slice:
    """What goes into a persona's system prompt: the fields that its template mentions. more: fields that are read besides."""
    persona = project.personas[name]
    text = _template_text(paths, persona["template"])
    mentioned = {key: _mentioned(value, text) for key, value in persona.items() if key in text}
    return {_persona_file(name): {**mentioned, **_only(persona, "template", *more)}}


def _mentioned(value: Any, text: str) -> Any:
    """Of the entries of a list, only the fields that `text` mentions."""
    if isinstance(value, list):
        return [{key: part for key, part in entry.items() if key in text} if isinstance(entry, dict) else entry for entry in value]
    return value


def _persona_file(name: str) -> str:
    return f"specs/personas/{name}.yaml"


def _recipe_file(name: str) -> str:
    return f"specs/recipes/{name}.yaml"


def persona_templates(project: Project, paths: Paths, recipe: Spec, trained_only: bool = False) -> list[Path]:
    """trained_only: of the persona that the recipe trains and judges, not of those that only get a Modelfile."""
    names = recipe["personas"][:1] if trained_only else recipe["personas"]
    return template_files(paths.templates, *{project.personas[name]["template"] for name in names})


# doctor


def doctor(project: Project, paths: Paths) -> None:
    from generators import progress
    from generators.doctor import doctor as examine

    examine(project.models, paths.build, progress.say)


# plan


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
        renders = {stage.name: render for stage in stages if (render := _cheap(project, stage.name))}
        steps = planning.forecast(paths.root, stages, remembered, Path(scratch), renders, _kept)  # type: ignore[arg-type]
    machine, work = planning.Machine.here(), _work(project, recipe)
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


def _cheap(project: Project, task: str) -> Callable[[Path], None] | None:
    """For a stage that takes no more than a second or two: its work, done without a word in the project at another root."""
    from generators.paths import Paths

    basename, _, name = task.partition(":")
    if basename == "dataset":
        return lambda root: _ignore(_dataset(project, Paths(root), _ignore))
    stage = {"samples": samples, "_frames": frames, "modelfile": modelfiles}.get(basename)
    return (lambda root: stage(project, Paths(root), name)) if stage else None


def _ignore(_: Any) -> None:
    """Nobody is told."""


def _kept(stage: Stage, past: Success | None, reasons: list[Reason]) -> set[str]:
    """A GGUF depends on its own quantisation only: those that were written before keep their bytes when others join them or go."""
    if not stage.name.startswith("gguf:") or past is None or past.reads is None:
        return set()
    quantisations, changes = ("export", "quantisations"), [reason.change for reason in reasons if reason.kind != "missing target"]
    if any(change is None or change.steps[:2] != quantisations for change in changes):
        return set()
    before = past.reads[_recipe_file(stage.name.partition(":")[2])]["export"]["quantisations"]
    return {target for target in stage.targets if any(target.endswith(f"-{quantisation}.gguf") for quantisation in before)}


def _work(project: Project, recipe: str) -> Work:
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
        read = (past.reads or {}).get(_recipe_file(recipe), {})  # none where only a digest was kept
        then = replace(
            work,
            epochs=read.get("training", {}).get("epochs", work.epochs),
            quantisations=tuple(read.get("export", {}).get("quantisations", work.quantisations)),
        )
    written = [paths.root / target for target in step.stage.targets]
    if basename in ("base", "fuse"):  # the weights come in as many files as they were published in
        written = sorted(written[0].parent.glob("*")) or written
    return estimate(basename, work, then, past.taken if past else {}, written, machine)


# samples


def samples_slice(project: Project, paths: Paths, name: str) -> Slice:
    """The category without what only the dataset reads, unless its template mentions it; and the time budgets of its tiers."""
    category = project.categories[name]
    text = _template_text(paths, category["template"])
    unread = [field for field in ("description", "quality") if field not in text]
    tiers = {example.get("tier", category["tier"]) for example in category["examples"]}
    notes = [] if "source" in text else ["source"]  # where an example came from is said to people, and by a template that asks for it
    examples = [_without(example, *notes) for example in category["examples"]]
    return {
        f"specs/categories/{name}.yaml": {**_without(category, *unread), **_ordered(category, "slots"), "examples": examples},
        _TIERS: {"tiers": {tier: _only(project.tiers["tiers"][tier], "response_budget_s") for tier in sorted(tiers)}},
        _PROJECT: _only(project.project, "persona", "seed"),
    }


def samples(project: Project, paths: Paths, name: str) -> None:
    from generators.samples.render import write_samples

    context = {
        "name": name,
        "file": f"specs/categories/{name}.yaml",
        "lines": project.example_lines[name],
        "persona": project.project["persona"],
        "tiers": project.tiers["tiers"],
        "seed": project.project["seed"],
    }
    write_samples(project.categories[name], context, paths.templates, paths.samples(name))


# dataset


def dataset_slice(project: Project) -> Slice:
    persona = project.project["persona"]
    return {
        _PROJECT: _only(project.project, "dataset", "quality", "seed", "persona"),
        _TIERS: _only(project.tiers, "classifier"),
        _persona_file(persona): _only(project.personas[persona], "opinion_markers"),
        **{f"specs/categories/{name}.yaml": _only(category, "quality") for name, category in project.categories.items()},
        **{f"specs/evals/{name}.yaml": {"cases": [_asked(case) for case in suite["cases"]]} for name, suite in project.suites.items()},
        **{f"specs/chat_formats/{name}.yaml": _only(chat_format, "control_tokens") for name, chat_format in project.chat_formats.items()},
    }


def _asked(case: Spec) -> Spec:
    """The words that no training sample may hold: the query, or the last turn of a conversation."""
    if "query" in case:
        return _only(case, "query")
    return {"turns": [{} for _ in case["turns"][:-1]] + [_only(case["turns"][-1], "user")]}


def _control_tokens(project: Project) -> set[str]:
    return {token for chat_format in project.chat_formats.values() for token in chat_format["control_tokens"]}


def dataset(project: Project, paths: Paths) -> None:
    from generators import progress
    from generators.dataset import summary

    _remove_stale_samples(paths, {paths.samples(name) for name in project.categories})
    print(summary(_dataset(project, paths, progress.say)))


def _dataset(project: Project, paths: Paths, say: Say) -> Spec:
    from generators.dataset import DatasetErrors, build

    try:
        return build(
            [paths.samples(name) for name in project.categories],
            project.project,
            project.categories,
            project.suites,
            project.case_lines,
            project.personas,
            paths.dataset,
            say,
            classifier=project.tiers["classifier"],
            control_tokens=_control_tokens(project),
            memory=paths.cache / "dataset.json",
        )
    except DatasetErrors as errors:
        today = current_sources(project, paths)
        raise DatasetErrors(
            found._replace(sources=tuple(today.get(source, source) for source in found.sources)) for found in errors.violations
        ) from None


def _remove_stale_samples(paths: Paths, wanted: set[Path]) -> None:
    """A category that is gone from the specs leaves no samples behind."""
    for path in (paths.build / "samples").glob("*/*.jsonl"):
        if path not in wanted:
            path.unlink()


def current_sources(project: Project, paths: Paths) -> dict[str, str]:
    """`file:line` as the rendered samples hold it, to where that example stands today.

    A comment above an example moves it and renders nothing anew. The samples of a category are in the order of its examples, and each
    example has one at least, so that the n-th source in the file is that of the n-th example.
    """
    from generators.files import read_jsonl

    found: dict[str, str] = {}
    for name, lines in project.example_lines.items():
        if paths.samples(name).is_file():
            rendered = list(dict.fromkeys(row["metadata"]["source"] for row in read_jsonl(paths.samples(name))))
            if len(rendered) == len(lines):
                found |= {old: f"specs/categories/{name}.yaml:{line}" for old, line in zip(rendered, lines, strict=True)}
    return found


# classify


def classify(project: Project, query: str) -> None:
    """Explain the verdict on a query; without one, list the examples on which rules and authors disagree, with the lines of today."""
    from generators import classify as classifier
    from generators.samples.expand import first_question

    rules = project.tiers["classifier"]
    if query.strip():
        print(classifier.explain(classifier.classify(query, rules)))
        return
    authored = (
        classifier.Authored(
            f"specs/categories/{name}.yaml:{line}", first_question(example, category), example.get("tier", category["tier"])
        )
        for name, category in project.categories.items()
        for line, example in zip(project.example_lines[name], category["examples"], strict=True)
    )
    print(classifier.review(classifier.compare(authored, rules)))


# base


def base_slice(project: Project, name: str) -> Slice:
    return _joined({f"specs/models/{name}.yaml": _only(project.models[name], "architecture", "sources")}, _chat_format_slice(project, name))


def base(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.base import import_base
    from generators.chat_format import jinja_template

    model = project.models[name]
    chat_format = project.chat_formats[model["chat_format"]]
    progress.say(f"licence: {model['licence']['name']}, {model['licence']['url']}. {model['licence']['notice']}")
    import_base(model, name, paths.model(name), jinja_template(chat_format), progress.say, end_of_turn=chat_format["end_of_turn"])


# preflight


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
        _render_a_few(project, scratch, name, chain.samples_needed(recipe))
        job = chain.Job(
            name,
            str(scratch.recipe(name).root),
            str(paths.model(base).resolve()),
            recipe,
            _chat_format(project, recipe),
            project.models[base]["context_length"],
            project.project["seed"],
            _metadata(project, name),
        )
        chain.run(job, progress.say)


def _needs(project: Project, paths: Paths, name: str, machine: Any) -> Any:
    """What the stages that follow the base take; as measured, where they ran here before."""
    from generators.plan import estimate
    from generators.preflight import Needs
    from generators.tasks import successes

    recipe, work, remembered = project.recipes[name], _work(project, name), successes(paths.build / ".doit.db")
    stages = ("train", "fuse", "gguf", "parity", "evaluate")
    found = {
        stage: estimate(stage, work, work, past.taken if (past := remembered.get(f"{stage}:{name}")) else {}, [], machine)
        for stage in stages
    }
    bits = recipe["training"]["base_bits"] or (32 if machine.kind == "cpu" else 16)
    memory = max(each.memory for each in found.values())
    return Needs(found["train"].seconds, memory, work.parameters * bits // 8, sum(each.disk for each in found.values()))


def _render_a_few(project: Project, scratch: Paths, name: str, count: int) -> None:
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


# frames


def frames_slice(project: Project, paths: Paths, name: str) -> Slice:
    recipe = project.recipes[name]
    mix = recipe["framings"]["mix"]
    return {
        _recipe_file(name): {
            "personas": recipe["personas"][:1],
            "framings": {**_ordered(recipe["framings"], "mix"), **_only(recipe["framings"], "per_sample")},
        },
        _PROJECT: _only(project.project, "seed"),
        **({_TIERS: _only(project.tiers, "directive", "marker")} if "directive" in mix else {}),
        **_spoken(project, paths, recipe["personas"][0]),
        **{project.client_files[client]: _only(project.clients[client], *_CLIENT_FRAME) for client in mix if client in project.clients},
    }


def frames(project: Project, paths: Paths, name: str) -> None:
    from generators.files import write_text
    from generators.framing import Frames, write_frames
    from generators.modelfile import system_prompt

    recipe = project.recipes[name]
    system = system_prompt(project.personas[recipe["personas"][0]], paths.templates)
    framings = recipe["framings"]
    wanted = Frames(framings["mix"], framings["per_sample"], project.project["seed"], system, project.clients, project.tiers)
    folder = paths.recipe(name).frames
    write_frames(paths.dataset, wanted, folder)
    write_text(folder / "system.txt", system + "\n")
    _note_what_is_trained(folder)


def _note_what_is_trained(folder: Path) -> None:
    """Write the digest of all that training reads of the frames: while it stays, nothing is trained anew."""
    import hashlib

    from generators.files import read_jsonl, to_json, write_text

    digest = hashlib.sha256()
    for split in ("train", "valid"):
        for row in read_jsonl(folder / f"{split}.jsonl"):
            digest.update(f"{split} {to_json([row['messages'], _only(row['metadata'], *_TRAINED)])}\n".encode())
    write_text(folder / "trained.sha256", digest.hexdigest() + "\n")


# train


def train_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    base = recipe["base"]
    trained = {
        "base": base,
        "lora": recipe["lora"],
        "training": _without(recipe["training"], *_COSMETIC),
        "framings": _only(recipe["framings"], "each_epoch"),
    }
    return _joined(
        {
            _recipe_file(name): trained,
            f"specs/models/{base}.yaml": _only(project.models[base], "context_length"),
            _PROJECT: _only(project.project, "seed"),
        },
        _chat_format_slice(project, base, "control_tokens"),
    )


def train(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.preflight import LARGE

    recipe, outputs = project.recipes[name], paths.recipe(name)
    if project.models[recipe["base"]]["parameters"] > LARGE and not any(outputs.checkpoints.glob("step-*")):
        progress.say("preflight, before a long run:")
        preflight(project, paths, name)
    _train(project, paths, name, outputs.frames)


def _train(project: Project, paths: Paths, name: str, frames: Path, start: Path | None = None) -> None:
    """frames: folder of the framed samples, which sweeps share. start: folder of an adapter that is trained on."""
    from generators import progress
    from generators.train import train as run

    recipe, outputs = project.recipes[name], paths.recipe(name)
    with progress.training_watcher() as watcher:
        run(
            recipe,
            paths.model(recipe["base"]),
            frames,
            _chat_format(project, recipe),
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

    outputs = {name: paths.recipe(name) for name in project.recipes} | _trials_going_on(project, paths)
    runs = {name: watching.Run(each.metrics, each.training_summary, each.checkpoints) for name, each in outputs.items()}
    watching.watch(runs, recipe, progress.training_watcher, progress.say)


def _trials_going_on(project: Project, paths: Paths) -> dict[str, RecipePaths]:
    """Candidates and adapters of sweeps that are being trained now, named as their tasks are."""
    from dataclasses import replace

    from generators.files import is_held

    made = {f"retrain:{name}": (name, paths.retrain(name).candidate) for name in project.recipes}
    for name in project.recipes:
        made |= {f"sweep:{name}:{folder.name}": (name, folder) for folder in sorted(paths.sweep(name).adapters.glob("*"))}
    found = {task: replace(paths, made=folder).recipe(name) for task, (name, folder) in made.items()}
    return {task: outputs for task, outputs in found.items() if is_held(outputs.metrics)}


# fuse


def fuse(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.fuse import fuse as merge

    outputs = paths.recipe(name)
    merge(paths.model(project.recipes[name]["base"]), outputs.adapter, outputs.fused, progress.say)


# gguf


def gguf_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    base = recipe["base"]
    chooses = _chooses(recipe)
    export = _only(recipe["export"], "quantisations", *(("loss_budget",) if chooses else ()))
    written = {**_only(recipe, "base", "description", "deploy"), "export": export}
    licence = {"licence": _only(project.models[base]["licence"], "name")}
    return _joined(
        {_recipe_file(name): written, f"specs/models/{base}.yaml": licence},
        _chat_format_slice(project, base, *(("control_tokens",) if chooses else ())),
        {_PROJECT: _only(project.project, "seed")} if chooses else {},
    )


def _chooses(recipe: Spec) -> bool:
    return "auto" in recipe["export"]["quantisations"]


def gguf_inputs(paths: Paths, name: str, recipe: Spec) -> list[Path]:
    """`auto` is chosen by what it loses on the validation split."""
    files = [paths.model(recipe["base"]) / "source.json"]
    return [*files, paths.recipe(name).frames / "valid.jsonl"] if _chooses(recipe) else files


def gguf_source(recipe: Spec) -> list[str]:
    return ["quantisations.py", "llama_logits.py", "tokens.py"] if _chooses(recipe) else []


def _metadata(project: Project, name: str) -> dict[str, str]:
    recipe = project.recipes[name]
    return {
        "general.name": recipe["deploy"]["name"],
        "general.description": recipe["description"],
        "general.license": project.models[recipe["base"]]["licence"]["name"],
    }


def gguf(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.files import write_json

    recipe, outputs = project.recipes[name], paths.recipe(name)
    written = []
    for quantisation in recipe["export"]["quantisations"]:
        target = outputs.gguf(quantisation)
        if quantisation == "auto":
            figures = _choose_quantisation(project, paths, name, target)
        else:
            figures = _write_gguf(project, paths, name, quantisation, target)
        figures["first_answer"] = _first_answer(project, recipe, target)
        progress.say(f"{target.name} in llama.cpp: {figures['first_answer']!r}")
        written.append(figures)
    write_json(outputs.export, {"quantisations": written})


def _write_gguf(project: Project, paths: Paths, name: str, quantisation: str, target: Path) -> Spec:
    """One GGUF, written and read back; the figures of both."""
    from generators import progress
    from generators.chat_format import jinja_template
    from generators.gguf import check_gguf, write_gguf

    recipe = project.recipes[name]
    chat_format, base_folder = _chat_format(project, recipe), paths.model(recipe["base"])
    figures = write_gguf(
        base_folder,
        paths.recipe(name).adapter,
        target,
        quantisation,
        jinja_template(chat_format),
        _metadata(project, name),
        progress.say,
        end_of_turn=chat_format["end_of_turn"],
    )
    return figures | check_gguf(target, base_folder)


def _choose_quantisation(project: Project, paths: Paths, name: str, target: Path) -> Spec:
    from generators import progress
    from generators.quantisations import choose, planned_sizes

    recipe = project.recipes[name]
    sizes = planned_sizes(paths.model(recipe["base"]))
    write = partial(_write_gguf, project, paths, name)
    return choose(sizes, write, target, _texts(project, paths, name), recipe["export"]["loss_budget"], progress.say)


def _texts(project: Project, paths: Paths, name: str) -> list[Any]:
    """The validation samples that quantisations are measured on."""
    from generators.quantisations import draw_texts
    from generators.tokens import Tokenizer

    recipe = project.recipes[name]
    tokenizer = Tokenizer.load(paths.model(recipe["base"]), _chat_format(project, recipe))
    return draw_texts(paths.recipe(name).frames / "valid.jsonl", tokenizer, project.project["seed"])


def _first_answer(project: Project, recipe: Spec, target: Path) -> str:
    """One answer to a greeting: proof that a real engine loads the file and speaks. Raises UserError when it does not."""
    from generators.chat_format import render
    from generators.errors import UserError
    from generators.llama_server import serving

    prompt = render(_chat_format(project, recipe), [{"role": "user", "content": "Merhaba!"}])
    with serving(target, context=512) as server:
        body = {"prompt": prompt, "n_predict": 24, "temperature": 0, "stop": _chat_format(project, recipe)["stop"]}
        answer = server.post("/completion", body)
    if not answer["tokens_predicted"]:
        raise UserError(f"{target} loads in llama.cpp and predicts no token after a greeting; run: doit forget gguf && doit gguf")
    return str(answer["content"]).strip()


# quantisations


def quantisations_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    return _joined(
        {
            _recipe_file(name): {"base": recipe["base"], "export": _only(recipe["export"], "quantisations", "loss_budget")},
            _PROJECT: _only(project.project, "seed"),
        },
        _chat_format_slice(project, recipe["base"], "control_tokens"),
    )


def quantisations(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.files import read_json
    from generators.quantisations import measure

    recipe, outputs = project.recipes[name], paths.recipe(name)
    names = recipe["export"]["quantisations"]
    measure(
        {each: outputs.gguf(each) for each in names},
        dict(zip(names, read_json(outputs.export)["quantisations"], strict=True)),
        outputs.fused,
        _texts(project, paths, name),
        recipe["export"]["loss_budget"],
        partial(_write_gguf, project, paths, name, "F16"),
        outputs.quantisations,
        progress.say,
    )


# modelfile


def modelfile_slice(project: Project, paths: Paths, name: str) -> Slice:
    recipe = project.recipes[name]
    base = recipe["base"]
    written = {**_only(recipe, "base", "personas"), "export": {"quantisations": recipe["export"]["quantisations"][:1]}}
    licence = {"licence": _only(project.models[base]["licence"], "name", "url")}
    return _joined(
        {_recipe_file(name): written, f"specs/models/{base}.yaml": licence},
        _chat_format_slice(project, base, "stop"),
        *(_spoken(project, paths, persona, "parameters", "messages") for persona in recipe["personas"]),
        *({_persona_file(persona): _ordered(project.personas[persona], "parameters")} for persona in recipe["personas"]),
    )


def modelfiles(project: Project, paths: Paths, name: str) -> None:
    from generators.files import write_text

    recipe = project.recipes[name]
    for persona in recipe["personas"]:
        write_text(paths.modelfile(name, persona), modelfile_text(project, paths, name, persona))
    for path in paths.modelfile(name, "any").parent.glob("*.Modelfile"):
        if path.stem not in recipe["personas"]:
            path.unlink()


def modelfile_text(project: Project, paths: Paths, name: str, persona: str) -> str:
    """The Modelfile of one persona of a recipe, from the specs as they are."""
    import os

    from generators.chat_format import go_template
    from generators.modelfile import render_modelfile

    recipe = project.recipes[name]
    chat_format, licence = _chat_format(project, recipe), project.models[recipe["base"]]["licence"]
    gguf_path = os.path.relpath(paths.recipe(name).gguf(recipe["export"]["quantisations"][0]), paths.modelfile(name, persona).parent)
    return render_modelfile(project.personas[persona], chat_format, licence, gguf_path, go_template(chat_format), paths.templates)


# diff


def diff(project: Project, paths: Paths, recipe: str, persona: str, against: str, as_json: bool) -> None:
    """Exits with code 1 where a Modelfile differs. persona, against: empty for all personas, against what was deployed or committed."""
    from generators import diff as diffing
    from generators.errors import EXIT_FAILED, chosen
    from generators.files import to_json

    recipes = [chosen(project.recipes, recipe, "recipe")] if recipe else list(project.recipes)
    found = [
        _compared(project, paths, name, each, against)
        for name in recipes
        for each in ([chosen(project.personas, persona, "persona")] if persona else project.recipes[name]["personas"])
    ]
    if as_json:
        diffing.write_plain(to_json(diffing.as_json(found), indent=2))
    else:
        diffing.show(found)
    if any(comparison.differs for comparison in found):
        raise SystemExit(EXIT_FAILED)


def _compared(project: Project, paths: Paths, name: str, persona: str, against: str) -> Any:
    from generators import diff as diffing
    from generators.errors import chosen

    recipe = project.recipes[name]
    deployed = _deployed_as(recipe, persona)
    other = None
    if against:
        chosen(project.personas, against, "persona")
        before: tuple[str, str] | None = (f"{name}/{against}.Modelfile", modelfile_text(project, paths, name, against))
        other = _origin(project, paths, name, against)
    else:
        kept = paths.modelfile(name, persona)
        before = diffing.last_deployed(paths.deployments, deployed) or diffing.committed(paths.root, kept)
    where, text = before or ("nothing", None)
    now, origin = modelfile_text(project, paths, name, persona), _origin(project, paths, name, persona)
    return diffing.compare(name, persona, where, text, now, origin, other)


def _origin(project: Project, paths: Paths, name: str, persona: str) -> Any:
    from generators.diff import Origin
    from generators.modelfile import persona_places
    from generators.specs import yaml_source

    documents = {each: yaml_source.read(paths.root / _persona_file(each), _persona_file(each)) for each in project.personas}
    base = project.recipes[name]["base"]
    chat_format = f"specs/chat_formats/{project.models[base]['chat_format']}.yaml"

    def at(file: str, *steps: str) -> str:
        """`file:line`, of what it is in where the value itself is a default."""
        return f"{file}:{yaml_source.read(paths.root / file, file).problem(steps, '', at_key=True).line}"

    others = {
        "FROM": (at(_recipe_file(name), "export", "quantisations"),),
        "TEMPLATE": tuple(dict.fromkeys(at(chat_format, field) for field in ("system", "system_separator", "turns"))),
        "stops": (at(chat_format, "stop"),),
        "LICENSE": (at(f"specs/models/{base}.yaml", "licence"),),
    }
    return Origin(project.personas[persona], persona_places(persona, documents), others)


# parity


def parity_slice(project: Project, paths: Paths, name: str) -> Slice:
    """What of the Modelfiles reaches the model: a temperature does not."""
    recipe = project.recipes[name]
    first = {"quantisations": recipe["export"]["quantisations"][:1]}
    return _joined(
        {_recipe_file(name): {**_only(recipe, "base", "deploy", "personas"), "export": first}},
        _chat_format_slice(project, recipe["base"], "stop", "control_tokens"),
        *(_spoken(project, paths, persona, "messages") for persona in recipe["personas"]),
        *(
            {_persona_file(persona): {"parameters": _only(project.personas[persona]["parameters"], "num_ctx", "num_predict")}}
            for persona in recipe["personas"]
        ),
    )


def parity(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.parity import check

    recipe, outputs = project.recipes[name], paths.recipe(name)
    check(
        paths.model(recipe["base"]),
        _chat_format(project, recipe),
        outputs.gguf(recipe["export"]["quantisations"][0]),
        {persona: paths.modelfile(name, persona) for persona in recipe["personas"]},
        outputs.frames / "valid.jsonl",
        outputs.parity,
        progress.say,
        deployed=recipe["deploy"]["name"],
    )


# evaluate


def evaluate_slice(project: Project, name: str) -> Slice:
    """Without what the persona's system prompt is made of: the prompt itself is a file that the evaluation depends on."""
    recipe = project.recipes[name]
    settings = recipe["evaluation"]
    suites = settings["suites"] or list(project.suites)
    persona = recipe["personas"][0]
    judged = ("opinion_markers", "principles", *(("parameters",) if settings["temperature"] > 0 else ()))
    tiers = {tier: _only(spec, "iterations") for tier, spec in project.tiers["tiers"].items()}
    return _joined(
        {
            _recipe_file(name): {**_only(recipe, "base", "evaluation", "gates"), "personas": [persona]},
            _persona_file(persona): _only(_with_cues(project.personas[persona]), *judged),
            _PROJECT: {"seed": project.project["seed"], "quality": _only(project.project["quality"], "forbidden")},
            _TIERS: {"tiers": tiers, **_only(project.tiers, "directive", "marker")},
        },
        _chat_format_slice(project, recipe["base"], "stop", "control_tokens"),
        {f"specs/evals/{suite}.yaml": _without(project.suites[suite], "description") for suite in suites},
        {
            project.client_files[client]: _only(project.clients[client], *_CLIENT_LOOP)
            for client in settings["framings"]
            if client in project.clients
        },
    )


def _with_cues(persona: Spec) -> Spec:
    """Of the principles, only the cues by which an answer is seen to lean on them."""
    return {**persona, "principles": [_only(principle, "cues") for principle in persona["principles"]]}


def evaluate(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.evaluate import enforce
    from generators.evaluate import evaluate as judge

    recipe, outputs = project.recipes[name], paths.recipe(name)
    found = judge(
        recipe,
        name,
        project.suites,
        project.personas,
        project.clients,
        project.tiers,
        _chat_format(project, recipe),
        project.project,
        paths.model(recipe["base"]),
        outputs.gguf(recipe["export"]["quantisations"][0]),
        paths.dataset / "train.jsonl",
        outputs.evaluation,
        progress.say,
        templates=paths.templates,
    )
    enforce(found)


# ledger


def ledger(project: Project, paths: Paths, name: str) -> None:
    from generators import ledger as ledgers
    from generators import progress
    from generators.evaluate.engines import Sampling
    from generators.files import read_json
    from generators.tokens import Tokenizer

    recipe, outputs = project.recipes[name], paths.recipe(name)
    chat_format, seed = _chat_format(project, recipe), project.project["seed"]
    suites = {suite: project.suites[suite] for suite in recipe["evaluation"]["suites"] or project.suites}
    judge = ledgers.Judge(
        ledgers.common_checks(suites),
        project.personas[recipe["personas"][0]],
        tuple(project.project["quality"]["forbidden"]),
        tuple(chat_format["control_tokens"]),
    )
    system = (outputs.frames / "system.txt").read_text(encoding="utf-8").strip()
    ledgers.keep(
        ledgers.stages(
            paths.model(recipe["base"]),
            outputs.adapter,
            outputs.fused,
            {each: outputs.gguf(each) for each in recipe["export"]["quantisations"]},
            partial(_write_gguf, project, paths, name, "F16"),
            recipe["deploy"]["name"],
            chat_format,
        ),
        ledgers.draw_probes(paths.dataset / "valid.jsonl", system, seed),
        Tokenizer.load(paths.model(recipe["base"]), chat_format),
        judge,
        recipe["export"]["loss_budget"],
        Sampling(recipe["evaluation"]["max_tokens"], seed=seed % 2**31),
        read_json(outputs.export)["quantisations"][0]["sha256"],
        outputs.ledger,
        progress.say,
    )


# report


def kept_ledger(paths: Paths, name: str) -> list[Path]:
    """The ledger is only made when asked for; where there is one, the report shows it."""
    return [path for path in (paths.recipe(name).ledger,) if path.is_file()]


def report_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    base = project.models[recipe["base"]]
    return {
        _recipe_file(name): {"base": recipe["base"], **_told(recipe)},
        f"specs/models/{recipe['base']}.yaml": _only(base, *_TOLD_OF_BASE, "chat_format"),
        f"specs/chat_formats/{base['chat_format']}.yaml": _only(_chat_format(project, recipe), "end_of_turn"),
    }


def _told(recipe: Spec) -> Spec:
    """What report and model card tell of a recipe."""
    told = {**_only(recipe, "description", "deploy", "lora"), "training": _without(recipe["training"], *_COSMETIC)}
    return {**told, "framings": _ordered(recipe["framings"], "mix")}


def report(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.report import write_report
    from generators.report.card import write_card
    from generators.report.ending import ending
    from generators.report.variants import variants

    recipe = project.recipes[name]
    context = {
        "name": name,
        "recipe": _told(recipe),
        "base_name": recipe["base"],
        "base": _only(project.models[recipe["base"]], *_TOLD_OF_BASE),
        "end_of_turn": _chat_format(project, recipe)["end_of_turn"],
        "dataset_report": paths.dataset / "report.json",
        "variants": variants(
            {persona: paths.modelfile(name, persona) for persona in recipe["personas"]},
            {persona: _deployed_as(recipe, persona) for persona in recipe["personas"]},
        ),
    }
    write_report(paths.recipe(name).root, context)
    write_card(paths.recipe(name).root, context)
    progress.say(f"report: {paths.recipe(name).report}; model card: {paths.recipe(name).card}")
    ggufs = [paths.recipe(name).gguf(quantisation) for quantisation in recipe["export"]["quantisations"]]
    scores = paths.recipe(name).evaluation / "scores.json"
    if not scores.is_file():
        return  # `doit report` of its own comes after the evaluation; without one there is nothing to sum up
    for line in ending(ggufs, paths.modelfile(name, recipe["personas"][0]).parent, scores, name == project.project["default_recipe"]):
        progress.say(line)


# deploy


def _deployed_as(recipe: Spec, persona: str) -> str:
    """A persona's model in Ollama."""
    name = str(recipe["deploy"]["name"])
    return name if persona == recipe["personas"][0] else f"{name}-{persona}"


def deploy(project: Project, paths: Paths, name: str, rollback: bool) -> None:
    from generators import deploy as deploying
    from generators import progress
    from generators.parity import ollama_host

    if rollback:
        models = [_deployed_as(project.recipes[name], persona) for persona in project.recipes[name]["personas"]]
        deploying.roll_back(ollama_host(), models, _questions(project, name), paths.deployments, progress.say)
    else:
        _release(project, paths, paths, name)


def of_deployment(sha256: str, system: str) -> list[str]:
    """What the evaluation of a deployed model is found by. sha256: of its GGUF."""
    return ["deployed", sha256, system]


def _release(project: Project, paths: Paths, made: Paths, name: str, judged: Judged | None = None, **facts: Any) -> None:
    """Deploy what was built under `made`; keep its adapter, in case a retraining goes on from it, and its evaluation, for comparisons.

    judged: the recipe's own by default, where it is of this GGUF. facts: for the history.
    """
    from generators import deploy as deploying
    from generators import progress
    from generators.deploy import history
    from generators.errors import UserError
    from generators.evaluate import kept
    from generators.files import sha256_file
    from generators.parity import ollama_host
    from generators.retrain import keep_adapter

    recipe, outputs = project.recipes[name], made.recipe(name)
    models = {_deployed_as(recipe, persona): made.modelfile(name, persona) for persona in recipe["personas"]}
    gguf = outputs.gguf(recipe["export"]["quantisations"][0])
    facts = {"recipe": name, **facts}
    deploying.deploy(ollama_host(), models, gguf, _questions(project, name), paths.deployments, facts, progress.say)
    first = next(iter(models))
    there = [found.sha256 for found in (history.last(paths.deployments, first), history.before(paths.deployments, first)) if found]
    sha256, system = sha256_file(gguf), outputs.frames / "system.txt"
    keep_adapter(outputs.adapter, paths.retrain(name).adapters, sha256, made_from(project, made, name), there)
    try:
        judged = judged or kept.of_recipe(outputs.evaluation)
    except UserError as error:
        progress.say(f"its evaluation is not kept with the deployment: {error}")  # what is deployed answers all the same
    if judged and judged.told["engine"]["digest"] == sha256:
        kept.keep(paths.evaluations, of_deployment(sha256, system.read_text(encoding="utf-8").strip()), judged)


def made_from(project: Project, made: Paths, name: str) -> str:
    """Digest of the samples and settings that an adapter is trained from; not of an adapter that it goes on from."""
    from generators.lock import hash_of

    texts = [made.recipe(name).frames / "trained.sha256", made.model(project.recipes[name]["base"]) / "source.json"]
    return hash_of([train_slice(project, name), [path.read_text(encoding="utf-8") if path.is_file() else "" for path in texts]])


def _questions(project: Project, name: str) -> Any:
    """What a model is asked before it is released."""
    from generators import deploy as deploying

    recipe, budget = project.recipes[name], project.tiers["tiers"]["low"]["response_budget_s"]
    return deploying.Questions(_basic_queries(project, recipe), budget, _chat_format(project, recipe))


def _basic_queries(project: Project, recipe: Spec) -> list[str]:
    """Three simple ones of the recipe's suites: the first of each suite, then the second of each, and so on; a greeting where there is none."""
    from itertools import zip_longest

    suites = recipe["evaluation"]["suites"] or list(project.suites)
    simple = [[case["query"] for case in project.suites[suite]["cases"] if case["tier"] == "low" and "query" in case] for suite in suites]
    found = [query for row in zip_longest(*simple) for query in row if query is not None]
    return found[:3] or ["Merhaba!"]


# chat, serve, capture


def _deployed(project: Project, paths: Paths, name: str) -> list[Any]:
    """A recipe's personas as they would be deployed, from the specs as they are; the first is the one trained under."""
    from generators.answering import Deployed

    recipe = project.recipes[name]
    return [
        Deployed(_deployed_as(recipe, persona), persona, modelfile_text(project, paths, name, persona)) for persona in recipe["personas"]
    ]


def chat(project: Project, paths: Paths, name: str) -> None:
    from generators.answering import opened
    from generators.chat import chat as talk

    recipe = project.recipes[name]
    gguf = paths.recipe(name).gguf(recipe["export"]["quantisations"][0])
    deployed = _deployed(project, paths, name)
    with opened(gguf, paths.model(recipe["base"]), _chat_format(project, recipe), deployed) as llama:
        talk(llama, {each.persona: each for each in deployed}, project.tiers, paths.verdicts)


def voice(project: Project, paths: Paths, name: str, audio: str, out: str, language: str, whisper: str, voices: list[str]) -> None:
    """audio: a question in a file, empty for the microphone. out: file for the answer, empty for the loudspeaker. language: empty to find out.

    Whatever is missing is told before anything is loaded that takes long.
    """
    import sys

    from generators import progress
    from generators import voice as talking
    from generators.answering import opened
    from generators.errors import UserError, chosen
    from generators.voice.audio import Device
    from generators.voice.ears import Whisper
    from generators.voice.mouth import mouth
    from generators.voice.speakable import LANGUAGES

    if language:
        chosen(LANGUAGES, language, "language")
    if not audio and (out or not sys.stdin.isatty()):
        raise UserError("a question comes from a file, --audio question.wav, or from the microphone, on a terminal and without --out")
    question, answer = (paths.root / Path(each).expanduser() if each else None for each in (audio, out))
    if question is not None and not question.is_file():
        raise UserError(f"{question} does not exist; name a sound file with --audio")
    if answer is not None and not answer.parent.is_dir():
        raise UserError(f"{answer} cannot be written: there is no folder {answer.parent}")
    needs = [*([] if audio else ["input"]), *([] if out else ["output"])]
    device = Device(needs) if needs else None
    recipe = project.recipes[name]
    gguf, deployed = paths.recipe(name).gguf(recipe["export"]["quantisations"][0]), _deployed(project, paths, name)
    speaks, ears = mouth(voices), Whisper(whisper)
    progress.say(f"{deployed[0].name}; hears with Whisper {whisper}, speaks with {speaks.name}")
    with opened(gguf, paths.model(recipe["base"]), _chat_format(project, recipe), deployed) as llama:
        conversation = talking.Conversation(llama, deployed[0], speaks, progress.say)
        if question is not None:
            talking.answer_file(conversation, ears, question, language, answer, device, progress.say)
        else:
            assert device is not None
            talking.converse(conversation, ears, device, language, progress.say)


def serve(project: Project, paths: Paths, name: str, port: int, record: str) -> None:
    from generators import progress
    from generators.serve import serve as run

    recipe = project.recipes[name]
    quantisation = recipe["export"]["quantisations"][0]
    run(
        paths.recipe(name).gguf(quantisation),
        quantisation,
        paths.model(recipe["base"]),
        _chat_format(project, recipe),
        _deployed(project, paths, name),
        port,
        paths.root / record if record else None,
        progress.say,
    )


def capture(project: Project, paths: Paths, recording: str, client: str, force: bool) -> None:
    from generators import progress
    from generators.capture import capture as derive
    from generators.specs.project import load

    shipped = load(paths.root, keep=False, captured=False).clients
    accept = partial(load, paths.root, keep=False)
    derive(paths.root / recording if recording else None, client, shipped, paths.captured, force, accept, progress.say)


# integrate


def integrate(project: Project, paths: Paths, name: str, file: str, client: str, yes: bool, undo: bool) -> None:
    """Exits with code 1 where nobody agrees to the change. file, client: empty for what the profile says, and for the only client."""
    import shlex
    import sys

    from generators import integrate as integrating
    from generators import progress
    from generators.parity import ollama_host

    recipe = project.recipes[name]
    model, most = recipe["deploy"]["name"], max(tier["iterations"][1] for tier in project.tiers["tiers"].values())
    chosen = integrating.client_to_configure(project.clients, client)
    profile = project.clients[chosen]
    words = ["doit", f"integrate:{name}", *(["--file", file] if file else []), *(["--client", client] if client else [])]
    on = shlex.join([*words, *(["--undo"] if undo else []), "--yes"])
    aim = integrating.target(profile, file, paths.root, model, most, paths.integrations / chosen, on)
    agree = (lambda _: True) if yes else integrating.asked_on_terminal if sys.stdin.isatty() else None
    if undo:
        integrating.undo(aim, agree, progress.say)
        return
    integrating.integrate(chosen, aim, agree, progress.say)
    query = integrating.Query(_basic_queries(project, recipe)[0], model, f"doit deploy:{name}")
    integrating.smoke_test(profile, chosen, aim, query, ollama_host(), progress.say)


# feedback


def feedback(project: Project, paths: Paths, sources: list[str], review: bool) -> None:
    from generators import feedback as learning
    from generators import progress
    from generators.evaluate.asking import split_marker
    from generators.feedback import terminal
    from generators.specs.project import load

    learning.feedback(
        learning.Places(paths.root, paths.feedback, paths.decisions, paths.held_out, paths.proposal),
        terminal.places_of(sources, paths.root),
        partial(_known, project, paths),
        learning.Rules(
            frozenset(_control_tokens(project)),
            lambda answer: split_marker(answer, project.tiers)[1],
            partial(_missed_gates, {}),
            partial(load, paths.root, keep=False),
        ),
        terminal.person() if review else None,
        progress.say,
    )


def _known(project: Project, paths: Paths) -> Known:
    """What feedback is compared with, from the specs of now and not from what was built of them."""
    import tempfile

    from generators.dataset.build import limits_of
    from generators.dataset.entries import read
    from generators.dataset.quality import queries_of
    from generators.feedback.judging import Known
    from generators.paths import Paths

    with tempfile.TemporaryDirectory() as folder:
        scratch = Paths(Path(folder))
        scratch.templates.symlink_to(paths.templates.resolve())
        for name in project.categories:
            samples(project, scratch, name)
        entries = [entry for entry, _ in read([scratch.samples(name) for name in project.categories])]
    persona = project.project["persona"]
    return Known(
        project.categories,
        project.tiers,
        entries,
        queries_of(project.suites, project.case_lines),
        limits_of(project.project, project.categories, project.personas, _control_tokens(project)),
        persona,
        (persona, *(recipe["deploy"]["name"] for recipe in project.recipes.values())),
    )


def _missed_gates(seen: Any, root: Path) -> list[str]:
    """What the specs under `root` miss of the dataset's gates, a line each. seen: files that were loaded before."""
    from generators.dataset import DatasetErrors
    from generators.paths import Paths
    from generators.specs.project import load

    project, paths = load(root, keep=False, seen=seen), Paths(root)
    for name in project.categories:
        samples(project, paths, name)
    try:
        _dataset(project, paths, _ignore)
    except DatasetErrors as errors:
        return [str(violation) for violation in errors.violations]
    return []


# lock and verify


def lock_inputs(project: Project, paths: Paths, name: str) -> list[Path]:
    """Of what the lock pins, all but the program itself, and but the base's weights, which change with source.json."""
    files = _files_of(project, paths, name, program=False)
    weights = set(_weights(paths.model(project.recipes[name]["base"])))
    return [path for found in files.values() for path in found if path not in weights]


def _weights(model: Path) -> list[Path]:
    """One file or several, as the base came."""
    return sorted(model.glob("*.safetensors"))


def lock(project: Project, paths: Paths, name: str) -> None:
    from generators.lock import write

    write(paths.recipe(name).lock, paths.root, name, project.project["seed"], lock_slice(project, name), _files_of(project, paths, name))


def lock_slice(project: Project, name: str) -> Slice:
    """Every spec that a recipe is made from, whole."""
    recipe = project.recipes[name]
    model = project.models[recipe["base"]]
    framings = {*recipe["framings"]["mix"], *recipe["evaluation"]["framings"]}
    return {
        _PROJECT: project.project,
        _TIERS: project.tiers,
        _recipe_file(name): _without(recipe, *_OF_TRIALS),
        f"specs/models/{recipe['base']}.yaml": model,
        f"specs/chat_formats/{model['chat_format']}.yaml": project.chat_formats[model["chat_format"]],
        **{f"specs/categories/{each}.yaml": category for each, category in project.categories.items()},
        **{_persona_file(each): project.personas[each] for each in recipe["personas"]},
        **{project.client_files[each]: project.clients[each] for each in sorted(framings) if each in project.clients},
        **{f"specs/evals/{each}.yaml": project.suites[each] for each in recipe["evaluation"]["suites"] or project.suites},
    }


def _files_of(project: Project, paths: Paths, name: str, program: bool = True) -> dict[str, list[Path]]:
    """What a recipe's release was made with and what came of it, by kind, in the order of the build."""
    recipe, outputs = project.recipes[name], paths.recipe(name)
    model = paths.model(recipe["base"])
    named = {
        "dataset": [paths.dataset / file for file in ("train.jsonl", "valid.jsonl", "report.json")],
        "frames": [outputs.frames / file for file in ("train.jsonl", "valid.jsonl")],
        "base": [*(model / file for file in ("source.json", "config.json", "tokenizer.json", "tokenizer_config.json")), *_weights(model)],
        "adapter": [outputs.adapter / file for file in ("adapters.safetensors", "adapter_config.json")],
        "gguf": [outputs.gguf(quantisation) for quantisation in recipe["export"]["quantisations"]],
        "modelfiles": [paths.modelfile(name, persona) for persona in recipe["personas"]],
    }
    return {
        "templates": sorted(path for path in paths.templates.rglob("*.j2") if path.parent.name != "docs"),
        "generators": sorted(Path(__file__).parent.rglob("*.py")) if program else [],
        "samples": [paths.samples(category) for category in project.categories],
        **named,
    }


def verify(project: Project, paths: Paths, name: str) -> None:
    """Raises UserError, naming the first difference between build/ and what specs and lock say."""
    import tempfile

    from generators import progress
    from generators.errors import chosen
    from generators.verify import verify as examine

    chosen(list(project.recipes), name, "recipe")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "templates").symlink_to(paths.templates.resolve())
        progress.say(f"rendering samples, dataset, frames and Modelfiles of {name} anew")
        for task in (*(f"samples:{category}" for category in project.categories), "dataset", f"_frames:{name}", f"modelfile:{name}"):
            render = _cheap(project, task)
            assert render is not None
            render(scratch)
        built = {kind: scratch / "build" / kind for kind in ("samples", "dataset", f"recipes/{name}/frames", f"modelfiles/{name}")}
        examine(
            paths.root,
            paths.recipe(name).lock,
            lock_slice(project, name),
            _files_of(project, paths, name),
            built,
            progress.say,
        )
    progress.say(f"{name} is what the specs give, and what its lock says")


# new-persona


def new_persona(project: Project, paths: Paths, name: str, into: str) -> None:
    """into: empty for a folder of that name beside this project's."""
    from generators import progress
    from generators.new_persona import new_persona as make

    base = project.recipes[project.project["default_recipe"]]["base"]
    folder = Path(into).expanduser() if into else Path("..") / (name or "persona")
    make(name, paths.root / folder, paths.root, base, project.models[base], progress.say)


# schemas


def schemas(paths: Paths) -> None:
    from generators import progress
    from generators.specs import json_schema, reference

    written = json_schema.write_schemas(paths.root / json_schema.FOLDER)
    reference.write_reference(paths.root / "docs" / "specs.md")
    progress.say(f"{len(written)} schemas in {json_schema.FOLDER}/, and docs/specs.md")


# docs


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
            _chat_format(project, recipe),
            recipe,
            model["context_length"],
            project.project["seed"],
        )
        snapshot.write_figures(paths.root.resolve(), name, recipe["base"], count, progress.say)
    if terminal:
        snapshot.put_terminal(paths.root.resolve(), typed(paths.root.resolve(), progress.say))
    documents.write_docs(paths.root, project, progress.say)
