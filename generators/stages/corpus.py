"""From the categories to what is trained on: samples, dataset, classify, frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from generators.stages.reading import PROJECT, TIERS, Say, Slice, only, ordered, persona_file, recipe_file, spoken, template_text, without

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.specs.project import Project, Spec

# Of a client: what its queries look like, and what an evaluation plays besides.
_CLIENT_FRAME = ("systems", "stages", "observation", "separator", "answer", "confidence")
# What training reads of a framed sample. Where it came from, or how long its answer may take, teaches nothing.
_TRAINED = ("id", "framing", "frame", "stage", "wording")


def samples_slice(project: Project, paths: Paths, name: str) -> Slice:
    """The category without what only the dataset reads, unless its template mentions it; and the time budgets of its tiers."""
    category = project.categories[name]
    text = template_text(paths, category["template"])
    unread = [field for field in ("description", "quality") if field not in text]
    tiers = {example.get("tier", category["tier"]) for example in category["examples"]}
    notes = [] if "source" in text else ["source"]  # where an example came from is said to people, and by a template that asks for it
    examples = [without(example, *notes) for example in category["examples"]]
    return {
        f"specs/categories/{name}.yaml": {**without(category, *unread), **ordered(category, "slots"), "examples": examples},
        TIERS: {"tiers": {tier: only(project.tiers["tiers"][tier], "response_budget_s") for tier in sorted(tiers)}},
        PROJECT: only(project.project, "persona", "seed"),
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


def dataset_slice(project: Project) -> Slice:
    persona = project.project["persona"]
    return {
        PROJECT: only(project.project, "dataset", "quality", "seed", "persona"),
        TIERS: only(project.tiers, "classifier"),
        persona_file(persona): only(project.personas[persona], "opinion_markers"),
        **{f"specs/categories/{name}.yaml": only(category, "quality") for name, category in project.categories.items()},
        **{f"specs/evals/{name}.yaml": {"cases": [_asked(case) for case in suite["cases"]]} for name, suite in project.suites.items()},
        **{f"specs/chat_formats/{name}.yaml": only(chat_format, "control_tokens") for name, chat_format in project.chat_formats.items()},
    }


def _asked(case: Spec) -> Spec:
    """The words that no training sample may hold: the query, or the last turn of a conversation."""
    if "query" in case:
        return only(case, "query")
    return {"turns": [{} for _ in case["turns"][:-1]] + [only(case["turns"][-1], "user")]}


def all_control_tokens(project: Project) -> set[str]:
    return {token for chat_format in project.chat_formats.values() for token in chat_format["control_tokens"]}


def dataset(project: Project, paths: Paths) -> None:
    from generators import progress
    from generators.dataset import summary

    _remove_stale_samples(paths, {paths.samples(name) for name in project.categories})
    print(summary(build_dataset(project, paths, progress.say)))


def build_dataset(project: Project, paths: Paths, say: Say) -> Spec:
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
            control_tokens=all_control_tokens(project),
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


def frames_slice(project: Project, paths: Paths, name: str) -> Slice:
    recipe = project.recipes[name]
    mix = recipe["framings"]["mix"]
    return {
        recipe_file(name): {
            "personas": recipe["personas"][:1],
            "framings": {**ordered(recipe["framings"], "mix"), **only(recipe["framings"], "per_sample")},
        },
        PROJECT: only(project.project, "seed"),
        **({TIERS: only(project.tiers, "directive", "marker")} if "directive" in mix else {}),
        **spoken(project, paths, recipe["personas"][0]),
        **{project.client_files[client]: only(project.clients[client], *_CLIENT_FRAME) for client in mix if client in project.clients},
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
            digest.update(f"{split} {to_json([row['messages'], only(row['metadata'], *_TRAINED)])}\n".encode())
    write_text(folder / "trained.sha256", digest.hexdigest() + "\n")
