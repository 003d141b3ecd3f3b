"""From the specs to each stage: the slice that it reads, and the call that does its work.

For every stage there is a `<stage>_slice(project, name)`, plain values that decide whether the stage must run again, and a function of
the stage's name that runs it. dodo.py puts the two together; the stages themselves know neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators import progress
from generators.paths import Paths
from generators.specs.project import Project, Spec

_PERSONA_TEXT = ("display_name", "identity", "principles", "style", "brevity", "opinion_markers", "template")
_CLIENT_FRAME = ("systems", "stages", "observation", "answer", "confidence")


def _only(spec: Spec, names: tuple[str, ...]) -> Spec:
    return {name: spec[name] for name in names if name in spec}


def _chat_format(project: Project, recipe: Spec) -> Spec:
    return project.chat_formats[project.models[recipe["base"]]["chat_format"]]


def persona_templates(project: Project, paths: Paths, recipe: Spec) -> list[Path]:
    from generators.tasks import template_files

    return template_files(paths.templates, *{project.personas[name]["template"] for name in recipe["personas"]})


# doctor


def doctor(project: Project, paths: Paths) -> None:
    from generators.doctor import doctor as examine

    examine(project.models, paths.build, progress.say)


# samples


def samples_slice(project: Project, name: str) -> Spec:
    """The category without what only the dataset reads, and the tiers' budgets. Lines are left out: a comment moves them."""
    category = {key: value for key, value in project.categories[name].items() if key not in ("description", "quality")}
    return {"category": category, "tiers": project.tiers["tiers"], "persona": project.project["persona"], "seed": project.project["seed"]}


def samples(project: Project, paths: Paths, name: str) -> None:
    from generators.samples.render import write_samples

    context = {
        "name": name, "file": f"specs/categories/{name}.yaml", "lines": project.example_lines[name],
        "persona": project.project["persona"], "tiers": project.tiers["tiers"], "seed": project.project["seed"],
    }
    write_samples(project.categories[name], context, paths.templates, paths.samples(name))


# dataset


def dataset_slice(project: Project) -> Spec:
    return {
        "dataset": project.project["dataset"], "quality": project.project["quality"], "seed": project.project["seed"],
        "categories": {name: category["quality"] for name, category in project.categories.items()},
        "queries": {name: [_asked(case) for case in suite["cases"]] for name, suite in project.suites.items()},
        "markers": {name: persona["opinion_markers"] for name, persona in project.personas.items()},
        "classifier": project.tiers["classifier"], "control_tokens": sorted(_control_tokens(project)),
    }


def _asked(case: Spec) -> Any:
    return case.get("query") or [turn["user"] for turn in case["turns"]]


def _control_tokens(project: Project) -> set[str]:
    return {token for chat_format in project.chat_formats.values() for token in chat_format["control_tokens"]}


def dataset(project: Project, paths: Paths) -> None:
    from generators.dataset import build, summary

    files = [paths.samples(name) for name in project.categories]
    _remove_stale_samples(paths, set(files))
    made = build(
        files, project.project, project.categories, project.suites, project.case_lines, project.personas, paths.dataset, progress.say,
        classifier=project.tiers["classifier"], control_tokens=_control_tokens(project),
    )
    print(summary(made))


def _remove_stale_samples(paths: Paths, wanted: set[Path]) -> None:
    """A category that is gone from the specs leaves no samples behind."""
    for path in (paths.build / "samples").glob("*/*.jsonl"):
        if path not in wanted:
            path.unlink()


# base


def base_slice(project: Project, name: str) -> Spec:
    model = project.models[name]
    return {"model": _only(model, ("architecture", "sources", "context_length")), "chat_format": project.chat_formats[model["chat_format"]]}


