"""Base and tuned model asked the same queries, judged by the same checks, measured on the same machine.

`evaluate` writes, under the recipe's `evaluation/`: `base.jsonl` and `tuned.jsonl` (a row a case, framing and repeat, see `rows`), and
`scores.json`. Every suite is asked in every framing of the recipe: under the persona's SYSTEM, with none, through a client's whole loop;
the suite `iterations` also under the iteration directive. The base is asked with and without the persona's SYSTEM in any case.
Simple queries are measured first, one at a time on a warm engine; the rest is answered side by side and gives no times.
`examine` asks one model alone.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import GateMissed, UserError
from generators.evaluate import scores
from generators.evaluate.asking import Answer, Cache, Frames, ask_all, ask_alone
from generators.evaluate.cases import HALVES, PLAIN_FRAMINGS, Query, Suites, queries
from generators.evaluate.engines import Engine, MlxEngine, Sampling, llama
from generators.evaluate.rows import row
from generators.evaluate.scores import Row
from generators.evaluate.trace import Trace
from generators.files import human_seconds, read_json, read_jsonl, sha256_file, sha256_text, to_json, write_json, write_jsonl
from generators.modelfile import system_prompt

Spec = dict[str, Any]
Report = Callable[[str], None]

# llama.cpp's products take eight rows at a time: on two cores 8 answers side by side come at 235 tokens/s, 4 at 116, 16 at 247.
SLOTS = 8
_SHOWCASE = "sana bisi sorucam"  # what the project started with; its row comes first
# Simple queries that are measured: (in the first framing, in each client's). The base's answers are long, and few of them tell enough.
_MEASURED = {"base": (2, 1), "tuned": (12, 6)}
_DEPLOYED = ("top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
_TEMPLATES = Path(__file__).parents[2] / "templates"


@dataclass(frozen=True)
class Exam:
    """All of an evaluation but the model: what is asked, in which frames, and by what the answers are judged.

    suites, clients: by name, at least those that the recipe names. tiers, project: the whole files. system: the persona's prompt, or the
    one that a model was deployed with. half: `dev` or `test` cases only.
    """

    recipe: Spec
    suites: Suites
    persona: Spec
    system: str
    clients: dict[str, Spec]
    tiers: Spec
    chat_format: Spec
    project: Spec
    half: str | None = None

    @property
    def wanted(self) -> Suites:
        """The suites that the recipe asks."""
        return {suite: self.suites[suite] for suite in self.recipe["evaluation"]["suites"] or self.suites}

    @property
    def frames(self) -> Frames:
        return Frames(self.system, {framing: self.clients[framing] for framing in _clients_of(self.recipe)}, self.tiers)

    @property
    def sampling(self) -> Sampling:
        """Greedy says the same twice; above temperature 0 the limits of the deployed persona count."""
        settings = self.recipe["evaluation"]
        deployed = self.persona.get("parameters", {}) if settings["temperature"] > 0 else {}
        extra = tuple((key, float(deployed[key])) for key in _DEPLOYED if key in deployed)
        return Sampling(settings["max_tokens"], float(settings["temperature"]), self.project["seed"] % 2**31, extra)

    def queries(self, side: str) -> list[Query]:
        """Raises UserError where there is none."""
        asked = list(queries(self.wanted, _framings(self.recipe, self.wanted, side), _repeats(self.recipe), self.half))
        if not asked:
            where = f" in the half {self.half}" if self.half else ""
            raise UserError(f"the suites have no case to ask{where}; add cases to specs/evals/")
        return asked

    def row(self, query: Query, answer: Answer) -> Row:
        forbidden, control = tuple(self.project["quality"]["forbidden"]), tuple(self.chat_format["control_tokens"])
        return row(query, answer, self.persona, forbidden, control, self.frames)

    @property
    def key(self) -> str:
        """Digest of all of it, and of the code that judges: while it stays, so do the rows of a model."""
        suites = {name: {key: value for key, value in suite.items() if key != "description"} for name, suite in self.wanted.items()}
        judged_by = {
            "personas": [self.persona.get(key) for key in ("opinion_markers", "principles")],
            "forbidden": self.project["quality"]["forbidden"],
            "evaluation": self.recipe["evaluation"],
            "clients": self.frames.clients,
        }
        decides = [suites, judged_by, self.system, self.sampling.key(), self.tiers, self.chat_format, self.half]
        return sha256_text(to_json(decides) + "".join(map(sha256_file, sorted(Path(__file__).parent.glob("*.py")))))


def evaluate(
    recipe: Spec,
    name: str,
    suites: Suites,
    personas: dict[str, Spec],
    clients: dict[str, Spec],
    tiers: Spec,
    chat_format: Spec,
    project: Spec,
    base: Path,
    tuned: Path,
    train_samples: Path,
    target: Path,
    report: Report,
    *,
    half: str | None = None,
    cache: Path | None = None,
    templates: Path = _TEMPLATES,
    slots: int = SLOTS,
    threads: int | None = None,
) -> dict[str, Any]:
    """Returns what is in scores.json. A missed gate is only shown; see `enforce`.

    base: model directory. tuned: GGUF. train_samples: train.jsonl of the dataset, for the trace. half: `dev` or `test` cases only.
    cache: folder of answers, `target`/answers by default; it may be shared by recipes. threads: of llama.cpp, all by default.
    Raises UserError when an engine cannot run.
    """
    persona = personas[recipe["personas"][0]]
    exam = Exam(recipe, suites, persona, system_prompt(persona, templates), clients, tiers, chat_format, project, half)
    rows: dict[str, list[Row]] = {}
    engines: dict[str, Spec] = {}
    opened = {"base": _open_base(base, chat_format, slots, threads), "tuned": llama(tuned, base, chat_format, slots, threads=threads)}
    for side, opening in opened.items():
        rows[side], engines[side] = _sit(exam, side, opening, cache or target / "answers", report)
    if train_samples.is_file():
        _add_traces(rows["tuned"], Trace(read_jsonl(train_samples)))
    found = summarise(rows["base"], rows["tuned"], recipe, name, project["seed"])
    found |= {"engines": engines, "half": half, "sampling": exam.sampling.key(), "machine": _machine()}
    if settings := recipe["evaluation"].get("judge"):
        found["judge"] = _hear_judge(settings, rows, _framing(recipe), exam.system, templates, project["seed"])
    if previous := _previous(target, found, rows["tuned"]):
        found["previous"] = previous
    write_jsonl(target / "base.jsonl", rows["base"])
    write_jsonl(target / "tuned.jsonl", rows["tuned"])
    write_json(target / "scores.json", found)
    report(_verdict(found["gates"]))
    return found


def examine(
    exam: Exam,
    model: Path,
    gguf: Path,
    train_samples: Path,
    cache: Path,
    report: Report,
    *,
    measure: bool = True,
    slots: int = SLOTS,
    threads: int | None = None,
) -> tuple[list[Row], Spec]:
    """The rows of one model, as `evaluate` has them of the tuned one, and what they were made with: {engine, half, sampling, machine}.

    model: directory of the tokenizer. measure: ask simple queries alone as well, for their times. Raises UserError as `evaluate` does.
    """
    rows, engine = _sit(exam, "tuned", llama(gguf, model, exam.chat_format, slots, threads=threads), cache, report, measure)
    if train_samples.is_file():
        _add_traces(rows, Trace(read_jsonl(train_samples)))
    return rows, {"engine": engine, "half": exam.half, "sampling": exam.sampling.key(), "machine": _machine()}


def _sit(
    exam: Exam, side: str, opening: AbstractContextManager[Engine], cache: Path, report: Report, measure: bool = True
) -> tuple[list[Row], Spec]:
    """One model takes the exam. Returns its rows and what is told of its engine."""
    asked = exam.queries(side)
    with opening as engine:
        report(f"{side}: {engine.name}, {len(asked)} queries, loaded in {human_seconds(engine.load_seconds)}")
        measured = _measured(asked, side, _framing(exam.recipe)) if measure else []
        answered = _answers(asked, measured, engine, exam.frames, exam.sampling, cache, side)
        return [exam.row(query, answer) for query, answer in answered], _told(engine)


def summarise(base: list[Row], tuned: list[Row], recipe: Spec, name: str, seed: int) -> dict[str, Any]:
    """All figures of two sets of rows; any two will do, `tuned` is the one that the gates judge."""
    framing = _framing(recipe)
    sides = {"base": base, "tuned": tuned}
    suites = list(dict.fromkeys(seen["suite"] for seen in [*tuned, *base]))
    framings = list(dict.fromkeys(seen["framing"] for seen in [*tuned, *base]))
    figures: dict[str, Any] = {
        "recipe": name,
        "seed": seed,
        "framing": framing,
        "framings": framings,
        "showcase": _showcase(base, tuned, recipe),
        "suites": [
            line | {"suite": suite} for suite in suites for seen in framings if (line := _compared(sides, seed, suite=suite, framing=seen))
        ],
        "overall": [line for seen in framings if (line := _compared(sides, seed, framing=seen))],
        "halves": [line for half in HALVES if (line := _compared(sides, seed, framing=framing, half=half))],
        "iterations": {side: scores.efficiency(rows, seed) for side, rows in sides.items()},
        "unlike_generic": {side: _unlike_generic(rows, framing, seed) for side, rows in sides.items()},
        "latency": {side: _latencies(rows) for side, rows in sides.items()},
        "unparsable": {side: sum(bool(seen["error"]) for seen in rows) for side, rows in sides.items()},
    }
    figures["gates"] = scores.gates(recipe["gates"], figures)
    figures["passed"] = all(gate["passed"] is not False for gate in figures["gates"])
    figures["enforce"] = bool(recipe["gates"].get("enforce", False))
    return figures


def enforce(found: dict[str, Any]) -> None:
    """Raises GateMissed with the missed gates by name, where the recipe enforces them."""
    missed = [gate for gate in found["gates"] if gate["passed"] is False]
    if found["enforce"] and missed:
        count = f"{len(missed)} gate{'s' if len(missed) > 1 else ''}"
        raise GateMissed(f"{count} of {found['recipe']} missed: {'; '.join(map(describe_gate, missed))}")


def describe_gate(gate: dict[str, Any]) -> str:
    """`turkish 84.2 % (wanted: at least 90 %)`"""
    limit = f"{'below' if gate['below'] else 'at least'} {_amount(gate['wanted'], gate['below'])}"
    return f"{gate['name']} {_amount(gate['got'], gate['below'])} (wanted: {limit})"


def _amount(value: float | None, seconds: bool) -> str:
    if value is None:
        return "not measured"
    return f"{value:.2f} s" if seconds else f"{100 * value:.1f} %"


def _verdict(gates: list[dict[str, Any]]) -> str:
    signs = {True: "passed", False: "missed", None: "not measured"}
    return "gates: " + "; ".join(f"{describe_gate(gate)} {signs[gate['passed']]}" for gate in gates)


# --- what is asked ----------------------------------------------------------------------------------------------------------------


def _framing(recipe: Spec) -> str:
    """The first framing: the one that the gates judge."""
    return str(recipe["evaluation"]["framings"][0])


def _clients_of(recipe: Spec) -> list[str]:
    return [framing for framing in recipe["evaluation"]["framings"] if framing not in PLAIN_FRAMINGS]


def _framings(recipe: Spec, suites: Suites, side: str) -> list[str]:
    found = list(recipe["evaluation"]["framings"])
    extra = (["persona", "none"] if side == "base" else []) + (["directive"] if "iterations" in suites else [])
    return found + [framing for framing in extra if framing not in found]


def _repeats(recipe: Spec) -> int:
    return int(recipe["evaluation"]["repeats"]) if recipe["evaluation"]["temperature"] > 0 else 1


@contextmanager
def _open_base(base: Path, chat_format: Spec, slots: int, threads: int | None) -> Iterator[Engine]:
    """The GGUF that the base came from, in the same engine as the tuned one; without it, the directory's weights in MLX."""
    gguf = base / "base.gguf"
    if gguf.is_file():
        with llama(gguf, base, chat_format, slots, threads=threads) as engine:
            yield engine
    else:
        yield MlxEngine(base, chat_format)


