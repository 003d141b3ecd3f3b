"""Stages that run other stages over other paths: any two models compared, the points of a sweep, a retrained candidate.

What is decided on the way stands in modules of its own, as functions of plain values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.stages import corpus, export, judging, modelfiles, release, training
from generators.stages.export import write_gguf
from generators.stages.reading import Slice, chat_format_of, deployed_as, persona_file, recipe_file
from generators.stages.training import train_adapter

if TYPE_CHECKING:
    from generators.compare import Comparison, Side, Subject
    from generators.evaluate import Exam
    from generators.evaluate.kept import Judged
    from generators.paths import Paths
    from generators.specs.project import Project, Spec
    from generators.sweep import Point, Sweep


# compare


def compare(project: Project, paths: Paths, a: str, b: str) -> None:
    """a, b: a recipe, RECIPE:PERSONA (or a persona of the default recipe), MODEL@NUMBER of a deployment."""
    from generators import compare as comparing
    from generators import progress
    from generators.deploy import history
    from generators.errors import UserError

    if not (a and b):
        raise UserError("name the two: doit compare --a X --b Y, each a recipe, RECIPE:PERSONA, or MODEL@NUMBER of a deployment")
    deployments = {model: [found.number for found in history.all_of(paths.deployments, model)] for model in history.models(paths.deployments)}
    personas = {name: recipe["personas"] for name, recipe in project.recipes.items()}
    known = comparing.subjects(personas, project.project["default_recipe"], deployments)
    subjects = [comparing.choose(name, known) for name in (a, b)]
    if subjects[0] == subjects[1]:
        raise UserError(f"{a} and {b} are the same; name two that may differ")
    sides = [_side(project, paths, subject) for subject in subjects]
    target = paths.comparison(comparing.folder_name(a), comparing.folder_name(b))
    found = comparing.compare(sides[0], sides[1], project.project["seed"])
    comparing.write(found, target)
    for line in [*comparing.lines_of(found.scores), f"report: {target / 'report.html'}"]:
        progress.say(line)


def _side(project: Project, paths: Paths, subject: Subject) -> Side:
    """A recipe counts with the evaluation that it has; a persona or a deployment without one is examined now."""
    from generators.compare import Side
    from generators.errors import UserError
    from generators.evaluate import kept

    if subject.kind == "deployment":
        return _deployed_side(project, paths, subject)
    recipe, outputs = project.recipes[subject.recipe], paths.recipe(subject.recipe)
    persona = subject.persona or recipe["personas"][0]
    judged = kept.of_recipe(outputs.evaluation) if persona == recipe["personas"][0] else None
    if judged is None and subject.kind == "recipe":
        raise UserError(f"{subject.recipe} has not been evaluated; run: doit evaluate:{subject.recipe}")
    gguf = outputs.gguf(recipe["export"]["quantisations"][0])
    if judged is None:
        if not gguf.is_file():
            raise UserError(f"{gguf} does not exist; run: doit gguf:{subject.recipe}")
        judged = _examined(project, paths, subject.recipe, _exam(project, paths, subject.recipe, persona), gguf)
    facts = _facts(project, paths, subject.recipe) | {"persona": persona, "sha256": judged.told["engine"]["digest"][:16]}
    return Side(subject.name, judged, facts, recipe["gates"], recipe["evaluation"]["framings"])


def _deployed_side(project: Project, paths: Paths, subject: Subject) -> Side:
    from generators import modelfile_reader
    from generators.compare import Side
    from generators.deploy import history
    from generators.errors import UserError, did_you_mean

    found = next(found for found in history.all_of(paths.deployments, subject.model) if found.number == subject.number)
    name = found.record.get("recipe")
    if name not in project.recipes:
        raise UserError(f"{subject.name} was made from the recipe {name!r}, which is gone{did_you_mean(name, project.recipes)}")
    recipe = project.recipes[name]
    persona = next((each for each in recipe["personas"] if deployed_as(recipe, each) == subject.model), recipe["personas"][0])
    system = modelfile_reader.read(found.modelfile.read_text(encoding="utf-8")).system
    judged = _judged_deployment(project, paths, name, found.sha256, _exam(project, paths, name, persona, system), subject.name)
    facts = {"recipe": name, "persona": persona, "deployed": found.record["deployed_at"], "sha256": found.sha256[:16]}
    return Side(subject.name, judged, facts, recipe["gates"], recipe["evaluation"]["framings"])


def _judged_deployment(project: Project, paths: Paths, name: str, sha256: str, exam: Exam, called: str) -> Judged:
    """The recipe's own evaluation where it is of this very model and prompt, or what was kept when it was deployed; else the GGUF is asked,
    wherever it is still kept."""
    from generators.deploy import history
    from generators.errors import UserError
    from generators.evaluate import kept
    from generators.files import sha256_file

    recipe, outputs = project.recipes[name], paths.recipe(name)
    judged, system = kept.of_recipe(outputs.evaluation), outputs.frames / "system.txt"
    if judged and judged.told["engine"]["digest"] == sha256 and system.is_file() and system.read_text(encoding="utf-8").strip() == exam.system:
        return judged
    if judged := kept.find(paths.evaluations, release.of_deployment(sha256, exam.system)):
        return judged
    places = [history.kept_gguf(paths.deployments, sha256), outputs.gguf(recipe["export"]["quantisations"][0])]
    gguf = next((place for place in places if place.is_file() and sha256_file(place) == sha256), None)
    if gguf is None:
        raise UserError(
            f"{called} was not evaluated when it was deployed, and its GGUF (sha256 {sha256[:12]}…) is not kept any more: of each model, only "
            "what is deployed and what it would be rolled back to can be asked"
        )
    return _examined(project, paths, name, exam, gguf)


def _exam(project: Project, paths: Paths, name: str, persona: str, system: str | None = None, half: str | None = None) -> Exam:
    """system: the prompt that a model was deployed with; the persona's by default."""
    from generators.evaluate import Exam
    from generators.modelfile import system_prompt

    return Exam(
        project.recipes[name],
        project.suites,
        project.personas[persona],
        system_prompt(project.personas[persona], paths.templates) if system is None else system,
        project.clients,
        project.tiers,
        chat_format_of(project, project.recipes[name]),
        project.project,
        half,
    )


