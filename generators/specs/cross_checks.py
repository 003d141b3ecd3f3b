"""Rules that no single file can keep: names that must exist, ranges that must agree, sums that must come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.errors import Problem, did_you_mean, one_of

if TYPE_CHECKING:
    from generators.specs.project import Project

Documents = dict[tuple[str, str], Any]
BUILT_IN_FRAMINGS = ("persona", "none", "directive")


def check(root: Path, project: Project, documents: Documents) -> list[Problem]:
    """All problems across files; the files themselves have passed their schemas."""
    rules: list[Callable[[Project, Documents], Iterable[Problem]]] = [
        _names,
        _tiers,
        _examples,
        _counts,
        _balance,
        _chat_formats,
        _models,
        _parameters,
        _clients,
        _recipes,
        _suites,
    ]
    found = [problem for rule in rules for problem in rule(project, documents)]
    return found + list(_templates(root, project, documents))


def _unknown(document: Any, steps: tuple[Any, ...], value: Any, known: Iterable[str], what: str) -> Iterator[Problem]:
    names = sorted(known)
    if value not in names:
        spelled = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        yield document.problem(steps, f"{spelled}: no {what} {value!r}; there are {one_of(names)}{did_you_mean(value, names)}")


def _names(project: Project, documents: Documents) -> Iterator[Problem]:
    document = documents["project", "project"]
    yield from _unknown(document, ("default_recipe",), project.project["default_recipe"], project.recipes, "recipe")
    yield from _unknown(document, ("persona",), project.project["persona"], project.personas, "persona")
    groups = {name.split("/")[0] for name in project.categories}
    for index, group in enumerate(project.project["quality"]["opinion_required"]):
        yield from _unknown(document, ("quality", "opinion_required", index), group, groups, "group")


def _tiers(project: Project, documents: Documents) -> Iterator[Problem]:
    document, tiers = documents["tiers", "tiers"], project.tiers["tiers"]
    last_name, last_most = "", 0
    for name in ("low", "medium", "high"):
        fewest, most = tiers[name]["iterations"]
        steps = ("tiers", name, "iterations")
        if fewest > most:
            yield document.problem(steps, f"tiers.{name}.iterations: {fewest} is above {most}")
        if last_name and fewest <= last_most:
            yield document.problem(steps, f"tiers.{name}.iterations: {fewest} overlaps the tier {last_name}, which goes up to {last_most}")
        last_name, last_most = name, most
    thresholds = project.tiers["classifier"]["thresholds"]
    if thresholds["medium"] >= thresholds["high"]:
        yield document.problem(
            ("classifier", "thresholds"),
            f"classifier.thresholds: medium ({thresholds['medium']}) must lie below high ({thresholds['high']})",
        )


def _examples(project: Project, documents: Documents) -> Iterator[Problem]:
    for name, category in project.categories.items():
        document = documents["category", name]
        yield from _iterations_in_tier(project, document, category, category, ())
        words = category["quality"]["words"]
        if words["min"] > words["max"]:
            yield document.problem(("quality", "words"), f"quality.words: min {words['min']} is above max {words['max']}")
        for index, example in enumerate(category["examples"]):
            steps = ("examples", index)
            if ("turns" in example) == ("user" in example or "jessy" in example):
                yield document.problem(steps, f"examples[{index}]: give either `user` and `jessy`, or `turns`")
            elif "turns" not in example and not ("user" in example and "jessy" in example):
                missing = "jessy" if "user" in example else "user"
                yield document.problem(steps, f"examples[{index}].{missing} is missing")
            yield from _iterations_in_tier(project, document, example, category, steps)


def _iterations_in_tier(
    project: Project, document: Any, holder: dict[str, Any], category: dict[str, Any], steps: tuple[Any, ...]
) -> Iterator[Problem]:
    if holder is not category and "iterations" not in holder and "tier" not in holder:
        return
    tier = holder.get("tier", category["tier"])
    iterations = holder.get("iterations", category["iterations"])
    fewest, most = project.tiers["tiers"][tier]["iterations"]
    if not fewest <= iterations <= most:
        where = f"examples[{steps[1]}].iterations" if steps else "iterations"
        yield document.problem((*steps, "iterations"), f"{where}: {iterations} is outside the tier {tier}, which takes {fewest} to {most}")


def _counts(project: Project, documents: Documents) -> Iterator[Problem]:
    for name, category in project.categories.items():
        authored, wanted = len(category["examples"]), category.get("count", len(category["examples"]))
        document = documents["category", name]
        if wanted < authored:
            yield document.problem(("count",), f"count: {wanted} is below the {authored} authored examples")
        elif wanted > authored:
            from generators.samples.expand import possible

            most = possible(category)
            if wanted > most:
                yield document.problem(
                    ("count",), f"count: {wanted} samples are asked for, and {authored} examples with these slots can yield {most}"
                )


def _balance(project: Project, documents: Documents) -> Iterator[Problem]:
    document, dataset = documents["project", "project"], project.project["dataset"]
    balance = dataset["balance"]
    if not balance:
        return
    total = sum(balance.values())
    if abs(total - 1) > 1e-6:
        yield document.problem(("dataset", "balance"), f"dataset.balance: the shares add up to {total:g}, not 1")
        return
    counts: dict[str, int] = {}
    for name, category in project.categories.items():
        group = name.split("/")[0]
        counts[group] = counts.get(group, 0) + category.get("count", len(category["examples"]))
    for group in balance:
        yield from _unknown(document, ("dataset", "balance", group), group, counts, "group")
    everything = sum(counts.values())
    for group, count in counts.items():
        if group not in balance:
            yield document.problem(("dataset", "balance"), f"dataset.balance: the group {group!r} of specs/categories/ has no share")
        elif abs(count / everything - balance[group]) > dataset["tolerance"]:
            yield document.problem(
                ("dataset", "balance", group),
                f"dataset.balance.{group}: {balance[group]:.1%} is declared and {count} of {everything} samples are {count / everything:.1%}",
            )


def _chat_formats(project: Project, documents: Documents) -> Iterator[Problem]:
    for name, chat_format in project.chat_formats.items():
        document = documents["chat_format", name]
        if chat_format["system"] == "own_turn" and "system" not in chat_format["turns"]:
            yield document.problem(("turns",), "turns.system is missing: `system: own_turn` needs its prefix and suffix")
        if not chat_format["turns"]["assistant"]["suffix"].startswith(chat_format["end_of_turn"]):
            yield document.problem(
                ("turns", "assistant", "suffix"), f"turns.assistant.suffix must start with the end of turn {chat_format['end_of_turn']!r}"
            )
        if chat_format["end_of_turn"] not in chat_format["stop"]:
            yield document.problem(("stop",), f"stop: the end of turn {chat_format['end_of_turn']!r} is not among the stop texts")
        if chat_format["end_of_turn"] not in chat_format["control_tokens"]:
            yield document.problem(("control_tokens",), f"control_tokens: the end of turn {chat_format['end_of_turn']!r} is not listed")


def _models(project: Project, documents: Documents) -> Iterator[Problem]:
    kinds = ("package", "gguf", "ollama", "directory", "repo")
    for name, model in project.models.items():
        document = documents["model", name]
        yield from _unknown(document, ("chat_format",), model["chat_format"], project.chat_formats, "chat format")
        for index, source in enumerate(model["sources"]):
            named = [kind for kind in kinds if kind in source]
            if len(named) != 1:
                yield document.problem(("sources", index), f"sources[{index}]: name exactly one of {one_of(kinds)}")
            elif named == ["package"] and "sha256" not in source:
                yield document.problem(("sources", index), f"sources[{index}].sha256 is missing: what a package ships is pinned")


def _parameters(project: Project, documents: Documents) -> Iterator[Problem]:
    from generators.specs.schema import OLLAMA_PARAMETERS

    for name, persona in project.personas.items():
        for parameter, value in persona["parameters"].items():
            kind = OLLAMA_PARAMETERS[parameter]
            right = (
                isinstance(value, bool)
                if kind == "boolean"
                else not isinstance(value, bool) and isinstance(value, int if kind == "integer" else (int, float))
            )
            if not right and ("parameters", parameter) in documents["persona", name].places:
                wanted = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}[kind]
                yield documents["persona", name].problem(
                    ("parameters", parameter), f"parameters.{parameter}: {value!r} is not {wanted}, which Ollama demands"
                )


def _clients(project: Project, documents: Documents) -> Iterator[Problem]:
    for name, client in project.clients.items():
        document = documents["client", name]
        if name in BUILT_IN_FRAMINGS:
            yield document.problem((), f"a client cannot be called {name!r}: that is a framing of its own")
        for tier, (low, high) in client["confidence"].items():
            if low > high:
                yield document.problem(("confidence", tier), f"confidence.{tier}: {low} is above {high}")


def _recipes(project: Project, documents: Documents) -> Iterator[Problem]:
    framings = {*BUILT_IN_FRAMINGS, *project.clients}
    samples = sum(category.get("count", len(category["examples"])) for category in project.categories.values())
    trained = samples * (1 - project.project["dataset"]["valid_share"])
    for name, recipe in project.recipes.items():
        document = documents["recipe", name]
        yield from _unknown(document, ("base",), recipe["base"], project.models, "model")
        for index, persona in enumerate(recipe["personas"]):
            yield from _unknown(document, ("personas", index), persona, project.personas, "persona")
        for framing in recipe["framings"]["mix"]:
            yield from _unknown(document, ("framings", "mix", framing), framing, framings, "framing")
        for index, framing in enumerate(recipe["evaluation"]["framings"]):
            yield from _unknown(document, ("evaluation", "framings", index), framing, framings, "framing")
        for index, suite in enumerate(recipe["evaluation"]["suites"]):
            yield from _unknown(document, ("evaluation", "suites", index), suite, project.suites, "suite")
        total = sum(recipe["framings"]["mix"].values())
        if abs(total - 1) > 1e-6:
            yield document.problem(("framings", "mix"), f"framings.mix: the shares add up to {total:g}, not 1")
        if recipe["training"]["batch_size"] > trained:
            yield document.problem(
                ("training", "batch_size"),
                f"training.batch_size: {recipe['training']['batch_size']} is above the {trained:.0f} samples of the train split",
            )


def _suites(project: Project, documents: Documents) -> Iterator[Problem]:
    from generators.evaluate.checks import problems_of_check

    for name, suite in project.suites.items():
        document = documents["suite", name]
        seen: set[str] = set()
        for index, item in enumerate(suite["defaults"]):
            for message in problems_of_check(item):
                yield document.problem(("defaults", index), f"defaults[{index}]: {message}")
        for index, case in enumerate(suite["cases"]):
            steps = ("cases", index)
            if case["id"] in seen:
                yield document.problem((*steps, "id"), f"cases[{index}].id: {case['id']!r} is used twice in this suite")
            seen.add(case["id"])
            if ("query" in case) == ("turns" in case):
                yield document.problem(steps, f"cases[{index}]: give either `query` or `turns`")
            elif "turns" in case and ("jessy" in case["turns"][-1] or any("jessy" not in turn for turn in case["turns"][:-1])):
                yield document.problem((*steps, "turns"), f"cases[{index}].turns: every turn but the last has an answer")
            for position, item in enumerate(case["checks"]):
                for message in problems_of_check(item):
                    yield document.problem((*steps, "checks", position), f"cases[{index}].checks[{position}]: {message}")


def _templates(root: Path, project: Project, documents: Documents) -> Iterator[Problem]:
    """Templates that are named but missing, and templates that do not parse."""
    from generators.templates import problems_of_template

    named = [("category", name, spec["template"]) for name, spec in project.categories.items()]
    named += [("persona", name, spec["template"]) for name, spec in project.personas.items()]
    for kind, name, template in named:
        if not (root / "templates" / template).is_file():
            known = [path.relative_to(root / "templates").as_posix() for path in (root / "templates").rglob("*.j2")]
            document = documents[kind, name]
            yield document.problem(("template",), f"template: templates/{template} does not exist{did_you_mean(template, known)}")
    for path in sorted((root / "templates").rglob("*.j2")):
        yield from problems_of_template(root / "templates", path.relative_to(root / "templates").as_posix())
