"""A plan told: a table on a terminal, plain lines in a pipe, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from generators import progress
from generators.files import human_bytes, human_seconds
from generators.plan.changes import spell
from generators.plan.estimate import Estimate
from generators.plan.forecast import CUT_OFF, FAILS, RUNS, UP_TO_DATE, WAITS, Reason, Step

Estimates = Mapping[str, Estimate]
_MOST_REASONS = 6  # of one task; the rest is counted


def show(recipe: str, steps: Sequence[Step], estimates: Estimates, touched: Sequence[str]) -> None:
    """estimates: of the steps that run, by task. touched: spec files that were saved since and hold nothing new to any stage."""
    console = progress.console()
    running = [step for step in steps if step.status in (RUNS, FAILS, WAITS)]
    if not running:
        console.print(f"{recipe} is up to date: doit has nothing to do", markup=False)
    elif progress.on_terminal():
        console.print(_table(recipe, running, estimates))
    else:
        for line in _lines(recipe, running, estimates):
            console.print(line, markup=False, soft_wrap=True)
    for line in _closing(steps, estimates, touched):
        console.print(line, markup=False, soft_wrap=True)


def _table(recipe: str, running: Sequence[Step], estimates: Estimates) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"what doit would do for {recipe}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("why", overflow="fold")
    for heading in ("time", "memory", "disk"):
        table.add_column(heading, justify="right", no_wrap=True)
    for alike in _alike(running):
        table.add_row(Text(_name(alike)), Text("\n".join(_why(alike[0]))), *_figures(alike, estimates))
    return table


def _lines(recipe: str, running: Sequence[Step], estimates: Estimates) -> list[str]:
    lines = [f"what doit would do for {recipe}:"]
    for alike in _alike(running):
        seconds, memory, disk = _figures(alike, estimates)
        figures = f": {seconds}, {memory} of memory, {disk} of disk" if seconds else ""
        lines.append(f"{_name(alike)}{figures}")
        lines += [f"    {line}" for line in _why(alike[0])]
    return lines


def _alike(running: Sequence[Step]) -> list[list[Step]]:
    """Neighbours of one stage that run for the same reasons, together: one line for fifteen categories after a change of their template."""
    groups = groupby(running, key=lambda step: (step.stage.name.partition(":")[0], step.status, step.reasons))
    return [list(steps) for _, steps in groups]


def _name(alike: list[Step]) -> str:
    first = alike[0].stage.name
    return first if len(alike) == 1 else f"{first.partition(':')[0]} ({len(alike)} tasks)"


def _figures(alike: list[Step], estimates: Estimates) -> tuple[str, str, str]:
    found = {step.stage.name: estimates[step.stage.name] for step in alike if step.stage.name in estimates}
    if not found:
        return "", "", ""
    total = _total(found)
    about = "" if total["measured"] else "~"  # estimated
    return about + human_seconds(total["seconds"]), about + human_bytes(total["memory_bytes"]), about + human_bytes(total["disk_bytes"])


def _why(step: Step) -> list[str]:
    shown = [reason.text for reason in step.reasons[:_MOST_REASONS]]
    more = len(step.reasons) - len(shown)
    head = [step.status] if step.status in (FAILS, WAITS) else []
    return head + shown + ([f"and {more} more"] if more else [])


def _closing(steps: Sequence[Step], estimates: Estimates, touched: Sequence[str]) -> list[str]:
    lines = [f"{step.stage.name} is not reached: {step.reasons[0].text}" for step in steps if step.status == CUT_OFF]
    if touched:
        shown = ", ".join(touched[:_MOST_REASONS]) + (f" and {len(touched) - _MOST_REASONS} more" if len(touched) > _MOST_REASONS else "")
        lines.append(f"saved since the last build, with no change that a stage reads: {shown}")
    still = sum(step.status == UP_TO_DATE for step in steps)
    if estimates:
        total = _total(estimates)
        guessed = sum(not found.measured for found in estimates.values())
        source = "as measured here" if not guessed else f"{guessed} of {len(estimates)} estimated (~)"
        lines.append(
            f"{len(estimates)} tasks: {human_seconds(total['seconds'])}, at most {human_bytes(total['memory_bytes'])} of memory, "
            f"{human_bytes(total['disk_bytes'])} of disk, {source}; {still} up to date"
        )
    return lines


def _total(estimates: Estimates) -> dict[str, Any]:
    found = list(estimates.values())
    return {
        "seconds": round(sum(each.seconds for each in found), 1),
        "memory_bytes": max((each.memory for each in found), default=0),
        "disk_bytes": sum(each.disk for each in found),
        "measured": all(each.measured for each in found),
    }


def as_json(recipe: str, steps: Sequence[Step], estimates: Estimates, touched: Sequence[str]) -> dict[str, Any]:
    """{recipe, tasks, cut_off, up_to_date, touched, total}; tasks are those that would run, in order, each with its reasons."""
    return {
        "recipe": recipe,
        "tasks": [_task(step, estimates) for step in steps if step.status in (RUNS, FAILS, WAITS)],
        "cut_off": [{"task": step.stage.name, "because": step.reasons[0].text} for step in steps if step.status == CUT_OFF],
        "up_to_date": [step.stage.name for step in steps if step.status == UP_TO_DATE],
        "touched": list(touched),
        "total": _total(estimates),
    }


def _task(step: Step, estimates: Estimates) -> dict[str, Any]:
    told: dict[str, Any] = {"task": step.stage.name, "status": step.status, "reasons": [_reason(reason) for reason in step.reasons]}
    found = estimates.get(step.stage.name)
    if found is not None:
        told |= {"seconds": found.seconds, "memory_bytes": found.memory, "disk_bytes": found.disk, "measured": found.measured}
    return told


def _reason(reason: Reason) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": reason.kind, "text": reason.text}
    if reason.file:
        told["file"] = reason.file
    if reason.line:
        told["line"] = reason.line
    if reason.change is not None:
        told |= {"field": spell(reason.change.steps), "change": reason.change.kind, "old": reason.change.old, "new": reason.change.new}
    return told
