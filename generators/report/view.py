"""What the templates show: every figure already in words, every bar in per cent of its track."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from generators.files import human_bytes, human_seconds
from generators.report.material import Material
from generators.report.tables import environment, table

Row = dict[str, Any]
Shown = dict[str, Any]

_GATES = {
    "turkish": "Turkish",
    "technical": "Technical",
    "appropriateness": "Appropriateness",
    "iteration_efficiency": "Iteration efficiency",
    "simple_query_s": "Simple queries",
}
_FRAMINGS = {"persona": "under its own system prompt", "none": "with no system prompt", "directive": "asked to name its iterations"}
_SIDES = {"base": {"name": "base", "title": "Base", "head": "Before"}, "tuned": {"name": "tuned", "title": "Tuned", "head": "After"}}
_MEASURES = {"accuracy": "Accuracy", "appropriateness": "Appropriateness", "persona": "Persona", "passed": "All checks"}


def view(material: Material) -> Shown:
    scores, context = material.scores or {}, material.context
    recipe, sides = context.get("recipe", {}), _sides(context)
    return {
        "sides": sides,
        "about": _about(context.get("about")),
        "title": context.get("name") or scores.get("recipe", "report"),
        "description": recipe.get("description", ""),
        "half": scores.get("half"),
        "gates": [_gate(gate) for gate in scores.get("gates", [])],
        "verdict": _verdict(scores),
        "showcase": _showcase(scores.get("showcase")),
        "headline": _headline(scores),
        "framings": [_framing(name, scores) for name in scores.get("framings", [])],
        "halves": _halves(scores),
        "iterations": _iterations(scores),
        "cases": cases(material.base_rows, material.tuned_rows),
        "latency": _latency(scores, sides),
        "training": _training(material),
        "dataset": _dataset(material.dataset),
        "quantisations": _measured(material.quantisations) or _quantisations(material.export),
        "ledger": _ledger(material.ledger, material.export),
        "variants": table(context.get("variants")),
        "parity": table(material.parity),
        "changes": [*context.get("changes", []), *_changes(scores.get("previous"))],
        "environment": environment(material, {side: known["title"] for side, known in sides.items()}),
        "licence": (context.get("base") or {}).get("licence"),
        "measures": _MEASURES,
        "cell": _cell,
    }


def _sides(context: Row) -> dict[str, dict[str, str]]:
    """What each side is called in the middle of a sentence, at the head of a column, and over its answer."""
    given = context.get("sides") or {}
    return {side: dict.fromkeys(known, given[side]) if side in given else known for side, known in _SIDES.items()}


def _about(given: Row | None) -> Shown | None:
    """What is told first, where the report is of more than a recipe's own evaluation."""
    if not given:
        return None
    found = {"title": given["title"], "lead": given["lead"], "lines": list(given.get("lines", [])), "pill": given.get("pill")}
    return found | {"table": table(list(given.get("rows", [])))}


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def seconds(value: float | None) -> str:
    """Short times to the hundredth, since a person feels those."""
    if value is None:
        return "–"
    return f"{value:.2f} s" if value < 10 else human_seconds(value)


def framing_label(framing: str) -> str:
    return _FRAMINGS.get(framing, f"through {framing}")


def _cell(text: Any) -> str:
    """For a cell of a Markdown table."""
    return re.sub(r"\s+", " ", str(text)).strip().replace("|", "\\|").replace("<", "&lt;")


# --- gates and headline --------------------------------------------------------------------------------------------------------------


def _gate(gate: Row) -> Shown:
    state = {True: "passed", False: "missed", None: "unmeasured"}[gate["passed"]]
    got, wanted = gate["got"], gate["wanted"]
    shown = {"name": _GATES.get(gate["name"], gate["name"]), "state": state, "over": gate["over"]}
    if gate["below"]:
        top = max(wanted * 1.6, (got or 0) * 1.1)
        return shown | {"got": seconds(got), "wanted": f"below {wanted:g} s", "fill": _part(got, top), "mark": _part(wanted, top)}
    return shown | {"got": percent(got, 1), "wanted": f"at least {percent(wanted)}", "fill": _part(got, 1), "mark": _part(wanted, 1)}


def _part(value: float | None, whole: float) -> float:
    """Per cent of the track, 0 to 100."""
    return round(100 * min(1.0, max(0.0, (value or 0) / whole)), 2) if whole else 0.0


