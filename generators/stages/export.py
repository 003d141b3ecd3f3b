"""From the adapter to GGUF files that answer as it does: fuse, gguf, quantisations, parity."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.stages.reading import (
    PROJECT,
    Slice,
    chat_format_of,
    chat_format_slice,
    joined_slices,
    only,
    persona_file,
    recipe_file,
    spoken,
)

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.specs.project import Project, Spec


def fuse(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.fuse import fuse as merge

    outputs = paths.recipe(name)
    merge(paths.model(project.recipes[name]["base"]), outputs.adapter, outputs.fused, progress.say)


def gguf_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    base = recipe["base"]
    chooses = _chooses(recipe)
    export = only(recipe["export"], "quantisations", *(("loss_budget",) if chooses else ()))
    written = {**only(recipe, "base", "description", "deploy"), "export": export}
    licence = {"licence": only(project.models[base]["licence"], "name")}
    return joined_slices(
        {recipe_file(name): written, f"specs/models/{base}.yaml": licence},
        chat_format_slice(project, base, *(("control_tokens",) if chooses else ())),
        {PROJECT: only(project.project, "seed")} if chooses else {},
    )


def _chooses(recipe: Spec) -> bool:
    return "auto" in recipe["export"]["quantisations"]


def gguf_inputs(paths: Paths, name: str, recipe: Spec) -> list[Path]:
    """`auto` is chosen by what it loses on the validation split."""
    files = [paths.model(recipe["base"]) / "source.json"]
    return [*files, paths.recipe(name).frames / "valid.jsonl"] if _chooses(recipe) else files


def gguf_source(recipe: Spec) -> list[str]:
    return ["quantisations.py", "llama_logits.py", "tokens.py"] if _chooses(recipe) else []


def metadata_of(project: Project, name: str) -> dict[str, str]:
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
            figures = write_gguf(project, paths, name, quantisation, target)
        figures["first_answer"] = _first_answer(project, recipe, target)
        progress.say(f"{target.name} in llama.cpp: {figures['first_answer']!r}")
        written.append(figures)
    write_json(outputs.export, {"quantisations": written})


def write_gguf(project: Project, paths: Paths, name: str, quantisation: str, target: Path) -> Spec:
    """One GGUF, written and read back; the figures of both."""
    from generators import progress
    from generators.chat_format import jinja_template
    from generators.gguf import check_gguf, write_gguf

    recipe = project.recipes[name]
    chat_format, base_folder = chat_format_of(project, recipe), paths.model(recipe["base"])
    figures = write_gguf(
        base_folder,
        paths.recipe(name).adapter,
        target,
        quantisation,
        jinja_template(chat_format),
        metadata_of(project, name),
        progress.say,
        end_of_turn=chat_format["end_of_turn"],
    )
    return figures | check_gguf(target, base_folder)


def _choose_quantisation(project: Project, paths: Paths, name: str, target: Path) -> Spec:
    from generators import progress
    from generators.quantisations import choose, planned_sizes

    recipe = project.recipes[name]
    sizes = planned_sizes(paths.model(recipe["base"]))
    write = partial(write_gguf, project, paths, name)
    return choose(sizes, write, target, _texts(project, paths, name), recipe["export"]["loss_budget"], progress.say)


def _texts(project: Project, paths: Paths, name: str) -> list[Any]:
    """The validation samples that quantisations are measured on."""
    from generators.quantisations import draw_texts
    from generators.tokens import Tokenizer

    recipe = project.recipes[name]
    tokenizer = Tokenizer.load(paths.model(recipe["base"]), chat_format_of(project, recipe))
    return draw_texts(paths.recipe(name).frames / "valid.jsonl", tokenizer, project.project["seed"])


def _first_answer(project: Project, recipe: Spec, target: Path) -> str:
    """One answer to a greeting: proof that a real engine loads the file and speaks. Raises UserError when it does not."""
    from generators.chat_format import render
    from generators.errors import UserError
    from generators.llama_server import serving

    prompt = render(chat_format_of(project, recipe), [{"role": "user", "content": "Merhaba!"}])
    with serving(target, context=512) as server:
        body = {"prompt": prompt, "n_predict": 24, "temperature": 0, "stop": chat_format_of(project, recipe)["stop"]}
        answer = server.post("/completion", body)
    if not answer["tokens_predicted"]:
        raise UserError(f"{target} loads in llama.cpp and predicts no token after a greeting; run: doit forget gguf && doit gguf")
    return str(answer["content"]).strip()


def quantisations_slice(project: Project, name: str) -> Slice:
    recipe = project.recipes[name]
    return joined_slices(
        {
            recipe_file(name): {"base": recipe["base"], "export": only(recipe["export"], "quantisations", "loss_budget")},
            PROJECT: only(project.project, "seed"),
        },
        chat_format_slice(project, recipe["base"], "control_tokens"),
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
        partial(write_gguf, project, paths, name, "F16"),
        outputs.quantisations,
        progress.say,
    )


def parity_slice(project: Project, paths: Paths, name: str) -> Slice:
    """What of the Modelfiles reaches the model: a temperature does not."""
    recipe = project.recipes[name]
    first = {"quantisations": recipe["export"]["quantisations"][:1]}
    return joined_slices(
        {recipe_file(name): {**only(recipe, "base", "deploy", "personas"), "export": first}},
        chat_format_slice(project, recipe["base"], "stop", "control_tokens"),
        *(spoken(project, paths, persona, "messages") for persona in recipe["personas"]),
        *(
            {persona_file(persona): {"parameters": only(project.personas[persona]["parameters"], "num_ctx", "num_predict")}}
            for persona in recipe["personas"]
        ),
    )


def parity(project: Project, paths: Paths, name: str) -> None:
    from generators import progress
    from generators.parity import check

    recipe, outputs = project.recipes[name], paths.recipe(name)
    check(
        paths.model(recipe["base"]),
        chat_format_of(project, recipe),
        outputs.gguf(recipe["export"]["quantisations"][0]),
        {persona: paths.modelfile(name, persona) for persona in recipe["personas"]},
        outputs.frames / "valid.jsonl",
        outputs.parity,
        progress.say,
        deployed=recipe["deploy"]["name"],
    )
