"""A model that judges, as an extra opinion: its verdicts stand beside the rules' and never change a score or a gate.

`evaluation.judge` of a recipe names it: `{ollama: NAME}`, or `{url: https://.../v1, model: NAME, key: NAME_OF_AN_ENVIRONMENT_VARIABLE}`.
Its prompt is templates/evaluation/judge.j2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.evaluate import scores
from generators.evaluate.engines import Engine, OllamaEngine, OpenAIEngine, Sampling
from generators.templates import environment

Row = dict[str, Any]
_SAMPLING = Sampling(max_tokens=160)
_SCORE = re.compile(r"^\W*SCORE\W*([1-5])\b", re.MULTILINE | re.IGNORECASE)
_REASON = re.compile(r"^\W*REASON\W*(\S.*)$", re.MULTILINE | re.IGNORECASE)


def open_judge(settings: dict[str, Any]) -> Engine:
    """Raises UserError when the settings name no engine, its key is not set, or it does not answer."""
    if settings.get("ollama"):
        return OllamaEngine(settings["ollama"])
    if not (settings.get("url") and settings.get("model")):
        raise UserError("evaluation.judge names no engine; give `ollama`, or `url` and `model`")
    key = settings.get("key", "")
    if key and key not in os.environ:
        raise UserError(f"evaluation.judge: the environment variable {key} is not set")
    return OpenAIEngine(settings["url"], settings["model"], os.environ.get(key, ""))


def add_verdicts(rows: list[Row], engine: Engine, system: str, templates: Path, advance: Callable[[int], None]) -> None:
    """Give every row `judge`: {score: 1 to 5 or None, reason}. None where the judge did not keep to the form."""
    template = environment(templates).get_template("evaluation/judge.j2")
    for row in rows:
        prompt = template.render(system=system, history=row["history"], query=row["query"], answer=row["answer"])
        row["judge"] = read_verdict(engine.generate([{"role": "user", "content": prompt}], _SAMPLING).text)
        advance(1)


def read_verdict(text: str) -> dict[str, Any]:
    score, reason = _SCORE.search(text), _REASON.search(text)
    return {"score": int(score[1]) if score else None, "reason": reason[1].strip() if reason else ""}


def figures(rows: list[Row], seed: int) -> dict[str, Any]:
    """Mean score from 1 to 5 with its interval, and how many answers the judge gave no score."""
    judged = [row["judge"]["score"] for row in rows if "judge" in row]
    return scores.interval([float(score) for score in judged if score is not None], seed) | {"without_score": judged.count(None)}