def _verdict(scores: Row) -> Shown | None:
    if not scores.get("gates"):
        return None
    passed = sum(gate["passed"] is True for gate in scores["gates"])
    total = len(scores["gates"])
    text = f"All {total} gates passed" if passed == total else f"{passed} of {total} gates passed"
    return {"text": text, "good": passed == total, "enforced": scores.get("enforce", False)}


def _showcase(found: Row | None) -> Shown | None:
    if not found:
        return None
    longest = max(side["seconds"] for side in (found["base"], found["tuned"]) if side)
    return {
        "query": found["query"],
        "framing": framing_label(found["framing"]),
        "base": _shown_side(found["base"], longest),
        "tuned": _shown_side(found["tuned"], longest),
    }


def _shown_side(side: Row | None, longest: float) -> Shown | None:
    if not side:
        return None
    stages = f"{side['stages']} stage{'s' if side['stages'] > 1 else ''}"
    note = " and cut off there" if side["ended"] == "length" else "" if side["alone"] else ", beside other requests"
    return {
        "answer": parts(side["answer"]),
        "plain": side["answer"],
        "seconds": seconds(side["seconds"]),
        "note": f"{stages}, {side['tokens']} tokens{note}",
        "bar": max(1.0, _part(side["seconds"], longest)),
        "passed": side["passed"],
    }


def _headline(scores: Row) -> list[Shown]:
    """The figures beside the gates: what changed against the base, and whether by chance."""
    line = next((line for line in scores.get("overall", []) if line["framing"] == scores.get("framing")), None)
    if not line:
        return []
    paired, generic = line["paired"]["passed"], scores["unlike_generic"]
    gain = paired["difference"]
    found = [
        {
            "name": "All checks passed",
            "value": _from_to(line["base"]["passed"], line["tuned"]["passed"]),
            "note": f"{_signed(gain['value'])} points ({_signed(gain['low'])} to {_signed(gain['high'])})" if gain["n"] else "",
        },
        {
            "name": "Case by case",
            "value": f"{paired['wins']} won, {paired['losses']} lost",
            "note": f"{paired['ties']} tied; McNemar p {_probability(paired['mcnemar_p'])}",
        },
        {
            "name": "Unlike any assistant",
            "value": _from_to(generic["base"], generic["tuned"]),
            "note": "no stock phrase, no list, no headings",
        },
        {
            "name": "Persona",
            "value": _from_to(line["base"]["persona"], line["tuned"]["persona"]),
            "note": "opinions marked, principles where they belong",
        },
    ]
    if judge := scores.get("judge"):
        means = [f"{judge[side]['value']:.1f}" if judge[side]["value"] is not None else "–" for side in ("base", "tuned")]
        note = f"{judge['name']}; counts for no gate"
        found.append({"name": "A model's opinion", "value": f"{means[0]} → {means[1]} of 5", "note": note})
    return found


def _from_to(base: Row, tuned: Row) -> str:
    return f"{percent(base['value'])} → {percent(tuned['value'])}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.0f}".replace("-", "−")


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


# --- suites and iterations -----------------------------------------------------------------------------------------------------------


def _framing(name: str, scores: Row) -> Shown:
    lines = [line for line in scores["suites"] if line["framing"] == name]
    overall = next((line for line in scores["overall"] if line["framing"] == name), None)
    shown = [_suite(line["suite"], line) for line in lines]
    if overall and len(lines) > 1:
        shown.append(_suite("all suites", overall))
    judged = name == scores["framing"]
    only_base = not any(line["tuned"]["passed"]["n"] for line in lines)
    return {"name": name, "label": framing_label(name), "judged": judged, "lines": shown, "only_base": only_base}


def _halves(scores: Row) -> list[Shown]:
    """The halves of the cases in the framing that is judged, where both were asked."""
    lines = [_suite(line["half"], line) for line in scores.get("halves", [])]
    return lines if len(lines) == 2 else []


def _suite(name: str, line: Row) -> Shown:
    paired = line["paired"]["passed"]
    return {
        "name": name,
        "cases": max(line[side]["passed"]["n"] for side in ("base", "tuned")),
        "measures": {measure: {side: bar(line[side][measure]) for side in ("base", "tuned")} for measure in _MEASURES},
        "wins": paired["wins"],
        "losses": paired["losses"],
        "ties": paired["ties"],
        "p": _probability(paired["mcnemar_p"]),
        "paired": bool(paired["difference"]["n"]),
    }


