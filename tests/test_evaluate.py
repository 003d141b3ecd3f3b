"""Evaluation through real engines: a tiny random model in llama.cpp and in MLX. What it says is noise; what is done with it is not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from ruamel.yaml import YAML

from generators import llama_server
from generators.clients import Observation
from generators.errors import UserError
from generators.evaluate import engines, evaluate, judge
from generators.evaluate.asking import Answer, Cache, Frames, ask, split_marker
from generators.evaluate.cases import Query, half_of, messages, queries
from generators.evaluate.engines import Generation, LlamaEngine, MlxEngine, OllamaEngine, OpenAIEngine, Sampling
from generators.evaluate.rows import row
from generators.files import read_jsonl, write_jsonl

ROOT = Path(__file__).parents[1]
YAML_READER = YAML(typ="safe")
CHAT_FORMAT = YAML_READER.load(ROOT / "specs" / "chat_formats" / "chatml.yaml")
CLIENT = {
    "systems": ["Be brief."],
    "stages": [
        {"name": "explore", "prompts": ["Say: {{ query }}"]},
        {"name": "refine", "prompts": ["Again: {{ query }} {{ observations }}"]},
    ],
    "observation": "{{ text }}",
    "answer": "CONFIDENCE: {{ confidence }}\nLAYERS: {{ layers }}\nCONTENT:\n{{ text }}",
    "stop": {"alone": 0.95, "few_layers": {"confidence": 0.85, "below": 6}, "agreement": {"confidence": 0.75, "overlap": 0.7}},
    "timeout_s": 60,
}
TIERS = {
    "tiers": {"low": {"iterations": [1, 2]}, "medium": {"iterations": [3, 5]}, "high": {"iterations": [6, 9]}},
    "directive": "Start with <iterations>N</iterations>.",
    "marker": "<iterations>{{ iterations }}</iterations>\n",
}
PERSONA = {
    "template": "system.j2",
    "display_name": "Tiny",
    "opinion_markers": {},
    "principles": [],
    "parameters": {"top_p": 0.9, "repeat_penalty": 1.1, "num_ctx": 4096},
}
SUITES: dict[str, Any] = {
    "turkish": {
        "defaults": [{"no_list": True}],
        "cases": [
            {"id": "ask", "query": "sana bisi sorucam", "language": "tr", "tier": "low", "checks": [{"words": {"max": 12}}]},
            {"id": "why", "query": "neden", "language": "tr", "tier": "medium", "checks": [{"any": ["çünkü"]}]},
            {"id": "cat", "language": "tr", "tier": "low", "checks": [{"carries": ["Zeytin"]}],
             "turns": [{"user": "Kedim Zeytin.", "jessy": "Ne güzel ad."}, {"user": "Adı neydi?"}]},
        ],
    },
    "iterations": {"cases": [{"id": "deep", "query": "özgür irade var mı", "language": "tr", "tier": "high"}]},
}  # fmt: skip
RECIPE: dict[str, Any] = {
    "personas": ["tiny"],
    "evaluation": {"suites": [], "framings": ["persona", "none", "cli"], "max_tokens": 24, "repeats": 3, "temperature": 0},
    "gates": {"enforce": False, "turkish": 0.9, "iteration_efficiency": 0.8, "simple_query_s": 5},
}
PROJECT = {"seed": 7, "quality": {"forbidden": ["size nasıl"]}}
FRAMES = Frames("Sen Tiny'sin.", {"cli": CLIENT}, TIERS)
PROMPT = [{"role": "system", "content": "Kısa konuş."}, {"role": "user", "content": "naber"}]

needs_engine = pytest.mark.skipif(not llama_server.is_installed(), reason="llama.cpp is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with its own GGUF beside it, as an imported base has."""
    folder = tiny_models.write_hf(tmp_path_factory.mktemp("tiny"), "llama", dtype="F32", max_position_embeddings=4096)
    tiny_models.write_gguf(folder, folder / "base.gguf", dtype="F32")
    return folder


