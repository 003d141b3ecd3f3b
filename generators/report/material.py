"""What the stages of a recipe left behind, read as it is; what is missing is None or empty."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import read_json, read_jsonl

Row = dict[str, Any]


@dataclass
class Material:
    """scores, base_rows, tuned_rows: of the evaluation. metrics, training: of the run. export: of the GGUFs. ledger: of the stages."""

    context: dict[str, Any]
    scores: Row | None = None
    base_rows: list[Row] = field(default_factory=list)
    tuned_rows: list[Row] = field(default_factory=list)
    metrics: list[Row] = field(default_factory=list)
    training: Row | None = None
    dataset: Row | None = None
    export: Row | None = None
    quantisations: Row | None = None
    ledger: Any = None
    parity: Any = None
    lock: Row | None = None


def gather(recipe_dir: Path, context: dict[str, Any]) -> Material:
    """Raises UserError when a file is there and cannot be read."""
    evaluation = recipe_dir / "evaluation"
    dataset = context.get("dataset_report")
    return Material(
        context,
        scores=_json(evaluation / "scores.json"),
        base_rows=_rows(evaluation / "base.jsonl"),
        tuned_rows=_rows(evaluation / "tuned.jsonl"),
        metrics=_rows(recipe_dir / "metrics.jsonl"),
        training=_json(recipe_dir / "training.json"),
        dataset=_json(Path(dataset)) if dataset else None,
        export=_json(recipe_dir / "export.json"),
        quantisations=_json(recipe_dir / "quantisations.json"),
        ledger=_json(recipe_dir / "ledger.json"),
        parity=_json(recipe_dir / "parity.json"),
        lock=_json(recipe_dir / "lock.json"),
    )


def _json(path: Path) -> Any:
    try:
        return read_json(path) if path.is_file() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run doit again") from error


def _rows(path: Path) -> list[Row]:
    try:
        return list(read_jsonl(path)) if path.is_file() else []
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run doit again") from error