def bar(figures: Row) -> Shown | None:
    """A dot with its interval on a track from 0 to 1; None where nothing was judged."""
    if figures["value"] is None:
        return None
    low, high = 100 * figures["low"], 100 * figures["high"]
    return {
        "text": percent(figures["value"]),
        "at": round(100 * figures["value"], 2),
        "left": round(low, 2),
        "width": round(high - low, 2),
        "interval": f"{percent(figures['low'])} to {percent(figures['high'])}",
        "n": figures["n"],
    }


def _iterations(scores: Row) -> list[Shown]:
    found = []
    for framing in scores.get("framings", []):
        sides = {side: scores["iterations"][side].get(framing) for side in ("base", "tuned")}
        if not any(sides.values()):
            continue
        tiers = list(dict.fromkeys(tier for side in sides.values() if side for tier in side["tiers"]))
        lines = [
            {"tier": tier, **{name: _tier(side["tiers"].get(tier)) if side else None for name, side in sides.items()}}
            for tier in sorted(tiers, key=("low", "medium", "high").index)
        ]
        whole = {name: percent(side["value"]) if side else "–" for name, side in sides.items()}
        unit = "iterations named" if framing == "directive" else "stages used"
        found.append({"framing": framing, "label": framing_label(framing), "lines": lines, "whole": whole, "unit": unit})
    return found


def _tier(figures: Row | None) -> Shown | None:
    if not figures or figures["value"] is None:
        return None
    return {"text": percent(figures["value"]), "used": list(figures["used"].items()), "n": figures["n"]}


# --- before and after ------------------------------------------------------------------------------------------------------------------


def cases(base: Iterable[Row], tuned: Iterable[Row]) -> list[Shown]:
    """Each case in each framing, base beside tuned, the first of its repeats; at the end, what only the base was asked."""
    before = {(row["id"], row["framing"]): row for row in base if not row["repeat"]}
    after = {(row["id"], row["framing"]): row for row in tuned if not row["repeat"]}
    keys = [*after, *(key for key in before if key not in after)]
    return [_case(before.get(key), after.get(key)) for key in keys]


def _case(before: Row | None, after: Row | None) -> Shown:
    row = after or before
    assert row is not None
    return {
        "id": row["id"],
        "suite": row["suite"],
        "case": row["case"],
        "framing": row["framing"],
        "label": framing_label(row["framing"]),
        "tier": row["tier"],
        "half": row.get("half", ""),
        "language": row["language"],
        "query": row["query"],
        "history": row["history"],
        "base": _answer(before),
        "tuned": _answer(after),
        "outcome": _outcome(before, after),
        "failed": bool(after and not after["passed"]),
        "trace": (after or {}).get("trace"),
    }


def _outcome(before: Row | None, after: Row | None) -> str:
    if before is None or after is None:
        return "single"
    if before["passed"] == after["passed"]:
        return "both" if after["passed"] else "neither"
    return "won" if after["passed"] else "lost"


def _answer(row: Row | None) -> Shown | None:
    if row is None:
        return None
    return {
        "parts": parts(row["answer"]),
        "plain": row["answer"],
        "passed": row["passed"],
        "notes": _notes(row),
        "failures": _reasons(row, passed=False),
        "unjudged": _reasons(row, passed=None),
    }


_ENDS = {"length": "cut off at the longest answer", "loop": "cut off in a loop", "recital": "cut off reciting its instructions",
         "marker": "cut off showing a marker", "words": "cut off, far too long"}


def _notes(row: Row) -> list[str]:
    notes = [f"{row['stages']} stages"] if row["stages"] > 1 else []
    notes += [f"{row['used']} iterations named"] if row["framing"] == "directive" and row["used"] is not None else []
    notes += [seconds(row["seconds"])] if row["alone"] else []
    return notes + ([_ENDS.get(row["ended"], str(row["ended"]))] if row["ended"] != "stop" else [])


def _reasons(row: Row, passed: bool | None) -> list[tuple[str, str]]:
    return [(check["check"].replace("_", " "), check["reason"]) for check in row["checks"] if check["passed"] is passed]


_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


def parts(answer: str) -> list[tuple[str, str]]:
    """An answer as (`text` or `code`, content)."""
    found: list[tuple[str, str]] = []
    position = 0
    for fence in _FENCE.finditer(answer):
        found += [("text", answer[position : fence.start()].strip()), ("code", fence[1].rstrip())]
        position = fence.end()
    found.append(("text", answer[position:].strip()))
    return [part for part in found if part[1]]


