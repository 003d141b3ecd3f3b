"""Rules that no single field can keep: names that must exist, ranges that must agree, sums that must come out.

A file that has problems of its own is left out of what is compared, but its name still counts as there: one mistake is told once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.errors import Problem, did_you_mean, one_of

if TYPE_CHECKING:
    from generators.samples.expand import Survey
    from generators.specs.project import Project
    from generators.specs.yaml_source import Document, Steps

Spec = dict[str, Any]
BUILT_IN_FRAMINGS = ("persona", "none", "directive")


@dataclass(frozen=True)
class Specs:
    """What the rules compare. project: the files that have passed their schemas. documents: every file, by kind and name.
    templates: path to bytes, or why they cannot be read."""

    root: Path
    project: Project
    documents: Mapping[tuple[str, str], Document]
    templates: Mapping[str, bytes | Problem]
    _surveys: dict[str, Survey] = dataclasses.field(default_factory=dict)

    def survey(self, category: str) -> Survey:
        """What a category can yield, worked out once: its texts are parsed for it."""
        from generators.samples.expand import survey

        if category not in self._surveys:
            self._surveys[category] = survey(self.project.categories[category])
        return self._surveys[category]

    @cached_property
    def templates_digest(self) -> str:
        contents = {
            path: hashlib.sha256(content).digest() if isinstance(content, bytes) else content for path, content in self.templates.items()
        }
        return hashlib.sha256(repr(sorted(contents.items())).encode("utf-8", "surrogatepass")).hexdigest()

    def names(self, kind: str) -> list[str]:
        return sorted(name for of_kind, name in self.documents if of_kind == kind)

    def whole(self, kind: str) -> bool:
        """Whether every file of a kind has passed."""
        from generators.specs.project import ATTRIBUTES

        passed = getattr(self.project, ATTRIBUTES[kind])
        return all(name in passed for name in self.names(kind))

    def groups(self) -> list[str]:
        return sorted({name.split("/")[0] for name in self.names("category")})


def check(
    root: Path, project: Project, documents: Mapping[tuple[str, str], Document], templates: Mapping[str, bytes | Problem]
) -> list[Problem]:
    """All problems between files, and between the fields of one file. documents, templates: see `Specs`."""
    specs = Specs(root, project, documents, templates)
    return [problem for rule in RULES for problem in rule(specs)]


def _unknown(document: Document, steps: Steps, value: Any, known: Iterable[str], what: str, at_key: bool = False) -> Iterator[Problem]:
    names = sorted(known)
    if not names and what != "suite":
        return  # that there is no such file at all is told already
    if value not in names:
        there = f"there {'is only' if len(names) == 1 else 'are'} {one_of(names)}" if names else "there is none"
        yield document.wrong(steps, f"no {what} {value!r}; {there}{did_you_mean(value, names)}", at_key)


def _twice(document: Document, steps: Steps, values: Iterable[Any]) -> Iterator[Problem]:
    """Entries of a list that are there already."""
    seen: set[Any] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield document.wrong((*steps, index), f"{value!r} is listed twice")
        seen.add(value)


def _falling(document: Document, steps: Steps, limits: Any) -> Iterator[Problem]:
    """A range, [low, high] or {min, max}, whose ends are the wrong way round."""
    low, high = (limits.get("min"), limits.get("max")) if isinstance(limits, dict) else limits
    if low is not None and high is not None and low > high:
        yield document.wrong(steps, f"{low} is above {high}")


# --- project and tiers ------------------------------------------------------------------------------------------------------------


def _names(specs: Specs) -> Iterator[Problem]:
    """The project names a recipe, a persona and groups that exist."""
    if not specs.project.project:
        return
    document, project = specs.documents["project", "project"], specs.project.project
    yield from _unknown(document, ("default_recipe",), project["default_recipe"], specs.names("recipe"), "recipe")
    yield from _unknown(document, ("persona",), project["persona"], specs.names("persona"), "persona")
    for index, group in enumerate(project["quality"]["opinion_required"]):
        yield from _unknown(document, ("quality", "opinion_required", index), group, specs.groups(), "group")


def _quality(specs: Specs) -> Iterator[Problem]:
    """The shares of the tiers leave room for one another: the least add up to 1 at most, the greatest to 1 at least."""
    if not specs.project.project:
        return
    document, shares = specs.documents["project", "project"], specs.project.project["quality"]["tiers"]
    for tier, limits in shares.items():
        yield from _falling(document, ("quality", "tiers", tier), limits)
    least = sum(low for low, _ in shares.values())
    if least > 1 + 1e-9:
        yield document.wrong(("quality", "tiers"), f"the least shares add up to {least:g}, above 1")
    if len(shares) == 3 and sum(high for _, high in shares.values()) < 1 - 1e-9:
        yield document.wrong(("quality", "tiers"), "the greatest shares add up to less than 1")


def _tiers(specs: Specs) -> Iterator[Problem]:
    """The tiers' ranges of iterations rise and do not overlap, and so do the thresholds of the classifier."""
    if not specs.project.tiers:
        return
    document, tiers = specs.documents["tiers", "tiers"], specs.project.tiers["tiers"]
    last_name, last_most = "", 0
    for name in ("low", "medium", "high"):
        fewest, most = tiers[name]["iterations"]
        steps = ("tiers", name, "iterations")
        yield from _falling(document, steps, tiers[name]["iterations"])
        if last_name and fewest <= last_most:
            yield document.wrong(steps, f"{fewest} overlaps the tier {last_name}, which goes up to {last_most}")
        last_name, last_most = name, most
    thresholds = specs.project.tiers["classifier"]["thresholds"]
    if thresholds["medium"] >= thresholds["high"]:
        message = f"medium ({thresholds['medium']}) must lie below high ({thresholds['high']})"
        yield document.wrong(("classifier", "thresholds"), message)


