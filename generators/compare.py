"""Any two models beside one another: two recipes, two personas of a recipe, two deployments, or one of each.

`subjects` names what can be compared, `compare` weighs a pair, `write` writes its report. The second is judged against the first case by
case, as an evaluation judges the tuned model against its base.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generators.errors import NoSuchName, UserError, did_you_mean, one_of
from generators.evaluate import summarise
from generators.evaluate.kept import Judged
from generators.files import human_bytes, write_json, write_jsonl
from generators.report import write_report
from generators.report.material import Material
from generators.report.view import percent

Row = dict[str, Any]


# --- what can be compared ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """One side as it was asked for. kind: recipe, persona or deployment. name: as the report calls it. number: of the deployment."""

    kind: str
    name: str
    recipe: str = ""
    persona: str = ""
    model: str = ""
    number: int = 0


def subjects(recipes: Mapping[str, Sequence[str]], default: str, deployments: Mapping[str, Sequence[int]]) -> dict[str, Subject]:
    """Everything that can be compared, by each name that it may be called.

    recipes: the personas of each. default: the recipe whose personas need no recipe before them. deployments: their numbers, by the model's
    name in Ollama. Where a recipe and a persona have the same name, the recipe is meant.
    """
    found: dict[str, Subject] = {}
    for recipe in sorted(recipes, key=lambda name: name != default):
        for persona in recipes[recipe]:
            subject = Subject("persona", f"{recipe}:{persona}", recipe, persona)
            found[subject.name] = subject
            found.setdefault(persona, subject)
    for model, numbers in deployments.items():
        for number in numbers:
            found[f"{model}@{number}"] = Subject("deployment", f"{model}@{number}", model=model, number=number)
    return found | {recipe: Subject("recipe", recipe, recipe) for recipe in recipes}


_FOLDER = re.compile(r"(?:.*/)?deployments/([^/]+)/0*(\d+)/?")


def choose(asked: str, known: Mapping[str, Subject]) -> Subject:
    """known: see `subjects`. The folder of a deployment is taken for it. Raises NoSuchName for a name that nothing has."""
    word = asked.strip()
    if folder := _FOLDER.fullmatch(word):
        word = f"{folder[1]}@{folder[2]}"
    if word in known:
        return known[word]
    raise NoSuchName(f"{asked!r} is nothing that can be compared; {_all_of(known)}{did_you_mean(word, known)}")


def _all_of(known: Mapping[str, Subject]) -> str:
    names = {kind: sorted({each.name for each in known.values() if each.kind == kind}) for kind in ("recipe", "persona", "deployment")}
    kinds = {"recipe": "recipes", "persona": "personas", "deployment": "deployments"}
    return "there are the " + "; the ".join(f"{kinds[kind]} {one_of(found)}" for kind, found in names.items() if found)


def folder_name(asked: str) -> str:
    """For a name in a path."""
    return re.sub(r"[^\w.@-]+", "-", asked.strip()).strip("-")


# --- comparing --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """facts: what the report tells of it beside the scores. gates: of its recipe. framings: of its recipe's evaluation, the judged one first."""

    name: str
    judged: Judged
    facts: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[str, Any] = field(default_factory=dict)
    framings: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """before, after: the rows that count of either side. scores: all figures, as an evaluation has them, with `sides` and `notes`."""

    a: Side
    b: Side
    before: list[Row]
    after: list[Row]
    scores: Row


def compare(a: Side, b: Side, seed: int) -> Comparison:
    """`b` judged against `a`, and by the gates of `b`.

    Raises UserError where no case was asked of both in the same words and frame.
    """
    before, after, notes = shared(a, b)
    found = summarise(before, after, {"evaluation": {"framings": _framings(a, b, after)}, "gates": b.gates}, f"{a.name} and {b.name}", seed)
    found |= {"engines": {"base": a.judged.told["engine"], "tuned": b.judged.told["engine"]}, "machine": b.judged.told["machine"]}
    found |= {"half": b.judged.told["half"] if a.judged.told["half"] == b.judged.told["half"] else None}
    found |= {"sampling": b.judged.told["sampling"] if a.judged.told["sampling"] == b.judged.told["sampling"] else None}
    return Comparison(a, b, before, after, found | {"sides": {"base": a.name, "tuned": b.name}, "notes": notes})


_ABOUT = {"title": "The two", "lead": "What is compared, and what differs in how it was asked."}


def write(found: Comparison, target: Path, title: str = "", about: Row | None = None) -> None:
    """`target`/{report.html,report.md} and, in `target`/evaluation, the rows of both and scores.json.

    title: of the report, the names of both by default. about: what the report tells first (see `write_report`); what is compared stands below it.
    """
    write_jsonl(target / "evaluation" / "base.jsonl", found.before)
    write_jsonl(target / "evaluation" / "tuned.jsonl", found.after)
    write_json(target / "evaluation" / "scores.json", found.scores)
    told = {**_ABOUT, **(about or {})}
    told = {**told, "lines": [*told.get("lines", []), *found.scores["notes"]], "rows": table_of(found.a, found.b)}
    recipe = {"description": f"Case by case: {found.a.name}, then {found.b.name}."}
    write_report(target, {"name": title or found.scores["recipe"], "recipe": recipe, "sides": found.scores["sides"], "about": told})