def _examined(project: Project, paths: Paths, name: str, exam: Exam, gguf: Path) -> Judged:
    """One model's evaluation, as it was kept or as it is found now; answers that the recipe's evaluation has heard are not asked again."""
    from generators import progress
    from generators.evaluate import examine, kept
    from generators.files import sha256_file

    model, answers = paths.model(project.recipes[name]["base"]), paths.recipe(name).evaluation / "answers"
    ask = partial(examine, exam, model, gguf, paths.dataset / "train.jsonl", answers, progress.say)
    return kept.found_or_made(paths.evaluations, [sha256_file(gguf), exam.key], ask)


def _facts(project: Project, paths: Paths, name: str) -> Spec:
    """What a comparison tells of a recipe beside its scores."""
    from generators.compare import facts_of
    from generators.report.material import gather

    return facts_of(gather(paths.recipe(name).root, {}), project.recipes[name], name)


# sweep


def sweep_points(project: Project, name: str) -> list[Point]:
    """The points of a recipe's sweep, none where it declares none."""
    recipe = project.recipes[name]
    if "sweep" not in recipe:
        return []
    from generators.sweep import points

    return points(recipe, project.personas[recipe["personas"][0]]["parameters"])


def sweep_adapters(project: Project, name: str) -> dict[str, Point]:
    """The adapters that the points share, each with the first point that wants it."""
    found: dict[str, Point] = {}
    for point in sweep_points(project, name):
        found.setdefault(point.adapter, point)
    return found


def _at_point(project: Project, name: str, point: Point) -> Project:
    """The project with the settings of a point in the recipe and its first persona."""
    from generators.sweep import applied

    first = project.recipes[name]["personas"][0]
    recipe, persona = applied(project.recipes[name], project.personas[first], point)
    return replace(project, recipes={**project.recipes, name: recipe}, personas={**project.personas, first: persona})


def _paths_of_adapter(paths: Paths, name: str, point: Point) -> Paths:
    return replace(paths, made=paths.sweep(name).adapter(point.adapter))


def sweep_train_slice(project: Project, name: str, point: Point) -> Slice:
    return training.train_slice(_at_point(project, name, point), name)