def _classifier(specs: Specs) -> Iterator[Problem]:
    """The names of cues are unique, those they refer to exist and do not lead back to themselves, patterns can be read."""
    from generators.classify import problems_of_rules

    if not specs.project.tiers:
        return
    document, rules = specs.documents["tiers", "tiers"], specs.project.tiers["classifier"]
    for index, field, message in problems_of_rules(rules):
        steps = ("classifier", "cues", index, field)
        yield document.wrong(steps, message)
    for index, cue in enumerate(rules["cues"]):
        yield from _falling(document, ("classifier", "cues", index, "words"), cue.get("words", {}))


# --- categories -------------------------------------------------------------------------------------------------------------------


def _categories(specs: Specs) -> Iterator[Problem]:
    """An example has either `user` and `jessy` or `turns`, and its iterations lie in the range of its tier."""
    for name, category in specs.project.categories.items():
        document = specs.documents["category", name]
        yield from _falling(document, ("quality", "words"), category["quality"]["words"])
        yield from _iterations_in_tier(specs, document, category, category, ())
        for index, example in enumerate(category["examples"]):
            yield from _example(document, index, example)
            yield from _iterations_in_tier(specs, document, example, category, ("examples", index))


def _example(document: Document, index: int, example: Spec) -> Iterator[Problem]:
    if "turns" in example:
        for key in ("user", "jessy"):
            if key in example:
                yield document.wrong(("examples", index, key), "stands beside `turns`; give either a single exchange or turns")
    else:
        missing = [key for key in ("user", "jessy") if key not in example]
        if len(missing) == 2:
            yield document.wrong(("examples", index), "says nothing; give `user` and `jessy`, or `turns`")
        elif missing:
            yield document.problem(("examples", index), f"examples[{index}].{missing[0]} is missing")