# --- times -----------------------------------------------------------------------------------------------------------------------------


def _latency(scores: Row, sides: dict[str, dict[str, str]]) -> Shown | None:
    from generators.report import plots

    asked = [(framing, side) for framing in scores.get("framings", []) for side in ("base", "tuned")]
    measured = [(framing, side, figures) for framing, side in asked if (figures := scores["latency"][side].get(framing)) and figures["n"]]
    if not measured:
        return None
    limit = next((gate["wanted"] for gate in scores["gates"] if gate["below"]), None)
    groups = [(f"{sides[side]['name']}, {framing}", side, figures["seconds"]) for framing, side, figures in measured]
    lines = [
        {
            "side": side,
            "framing": framing_label(framing),
            "n": figures["n"],
            **{key: seconds(figures[key]) for key in ("p50", "p95", "max")},
            "first": seconds(figures["first_token_p50"]),
            "pace": f"{figures['tokens_per_s']:.0f}" if figures["tokens_per_s"] else "–",
            "cut": figures["cut_short"],
        }
        for framing, side, figures in measured
    ]
    load = {sides[side]["name"]: seconds(engine["load_seconds"]) for side, engine in scores.get("engines", {}).items()}
    names = " and ".join(side["name"] for side in sides.values())
    return {"plot": plots.strip(groups, limit, f"Seconds of simple queries, {names}"), "lines": lines, "load": load}


# --- training and data -----------------------------------------------------------------------------------------------------------------


def _training(material: Material) -> Shown | None:
    from generators.report import plots

    logged = [line for line in material.metrics if line.get("loss") is not None]
    validated = [line for line in material.metrics if line.get("validation_loss") is not None]
    if not logged and not validated:
        return None
    best = min(validated, key=lambda line: line["validation_loss"], default=None)
    series = [
        (title, [(line["step"], line[key] * scale) for line in logged if line.get(key) is not None])
        for title, key, scale in (
            ("learning rate", "learning_rate", 1),
            ("memory, GB", "memory_bytes", 1e-9),
            ("samples a second", "samples_per_s", 1),
            ("accelerator used, %", "utilisation", 100),
        )
    ]
    series = [(title, points) for title, points in series if len(points) > 1]
    return {
        "losses": plots.losses(
            [(line["step"], line["loss"]) for line in logged],
            [(line["step"], line["validation_loss"]) for line in validated],
            (best["step"], best["validation_loss"]) if best else None,
        ),
        "course": plots.small_multiples(series, "Learning rate, memory, pace and use over the steps") if series else "",
        "facts": _training_facts(material.training or {}, logged, best),
    }


def _training_facts(training: Row, logged: list[Row], best: Row | None) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if training.get("steps"):
        facts.append(("Steps", f"{training['steps']} of {training.get('planned_steps', training['steps'])}"))
    if best:
        first = training.get("first_validation_loss")
        before = f", from {first:.3f}" if first else ""
        facts.append(("Best validation loss", f"{best['validation_loss']:.3f} at step {best['step']}{before}"))
    if training.get("stop_reason"):
        facts.append(("Ended", training["stop_reason"]))
    took = training.get("seconds") or max((line.get("elapsed_s") or 0 for line in logged), default=0)
    if took:
        facts.append(("Took", human_seconds(took)))
    peak = training.get("peak_memory_bytes") or max((line.get("peak_memory_bytes") or 0 for line in logged), default=0)
    if peak:
        facts.append(("Memory at its peak", human_bytes(peak)))
    if training.get("samples_per_s"):
        facts.append(("Pace", f"{training['samples_per_s']:.2f} samples/s"))
    if training.get("device_name"):
        facts.append(("On", f"{training['device_name']} ({training.get('device', '')})"))
    return facts