def sweep_train(project: Project, paths: Paths, name: str, point: Point) -> None:
    """The adapter that `point` and all that share it are judged by. Settings that cannot be trained with are a result as well."""
    import shutil

    from generators import progress
    from generators.errors import Diverged
    from generators.files import read_json, write_json

    made, ended = _paths_of_adapter(paths, name, point), paths.sweep(name).trained(point.adapter)
    outputs = made.recipe(name)
    _swept_gguf(made, name).unlink(missing_ok=True)  # of the adapter before this one, left by a sweep that was interrupted
    progress.say(f"training {point.adapter}")
    try:
        train_adapter(_at_point(project, name, point), made, name, paths.recipe(name).frames)
    except Diverged as error:
        shutil.rmtree(outputs.checkpoints, ignore_errors=True)
        progress.say(str(error).splitlines()[0])
        write_json(ended, {"failed": str(error).splitlines()[0]})
    else:
        write_json(ended, read_json(outputs.training_summary))


def sweep_point_slice(project: Project, name: str, point: Point) -> Slice:
    """What trains the adapter is no part of it: that changes a file which the point depends on."""
    return judging.evaluate_slice(_at_point(project, name, point), name)


def sweep_point(project: Project, paths: Paths, name: str, point: Point) -> None:
    """One point judged, kept, and put into the table of all that are finished."""
    from generators import progress
    from generators import sweep as sweeping
    from generators.files import read_json, write_json, write_jsonl

    kept, here = paths.sweep(name), _at_point(project, name, point)
    trained = read_json(kept.trained(point.adapter))
    rows = [] if "failed" in trained else _rows_of_point(here, paths, name, point)
    write_jsonl(kept.rows(point.name), rows)
    framing, stamp = here.recipes[name]["evaluation"]["framings"][0], _sweep_stamp(project, paths, name, point)
    found = sweeping.result(point, trained, rows, framing, project.project["seed"], stamp)
    write_json(kept.result(point.name), found)
    points, results = sweep_points(project, name), _sweep_results(project, paths, name)
    if all(each.name in results for each in points if each.adapter == point.adapter):
        _swept_gguf(_paths_of_adapter(paths, name, point), name).unlink(missing_ok=True)  # nobody asks it any more; the adapter stays
    _write_sweep(project, paths, name)
    progress.say(f"{point.name}: {len(results)} of {len(points)} points are finished; {kept.results.with_suffix('.md')} has the table")


def _swept_gguf(made: Paths, name: str) -> Path:
    return made.recipe(name).gguf("judged")


def _rows_of_point(project: Project, paths: Paths, name: str, point: Point) -> list[Spec]:
    """project: with the point's settings. The GGUF stays for the other points of its adapter."""
    from generators import progress
    from generators.evaluate import examine

    recipe, made = project.recipes[name], _paths_of_adapter(paths, name, point)
    gguf, quantisation = _swept_gguf(made, name), recipe["export"]["quantisations"][0]
    if not gguf.is_file():
        write_gguf(project, made, name, "Q8_0" if quantisation == "auto" else quantisation, gguf)
    exam = _exam(project, paths, name, recipe["personas"][0], half="dev")
    model, answers = paths.model(recipe["base"]), paths.sweep(name).answers
    rows, _ = examine(exam, model, gguf, paths.dataset / "train.jsonl", answers, progress.say, measure=False)
    return rows


def _sweep_stamp(project: Project, paths: Paths, name: str, point: Point) -> str:
    """Digest of all that decides a point's result, but for the program."""
    from generators.lock import hash_of

    frames = paths.recipe(name).frames
    texts = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in (frames / "trained.sha256", frames / "system.txt")]
    return hash_of([sweep_train_slice(project, name, point), sweep_point_slice(project, name, point), texts])


def _sweep_results(project: Project, paths: Paths, name: str) -> dict[str, Spec]:
    """The results of the points as they are declared, in that order; those of other settings or samples are left out."""
    from generators.files import read_json

    found = {}
    for point in sweep_points(project, name):
        file = paths.sweep(name).result(point.name)
        if file.is_file() and (result := read_json(file))["stamp"] == _sweep_stamp(project, paths, name, point):
            found[point.name] = result
    return found