def _iterations_in_tier(specs: Specs, document: Document, holder: Spec, category: Spec, steps: Steps) -> Iterator[Problem]:
    """holder: the category itself, or one of its examples."""
    if not specs.project.tiers or holder is not category and "iterations" not in holder and "tier" not in holder:
        return
    tier = holder.get("tier", category["tier"])
    iterations = holder.get("iterations", category["iterations"])
    fewest, most = specs.project.tiers["tiers"][tier]["iterations"]
    if not fewest <= iterations <= most <= 99:
        steps = (*steps, "iterations")
        inherited = "" if "iterations" in holder else " (the category's)"
        yield document.wrong(steps, f"{iterations}{inherited} is outside the tier {tier}, which takes {fewest} to {most}")


def _counts(specs: Specs) -> Iterator[Problem]:
    """`count` is not below the number of examples and not above what they, their slots and spellings can yield; every slot that is used
    is declared."""
    for name, category in specs.project.categories.items():
        document, authored = specs.documents["category", name], len(category["examples"])
        wanted = category.get("count", authored)
        if wanted < authored:
            yield document.wrong(("count",), f"{wanted} is below the {authored} authored examples")
        elif wanted > authored or category["slots"]:
            seen = specs.survey(name)
            for index, message in seen.problems:
                yield document.wrong(("examples", index), message)
            if not seen.problems and seen.possible < wanted:
                most = f"{authored} examples with these slots and spellings yield {seen.possible}"
                yield document.wrong(("count",), f"{wanted} samples are asked for; {most}")


def _size(category: Spec) -> int:
    return max(category.get("count", 0), len(category["examples"]))


def _balance(specs: Specs) -> Iterator[Problem]:
    """The shares of `dataset.balance` add up to 1, name every group, and are met by the categories' counts within the tolerance."""
    if not specs.project.project:
        return
    document, dataset = specs.documents["project", "project"], specs.project.project["dataset"]
    balance, steps = dataset["balance"], ("dataset", "balance")
    if not balance:
        return
    total = sum(balance.values())
    if abs(total - 1) > 1e-6:
        yield document.wrong(steps, f"the shares add up to {total:g}, not 1")
    for group in balance:
        yield from _unknown(document, (*steps, group), group, specs.groups(), "group", at_key=True)
    for group in specs.groups():
        if group not in balance:
            yield document.wrong(steps, f"the group {group!r} of specs/categories/ has no share{did_you_mean(group, balance)}")
    if abs(total - 1) <= 1e-6 and set(balance) == set(specs.groups()) and specs.whole("category"):
        yield from _shares(specs, document, balance, dataset["tolerance"])


def _shares(specs: Specs, document: Document, balance: dict[str, float], tolerance: float) -> Iterator[Problem]:
    counts: Counter[str] = Counter()
    for name, category in specs.project.categories.items():
        counts[name.split("/")[0]] += _size(category)
    everything = sum(counts.values())
    for group, wanted in balance.items():
        if abs(counts[group] / everything - wanted) > tolerance + 1e-9:
            have = f"{counts[group]} of {everything} samples are {counts[group] / everything:.1%}"
            steps = ("dataset", "balance", group)
            yield document.wrong(steps, f"{wanted:.1%} is declared, and {have}; the tolerance is {tolerance:.1%}")


# --- models, personas, clients ----------------------------------------------------------------------------------------------------

_CONTROL_TOKEN = re.compile(r"<[^<>\s]+>|\[/?INST\]")


def _chat_formats(specs: Specs) -> Iterator[Problem]:
    """The end of turn opens the assistant's suffix and is listed in `stop` and `control_tokens`; every control token of a turn is listed;
    every stop text is one that the format writes; the system has a turn exactly when it is to have one of its own."""
    for name, chat_format in specs.project.chat_formats.items():
        document, turns, end = specs.documents["chat_format", name], chat_format["turns"], chat_format["end_of_turn"]
        if chat_format["system"] == "own_turn" and "system" not in turns:
            yield document.problem(("turns",), "turns.system is missing: `system: own_turn` needs its prefix and suffix")
        if chat_format["system"] == "first_user_turn" and "system" in turns:
            yield document.wrong(("turns", "system"), "is never written: with `first_user_turn` the system text opens the user's turn")
        if not turns["assistant"]["suffix"].startswith(end):
            yield document.wrong(("turns", "assistant", "suffix"), f"must start with the end of turn {end!r}")
        for field in ("stop", "control_tokens"):
            if end not in chat_format[field]:
                yield document.wrong((field,), f"the end of turn {end!r} is not listed{did_you_mean(end, chat_format[field])}")
            yield from _twice(document, (field,), chat_format[field])
        yield from _tokens_of_turns(document, chat_format)