def base(project: Project, paths: Paths, name: str) -> None:
    from generators.base import import_base
    from generators.chat_format import jinja_template

    model = project.models[name]
    chat_format = project.chat_formats[model["chat_format"]]
    progress.say(f"licence: {model['licence']['name']}, {model['licence']['url']}. {model['licence']['notice']}")
    import_base(model, name, paths.model(name), jinja_template(chat_format), progress.say, end_of_turn=chat_format["end_of_turn"])


# frames


def frames_slice(project: Project, name: str) -> Spec:
    recipe = project.recipes[name]
    return {
        "framings": recipe["framings"], "seed": project.project["seed"],
        "persona": _only(project.personas[recipe["personas"][0]], _PERSONA_TEXT),
        "clients": {client: _only(project.clients[client], _CLIENT_FRAME) for client in recipe["framings"]["mix"] if client in project.clients},
        "tiers": _only(project.tiers, ("directive", "marker")),
    }


def frames(project: Project, paths: Paths, name: str) -> None:
    from generators.framing import Frames, write_frames
    from generators.modelfile import system_prompt

    recipe = project.recipes[name]
    system = system_prompt(project.personas[recipe["personas"][0]], paths.templates)
    framings = recipe["framings"]
    wanted = Frames(framings["mix"], framings["per_sample"], project.project["seed"], system, project.clients, project.tiers)
    write_frames(paths.dataset, wanted, paths.recipe(name).frames)


# train


def train_slice(project: Project, name: str) -> Spec:
    recipe = project.recipes[name]
    cosmetic = ("log_every", "checkpoint_every", "memory_budget_gb", "report_to", "hosts")
    return {
        "lora": recipe["lora"], "training": {key: value for key, value in recipe["training"].items() if key not in cosmetic},
        "each_epoch": recipe["framings"]["each_epoch"], "base": recipe["base"], "chat_format": _chat_format(project, recipe),
        "context_length": project.models[recipe["base"]]["context_length"], "seed": project.project["seed"],
    }


def train(project: Project, paths: Paths, name: str) -> None:
    from generators.train import train as run

    recipe, outputs = project.recipes[name], paths.recipe(name)
    with progress.training_watcher() as watcher:
        run(
            recipe, paths.model(recipe["base"]), outputs.frames, _chat_format(project, recipe),
            project.models[recipe["base"]]["context_length"], project.project["seed"], outputs, watcher,
        )


# fuse


def fuse(project: Project, paths: Paths, name: str) -> None:
    from generators.fuse import fuse as merge

    outputs = paths.recipe(name)
    merge(paths.model(project.recipes[name]["base"]), outputs.adapter, outputs.fused, progress.say)


# gguf


def gguf_slice(project: Project, name: str) -> Spec:
    recipe = project.recipes[name]
    return {"quantisations": recipe["export"]["quantisations"], "chat_format": _chat_format(project, recipe), "metadata": _metadata(project, name)}


def _metadata(project: Project, name: str) -> dict[str, str]:
    recipe = project.recipes[name]
    return {
        "general.name": recipe["deploy"]["name"], "general.description": recipe["description"],
        "general.license": project.models[recipe["base"]]["licence"]["name"],
    }


def gguf(project: Project, paths: Paths, name: str) -> None:
    from generators.chat_format import jinja_template
    from generators.files import write_json
    from generators.gguf import check_gguf, write_gguf

    recipe, outputs = project.recipes[name], paths.recipe(name)
    chat_format, base_folder = _chat_format(project, recipe), paths.model(recipe["base"])
    written = []
    for quantisation in recipe["export"]["quantisations"]:
        target = outputs.gguf(quantisation)
        figures = write_gguf(
            base_folder, outputs.adapter, target, quantisation, jinja_template(chat_format), _metadata(project, name), progress.say,
            end_of_turn=chat_format["end_of_turn"],
        )
        figures |= check_gguf(target, base_folder)
        figures["first_answer"] = _first_answer(project, recipe, target)
        progress.say(f"{target.name} in llama.cpp: {figures['first_answer']!r}")
        written.append(figures)
    write_json(outputs.export, {"quantisations": written})


