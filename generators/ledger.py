"""The stage ledger: the same probes at every stage from base to Ollama, so that the first stage that loses the persona has a name.

A probe is a sample of the validation split under the persona's system prompt: a question that was not trained on, and the answer that
belongs to it. Every stage is held against the one that it was made from: adapter and base in MLX, the fused model against the adapter,
F16 in llama.cpp against the fused model, each quantisation against F16, and what is deployed against the file that it came from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.evaluate.engines import Engine, Generation, Sampling
from generators.files import read_jsonl, write_json
from generators.llama_logits import Scored
from generators.quantisations import Text
from generators.tokens import Tokenizer

Report = Callable[[str], None]
Check = tuple[str, Any]

PROBES = 30
# Greedy answers turn at ties, so that a few of thirty change sides by chance; a tenth of them does not.
LOST_PROBES = 3


def _nothing() -> None:
    """There is nothing to clear away."""


@dataclass(frozen=True)
class Probe:
    """messages: all but the answer that is asked for. reference: that answer."""

    id: str
    language: str
    messages: tuple[dict[str, str], ...]
    reference: str

    @property
    def query(self) -> str:
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Stage:
    """before: the stage that it was made from, none for the base. open: what answers. score: what it makes of the reference answers, or
    None where the engine cannot tell. discard: clears away what opening it has made."""

    name: str
    before: str | None
    open: Callable[[], AbstractContextManager[Engine]]
    score: Callable[[Sequence[Text]], Scored] | None
    discard: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Judge:
    """What an answer is judged by: checks that hold for any answer, and what they know beside it."""

    checks: tuple[Check, ...]
    persona: dict[str, Any]
    forbidden: tuple[str, ...]
    control_tokens: tuple[str, ...]

    def failed(self, probe: Probe, answer: Generation) -> list[str]:
        """The checks that the answer fails. It may have twice the words of the reference: overthinking is what is looked for."""
        from generators.evaluate.checks import Setting, judge
        from generators.turkish import words

        told = "\n".join(message["content"] for message in probe.messages if message["role"] == "system")
        setting = Setting(probe.query, probe.language, self.persona, self.forbidden, self.control_tokens, answer.ended, told)
        limit = ("words", {"max": 2 * len(words(probe.reference)) + 8})
        return [verdict.check for verdict in judge(answer.text, [*self.checks, limit], setting) if verdict.passed is False]


def draw_probes(valid: Path, system: str, seed: int, count: int = PROBES) -> list[Probe]:
    """`count` samples of a dataset file, or all where there are fewer, drawn by `seed`. Raises UserError when there is none."""
    rows = list(read_jsonl(valid)) if valid.is_file() else []
    if not rows:
        raise UserError(f"{valid} holds no samples to probe with; run: doit dataset")
    drawn = random.Random(f"{seed}/ledger").sample(rows, min(count, len(rows)))
    return [
        Probe(
            row["metadata"]["id"],
            row["metadata"]["language"],
            ({"role": "system", "content": system}, *row["messages"][:-1]),
            row["messages"][-1]["content"],
        )
        for row in drawn
    ]


def common_checks(suites: dict[str, dict[str, Any]]) -> tuple[Check, ...]:
    """The checks that every suite asks of all its answers: those that ask for a flag, since limits belong to a suite's kind of question."""
    declared = [{name: wanted for check in suite.get("defaults", []) for name, wanted in check.items()} for suite in suites.values()]
    shared = set.intersection(*map(set, declared)) if declared else set()
    return tuple((name, True) for name in sorted(shared) if all(each[name] is True for each in declared))


def stages(
    base: Path,
    adapter: Path,
    fused: Path,
    ggufs: dict[str, Path],
    write_f16: Callable[[Path], Any],
    deployed: str,
    chat_format: dict[str, Any],
    threads: int | None = None,
) -> list[Stage]:
    """All of a recipe, in build order. base, adapter, fused: directories. ggufs: by quantisation, the deployed one first. write_f16: see
    `generators.quantisations.measure`. deployed: the model's name in Ollama, which is asked where it runs. threads: of llama.cpp, all by default."""
    from functools import partial

    from generators.evaluate.engines import MlxEngine, OllamaEngine, llama
    from generators.quantisations import score_in_llama, score_in_mlx

    def mlx(model: Path, adapter: Path | None = None) -> dict[str, Any]:
        return {
            "open": lambda: nullcontext(MlxEngine(model, chat_format, adapter)),
            "score": partial(score_in_mlx, model, adapter=adapter),
        }

    def gguf(path: Path) -> dict[str, Any]:
        return {"open": partial(llama, path, base, chat_format, threads=threads), "score": partial(score_in_llama, path, threads=threads)}

    found = [Stage("base", None, **mlx(base)), Stage("adapter", "base", **mlx(base, adapter)), Stage("fused", "adapter", **mlx(fused))]
    if "F16" in ggufs:
        found.append(Stage("F16", "fused", **gguf(ggufs["F16"])))
    else:
        scratch = _Written(fused.with_name("F16.gguf.partial"), write_f16)
        score = partial(score_in_llama, scratch.path, threads=threads)
        found.append(Stage("F16", "fused", partial(scratch.opened, base, chat_format, threads), score, scratch.discard))
    found += [Stage(name, "F16", **gguf(path)) for name, path in ggufs.items() if name != "F16"]
    return [*found, Stage("deployed", next(iter(ggufs)), lambda: nullcontext(OllamaEngine(deployed)), None)]


