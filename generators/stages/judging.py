"""How good the model is, and at which stage it loses: evaluate, ledger, report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generators.stages.export import write_gguf
from generators.stages.reading import (
    COSMETIC,
    PROJECT,
    TIERS,
    Slice,
    chat_format_of,
    chat_format_slice,
    deployed_as,
    joined_slices,
    only,
    ordered,
    persona_file,
    recipe_file,
    without,
)

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.specs.project import Project, Spec

_CLIENT_LOOP = ("systems", "stages", "observation", "separator", "protocol", "stop", "timeout_s")
# What report and model card tell of the base.
_TOLD_OF_BASE = ("description", "licence", "sources")


def evaluate_slice(project: Project, name: str) -> Slice:
    """Without what the persona's system prompt is made of: the prompt itself is a file that the evaluation depends on."""
    recipe = project.recipes[name]
    settings = recipe["evaluation"]
    suites = settings["suites"] or list(project.suites)
    persona = recipe["personas"][0]
    judged = ("opinion_markers", "principles", *(("parameters",) if settings["temperature"] > 0 else ()))
    tiers = {tier: only(spec, "iterations") for tier, spec in project.tiers["tiers"].items()}
    return joined_slices(
        {
            recipe_file(name): {**only(recipe, "base", "evaluation", "gates"), "personas": [persona]},
            persona_file(persona): only(_with_cues(project.personas[persona]), *judged),
            PROJECT: {"seed": project.project["seed"], "quality": only(project.project["quality"], "forbidden")},
            TIERS: {"tiers": tiers, **only(project.tiers, "directive", "marker")},
        },
        chat_format_slice(project, recipe["base"], "stop", "control_tokens"),
        {f"specs/evals/{suite}.yaml": without(project.suites[suite], "description") for suite in suites},
        {
            project.client_files[client]: only(project.clients[client], *_CLIENT_LOOP)
            for client in settings["framings"]
            if client in project.clients
        },
    )


def _with_cues(persona: Spec) -> Spec:
    """Of the principles, only the cues by which an answer is seen to lean on them."""
    return {**persona, "principles": [only(principle, "cues") for principle in persona["principles"]]}


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
        chat_format_of(project, recipe),
        project.project,
        paths.model(recipe["base"]),
        outputs.gguf(recipe["export"]["quantisations"][0]),
        paths.dataset / "train.jsonl",
        outputs.evaluation,
        progress.say,
        templates=paths.templates,
    )
    enforce(found)


def ledger(project: Project, paths: Paths, name: str) -> None:
    from generators import ledger as ledgers
    from generators import progress
    from generators.evaluate.engines import Sampling
    from generators.files import read_json
    from generators.tokens import Tokenizer

    recipe, outputs = project.recipes[name], paths.recipe(name)
    chat_format, seed = chat_format_of(project, recipe), project.project["seed"]
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
            partial(write_gguf, project, paths, name, "F16"),
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


def kept_ledger(paths: Paths, name: str) -> list[Path]:
    """The ledger is only made when asked for; where there is one, the report shows it."""
    return [path for path in (paths.recipe(name).ledger,) if path.is_file()]


def report_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    base = project.models[recipe["base"]]
    return {
        recipe_file(name): {"base": recipe["base"], **_told(recipe)},
        f"specs/models/{recipe['base']}.yaml": only(base, *_TOLD_OF_BASE, "chat_format"),
        f"specs/chat_formats/{base['chat_format']}.yaml": only(chat_format_of(project, recipe), "end_of_turn"),
    }


def _told(recipe: Spec) -> Spec:
    """What report and model card tell of a recipe."""
    told = {**only(recipe, "description", "deploy", "lora"), "training": without(recipe["training"], *COSMETIC)}
    return {**told, "framings": ordered(recipe["framings"], "mix")}


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
        "base": only(project.models[recipe["base"]], *_TOLD_OF_BASE),
        "end_of_turn": chat_format_of(project, recipe)["end_of_turn"],
        "dataset_report": paths.dataset / "report.json",
        "variants": variants(
            {persona: paths.modelfile(name, persona) for persona in recipe["personas"]},
            {persona: deployed_as(recipe, persona) for persona in recipe["personas"]},
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