def _tokens_of_turns(document: Document, chat_format: Spec) -> Iterator[Problem]:
    """Every control token that a turn writes is listed, and every stop text is one that the format writes or knows."""
    tokens = chat_format["control_tokens"]
    affixes = {(role, side): text for role, sides in chat_format["turns"].items() for side, text in sides.items()}
    for (role, side), text in affixes.items():
        for token in _CONTROL_TOKEN.findall(text):
            if token not in tokens:
                steps = ("turns", role, side)
                yield document.wrong(steps, f"{token!r} is not among the control_tokens{did_you_mean(token, tokens)}")
    for index, stop in enumerate(chat_format["stop"]):
        if stop not in tokens and not any(stop in text for text in affixes.values()):
            hint = did_you_mean(stop, tokens)
            yield document.wrong(("stop", index), f"{stop!r} is neither a control token nor written by any turn{hint}")


def _models(specs: Specs) -> Iterator[Problem]:
    """A model names a chat format that exists; each source names one place, and what a package ships is pinned by its sha256."""
    from generators.specs.schema import SOURCES

    for name, model in specs.project.models.items():
        document = specs.documents["model", name]
        yield from _unknown(document, ("chat_format",), model["chat_format"], specs.names("chat_format"), "chat format")
        for index, source in enumerate(model["sources"]):
            named = [kind for kind in SOURCES if kind in source]
            if len(named) != 1:
                found = f"found {one_of(named)}" if named else "found none"
                yield document.wrong(("sources", index), f"name exactly one of {one_of(SOURCES)}; {found}")
            elif named == ["package"] and "sha256" not in source:
                yield document.problem(("sources", index), f"sources[{index}].sha256 is missing: what a package ships is pinned")
            if "revision" in source and named and "repo" not in named:
                yield document.wrong(("sources", index, "revision"), "only a repo has revisions")
            if "sha256" in source and named and set(named) & {"repo", "directory"}:
                message = f"of a single file, and a {named[0]} has several; pin a repo by its revision"
                yield document.wrong(("sources", index, "sha256"), message)


def _personas(specs: Specs) -> Iterator[Problem]:
    """Answers of `num_predict` tokens leave room for the question in `num_ctx`; principles are not named twice; patterns can be read."""
    from generators.specs.personas import where_written

    for name, persona in specs.project.personas.items():
        document = specs.documents["persona", name]
        parameters = persona["parameters"]
        if 0 < parameters.get("num_ctx", 0) <= parameters.get("num_predict", 0):
            place, steps = where_written(name, "parameters", specs.documents)
            longest, context = parameters["num_predict"], parameters["num_ctx"]
            message = f"parameters.num_predict: an answer of {longest} tokens leaves no room for the question in num_ctx, {context}"
            yield place.problem((*steps, "num_predict"), message)
        yield from _twice(document, ("principles",), [principle["name"] for principle in persona["principles"]])
        for steps, text in _patterns(document.value):
            yield from _pattern(document, steps, text)


def _control_tokens(specs: Specs) -> Iterator[Problem]:
    """What personas and examples say holds no control token of any chat format: an engine might take it for one."""
    tokens = frozenset(token for chat_format in specs.project.chat_formats.values() for token in chat_format["control_tokens"])
    for (kind, _), document in specs.documents.items():
        if kind in ("persona", "category"):
            yield from document.once(tokens, partial(_held, document, tokens))


def _held(document: Document, tokens: frozenset[str]) -> Iterator[Problem]:
    for steps, text in _texts(document.value):
        held = sorted(token for token in tokens if token in text)
        if held:
            yield document.wrong(steps, f"the control token {', '.join(map(repr, held))} stands in it; write it otherwise")


