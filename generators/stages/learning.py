"""The client that the model answers, and what people leave behind: integrate, feedback."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.stages.corpus import all_control_tokens, build_dataset, samples
from generators.stages.reading import ignore
from generators.stages.release import basic_queries

if TYPE_CHECKING:
    from generators.feedback.judging import Known
    from generators.paths import Paths
    from generators.specs.project import Project


def integrate(project: Project, paths: Paths, name: str, file: str, client: str, yes: bool, undo: bool) -> None:
    """Exits with code 1 where nobody agrees to the change. file, client: empty for what the profile says, and for the only client."""
    import shlex
    import sys

    from generators import integrate as integrating
    from generators import progress
    from generators.ollama_address import ollama_host

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
    query = integrating.Query(basic_queries(project, recipe)[0], model, f"doit deploy:{name}")
    integrating.smoke_test(profile, chosen, aim, query, ollama_host(), progress.say)


def feedback(project: Project, paths: Paths, sources: list[str], review: bool) -> None:
    from generators import feedback as learning
    from generators import progress
    from generators.evaluate.asking import split_marker
    from generators.feedback import terminal
    from generators.specs.project import load

    learning.feedback(
        learning.Places(paths.root, paths.feedback, paths.decisions, paths.held_out, paths.proposal),
        terminal.places_of(sources, paths.root),
        partial(known_texts, project, paths),
        learning.Rules(
            frozenset(all_control_tokens(project)),
            lambda answer: split_marker(answer, project.tiers)[1],
            partial(missed_gates, {}),
            partial(load, paths.root, keep=False),
        ),
        terminal.person() if review else None,
        progress.say,
    )


def known_texts(project: Project, paths: Paths) -> Known:
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
        limits_of(project.project, project.categories, project.personas, all_control_tokens(project)),
        persona,
        (persona, *(recipe["deploy"]["name"] for recipe in project.recipes.values())),
    )


def missed_gates(seen: Any, root: Path) -> list[str]:
    """What the specs under `root` miss of the dataset's gates, a line each. seen: files that were loaded before."""
    from generators.dataset import DatasetErrors
    from generators.paths import Paths
    from generators.specs.project import load

    project, paths = load(root, keep=False, seen=seen), Paths(root)
    for name in project.categories:
        samples(project, paths, name)
    try:
        build_dataset(project, paths, ignore)
    except DatasetErrors as errors:
        return [str(violation) for violation in errors.violations]
    return []