def _write_sweep(project: Project, paths: Paths, name: str) -> Sweep:
    """results.json and results.md, of all points that are finished."""
    from generators.files import read_jsonl, write_json, write_text
    from generators.sweep import Sweep, changes, rank

    kept, recipe, results = paths.sweep(name), project.recipes[name], _sweep_results(project, paths, name)
    names = [point.name for point in sweep_points(project, name)]
    rows = {point: list(read_jsonl(kept.rows(point))) for point in results}
    ranking = rank(list(results.values()), rows, names[0], project.project["seed"])
    parameters = project.personas[recipe["personas"][0]]["parameters"]
    to_change = [
        _line_to_change(project, paths, name, *change)
        for change in (changes(results[ranking.best], recipe, parameters) if ranking.best else ())
    ]
    found = Sweep(name, names[0], list(results.values()), [each for each in names if each not in results], ranking, to_change)
    write_json(kept.results, found.as_json())
    write_text(kept.results.with_suffix(".md"), found.as_markdown())
    return found


def _line_to_change(project: Project, paths: Paths, name: str, field: tuple[str, str], now: Any, better: Any) -> str:
    """`specs/recipes/jessy-mini.yaml:10: lora.rank: 16 -> 8`"""
    from generators.specs import yaml_source

    file = persona_file(project.recipes[name]["personas"][0]) if field[0] == "parameters" else recipe_file(name)
    document = yaml_source.read(paths.root / file, file)
    said = f"{'.'.join(field)}: {'not set' if now is None else now} -> {'not set' if better is None else better}"
    return f"{file}:{document.problem(field, '', at_key=True).line}: {said}{'' if document.node(field) else ' (to be added)'}"


def sweep(project: Project, paths: Paths, name: str) -> None:
    """The table of all points that are finished. Raises UserError for a recipe that declares no sweep."""
    from rich.table import Table

    from generators import progress
    from generators.errors import UserError

    if "sweep" not in project.recipes[name]:
        example = "sweep: {grid: {lora: {rank: [8, 16]}, training: {learning_rate: [1e-4, 2e-4]}}}"
        raise UserError(f"{name} declares no sweep; add one to {recipe_file(name)}, for example `{example}`")
    found = _write_sweep(project, paths, name)
    columns, lines = found.table()
    shown = Table(*columns)
    for line in lines:
        shown.add_row(*line)
    progress.console().print(shown)
    results = paths.sweep(name).results
    for said in [*found.ending(), f"results: {results} and {results.with_suffix('.md').name}"]:
        progress.say(said)


# retrain


@dataclass(frozen=True)
class _Deployed:
    """What a candidate has to be as good as. number: of the deployment, None for a recipe's build that was never deployed. adapter: None
    where it was not kept. made_from: see `release.made_from`."""

    name: str
    gguf: Path
    sha256: str
    system: str
    number: int | None
    adapter: Path | None
    made_from: str


def retrain(project: Project, paths: Paths, name: str, schedule: bool) -> None:
    """Raises GateMissed where the candidate is not as good as what is deployed, and UserError where it is and Ollama does not take it."""
    from generators import progress
    from generators.files import sha256_file
    from generators.retrain import alone

    if schedule:
        _print_schedule(project, paths, name)
        return
    with alone(paths.retrain(name).lock, f"retraining of {name}", progress.say):
        here, made = _retraining(project, name), replace(paths, made=paths.retrain(name).candidate)
        deployed = _what_is_deployed(project, paths, name)
        corpus.frames(here, made, name)
        if deployed.number is not None and deployed.made_from == release.made_from(here, made, name):
            progress.say(f"{deployed.name} was made from these very samples and settings: there is nothing new to learn")
            return
        _make_candidate(here, paths, made, name, deployed)
        if deployed.number is not None and sha256_file(_gguf_of(here, made, name)) == deployed.sha256:
            progress.say(f"no step of the training made it better, and what came of it is {deployed.name} again: nothing is to be judged")
            return
        _promote(here, paths, made, name, deployed)


def _gguf_of(project: Project, made: Paths, name: str) -> Path:
    return made.recipe(name).gguf(project.recipes[name]["export"]["quantisations"][0])


def _retraining(project: Project, name: str) -> Project:
    """The project with the recipe as a retraining takes it: its own training settings, and the one GGUF that is deployed.

    An adapter that is trained on lies on this machine alone.
    """
    recipe = project.recipes[name]
    training = {**recipe["training"], **recipe["retrain"]["training"]}
    training |= {"hosts": []} if recipe["retrain"]["from"] == "deployed" else {}
    export = {**recipe["export"], "quantisations": recipe["export"]["quantisations"][:1]}
    return replace(project, recipes={**project.recipes, name: {**recipe, "training": training, "export": export}})