def _answers(
    asked: list[Query], measured: list[Query], engine: Engine, frames: Frames, sampling: Sampling, cache: Path, side: str
) -> Iterator[tuple[Query, Answer]]:
    """In the order of `asked`, whichever way each was answered. measured: those that are asked alone."""
    from generators.progress import bar

    found: dict[Query, Answer] = {}
    with bar(f"{side}: simple queries, one at a time", len(measured)) as advance:
        for query, answer in ask_alone(measured, engine, frames, sampling):
            found[query] = answer
            advance(1)
    rest = sorted((query for query in asked if query not in found), key=lambda query: query.framing)  # a slot keeps the prompt they share
    with bar(f"{side}: answers", len(rest)) as advance:
        found |= dict(ask_all(rest, engine, frames, sampling, Cache(cache, engine), advance))
    yield from ((query, found[query]) for query in asked)


def _measured(asked: list[Query], side: str, first: str) -> list[Query]:
    """Simple queries in the first framing and in the clients', the showcase first, the others spread over the suites."""
    found: list[Query] = []
    for framing in dict.fromkeys(query.framing for query in asked if query.framing == first or query.in_client):
        simple = [query for query in asked if query.framing == framing and query.tier == "low" and not query.history and not query.repeat]
        simple.sort(key=lambda query: query.text != _SHOWCASE)  # stable: the others keep their order
        count = min(len(simple), _MEASURED[side][0 if framing == first else 1])
        rest = simple[1:]
        found += simple[:1] + [rest[index * len(rest) // (count - 1)] for index in range(count - 1)]
    return found


def _add_traces(rows: Iterable[Row], trace: Trace) -> None:
    """Where to look for every failed row: the nearest samples, and the categories that they come from."""
    known: dict[str, Spec] = {}
    for seen in rows:
        if seen["passed"]:
            continue
        if seen["query"] not in known:
            known[seen["query"]] = {"nearest": trace.nearest(seen["query"]), "categories": trace.categories(seen["query"])}
        seen["trace"] = known[seen["query"]]


# --- what is told -----------------------------------------------------------------------------------------------------------------


def _compared(sides: dict[str, list[Row]], seed: int, **where: str) -> dict[str, Any] | None:
    """Measures of both sides and their pairing, for the rows of a suite or framing; None where nothing was asked."""
    base, tuned = ([seen for seen in sides[side] if where.items() <= seen.items()] for side in ("base", "tuned"))
    if not tuned and not base:
        return None
    line: dict[str, Any] = {**where, "base": scores.measured(base, seed), "tuned": scores.measured(tuned, seed)}
    line["paired"] = {measure: scores.paired(base, tuned, measure, seed) for measure in ("accuracy", "passed")}
    return line


def _unlike_generic(rows: list[Row], framing: str, seed: int) -> dict[str, Any]:
    """Share of answers that are not what any assistant would have said (a phrase of the project's list, a list, headings)."""
    return scores.interval([float(not seen["generic"]) for seen in rows if seen["framing"] == framing], seed)


def _latencies(rows: list[Row]) -> dict[str, Any]:
    measured = dict.fromkeys(seen["framing"] for seen in rows if seen["alone"])
    return {framing: scores.latency(seen for seen in rows if seen["framing"] == framing) for framing in measured}


def _showcase(base: list[Row], tuned: list[Row], recipe: Spec) -> dict[str, Any] | None:
    """The query that the project started with (or the first simple one) through the first client: before and after."""
    framing = next(iter(_clients_of(recipe)), _framing(recipe))
    here = [seen for seen in tuned if seen["framing"] == framing and seen["alone"]]
    if not here:
        return None
    after = next((seen for seen in here if seen["query"] == _SHOWCASE), here[0])
    before = next((seen for seen in base if (seen["id"], seen["framing"], seen["repeat"]) == (after["id"], framing, 0)), None)
    told = ("answer", "seconds", "first_token_s", "stages", "tokens", "ended", "passed", "alone")
    return {
        "query": after["query"],
        "id": after["id"],
        "framing": framing,
        "base": {key: before[key] for key in told} if before else None,
        "tuned": {key: after[key] for key in told},
    }


def _hear_judge(settings: Spec, rows: dict[str, list[Row]], framing: str, system: str, templates: Path, seed: int) -> Spec:
    """Its opinion of both sides in the framing that the gates judge."""
    from generators.evaluate import judge
    from generators.progress import bar

    engine = judge.open_judge(settings)
    found: Spec = {"name": engine.name}
    for side, answered in rows.items():
        here = [seen for seen in answered if seen["framing"] == framing]
        with bar(f"{side}: asking the judge", len(here)) as advance:
            judge.add_verdicts(here, engine, system, templates, advance)
        found[side] = judge.figures(here, seed)
    return found


def _previous(target: Path, found: Spec, tuned: list[Row]) -> Spec | None:
    """The evaluation that is about to be replaced, beside this one: gates before and now, and answers that turned."""
    scores_file, rows_file = target / "scores.json", target / "tuned.jsonl"
    if not (scores_file.is_file() and rows_file.is_file()):
        return None
    before = {gate["name"]: gate for gate in read_json(scores_file)["gates"]}
    passed = {(seen["id"], seen["framing"], seen["repeat"]): seen["passed"] for seen in read_jsonl(rows_file)}
    turned = [(seen, passed.get((seen["id"], seen["framing"], seen["repeat"]))) for seen in tuned]
    return {
        "gates": [
            {
                "name": gate["name"],
                "below": gate["below"],
                "wanted": gate["wanted"],
                "over": gate["over"],
                "before": before[gate["name"]]["got"],
                "now": gate["got"],
            }
            for gate in found["gates"]
            if gate["name"] in before
        ],
        "gained": [f"{seen['id']} ({seen['framing']})" for seen, was in turned if was is False and seen["passed"]],
        "lost": [f"{seen['id']} ({seen['framing']})" for seen, was in turned if was is True and not seen["passed"]],
    }


def _told(engine: Engine) -> Spec:
    return {"name": engine.name, "digest": engine.digest, "load_seconds": round(engine.load_seconds, 3), "slots": engine.slots}


def _machine() -> dict[str, Any]:
    import os

    return {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(), "python": platform.python_version()}