@dataclass(frozen=True)
class _Written:
    """A GGUF that is written when it is first needed, and deleted when its stage is done."""

    path: Path
    write: Callable[[Path], Any]

    def opened(self, base: Path, chat_format: dict[str, Any], threads: int | None) -> AbstractContextManager[Engine]:
        from generators.evaluate.engines import llama

        self.write(self.path)
        return llama(self.path, base, chat_format, threads=threads)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def _machine() -> dict[str, Any]:
    import os
    import platform

    from generators.device import current

    return {"processor": current().name, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def keep(
    stages: Sequence[Stage],
    probes: Sequence[Probe],
    tokenizer: Tokenizer,
    judge: Judge,
    budget: float,
    sampling: Sampling,
    model: str,
    target: Path,
    report: Report,
) -> dict[str, Any]:
    """Ask every stage, and write `target`: {model, machine, stages: [a row each], first_loss, loss_budget, probes: [with every stage's answer]}.

    stages: in build order. budget: nats a token of the reference answers that a stage may lose. model: sha256 of the GGUF that is deployed,
    so that a report of another one does not show this ledger. A stage that cannot be opened is told and left out.
    """
    texts = [_text(tokenizer, probe) for probe in probes]
    told: list[dict[str, Any]] = [{"id": probe.id, "query": probe.query, "reference": probe.reference, "stages": {}} for probe in probes]
    rows: list[dict[str, Any]] = []
    for stage in stages:
        try:
            answered = _answers(stage, probes, sampling)
            likely = _by_probe(stage.score(texts), texts) if stage.score else None
        except UserError as error:
            report(f"{stage.name}: not measured: {error}")
            continue
        finally:
            stage.discard()
        failed = [judge.failed(probe, answer) for probe, answer in zip(probes, answered, strict=True)]
        for index, each in enumerate(told):
            each["stages"][stage.name] = {
                "answer": answered[index].text,
                "failed": failed[index],
                "log_probability": likely[index] if likely else None,
            }
        rows.append(_row(stage, [not each for each in failed], likely, texts, rows))
        report(_line(rows[-1], len(probes)))
    found = {
        "model": model,
        "machine": _machine(),
        "stages": rows,
        "first_loss": _first_loss(rows, budget),
        "loss_budget": budget,
        "probes": told,
    }
    write_json(target, found)
    report(_verdict(found))
    return found


def _text(tokenizer: Tokenizer, probe: Probe) -> Text:
    """The positions are those of the answer that is asked for, its end of turn included, not of answers earlier in the conversation."""
    ids = tokenizer.encode_sample([*probe.messages, {"role": "assistant", "content": probe.reference}]).ids
    return Text(tuple(ids), tuple(range(len(tokenizer.encode_prompt(list(probe.messages))), len(ids))))


def _answers(stage: Stage, probes: Sequence[Probe], sampling: Sampling) -> list[Generation]:
    from concurrent.futures import ThreadPoolExecutor

    from generators.evaluate.repetition import is_looping
    from generators.progress import bar

    with stage.open() as engine, bar(f"{stage.name}: answers", len(probes)) as advance, ThreadPoolExecutor(engine.slots) as pool:

        def ask(probe: Probe) -> Generation:
            return engine.generate(list(probe.messages), sampling, lambda text: "loop" if is_looping(text) else "")

        found = []
        for answer in pool.map(ask, probes):
            found.append(answer)
            advance(1)
        return found


def _by_probe(scored: Scored, texts: Sequence[Text]) -> list[float]:
    """Mean natural logarithm of the probability of a reference answer's tokens, a probe each."""
    found, start = [], 0
    for text in texts:
        stop = start + len(text.positions)
        found.append(sum(scored.log_probabilities[start:stop]) / len(text.positions))
        start = stop
    return found


def _row(stage: Stage, passed: list[bool], likely: list[float] | None, texts: Sequence[Text], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """log_probability: nats a token over all reference answers. loss, lost_probes: against the stage before, None where it was not measured."""
    tokens = [len(text.positions) for text in texts]
    mean = sum(each * n for each, n in zip(likely, tokens, strict=True)) / sum(tokens) if likely else None
    before = next((row for row in rows if row["stage"] == stage.before), None)
    comparable = before is not None and before["log_probability"] is not None and mean is not None
    return {
        "stage": stage.name,
        "against": stage.before,
        "log_probability": mean,
        "loss": before["log_probability"] - mean if before is not None and comparable and mean is not None else None,
        "passed": sum(passed),
        "lost_probes": before["passed"] - sum(passed) if before is not None else None,
    }


def _loses(row: dict[str, Any], budget: float) -> bool:
    return (row["loss"] or 0.0) > budget or (row["lost_probes"] or 0) > LOST_PROBES


def _first_loss(rows: Sequence[dict[str, Any]], budget: float) -> str | None:
    return next((row["stage"] for row in rows if _loses(row, budget)), None)


def _line(row: dict[str, Any], probes: int) -> str:
    likely = "no probabilities there" if row["log_probability"] is None else f"{row['log_probability']:.3f} nats a token of the reference"
    against = "" if row["loss"] is None else f" ({-row['loss']:+.3f} against {row['against']})"
    return f"{row['stage']}: {likely}{against}, {row['passed']} of {probes} probes pass every check"


def _verdict(found: dict[str, Any]) -> str:
    row = next((row for row in found["stages"] if row["stage"] == found["first_loss"]), None)
    if row is None:
        return f"ledger: no stage loses more than {found['loss_budget']:g} nats a token or {LOST_PROBES} probes"
    lost = "" if row["loss"] is None else f"{row['loss']:.3f} nats a token and "
    return f"ledger: the first stage that loses more than the budget is {row['stage']}: {lost}{row['lost_probes']} probes against {row['against']}"