def shared(a: Side, b: Side) -> tuple[list[Row], list[Row], list[str]]:
    """The rows of cases that both were asked, in the same words and frame, and notes on what was left out or asked otherwise."""
    asked = [{(row["id"], row["framing"]): (row["query"], row["history"]) for row in side.judged.rows} for side in (a, b)]
    both = asked[0].keys() & asked[1].keys()
    same = {key for key in both if asked[0][key] == asked[1][key]}
    if not same:
        raise UserError(f"{a.name} and {b.name} were asked no case in common, so that nothing can be compared; evaluate both on the same suites")
    rows = [[row for row in side.judged.rows if (row["id"], row["framing"]) in same] for side in (a, b)]
    notes = [f"{len(both) - len(same)} cases were asked in other words of the two, and are left out."] if both != same else []
    notes += [
        f"{count} answers of {side.name} have no counterpart, and are left out."
        for side, keys in ((a, asked[0]), (b, asked[1]))
        if (count := len(keys.keys() - both))
    ]
    return rows[0], rows[1], [*notes, *_asked_otherwise(a.judged.told, b.judged.told)]


def _asked_otherwise(a: Row, b: Row) -> Iterable[str]:
    if a["sampling"] != b["sampling"]:
        names = [name for name in {**a["sampling"], **b["sampling"]} if a["sampling"].get(name) != b["sampling"].get(name)]
        told = ", ".join(f"{name} {a['sampling'].get(name, 'not set')} and {b['sampling'].get(name, 'not set')}" for name in names)
        yield f"They were asked with different settings: {told}."
    if a["machine"] != b["machine"]:
        yield "They were asked on different machines: their times do not compare."


def _framings(a: Side, b: Side, rows: Iterable[Row]) -> list[str]:
    """Those of both, the one that `b` is judged in first where `a` was asked in it too."""
    there = dict.fromkeys(row["framing"] for row in rows)
    wanted = [framing for framing in [*b.framings, *a.framings] if framing in there]
    return list(dict.fromkeys([*wanted, *there]))


def facts_of(material: Material, recipe: Row, name: str) -> Row:
    """What is told of a recipe beside its scores. material: what its stages left behind."""
    training = recipe["training"]
    facts = {"recipe": name, "base": recipe["base"], "LoRA": f"rank {recipe['lora']['rank']}, alpha {recipe['lora']['alpha']:g}"}
    facts["training"] = f"learning rate {training['learning_rate']:g}, {training['epochs']} epochs of batches of {training['batch_size']}"
    if found := material.training:
        facts["validation loss"] = f"{found['best_validation_loss']:.4f} at step {found['best_step']}"
    if material.export:
        gguf = material.export["quantisations"][0]
        facts |= {"GGUF": f"{gguf['quantisation']}, {human_bytes(gguf['size'])}", "sha256": gguf["sha256"][:16]}
    return facts


def table_of(a: Side, b: Side) -> list[Row]:
    return [{"what": what, a.name: a.facts.get(what), b.name: b.facts.get(what)} for what in {**a.facts, **b.facts}]


# --- in the terminal --------------------------------------------------------------------------------------------------------------


def lines_of(found: Row) -> list[str]:
    """The comparison in the framing that is judged. found: the scores of a `Comparison`."""
    a, b = found["sides"]["base"], found["sides"]["tuned"]
    line = next(line for line in found["overall"] if line["framing"] == found["framing"])
    measures = (("passed", "every check passed"), ("accuracy", "accuracy"), ("appropriateness", "appropriateness"), ("persona", "persona"))
    told = [f"{words} {percent(line['base'][name]['value'])} -> {percent(line['tuned'][name]['value'])}" for name, words in measures]
    return [f"{a} -> {b}, {line['tuned']['passed']['n']} cases: {'; '.join(told)}", paired_in_words(line["paired"]["passed"]), *found["notes"]]


def paired_in_words(paired: Row) -> str:
    """`12 won, 3 lost, 20 tied; difference +26 points (+9 to +43); McNemar p 0.035`"""
    gain = paired["difference"]
    points = [f"{100 * gain[key]:+.0f}" if gain[key] is not None else "–" for key in ("value", "low", "high")]
    counts = f"{paired['wins']} won, {paired['losses']} lost, {paired['ties']} tied"
    return f"{counts}; difference {points[0]} points ({points[1]} to {points[2]}); McNemar p {paired['mcnemar_p']:.3f}"
