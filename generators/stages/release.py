"""What is deployed, and what it was made of: deploy, lock, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.stages.modelfiles import modelfile_text
from generators.stages.planning import cheap_render
from generators.stages.reading import PROJECT, TIERS, Slice, chat_format_of, deployed_as, persona_file, recipe_file, without
from generators.stages.training import train_slice

if TYPE_CHECKING:
    from generators.evaluate.kept import Judged
    from generators.paths import Paths
    from generators.specs.project import Project, Spec

# What is tried beside a recipe, and changes nothing of what it makes.
_OF_TRIALS = ("sweep", "retrain")


def deploy(project: Project, paths: Paths, name: str, rollback: bool) -> None:
    from generators import deploy as deploying
    from generators import progress
    from generators.ollama_address import ollama_host

    if rollback:
        models = [deployed_as(project.recipes[name], persona) for persona in project.recipes[name]["personas"]]
        deploying.roll_back(ollama_host(), models, _questions(project, name), paths.deployments, progress.say)
    else:
        release(project, paths, paths, name)


def of_deployment(sha256: str, system: str) -> list[str]:
    """What the evaluation of a deployed model is found by. sha256: of its GGUF."""
    return ["deployed", sha256, system]


def release(project: Project, paths: Paths, made: Paths, name: str, judged: Judged | None = None, **facts: Any) -> None:
    """Deploy what was built under `made`; keep its adapter, in case a retraining goes on from it, and its evaluation, for comparisons.

    judged: the recipe's own by default, where it is of this GGUF. facts: for the history.
    """
    from generators import deploy as deploying
    from generators import progress
    from generators.deploy import history
    from generators.errors import UserError
    from generators.evaluate import kept
    from generators.files import sha256_file
    from generators.ollama_address import ollama_host
    from generators.retrain import keep_adapter

    recipe, outputs = project.recipes[name], made.recipe(name)
    models = {deployed_as(recipe, persona): made.modelfile(name, persona) for persona in recipe["personas"]}
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
    return deploying.Questions(basic_queries(project, recipe), budget, chat_format_of(project, recipe))


def basic_queries(project: Project, recipe: Spec) -> list[str]:
    """Three simple ones of the recipe's suites: the first of each suite, then the second of each, and so on; a greeting where there is none."""
    from itertools import zip_longest

    suites = recipe["evaluation"]["suites"] or list(project.suites)
    simple = [[case["query"] for case in project.suites[suite]["cases"] if case["tier"] == "low" and "query" in case] for suite in suites]
    found = [query for row in zip_longest(*simple) for query in row if query is not None]
    return found[:3] or ["Merhaba!"]


def deployed_models(project: Project, paths: Paths, name: str) -> list[Any]:
    """A recipe's personas as they would be deployed, from the specs as they are; the first is the one trained under."""
    from generators.answering import Deployed

    recipe = project.recipes[name]
    return [
        Deployed(deployed_as(recipe, persona), persona, modelfile_text(project, paths, name, persona)) for persona in recipe["personas"]
    ]


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
        PROJECT: project.project,
        TIERS: project.tiers,
        recipe_file(name): without(recipe, *_OF_TRIALS),
        f"specs/models/{recipe['base']}.yaml": model,
        f"specs/chat_formats/{model['chat_format']}.yaml": project.chat_formats[model["chat_format"]],
        **{f"specs/categories/{each}.yaml": category for each, category in project.categories.items()},
        **{persona_file(each): project.personas[each] for each in recipe["personas"]},
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
        "generators": sorted(Path(__file__).parents[1].rglob("*.py")) if program else [],
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
            render = cheap_render(project, task)
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