def _what_is_deployed(project: Project, paths: Paths, name: str) -> _Deployed:
    """Or, where nothing is, the recipe as it was built last. Raises UserError where there is neither."""
    from generators import modelfile_reader
    from generators.deploy import history
    from generators.errors import UserError
    from generators.files import sha256_file
    from generators.retrain import kept_adapter

    recipe, outputs = project.recipes[name], paths.recipe(name)
    model, built, system = recipe["deploy"]["name"], _gguf_of(project, paths, name), outputs.frames / "system.txt"
    last = history.last(paths.deployments, model)
    if last:
        kept = [place for place in (history.kept_gguf(paths.deployments, last.sha256), built) if place.is_file()]
        gguf = next((place for place in kept if sha256_file(place) == last.sha256), None)
        if gguf is None:
            raise UserError(f"the GGUF of {model}@{last.number}, which is deployed, is neither kept nor built; run: doit deploy:{name}")
        said = modelfile_reader.read(last.modelfile.read_text(encoding="utf-8")).system
        return _Deployed(f"{model}@{last.number}", gguf, last.sha256, said, last.number, *kept_adapter(paths.retrain(name).adapters, last.sha256))
    if not (built.is_file() and system.is_file()):
        raise UserError(f"there is nothing that a retrained {name} could be compared with; run: doit report:{name}, then doit deploy:{name}")
    adapter = outputs.adapter if outputs.adapter.is_dir() else None
    return _Deployed(f"{name} as built", built, sha256_file(built), system.read_text(encoding="utf-8").strip(), None, adapter, "")


def _make_candidate(project: Project, paths: Paths, made: Paths, name: str, deployed: _Deployed) -> None:
    """Adapter, GGUF, Modelfiles, parity, all under `made`. An adapter that an earlier run has finished from the same is taken as it is."""
    from generators import progress
    from generators.errors import UserError
    from generators.files import read_json, write_json

    goes_on = project.recipes[name]["retrain"]["from"] == "deployed"
    if goes_on and deployed.adapter is None:
        again = f"run doit deploy:{name} once more, or set retrain.from to fresh in {recipe_file(name)}"
        raise UserError(f"the adapter of {deployed.name}, which is to be trained on, was not kept; {again}")
    marker = paths.retrain(name).made_from
    wanted = {"made_from": release.made_from(project, made, name), "on": deployed.sha256 if goes_on else None}
    if marker.is_file() and read_json(marker) == wanted and made.recipe(name).adapter.is_dir():
        progress.say("the candidate is trained already")
    else:
        marker.unlink(missing_ok=True)
        progress.say(f"training a candidate {f'on from {deployed.name}' if goes_on else 'from the base'}")
        train_adapter(project, made, name, made.recipe(name).frames, deployed.adapter if goes_on else None)
        write_json(marker, wanted)
    for stage in (export.gguf, modelfiles.modelfiles, export.parity):
        stage(project, made, name)