def _texts(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, str]]:
    """Every text inside a value, with the way to it."""
    if isinstance(value, str):
        yield steps, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(part, (*steps, key))


def _patterns(persona: Spec) -> Iterator[tuple[Steps, str]]:
    """Of a persona as it stands in its file."""
    for language, markers in persona.get("opinion_markers", {}).items():
        yield from ((("opinion_markers", language, index), text) for index, text in enumerate(markers))
    for way in (("principles",), ("append", "principles")):
        principles = persona.get("append", {}).get("principles", ()) if len(way) == 2 else persona.get("principles", ())
        for number, principle in enumerate(principles):
            yield from (((*way, number, "cues", index), text) for index, text in enumerate(principle.get("cues", ())))


def _clients(specs: Specs) -> Iterator[Problem]:
    """The names of stages differ; the ranges of confidence rise and agree with the stop rule: a query of the tier low ends at the first
    stage, one of the tier high does not."""
    for name, client in specs.project.clients.items():
        document = specs.documents["client", name]
        if name in BUILT_IN_FRAMINGS:
            yield document.problem((), f"a client cannot be called {name!r}: that is a framing of its own; rename the file")
        for tier, limits in client["confidence"].items():
            yield from _falling(document, ("confidence", tier), limits)
        names = [stage["name"] for stage in client["stages"]]
        for index, stage in enumerate(names):
            if stage in names[:index]:
                yield document.wrong(("stages", index, "name"), f"{stage!r} is the name of an earlier stage")
        yield from _confidence_and_stop(document, client)


def _confidence_and_stop(document: Document, client: Spec) -> Iterator[Problem]:
    """A low query ends at the first stage, a high one does not: the ranges of confidence agree with the client's stop rule."""
    sure = min(client["stop"]["alone"], client["stop"]["few_layers"]["confidence"])
    low, high = client["confidence"]["low"], client["confidence"]["high"]
    if low[0] <= sure:
        yield document.wrong(("confidence", "low"), f"{low[0]} does not end the chain at its first stage; that takes more than {sure}")
    if len(client["stages"]) > 1 and high[1] > sure:
        yield document.wrong(("confidence", "high"), f"{high[1]} ends the chain at its first stage; that takes more than {sure}")


# --- recipes ----------------------------------------------------------------------------------------------------------------------


def _recipes(specs: Specs) -> Iterator[Problem]:
    """A recipe names a model, personas, framings and suites that exist, none of them twice; the shares of the mix add up to 1; a batch, and
    all batches of a step, fit into the train split; a gate that is set can be reached."""
    framings = [*BUILT_IN_FRAMINGS, *specs.names("client")]
    for name, recipe in specs.project.recipes.items():
        document = specs.documents["recipe", name]
        yield from _unknown(document, ("base",), recipe["base"], specs.names("model"), "model")
        for steps, known, what in (
            (("personas",), specs.names("persona"), "persona"),
            (("evaluation", "framings"), framings, "framing"),
            (("evaluation", "suites"), specs.names("suite"), "suite"),
        ):
            values = recipe[steps[0]] if len(steps) == 1 else recipe[steps[0]][steps[1]]
            for index, value in enumerate(values):
                yield from _unknown(document, (*steps, index), value, known, what)
            yield from _twice(document, steps, values)
        yield from _twice(document, ("export", "quantisations"), recipe["export"]["quantisations"])
        yield from _twice(document, ("lora", "targets"), recipe["lora"]["targets"])
        yield from _mix(document, recipe["framings"]["mix"], framings)
        yield from _gates(specs, document, recipe)
        if specs.whole("category") and specs.project.project:
            yield from _batches(specs, document, recipe["training"])


