"""The evaluation of one model, as it is kept: a recipe's own, or that of a model that was examined alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import read_json, read_jsonl, sha256_text, write_json, write_jsonl

Row = dict[str, Any]
_ROWS, _TOLD = "rows.jsonl", "told.json"


@dataclass(frozen=True)
class Judged:
    """rows: see `generators.evaluate.rows`. told: what they were made with, `engine`, `half`, `sampling`, `machine`."""

    rows: list[Row]
    told: dict[str, Any]


def of_recipe(evaluation: Path) -> Judged | None:
    """What `evaluate` found of a recipe's tuned model; None where it did not run to its end. Raises UserError for a damaged file."""
    scores, rows = evaluation / "scores.json", evaluation / "tuned.jsonl"
    if not (scores.is_file() and rows.is_file()):
        return None
    try:
        found = read_json(scores)
        told = {"engine": found["engines"]["tuned"], **{key: found[key] for key in ("half", "sampling", "machine")}}
        return Judged(list(read_jsonl(rows)), told)
    except (ValueError, KeyError) as error:
        raise UserError(f"the evaluation in {evaluation} is damaged ({error!r}); delete it and run doit evaluate again") from error


def keep(folder: Path, decides: Sequence[str], judged: Judged) -> None:
    """folder: of all that are kept. decides: what it is found by again: digests of all that the rows depend on, or what they are of."""
    write_jsonl(_place(folder, decides) / _ROWS, judged.rows)
    write_json(_place(folder, decides) / _TOLD, judged.told)


def find(folder: Path, decides: Sequence[str]) -> Judged | None:
    """What `keep` kept; None where there is nothing, or only a part of it."""
    place = _place(folder, decides)
    return Judged(list(read_jsonl(place / _ROWS)), read_json(place / _TOLD)) if (place / _TOLD).is_file() else None


def found_or_made(folder: Path, decides: Sequence[str], examine: Callable[[], tuple[list[Row], dict[str, Any]]]) -> Judged:
    """What was found before under the same circumstances, or what `examine` finds now, which is kept."""
    judged = find(folder, decides)
    if judged is None:
        judged = Judged(*examine())
        keep(folder, decides, judged)
    return judged


def _place(folder: Path, decides: Sequence[str]) -> Path:
    return folder / sha256_text("\n".join(decides))[:24]