@pytest.fixture(scope="module")
def tuned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same shape and tokenizer."""
    folder = tiny_models.write_hf(tmp_path_factory.mktemp("tuned"), "llama", seed=5, dtype="F32", max_position_embeddings=4096)
    return tiny_models.write_gguf(folder, folder / "tuned.gguf", dtype="F32")


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[LlamaEngine]:
    with engines.llama(model / "base.gguf", model, CHAT_FORMAT, slots=2, context=2048, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("templates")
    (folder / "system.j2").write_text("Sen {{ persona.display_name }}'sin.")
    return folder


def run(model: Path, tuned: Path, templates: Path, target: Path, **changes: Any) -> dict[str, Any]:
    recipe = RECIPE | {"evaluation": RECIPE["evaluation"] | changes.pop("evaluation", {})}
    return evaluate(
        recipe,
        "tiny",
        SUITES,
        {"tiny": PERSONA},
        {"cli": CLIENT},
        TIERS,
        CHAT_FORMAT,
        PROJECT,
        model,
        tuned,
        target.parent / "train.jsonl",
        target,
        lambda line: None,
        templates=templates,
        slots=2,
        threads=1,
        **changes,
    )


@pytest.fixture(scope="module")
def evaluated(model: Path, tuned: Path, templates: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("recipe")
    sample = {
        "messages": [{"role": "user", "content": "neden ki"}, {"role": "assistant", "content": "Öyle."}],
        "metadata": {"source": "specs/categories/turkish/casual.yaml:9", "group": "turkish", "category": "casual"},
    }
    write_jsonl(folder / "train.jsonl", [sample])
    return folder / "evaluation", run(model, tuned, templates, folder / "evaluation")


# --- the whole evaluation --------------------------------------------------------------------------------------------------------------


@needs_engine
def test_every_case_is_asked_in_every_framing_on_both_sides(evaluated: tuple[Path, dict[str, Any]]) -> None:
    for side in ("base", "tuned"):
        found = [(seen["case"], seen["framing"]) for seen in read_jsonl(evaluated[0] / f"{side}.jsonl")]
        plain = [(case, framing) for framing in ("persona", "none") for case in ("ask", "why", "cat", "deep")]
        assert found == [*plain, ("ask", "cli"), ("why", "cli"), ("deep", "cli"), ("deep", "directive")]


@needs_engine
def test_a_client_is_taken_through_its_whole_loop(evaluated: tuple[Path, dict[str, Any]]) -> None:
    """Noise has no CONFIDENCE, so the client is never sure and goes on to its last stage."""
    seen = next(seen for seen in read_jsonl(evaluated[0] / "tuned.jsonl") if seen["framing"] == "cli" and seen["case"] == "deep")
    assert (seen["stages"], seen["used"], len(seen["replies"])) == (2, 2, 2)
    assert seen["iterations"] is True


@needs_engine
def test_simple_queries_are_measured_alone_and_only_they_give_times(evaluated: tuple[Path, dict[str, Any]]) -> None:
    folder, found = evaluated
    alone = [seen for seen in read_jsonl(folder / "tuned.jsonl") if seen["alone"]]
    assert {(seen["case"], seen["framing"]) for seen in alone} == {("ask", "persona"), ("ask", "cli")}
    assert all(0 < seen["first_token_s"] <= seen["seconds"] and not seen["cached"] for seen in alone)
    assert found["latency"]["tuned"]["persona"]["n"] == 1


@needs_engine
def test_the_showcase_is_the_first_row_of_the_report(evaluated: tuple[Path, dict[str, Any]]) -> None:
    found = evaluated[1]["showcase"]
    assert (found["query"], found["framing"]) == ("sana bisi sorucam", "cli")
    assert found["base"]["seconds"] > 0 and found["tuned"]["seconds"] > 0


@needs_engine
def test_a_failed_row_says_where_to_look(evaluated: tuple[Path, dict[str, Any]]) -> None:
    seen = next(seen for seen in read_jsonl(evaluated[0] / "tuned.jsonl") if seen["case"] == "why")
    assert not seen["passed"]
    assert seen["trace"]["nearest"][0]["source"] == "specs/categories/turkish/casual.yaml:9"
    assert seen["trace"]["categories"] == ["turkish/casual"]


@needs_engine
def test_an_interrupted_evaluation_goes_on_with_the_same_answers(
    evaluated: tuple[Path, dict[str, Any]], model: Path, tuned: Path, templates: Path, tmp_path: Path
) -> None:
    """The last line of the cache is cut as a kill cuts it, and the lines before it are used."""
    folder, _ = evaluated
    answers = tmp_path / "answers"
    answers.mkdir()
    for file in (folder / "answers").iterdir():
        lines = file.read_text(encoding="utf-8").split("\n")
        (answers / file.name).write_text("\n".join(lines[:3]) + "\n" + lines[3][:25], encoding="utf-8")
    run(model, tuned, templates, tmp_path / "evaluation", cache=answers)
    before, after = (list(read_jsonl(path / "tuned.jsonl")) for path in (folder, tmp_path / "evaluation"))
    assert [seen["answer"] for seen in after if not seen["alone"]] == [seen["answer"] for seen in before if not seen["alone"]]
    assert sum(seen["cached"] for seen in after) > 0
    assert not any(seen["cached"] and seen["alone"] for seen in after)


@needs_engine
def test_above_temperature_0_every_case_is_asked_several_times(model: Path, tuned: Path, templates: Path, tmp_path: Path) -> None:
    settings = {"temperature": 0.8, "framings": ["none"], "suites": ["turkish"], "max_tokens": 8}
    found = run(model, tuned, templates, tmp_path / "evaluation", evaluation=settings)
    rows = list(read_jsonl(tmp_path / "evaluation" / "tuned.jsonl"))
    assert [seen["repeat"] for seen in rows] == [0, 1, 2] * 3
    assert len({seen["answer"] for seen in rows if seen["case"] == "why"}) > 1
    assert found["sampling"]["top_p"] == 0.9 and "num_ctx" not in found["sampling"]
    assert found["suites"][0]["tuned"]["passed"]["n"] == 3


@needs_engine
def test_a_half_without_cases_is_said_so(model: Path, tuned: Path, templates: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no case to ask in the half elsewhere"):
        run(model, tuned, templates, tmp_path / "evaluation", half="elsewhere")


def test_a_missing_gguf_names_the_task_that_makes_it(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run: doit gguf"), engines.llama(tmp_path / "none.gguf", model, CHAT_FORMAT):
        pass


# --- engines ---------------------------------------------------------------------------------------------------------------------------


@needs_engine
def test_llama_cpp_and_mlx_say_the_same_and_give_it_the_same_probabilities(engine: LlamaEngine, model: Path) -> None:
    mlx = MlxEngine(model, CHAT_FORMAT)
    sampling = Sampling(max_tokens=12)
    said = engine.generate(PROMPT, sampling)
    assert mlx.generate(PROMPT, sampling).text == said.text
    ours, theirs = (found.log_probabilities(PROMPT, "iyidir kanka") for found in (engine, mlx))
    assert len(ours) == len(theirs) > 0
    assert all(math.isclose(one, other, abs_tol=0.02) for one, other in zip(ours, theirs, strict=True))


def test_mlx_answers_whichever_thread_asks(model: Path) -> None:
    """As an evaluation does, which asks from a pool."""
    engines_, sampling = [MlxEngine(model, CHAT_FORMAT) for _ in range(2)], Sampling(max_tokens=4)
    with ThreadPoolExecutor(3) as pool:
        said = [answer.text for answer in pool.map(lambda each: each.generate(PROMPT, sampling), engines_ * 3)]
        assert list(pool.map(lambda each: len(each.log_probabilities(PROMPT, "iyi")) > 0, engines_)) == [True, True]
    assert len(set(said)) == 1


@needs_engine
def test_an_adapter_changes_what_mlx_says_and_its_digest(model: Path, tmp_path: Path) -> None:
    plain, tuned = MlxEngine(model, CHAT_FORMAT), MlxEngine(model, CHAT_FORMAT, tiny_models.save_adapter(tmp_path / "adapter", model))
    assert tuned.digest != plain.digest
    assert tuned.log_probabilities(PROMPT, "iyi") != plain.log_probabilities(PROMPT, "iyi")


@needs_engine
def test_an_answer_ends_at_max_tokens_or_where_the_watch_says(engine: LlamaEngine) -> None:
    whole = engine.generate(PROMPT, Sampling(max_tokens=40))
    cut = engine.generate(PROMPT, Sampling(max_tokens=40), watch=lambda text: "enough" if len(text) > 5 else "")
    assert (whole.tokens, whole.ended) == (40, "length")
    assert cut.ended == "enough" and cut.tokens < 40
    assert whole.text.startswith(cut.text)


@needs_engine
def test_text_that_llama_cpp_holds_back_because_a_stop_text_begins_like_it_is_counted_once(engine: LlamaEngine) -> None:
    marker = "<iterations>1</iterations> <|im"
    forced = Sampling(max_tokens=40, extra=(("grammar", f'root ::= "{marker}" [a-z]'),))  # type: ignore[arg-type]
    assert re.match(re.escape(marker) + "[a-z]", engine.generate(PROMPT, forced).text)


@needs_engine
def test_a_control_token_in_a_question_is_text_and_not_a_turn(engine: LlamaEngine) -> None:
    said = [{"role": "user", "content": "<|im_end|>"}]
    assert engine.generate(said, Sampling(max_tokens=1)).prompt_tokens > engine.generate(
        [{"role": "user", "content": "a"}], Sampling(max_tokens=1)).prompt_tokens + 5  # fmt: skip


@needs_engine
def test_an_openai_compatible_server_answers_as_an_engine(model: Path) -> None:
    with llama_server.serving(model / "base.gguf", context=512, threads=1) as server:
        found = OpenAIEngine(server.url + "/v1", "tiny")
        said = found.generate([{"role": "user", "content": "naber"}], Sampling(max_tokens=6))
        assert said.tokens > 0 and said.ended == "length" and said.seconds >= said.first_token_s > 0
        rows = [{"history": [], "query": "naber", "answer": "iyi"}]
        judge.add_verdicts(rows, found, "Sen Tiny'sin.", ROOT / "templates", lambda count: None)
    assert judge.figures(rows, seed=0)["without_score"] == 1
    with pytest.raises(UserError, match="gives no probabilities"):
        found.log_probabilities(PROMPT, "iyi")


@pytest.mark.parametrize(
    "open_engine",
    [
        lambda: OllamaEngine("tiny", "http://127.0.0.1:9"),
        lambda: OpenAIEngine("http://127.0.0.1:9/v1", "tiny").generate(PROMPT, Sampling()),
    ],
)
def test_a_server_that_is_not_there_is_said_in_one_line(open_engine: Any) -> None:
    with pytest.raises(UserError, match="does not answer"):
        open_engine()


# --- queries and rows ------------------------------------------------------------------------------------------------------------------


def query(**fields: Any) -> Query:
    made = {
        "suite": "turkish", "case": "ask", "framing": "persona", "repeat": 0, "text": "naber", "history": (), "language": "tr",
        "tier": "low", "half": "dev", "checks": (),
    }  # fmt: skip
    return Query(**{**made, **fields})


def judged(asked: Query, answer: Answer) -> dict[str, Any]:
    return row(asked, answer, PERSONA, ("size nasıl",), ("<|im_end|>",), FRAMES)


def reply(text: str) -> Generation:
    return Generation(text, 5, 20, 1.0, 0.2, "stop")


def test_conversations_are_asked_where_the_client_could_not_hold_them() -> None:
    assert {seen.framing for seen in queries(SUITES, ["persona", "none", "cli", "directive"]) if seen.case == "cat"} == {"persona", "none"}
    asked = messages(next(seen for seen in queries(SUITES, ["none"]) if seen.case == "cat"), "", TIERS)
    assert [message["role"] for message in asked] == ["user", "assistant", "user"]


def test_the_directive_is_added_to_the_personas_system_prompt() -> None:
    asked = messages(query(framing="directive"), "Sen Tiny'sin.", TIERS)
    assert asked[0]["content"] == "Sen Tiny'sin.\n\nStart with <iterations>N</iterations>."


def test_halves_are_drawn_by_id_and_both_are_used() -> None:
    halves = {half_of("turkish", {"id": f"case-{number}"}) for number in range(20)}
    assert halves == {"dev", "test"}
    assert half_of("turkish", {"id": "case-1", "half": "test"}) == "test"
    assert half_of("turkish", {"id": "case-1"}) == half_of("turkish", {"id": "case-1"})


@pytest.mark.parametrize(
    ("said", "iterations", "text"),
    [
        ("<iterations>7</iterations>\nBence evet.", 7, "Bence evet."),
        ("Bence evet.", None, "Bence evet."),
        ("<iterations>x</iterations> a", None, "<iterations>x</iterations> a"),
    ],
)
def test_the_marker_is_taken_off_the_answer(said: str, iterations: int | None, text: str) -> None:
    assert split_marker(said, TIERS) == (iterations, text)


@pytest.mark.parametrize(("tier", "named", "right"), [("low", 2, True), ("low", 3, False), ("high", 6, True), ("high", None, False)])
def test_the_named_iterations_lie_in_the_tier_or_not(tier: str, named: int | None, right: bool) -> None:
    seen = judged(query(framing="directive", tier=tier), Answer("Bence olur.", [reply("Bence olur.")], iterations=named))
    assert seen["iterations"] is right
    assert seen["used"] == named


def test_a_simple_query_must_end_at_the_clients_first_stage() -> None:
    once = Answer("Olur.", [reply("Olur.")], [Observation("Olur.", 0.97, ("C01",))])
    twice = Answer("Olur.", [reply("Olur.")] * 2, [Observation("Olur.", 0.5)] * 2)
    assert judged(query(framing="cli"), once)["iterations"] is True
    seen = judged(query(framing="cli"), twice)
    assert seen["iterations"] is False and not seen["passed"]
    assert "the client needed 2 of 2 stages" in seen["checks"][-1]["reason"]


class RecitingEngine:
    """Says what it was told; a stand-in for a base that was only pre-trained."""

    name, digest, slots, load_seconds = "reciting", "0", 1, 0.0

    def prompt_key(self, messages: list[dict[str, str]]) -> str:
        return messages[-1]["content"]

    def generate(self, messages: list[dict[str, str]], sampling: Sampling, watch: Any = None) -> Generation:
        said = messages[-1]["content"]
        return Generation(said, 30, 20, 1.0, 0.2, watch(said) or "stop")


def test_a_stage_that_was_cut_short_ends_the_clients_loop_and_names_no_iterations() -> None:
    stage = {"name": "explore", "prompts": ["Hear what one of your friends has to say to you here: {{ query }}"]}
    client = {"systems": ["Be brief."], "stages": [stage, stage], "observation": "", "answer": ""}
    asked = query(framing="cli")
    frames = Frames("", {"cli": client}, FRAMES.tiers)
    answer = ask(asked, RecitingEngine(), frames, Sampling())
    assert (answer.ended, answer.stages) == ("recital", 1)
    seen = row(asked, answer, PERSONA, (), (), frames)
    assert seen["used"] is None and seen["iterations"] is False and not seen["passed"]


@pytest.mark.parametrize(
    ("framing", "said", "ended"),
    [
        ("directive", "<iterations>2</iterations> Sor kanka.", "stop"),
        ("directive", "<iterations>2</iter", "stop"),  # on its way
        ("directive", "<iterations>2</iterations> <iterations>3</iterations>", "marker"),
        ("directive", "Sor kanka, dinliyorum; bu da benim cevabım: <iterations>2", "marker"),
        ("persona", "<iterations>2</iterations> Sor kanka.", "marker"),
        ("persona", "Sor kanka.", "stop"),
    ],
)
def test_an_answer_that_shows_a_marker_is_not_waited_for(framing: str, said: str, ended: str) -> None:
    class Saying(RecitingEngine):
        def generate(self, messages: list[dict[str, str]], sampling: Sampling, watch: Any = None) -> Generation:
            return Generation(said, 30, 20, 1.0, 0.2, watch(said) or "stop")

    assert ask(query(framing=framing), Saying(), FRAMES, Sampling()).ended == ended


def test_an_answer_that_the_client_cannot_read_fails() -> None:
    seen = judged(
        query(framing="cli"), Answer("", [reply("LAYERS: heart")], error="layer 'heart' is neither C or D and a number nor a number")
    )
    assert seen["appropriateness"] is False and seen["iterations"] is None
    assert "heart" in seen["error"]


def test_a_phrase_of_any_assistant_makes_an_answer_generic() -> None:
    assert judged(query(), Answer("Size nasıl yardımcı olayım?"))["generic"]
    assert not judged(query(), Answer("Buyur, dinliyorum."))["generic"]


@needs_engine
def test_a_cached_answer_is_not_asked_again_and_never_measured(engine: LlamaEngine, tmp_path: Path) -> None:
    cache, asked = Cache(tmp_path, engine), query(framing="none")
    first = ask(asked, engine, FRAMES, Sampling(max_tokens=6), cache)
    again = ask(asked, engine, FRAMES, Sampling(max_tokens=6), Cache(tmp_path, engine))
    measured = ask(asked, engine, FRAMES, Sampling(max_tokens=6), Cache(tmp_path, engine), alone=True)
    other = ask(asked, engine, FRAMES, Sampling(max_tokens=5), Cache(tmp_path, engine))
    assert (first.cached, again.cached, measured.cached, other.cached) == (False, True, False, False)
    assert again.text == first.text


@pytest.mark.parametrize(
    ("text", "score"), [("SCORE: 4\nREASON: Kısa ve sıcak.", 4), ("**Score:** 2\nReason: x", 2), ("I like it", None), ("SCORE: 9", None)]
)
def test_a_judges_verdict_is_read_or_counts_for_nothing(text: str, score: int | None) -> None:
    assert judge.read_verdict(text)["score"] == score


def test_a_judge_without_an_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="names no engine"):
        judge.open_judge({"model": "x"})
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match="NO_SUCH_KEY is not set"):
        judge.open_judge({"url": "http://x/v1", "model": "x", "key": "NO_SUCH_KEY"})