def _sweeps(specs: Specs) -> Iterator[Problem]:
    """A sweep declares a grid, points or both, no value and no point twice and at most 100 points in all; its suites and framings exist and
    have a case in the dev half; the batches of every point fit into the train split."""
    framings = [*BUILT_IN_FRAMINGS, *specs.names("client")]
    for name, recipe in specs.project.recipes.items():
        if "sweep" in recipe:
            document, sweep = specs.documents["recipe", name], recipe["sweep"]
            for field, known, what in (("suites", specs.names("suite"), "suite"), ("framings", framings, "framing")):
                for index, value in enumerate(sweep[field]):
                    yield from _unknown(document, ("sweep", field, index), value, known, what)
                yield from _twice(document, ("sweep", field), sweep[field])
            yield from _grid(document, sweep)
            yield from _dev_half(specs, document, sweep["suites"] or recipe["evaluation"]["suites"])
            yield from _points(specs, document, recipe)


def _grid(document: Document, sweep: Spec) -> Iterator[Problem]:
    if not sweep.get("grid") and not sweep.get("points"):
        yield document.problem(("sweep",), "sweep: tries nothing; give `grid`, or `points`")
    for part, fields in sweep.get("grid", {}).items():
        for field, values in fields.items():
            for index, value in enumerate(values):
                if value in values[:index]:
                    yield document.wrong(("sweep", "grid", part, field, index), f"{value!r} is listed twice")
    points = sweep.get("points", [])
    for index, point in enumerate(points):
        if point in points[:index]:
            yield document.wrong(("sweep", "points", index), f"is the point sweep.points[{points.index(point)}] again")


def _points(specs: Specs, document: Document, recipe: Spec) -> Iterator[Problem]:
    from generators.specs.schema import MOST_POINTS
    from generators.sweep import points, size

    if size(recipe["sweep"]) > MOST_POINTS:
        yield document.problem(("sweep",), f"sweep: makes {size(recipe['sweep'])} points; at most {MOST_POINTS} are taken")
        return
    if not (specs.whole("category") and specs.project.project):
        return
    for point in points(recipe, {}):
        if point.of("training").keys() & {"batch_size", "accumulation"}:
            problem = next(_batches(specs, document, {**recipe["training"], **point.of("training")}), None)
            if problem is not None:
                told = problem.message.partition(": ")[2]
                yield document.problem(("sweep",), f"sweep: the point {point.name} cannot be trained: {told}")
                return


def _dev_half(specs: Specs, document: Document, asked: list[str]) -> Iterator[Problem]:
    from generators.evaluate.cases import half_of

    suites = specs.project.suites
    names = asked or list(suites)
    if not all(name in suites for name in [*names, *specs.names("suite")]):
        return  # what is wrong with a suite, or that there is none, is told already
    if not any(half_of(name, case) == "dev" for name in names for case in suites[name]["cases"]):
        yield document.problem(("sweep",), "sweep: no case of its suites is in the dev half, by which points are judged; add cases")


def _mix(document: Document, mix: dict[str, float], framings: list[str]) -> Iterator[Problem]:
    steps = ("framings", "mix")
    for framing in mix:
        yield from _unknown(document, (*steps, framing), framing, framings, "framing", at_key=True)
    total = sum(mix.values())
    if abs(total - 1) > 1e-6:
        yield document.wrong(steps, f"the shares add up to {total:g}, not 1")


def _gates(specs: Specs, document: Document, recipe: Spec) -> Iterator[Problem]:
    """A gate that was set on a suite which is not asked would never be missed."""
    asked = recipe["evaluation"]["suites"] or specs.names("suite")
    for suite in ("turkish", "technical"):
        if suite not in asked and document.node(("gates", suite)):
            yield document.wrong(("gates", suite), f"the suite {suite} is not asked, so that it can never be reached")


def _batches(specs: Specs, document: Document, training: Spec) -> Iterator[Problem]:
    share = specs.project.project["dataset"]["valid_share"]
    trained = round(sum(map(_size, specs.project.categories.values())) * (1 - share))
    batch, accumulation = training["batch_size"], training["accumulation"]
    if batch > trained:
        yield document.wrong(("training", "batch_size"), f"{batch} is above the {trained} samples of the train split")
    elif batch * accumulation > trained:
        step = f"{accumulation} batches of {batch} are {batch * accumulation} samples a step"
        yield document.wrong(("training", "accumulation"), f"{step}, above the {trained} of the train split")


