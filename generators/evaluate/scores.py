"""From rows to figures: shares with intervals, base beside tuned, times, and the recipe's gates.

A row is one case in one framing (see `generators.evaluate`). Repeats of a case are averaged before anything else, so that a case
counts once however often it was asked; intervals come from a bootstrap over cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]
Figures = dict[str, Any]

MEASURES = ("accuracy", "appropriateness", "persona", "iterations", "passed")
_RESAMPLES = 2000
_CONFIDENCE = 0.95


def interval(values: Sequence[float], seed: int) -> Figures:
    """{value, low, high, n}: the mean of one value a case, and the 95 % percentile bootstrap interval over cases.

    Of nothing, all figures are None. Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    import numpy as np

    if not values:
        return {"value": None, "low": None, "high": None, "n": 0}
    cases = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(cases), (_RESAMPLES, len(cases)))
    low, high = np.quantile(cases[drawn].mean(axis=1), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return {"value": float(cases.mean()), "low": float(low), "high": float(high), "n": len(cases)}


def by_case(rows: Iterable[Row], measure: str) -> dict[tuple[str, str], float]:
    """(case, framing) to the mean of `measure` over its repeats. Rows where it was not judged are left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row[measure] is not None:
            found.setdefault((row["id"], row["framing"]), []).append(float(row[measure]))
    return {key: sum(values) / len(values) for key, values in found.items()}


def share(rows: Iterable[Row], measure: str, seed: int) -> Figures:
    return interval(list(by_case(rows, measure).values()), seed)


def measured(rows: list[Row], seed: int) -> dict[str, Figures]:
    """Every measure over `rows`."""
    return {measure: share(rows, measure, seed) for measure in MEASURES}


# --- base beside tuned ------------------------------------------------------------------------------------------------------------


def paired(base: Iterable[Row], tuned: Iterable[Row], measure: str, seed: int) -> Figures:
    """Case by case: wins, losses and ties of tuned over base, the difference with its interval, and McNemar's exact p.

    Only cases that both were asked in the same framing count.
    """
    before, after = by_case(base, measure), by_case(tuned, measure)
    shared = sorted(before.keys() & after.keys())
    differences = [after[key] - before[key] for key in shared]
    wins, losses = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    return {
        "wins": wins,
        "losses": losses,
        "ties": len(differences) - wins - losses,
        "difference": interval(differences, seed),
        "mcnemar_p": mcnemar(wins, losses),
    }


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p of McNemar's test: how likely so uneven a split of the discordant pairs is by chance. 1 where there are none."""
    discordant, rarer = wins + losses, min(wins, losses)
    tail = sum(math.comb(discordant, count) for count in range(rarer + 1)) / 2**discordant
    return min(1.0, 2 * tail)


# --- times ------------------------------------------------------------------------------------------------------------------------


def latency(rows: Iterable[Row]) -> Figures:
    """Seconds of the rows that were asked alone: p50, p95 and greatest, first token, tokens a second, and how many there were."""
    alone = [row for row in rows if row["alone"] and row["seconds"] > 0]
    seconds = sorted(row["seconds"] for row in alone)
    decoding = sum(row["seconds"] - row["first_token_s"] for row in alone)
    return {
        "n": len(alone),
        "p50": quantile(seconds, 0.5),
        "p95": quantile(seconds, 0.95),
        "max": seconds[-1] if seconds else None,
        "first_token_p50": quantile(sorted(row["first_token_s"] for row in alone), 0.5),
        "tokens_per_s": sum(max(0, row["tokens"] - row["stages"]) for row in alone) / decoding if decoding > 0 else None,
        "cut_short": sum(row["ended"] == "length" for row in alone),
        "seconds": [round(value, 4) for value in seconds],
    }


def quantile(ordered: Sequence[float], share_below: float) -> float | None:
    """Linear between neighbours, as numpy's default; None of nothing."""
    if not ordered:
        return None
    position = share_below * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


# --- iterations -------------------------------------------------------------------------------------------------------------------


def right_stages(tier: str, used: int, available: int) -> bool:
    """Whether a client's loop was as long as the tier asks: low at the first stage, medium at the first or second, high at the last."""
    return used == {"low": 1, "high": available}.get(tier, used) and (tier != "medium" or used <= 2)


def efficiency(rows: Iterable[Row], seed: int) -> dict[str, Any]:
    """By framing, over the suite `iterations`: the share of right lengths, whole and by tier, and how many of each length there were."""
    found: dict[str, Any] = {}
    judged = [row for row in rows if row["suite"] == "iterations" and row["iterations"] is not None]
    for framing in dict.fromkeys(row["framing"] for row in judged):
        here = [row for row in judged if row["framing"] == framing]
        tiers = {tier: [row for row in here if row["tier"] == tier] for tier in dict.fromkeys(row["tier"] for row in here)}
        found[framing] = share(here, "iterations", seed) | {
            "tiers": {tier: share(of_tier, "iterations", seed) | {"used": _counts(of_tier)} for tier, of_tier in tiers.items()}
        }
    return found


def _counts(rows: list[Row]) -> dict[str, int]:
    """How often each number of iterations was used or named; `none` where an answer named none."""
    used = [str(row["used"]) if row["used"] is not None else "none" for row in rows]
    return {count: used.count(count) for count in sorted(set(used))}


# --- gates ------------------------------------------------------------------------------------------------------------------------


def gates(wanted: dict[str, Any], figures: dict[str, Any]) -> list[Figures]:
    """Each gate of the recipe beside what was reached. passed is None where nothing was measured; `over` says what was counted."""
    found = []
    for name, limit in wanted.items():
        if name == "enforce":
            continue
        got, over = _GATES[name](figures)
        below = name == "simple_query_s"
        passed = None if got is None else bool(got < limit if below else got >= limit)
        found.append({"name": name, "wanted": limit, "got": got, "passed": passed, "below": below, "over": over})
    return found


def _of_suite(suite: str) -> Callable[[dict[str, Any]], tuple[float | None, str]]:
    def accuracy(figures: dict[str, Any]) -> tuple[float | None, str]:
        framing = figures["framing"]
        found = next((line for line in figures["suites"] if line["suite"] == suite and line["framing"] == framing), None)
        return (found["tuned"]["accuracy"]["value"] if found else None), f"accuracy of the suite {suite}, framing {framing}"

    return accuracy


def _appropriateness(figures: dict[str, Any]) -> tuple[float | None, str]:
    framing = figures["framing"]
    found = next((line for line in figures["overall"] if line["framing"] == framing), None)
    return (found["tuned"]["appropriateness"]["value"] if found else None), f"all suites, framing {framing}"


def _efficiency(figures: dict[str, Any]) -> tuple[float | None, str]:
    """The least of the clients' and the directive's: each is a way in which the person meets the model."""
    found = {framing: line["value"] for framing, line in figures["iterations"]["tuned"].items() if line["value"] is not None}
    if not found:
        return None, "no client frame and no directive was asked"
    worst = min(found, key=lambda framing: found[framing])
    return found[worst], f"suite iterations, the least of {len(found)} framings: {worst}"


def _simple_query(figures: dict[str, Any]) -> tuple[float | None, str]:
    found = {framing: line["p95"] for framing, line in figures["latency"]["tuned"].items() if line["p95"] is not None}
    if not found:
        return None, "no simple query was measured"
    slowest = max(found, key=lambda framing: found[framing])
    return found[slowest], f"95th percentile, warm, one at a time, the slowest of {len(found)} framings: {slowest}"


_GATES: dict[str, Callable[[dict[str, Any]], tuple[float | None, str]]] = {
    "turkish": _of_suite("turkish"),
    "technical": _of_suite("technical"),
    "appropriateness": _appropriateness,
    "iteration_efficiency": _efficiency,
    "simple_query_s": _simple_query,
}