def _promote(project: Project, paths: Paths, made: Paths, name: str, deployed: _Deployed) -> None:
    """Judge the candidate, deploy it where it is as good, and say so in report.html, report.md and verdict.json."""
    from generators import compare as comparing
    from generators import progress
    from generators.errors import GateMissed, UserError
    from generators.evaluate import summarise
    from generators.files import write_json
    from generators.retrain import decide

    root = paths.retrain(name).root
    found = _judged_candidate(project, paths, made, name, deployed)
    before = summarise(found.after, found.before, {**project.recipes[name], "evaluation": {"framings": [found.scores["framing"]]}}, name, 0)
    paired = next(line for line in found.scores["overall"] if line["framing"] == found.scores["framing"])["paired"]["passed"]
    decision = decide(before["gates"], found.scores["gates"], paired)
    failure = ""
    if decision.promoted:
        try:
            release.release(project, paths, made, name, found.b.judged, retrained=True)
        except UserError as error:
            failure = str(error).replace("doit deploy again", f"doit retrain:{name} again")  # that would deploy what was built before
    pill = "Not promoted" if not decision.promoted else "Good, not deployed" if failure else "Promoted"
    lines = [*decision.reasons, *([f"it could not be deployed: {failure}"] if failure else [])]
    about = {"title": pill, "lead": f"A candidate beside {deployed.name}.", "lines": lines}
    comparing.write(found, root, f"Retraining of {name}", about | {"pill": {"text": pill, "good": pill == "Promoted"}})
    verdict = {"recipe": name, "against": deployed.name, "promoted": decision.promoted, "deployed": decision.promoted and not failure}
    gates = {"before": before["gates"], "now": found.scores["gates"]}
    write_json(paths.retrain(name).verdict, verdict | {"reasons": lines, "paired": paired, "gates": gates})
    for line in [*comparing.lines_of(found.scores), f"report: {root / 'report.html'}"]:
        progress.say(line)
    if not decision.promoted:
        raise GateMissed(f"the candidate of {name} is not promoted: {'; '.join(decision.reasons)}")
    if failure:
        raise UserError(f"the candidate of {name} is good, and could not be deployed: {failure}")
    progress.say(f"the candidate is promoted; doit deploy:{name} --rollback goes back to {deployed.name}")


def _judged_candidate(project: Project, paths: Paths, made: Paths, name: str, deployed: _Deployed) -> Comparison:
    """Both asked the same on this machine, one after the other: the recipe's suites, and what is held out of the feedback."""
    from generators import progress
    from generators.compare import Side, compare
    from generators.evaluate import examine
    from generators.evaluate.kept import Judged

    recipe, framings = project.recipes[name], project.recipes[name]["evaluation"]["framings"]
    asked = _with_feedback(project, paths, name)
    persona, gguf = recipe["personas"][0], _gguf_of(project, made, name)
    system = (made.recipe(name).frames / "system.txt").read_text(encoding="utf-8").strip()
    sides = []
    for called, file, prompt in ((deployed.name, deployed.gguf, deployed.system), ("candidate", gguf, system)):
        progress.say(f"asking {called}")
        exam, model = _exam(asked, paths, name, persona, prompt), paths.model(recipe["base"])
        rows, told = examine(exam, model, file, paths.dataset / "train.jsonl", paths.recipe(name).evaluation / "answers", progress.say)
        facts = {"sha256": told["engine"]["digest"][:16], "engine": told["engine"]["name"]}
        sides.append(Side(called, Judged(rows, told), facts, recipe["gates"], framings))
    return compare(sides[0], sides[1], project.project["seed"])


def _with_feedback(project: Project, paths: Paths, name: str) -> Project:
    """The project with the suite of held-out feedback among those that the recipe asks."""
    from generators import progress
    from generators.errors import UserError
    from generators.retrain import FEEDBACK, feedback_suite

    suite = feedback_suite(paths.held_out, project.tiers["classifier"], progress.say)
    if suite is None:
        return project
    if FEEDBACK in project.suites:
        raise UserError(f"specs/evals/{FEEDBACK}.yaml has the name of the suite of held-out feedback; rename it")
    recipe = project.recipes[name]
    suites = [*(recipe["evaluation"]["suites"] or project.suites), FEEDBACK]
    asked = {**recipe, "evaluation": {**recipe["evaluation"], "suites": suites}}
    return replace(project, suites={**project.suites, FEEDBACK: suite}, recipes={**project.recipes, name: asked})


def _print_schedule(project: Project, paths: Paths, name: str) -> None:
    import os

    from generators.retrain import Schedule
    from generators.specs.schema import WEEKDAYS

    when, label = project.recipes[name]["retrain"]["schedule"], f"{project.project['name']}.retrain.{name}"
    day = None if when["weekday"] == "every" else WEEKDAYS.index(when["weekday"])
    folder, environment = paths.root.resolve(), {key: os.environ[key] for key in ("OLLAMA_HOST",) if os.environ.get(key)}
    log = paths.retrain(name).log.resolve().relative_to(folder).as_posix()
    schedule = Schedule(day, when["hour"], when["minute"], folder, name, log, environment)
    print(f"# for cron: a line of `crontab -e`\n{schedule.crontab()}\n")
    print(f"# for launchd: ~/Library/LaunchAgents/{label}.plist, then `launchctl load` it\n{schedule.launchd(label)}", end="")
