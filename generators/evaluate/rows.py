"""One row a case, framing and repeat: what was answered, what the checks say, and how long it took."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from generators import patterns
from generators.evaluate import checks
from generators.evaluate.asking import Answer, Frames, instructions
from generators.evaluate.cases import Query
from generators.evaluate.checks import Setting, Verdict
from generators.evaluate.scores import Row, right_stages


def row(
    query: Query, answer: Answer, persona: dict[str, Any], forbidden: tuple[str, ...], control_tokens: tuple[str, ...], frames: Frames
) -> Row:
    """`used` is the number of iterations: a client's stages, or what the model named under the directive. The measures `accuracy`,
    `appropriateness`, `persona` and `iterations` are true, false, or None where nothing judges them; `generic` is what any assistant
    would have said."""
    setting = Setting(query.text, query.language, persona, forbidden, control_tokens, answer.ended, instructions(query, frames))
    verdicts = [*checks.judge(answer.text, query.checks, setting), *_of_frame(query, answer, frames)]
    measures = {dimension: checks.dimension_passed(verdicts, dimension) for dimension in checks.DIMENSIONS}
    return {
        "id": query.id,
        "suite": query.suite,
        "case": query.case,
        "framing": query.framing,
        "repeat": query.repeat,
        "half": query.half,
        "tier": query.tier,
        "language": query.language,
        "query": query.text,
        "history": [list(turn) for turn in query.history],
        "answer": answer.text,
        "replies": [reply.text for reply in answer.replies],
        "checks": [asdict(verdict) for verdict in verdicts],
        **measures,
        "passed": all(verdict.passed is not False for verdict in verdicts),
        "generic": _is_generic(answer.text, setting),
        "seconds": round(answer.seconds, 4),
        "first_token_s": round(answer.first_token_s, 4),
        "tokens": answer.tokens,
        "prompt_tokens": sum(reply.prompt_tokens for reply in answer.replies),
        "ended": answer.ended,
        "stages": answer.stages,
        "used": _used(query, answer),
        "confidence": [seen.confidence for seen in answer.observations],
        "alone": answer.alone,
        "cached": answer.cached,
        "error": answer.error,
    }


def _used(query: Query, answer: Answer) -> int | None:
    if query.in_client:
        return None if answer.cut_short else answer.stages
    return answer.iterations


def _of_frame(query: Query, answer: Answer, frames: Frames) -> list[Verdict]:
    """What only a client's frame or the directive can judge."""
    if query.in_client:
        parsed = Verdict("client", "appropriateness", not answer.error, answer.error)
        if answer.error:
            return [parsed]
        if answer.cut_short:
            return [parsed, Verdict("iterations", "iterations", False, f"stage {answer.stages} was cut short ({answer.ended})")]
        available = len(frames.clients[query.framing]["stages"])
        right = right_stages(query.tier, answer.stages, available)
        reason = "" if right else f"the client needed {answer.stages} of {available} stages for a query of the tier {query.tier}"
        return [parsed, Verdict("iterations", "iterations", right, reason)]
    if query.framing == "directive":
        low, high = frames.tiers["tiers"][query.tier]["iterations"]
        if answer.iterations is None:
            return [Verdict("iterations", "iterations", False, "it names no iterations, and the directive asks for them")]
        inside = low <= answer.iterations <= high
        reason = "" if inside else f"{answer.iterations} iterations, the tier {query.tier} has {low} to {high}"
        return [Verdict("iterations", "iterations", inside, reason)]
    return []


def _is_generic(answer: str, setting: Setting) -> bool:
    """A phrase of any assistant, a list or headings: what makes an answer nobody's in particular."""
    return patterns.first_match(setting.forbidden, answer) is not None or bool(checks.list_or_heading(answer))