def _dataset(report: Row | None) -> Shown | None:
    if not report:
        return None
    total = report["samples"]
    groups = [
        {
            "name": name,
            "samples": group["samples"],
            "share": percent(group["share"], 1),
            "at": _part(group["share"], 1),
            "declared": percent(group["declared"], 1) if group.get("declared") is not None else "",
            "mark": _part(group.get("declared"), 1),
        }
        for name, group in report["groups"].items()
    ]
    tiers = [
        {"name": name, "samples": tier["samples"], "share": percent(tier["share"]), "at": _part(tier["share"], 1)}
        for name, tier in report["tiers"].items()
    ]
    languages = [
        {"name": name, "samples": count, "share": percent(count / total), "at": _part(count, total)}
        for name, count in report.get("languages", {}).items()
    ]
    categories = [
        {
            "name": name,
            "samples": figures["samples"],
            "tiers": list(figures["tiers"].values()),
            "words": _words(figures.get("words")),
            "opening": figures.get("commonest_opening"),
        }
        for name, figures in report.get("categories", {}).items()
    ]
    facts = [
        ("Samples", str(total)),
        ("Train", str(report["train"])),
        ("Valid", str(report["valid"])),
        ("Conversations of several turns", str(report.get("multi_turn", 0))),
        ("With a mood", str(sum(report.get("moods", {}).values()))),
        ("Near duplicates", str(len(report.get("near_duplicates", [])))),
    ]
    agreement = (report.get("classifier") or {}).get("agreement")
    if agreement is not None:
        facts.append(("Tiers as the classifier sees them", percent(agreement, 1)))
    return {"facts": facts, "groups": groups, "tiers": tiers, "languages": languages, "categories": categories}


def _words(lengths: Row | None) -> str:
    return f"{lengths['min']}–{lengths['median']}–{lengths['max']}" if lengths else ""


_NOT_SHOWN = ("quantisation", "size", "bits_per_weight", "sha256", "types", "tensors", "kept")


def _quantisations(export: Row | None) -> Shown | None:
    if not export or not export.get("quantisations"):
        return None
    lines = []
    for figures in export["quantisations"]:
        shown = {"quantisation": figures["quantisation"]}
        shown |= {"size": human_bytes(figures["size"])} if "size" in figures else {}
        shown |= {"bits a weight": f"{figures['bits_per_weight']:.2f}"} if "bits_per_weight" in figures else {}
        lines.append(shown | {key: value for key, value in figures.items() if key not in _NOT_SHOWN})
    return table(lines)


def _measured(found: Row | None) -> Shown | None:
    """What each quantisation loses, F16 first; the last line is of the same model in MLX."""
    if not found or not found.get("quantisations"):
        return None
    lines = []
    for row in found["quantisations"]:
        measured = row["quantisation"] != "F16"
        name = f"{row['quantisation']} ({row['chosen']})" if "chosen" in row else row["quantisation"]
        over = " (over the budget)" if row["loss"] > found["loss_budget"] else ""
        lines.append(
            {
                "quantisation": name if row["released"] else f"{name} (not kept)",
                "size": human_bytes(row["size"]),
                "bits a weight": f"{row['bits_per_weight']:.2f}",
                "perplexity": f"{row['perplexity']:.2f}",
                "loss, nats a token": f"{row['loss']:+.4f}{over}" if measured else None,
                "same token as F16": percent(row["top_agreement"], 1) if measured else None,
            }
        )
    engines = found["agreement"]
    lines.append(
        {
            "quantisation": "fused, in MLX",
            "perplexity": f"{engines['perplexity_in_mlx']:.2f}",
            "same token as F16": percent(engines["top_agreement"], 1),
        }
    )
    return table(lines)


def _ledger(found: Row | None, export: Row | None) -> Shown | None:
    """A row a stage; that of another model, made before the last training, is not shown."""
    released = ((export or {}).get("quantisations") or [{}])[0].get("sha256")
    if not found or found.get("model", released) != released:
        return None
    lines = []
    for row in found["stages"]:
        first = row["stage"] == found.get("first_loss")
        lines.append(row | {"verdict": "the first to lose more than the budget" if first else ""})
    return table(lines)


def _changes(previous: Row | None) -> list[str]:
    """Against the evaluation before this one: the gates, and the cases that turned."""
    if not previous:
        return []
    found = []
    for gate in previous["gates"]:
        before, now = (_gate(gate | {"got": value, "passed": None})["got"] for value in (gate["before"], gate["now"]))
        if before != now:
            found.append(f"{_GATES.get(gate['name'], gate['name'])}: {before} → {now}")
    for key, what in (("gained", "Now pass"), ("lost", "No longer pass")):
        if previous[key]:
            listed = ", ".join(previous[key][:8]) + (f" and {len(previous[key]) - 8} more" if len(previous[key]) > 8 else "")
            found.append(f"{what}, {len(previous[key])}: {listed}")
    return found or ["No gate and no case changed since the evaluation before."]