def _deployed_names(specs: Specs) -> Iterator[Problem]:
    """No two models of the recipes, variants included, have the same name in Ollama."""
    taken: dict[str, str] = {}
    for name, recipe in sorted(specs.project.recipes.items()):
        base = recipe["deploy"]["name"]
        for deployed in [base, *(f"{base}-{persona}" for persona in recipe["personas"][1:])]:
            if deployed in taken:
                message = (
                    f"deploy.name: {deployed!r} is made by the recipe {taken[deployed]} as well"
                    if taken[deployed] != name
                    else (f"deploy.name: {deployed!r} is made twice, by two personas")
                )
                yield specs.documents["recipe", name].problem(("deploy", "name"), message)
            taken.setdefault(deployed, name)


# --- suites -----------------------------------------------------------------------------------------------------------------------


def _suites(specs: Specs) -> Iterator[Problem]:
    """The ids of a suite's cases differ; a case has either `query` or `turns`, of which only the last has no answer; limits rise, patterns
    can be read."""
    for name, suite in specs.project.suites.items():
        document = specs.documents["suite", name]
        yield from document.once("suite", partial(_suite, document, suite))


def _suite(document: Document, suite: Spec) -> Iterator[Problem]:
    yield from _checks(document, ("defaults",), suite["defaults"])
    ids: set[str] = set()
    for index, case in enumerate(suite["cases"]):
        if case["id"] in ids:
            yield document.wrong(("cases", index, "id"), f"{case['id']!r} is used twice in this suite")
        ids.add(case["id"])
        yield from _case(document, index, case)
        yield from _checks(document, ("cases", index, "checks"), case["checks"])


def _case(document: Document, index: int, case: Spec) -> Iterator[Problem]:
    if "query" in case and "turns" in case:
        yield document.wrong(("cases", index, "query"), "stands beside `turns`; give one of the two")
    elif "query" not in case and "turns" not in case:
        yield document.wrong(("cases", index), "asks nothing; give `query`, or `turns`")
    elif "turns" in case:
        for number, turn in enumerate(case["turns"]):
            last, answered = number == len(case["turns"]) - 1, "jessy" in turn
            if last and answered:
                yield document.wrong(("cases", index, "turns", number, "jessy"), "the last turn is the one that is answered")
            if not last and not answered:
                yield document.problem(("cases", index, "turns", number), f"cases[{index}].turns[{number}].jessy is missing")


def _checks(document: Document, steps: Steps, checks: list[Spec]) -> Iterator[Problem]:
    for index, check in enumerate(checks):
        for limit in ("words", "sentences"):
            yield from _falling(document, (*steps, index, limit), check.get(limit, {}))
        for name in ("any", "all", "none", "carries"):
            for number, text in enumerate(check.get(name, ())):
                yield from _pattern(document, (*steps, index, name, number), text)


def _pattern(document: Document, steps: Steps, text: str) -> Iterator[Problem]:
    from generators.patterns import problem

    if message := problem(text):
        yield document.wrong(steps, message)


def _rendering(specs: Specs) -> Iterator[Problem]:
    """Every template exists, can be read and renders with what it is given: samples, system prompts, Modelfiles, a client's wordings and
    configuration, the marker; a persona holds nothing that a Modelfile cannot carry; a client can read the answers that it is taught."""
    from generators.specs import rendering_checks

    yield from rendering_checks.check(specs)


# What each promises stands in the spec reference, in the words of its docstring.
RULES: list[Callable[[Specs], Iterable[Problem]]] = [
    _names,
    _quality,
    _tiers,
    _classifier,
    _categories,
    _counts,
    _balance,
    _chat_formats,
    _models,
    _personas,
    _control_tokens,
    _clients,
    _recipes,
    _sweeps,
    _deployed_names,
    _suites,
    _rendering,
]