def _first_answer(project: Project, recipe: Spec, target: Path) -> str:
    """One answer to a greeting: proof that a real engine loads the file and speaks. Raises UserError when it does not."""
    from generators.chat_format import render
    from generators.errors import UserError
    from generators.llama_server import serving

    prompt = render(_chat_format(project, recipe), [{"role": "user", "content": "Merhaba!"}])
    with serving(target, context=512) as server:
        body = {"prompt": prompt, "n_predict": 24, "temperature": 0, "stop": _chat_format(project, recipe)["stop"]}
        answer = server.post("/completion", body)["content"].strip()
    if not answer:
        raise UserError(f"{target} loads in llama.cpp and answers nothing to a greeting; look at the training's loss")
    return answer


# modelfile


def modelfile_slice(project: Project, name: str) -> Spec:
    recipe = project.recipes[name]
    return {
        "personas": {persona: project.personas[persona] for persona in recipe["personas"]},
        "chat_format": _chat_format(project, recipe), "quantisation": recipe["export"]["quantisations"][0],
        "licence": project.models[recipe["base"]]["licence"],
    }


def modelfiles(project: Project, paths: Paths, name: str) -> None:
    import os

    from generators.chat_format import go_template
    from generators.files import write_text
    from generators.modelfile import render_modelfile

    recipe = project.recipes[name]
    chat_format = _chat_format(project, recipe)
    for persona in recipe["personas"]:
        target = paths.modelfile(name, persona)
        gguf_path = os.path.relpath(paths.recipe(name).gguf(recipe["export"]["quantisations"][0]), target.parent)
        licence = project.models[recipe["base"]]["licence"]
        write_text(target, render_modelfile(project.personas[persona], chat_format, licence, gguf_path, go_template(chat_format), paths.templates))
    for path in paths.modelfile(name, "any").parent.glob("*.Modelfile"):
        if path.stem not in recipe["personas"]:
            path.unlink()


# evaluate


def evaluate_slice(project: Project, name: str) -> Spec:
    recipe = project.recipes[name]
    return {
        "evaluation": recipe["evaluation"], "gates": recipe["gates"], "suites": project.suites,
        "persona": project.personas[recipe["personas"][0]], "chat_format": _chat_format(project, recipe), "tiers": project.tiers["tiers"],
        "directive": project.tiers["directive"], "clients": {name: project.clients[name] for name in recipe["evaluation"]["framings"] if name in project.clients},
        "quality": project.project["quality"]["forbidden"], "seed": project.project["seed"],
    }


def evaluate(project: Project, paths: Paths, name: str) -> None:
    from generators.evaluate import enforce
    from generators.evaluate import evaluate as judge

    recipe, outputs = project.recipes[name], paths.recipe(name)
    found = judge(
        recipe, name, project.suites, project.personas, project.clients, project.tiers, _chat_format(project, recipe), project.project,
        paths.model(recipe["base"]), outputs.gguf(recipe["export"]["quantisations"][0]), paths.dataset / "train.jsonl", outputs.evaluation,
        progress.say, templates=paths.templates,
    )
    enforce(found)


# report


def report_slice(project: Project, name: str) -> Spec:
    return {"recipe": project.recipes[name], "licence": project.models[project.recipes[name]["base"]]["licence"]}


def report(project: Project, paths: Paths, name: str) -> None:
    from generators.report import write_report

    recipe = project.recipes[name]
    context = {
        "name": name, "recipe": recipe, "base": project.models[recipe["base"]], "project": project.project,
        "dataset_report": paths.dataset / "report.json",
    }
    write_report(paths.recipe(name).root, context)
    progress.say(f"report: {paths.recipe(name).report}")
    progress.say(f"next: open the report; read build/modelfiles/{name}/; change specs/ and run doit again")
