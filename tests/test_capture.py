"""From recordings of made-up clients to their profiles: what is learned is what the client does with queries that it was never asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finished_project import ROOT, doit, make
from made_up_clients import answered, other_shape, same_shape
from ruamel.yaml import YAML

from generators.capture import Captured, Exchange, as_yaml, capture, chains_of, derive, read_recording, told
from generators.capture_text import Unclear, aligned, escaped
from generators.clients import Observation, parse_answer, stage_prompt
from generators.errors import UserError
from generators.paths import Paths
from generators.specs.project import load
from generators.stages import corpus, judging, release

SHIPPED: dict[str, Any] = YAML(typ="safe").load(ROOT / "specs" / "clients" / "jessy-cli.yaml")
QUERIES = [
    "naber",
    "ne",
    "Rust'ta lifetime ne işe yarar?",
    "bugün canım sıkkın",
    "Özgür irade var mı sence?",
    "tabs mi spaces mi",
    "{{ query }} ne demek",
    "N+1 sorgusu neden yavaş? Bir de index ne yapar?",
]
THOUGHTS = [
    Observation("Emin değilim, bir daha bakayım.", 0.5, ("C06", "C10")),
    Observation("Bence ikisi de olur;\nama önce ölç.", 0.72, ("C07", "C02", "C13")),
    Observation("Selam.", 0.97, ("C04",)),
    Observation("Sence de öyle değil mi, naber?", 0.6, ("C01", "C04")),
]
Prompt = Callable[[str, list[Observation]], str]


SYSTEM = "Sen JESSY'sin.\nKısa konuş."


def recorded(
    prompt: Prompt, queries: list[str], stages: int, endpoint: str = "generate", system: str = SYSTEM, thoughts: list[Observation] = THOUGHTS
) -> list[Exchange]:
    """Each query through all stages, with thoughts that differ from query to query."""
    found = []
    for number, query in enumerate(queries):
        seen: list[Observation] = []
        for stage in range(stages):
            thought = thoughts[(number + stage) % len(thoughts)]
            found.append(Exchange(endpoint, system, prompt(query, seen), answered(thought), True))
            seen.append(thought)
    return found


NEW_QUERY = 'yepyeni "bir" soru: neden?'
NEW_THOUGHTS = [Observation("İlk aklıma gelen bu değil.", 0.41, ("C02", "C15")), Observation("Şimdi oldu!", 0.8, ("C09",))]


def rebuilds(found: Captured, prompt: Prompt, stages: int) -> None:
    for stage in range(stages):
        seen = NEW_THOUGHTS[:stage]
        assert stage_prompt(found.profile, stage, NEW_QUERY, seen) == prompt(NEW_QUERY, seen).strip()


# What is learned


def test_a_client_of_the_shipped_shape_is_learned_whole() -> None:
    found = derive(SHIPPED, recorded(same_shape, QUERIES, 2))
    rebuilds(found, same_shape, 2)
    assert found.is_sure and (found.rebuilt, found.used, found.queries) == (16, 16, 8)
    assert found.profile["systems"] == ["Sen JESSY'sin.\nKısa konuş."]
    assert found.profile["stop"] == SHIPPED["stop"] and found.profile["endpoint"] == "generate"


def test_a_client_of_another_shape_is_learned_whole() -> None:
    found = derive(SHIPPED, recorded(other_shape, QUERIES, 3, "chat"))
    rebuilds(found, other_shape, 3)
    assert found.is_sure and found.rebuilt == found.used == 24
    assert [len(stage["prompts"]) for stage in found.profile["stages"]] == [1, 1, 1]
    assert found.profile["endpoint"] == "chat" and found.profile["separator"] == "\n\n"


def test_a_listing_that_numbers_its_stages_is_learned_with_the_numbers() -> None:
    found = derive(SHIPPED, recorded(same_shape, QUERIES, 3))
    rebuilds(found, same_shape, 3)
    assert [stage["name"] for stage in found.profile["stages"]] == ["1", "2", "3"]


def test_the_shipped_profile_learns_itself() -> None:
    def shipped(query: str, seen: list[Observation]) -> str:
        return stage_prompt(SHIPPED, len(seen), query, seen)

    found = derive({**SHIPPED, "systems": ["x"], "stages": [{"name": stage["name"], "prompts": ["{{ query }}"]} for stage in SHIPPED["stages"]]},
                   recorded(shipped, QUERIES, 2))  # fmt: skip
    rebuilds(found, shipped, 2)
    assert found.is_sure


def test_answers_without_layers_do_not_hide_where_layers_stand() -> None:
    exchanges = recorded(other_shape, QUERIES[2:], 2, "chat")
    bare = Observation("Bilmem.", 0.5, ())
    for query in ("kar yağar mı", "kim kazandı", "sonra ne oldu peki", "saat kaç", "yarın gelsem olur mu", "o da ne", "ya sen"):
        exchanges += [Exchange("chat", "Sen JESSY'sin.", other_shape(query, seen), "Bilmem.", True) for seen in ([], [bare])]
    rebuilds(derive(SHIPPED, exchanges), other_shape, 2)


def test_programs_that_ask_side_by_side_are_told_apart() -> None:
    one, other = recorded(same_shape, QUERIES[:4], 2), recorded(same_shape, QUERIES[4:], 2)
    mixed = [exchange for pair in zip(one, other, strict=True) for exchange in pair]
    found = derive(SHIPPED, mixed)
    assert found.is_sure and found.queries == 8
    rebuilds(found, same_shape, 2)


def test_a_stage_that_was_never_asked_keeps_the_shipped_words_and_says_so() -> None:
    found = derive(SHIPPED, recorded(same_shape, QUERIES, 1))
    assert found.profile["stages"][1] == SHIPPED["stages"][1] and found.stages == 1
    assert "never asked: refine; the shipped words stay there. Harder queries go further" in told(found, read_nothing(), SHIPPED)


def read_nothing() -> Any:
    from collections import Counter

    return Counter()


def test_requests_with_an_earlier_conversation_are_left_out() -> None:
    exchanges = recorded(same_shape, QUERIES, 2)
    later = same_shape("peki ya sonra", []).replace('"peki', f'Geçmiş:\nUser: naber\nAssistant: {THOUGHTS[1].text}\n\n"peki')
    exchanges.insert(2, Exchange("generate", exchanges[0].system, later, answered(THOUGHTS[0]), True))
    found = derive(SHIPPED, exchanges)
    rebuilds(found, same_shape, 2)
    assert found.used == 16 and "start afresh for each query" in " ".join(found.doubts)


def test_a_system_prompt_that_changes_is_a_doubt() -> None:
    exchanges = [
        Exchange(each.endpoint, f"Saat {number}. Sen JESSY'sin.", each.prompt, each.answer, True)
        for number, each in enumerate(recorded(same_shape, QUERIES, 1))
    ]
    assert "the system prompt is another in each of 8 requests" in " ".join(derive(SHIPPED, exchanges).doubts)


def test_two_system_prompts_are_two_wordings() -> None:
    exchanges = recorded(same_shape, QUERIES[:4], 2) + recorded(same_shape, QUERIES[4:], 2, system="You are JESSY.")
    assert derive(SHIPPED, exchanges).profile["systems"] == ["Sen JESSY'sin.\nKısa konuş.", "You are JESSY."]


def test_a_client_without_a_system_prompt_of_its_own_cannot_be_a_profile() -> None:
    with pytest.raises(UserError, match="sends no system prompt of its own"):
        derive(SHIPPED, recorded(same_shape, QUERIES, 1, system=""))


def test_one_query_shows_nothing() -> None:
    with pytest.raises(UserError, match="cannot be told: all requests are the same; ask different queries; record at least 3 queries"):
        derive(SHIPPED, recorded(same_shape, ["naber"], 2))


def test_answers_that_are_all_alike_leave_a_doubt() -> None:
    def plain(query: str, seen: list[Observation]) -> str:
        return f'Soru: "{query}"\n' + "".join(f"Önceki: {each.text}\n" for each in seen) + "Cevap ver."

    said = derive(SHIPPED, recorded(plain, QUERIES, 2, thoughts=[Observation("Selam canım.", 0.5, ())])).doubts
    assert "all answers were as sure as each other, so whether the client lists their confidence cannot be told" in said
    assert "no answer named layers, so whether the client lists them cannot be told" in said
    assert not derive(SHIPPED, recorded(plain, QUERIES, 2)).doubts


def test_two_queries_are_not_sure() -> None:
    found = derive(SHIPPED, recorded(same_shape, QUERIES[2:4], 2))
    assert not found.is_sure and told(found, read_nothing(), SHIPPED)[0].startswith("NOT SURE: 4 of 4 requests, of 2 queries")


def test_something_else_that_varies_is_not_taken_for_the_query() -> None:
    exchanges = [
        Exchange("generate", "s", f"Kullanıcı {number}{number} yazıyor.\nMesajı şu: {query}\nCevap ver.", "x", True)
        for number, query in enumerate(QUERIES)
    ]
    with pytest.raises(UserError, match="the queries share it, or more than the query varies"):
        derive(SHIPPED, exchanges)


def test_a_query_with_nothing_around_it_is_learned() -> None:
    found = derive(SHIPPED, recorded(lambda query, seen: query, QUERIES, 1))
    assert found.profile["stages"][0]["prompts"] == ["{{ query }}"]


# Texts side by side


def test_words_that_queries_begin_with_alike_stay_with_the_queries() -> None:
    assert aligned(['Q: "naber?" end', 'Q: "nasılsın?" end', 'Q: "neden?" end']) == (['Q: "', '" end'], ["naber?", "nasılsın?", "neden?"])


def test_a_query_that_stands_there_twice_is_one_query() -> None:
    assert aligned([f"A {word} | again: {word}." for word in ("bir", "iki", "üç")]) == (["A ", " | again: ", "."], ["bir", "iki", "üç"])


def test_two_things_that_vary_are_unclear() -> None:
    with pytest.raises(Unclear):
        aligned([f"At {hour} o'clock, {word} was said" for hour, word in (("nine", "bir"), ("ten", "iki"), ("two", "üç"))])


@pytest.mark.parametrize("text", ["{{ x }}", "{% if %}", "{# a #}", "{{{{", "100 % {sure}", "{{'{{'}}"])
def test_what_looks_like_a_template_comes_back_as_text(text: str) -> None:
    from generators.templates import render_text

    assert render_text(escaped(text)) == text


def test_a_chain_ends_at_an_answer_that_the_client_cannot_read() -> None:
    one, other = recorded(same_shape, QUERIES[2:3], 2), recorded(same_shape, QUERIES[3:4], 2)
    broken = replace(one[0], answer="LAYERS: duygu\nCONTENT:\nx")
    patterns = [tuple(aligned([one[0].prompt, other[0].prompt])[0])]
    assert [len(chain.exchanges) for chain in chains_of([broken, *other], SHIPPED, patterns, [])] == [1, 2]


def test_the_profile_is_written_as_it_is_read() -> None:
    profile = derive(SHIPPED, recorded(other_shape, QUERIES, 3, "chat")).profile
    text = as_yaml({**profile, "systems": ["tab\there \n  and  \n\nspaces  ", "\u200b:#'\""]})
    assert YAML(typ="safe").load(text)["systems"] == ["tab\there \n  and  \n\nspaces  ", "\u200b:#'\""]
    assert "{{ observations }}" in text


# Recordings


def write(path: Path, exchanges: list[Exchange], *more: str) -> Path:
    rows = []
    for each in exchanges:
        if each.endpoint == "generate":
            request: dict[str, Any] = {"model": "m", "prompt": each.prompt, "system": each.system, "stream": False}
        else:
            request = {"model": "m", "messages": [{"role": "system", "content": each.system}, {"role": "user", "content": each.prompt}]}
        rows.append({"time": "", "endpoint": f"/api/{each.endpoint}", "request": request, "answer": each.answer, "ended": "stop"})
    path.write_text("\n".join([*map(json.dumps, rows), *more]) + "\n", encoding="utf-8")
    return path


def test_a_recording_is_read_as_it_was_made(tmp_path: Path) -> None:
    exchanges = [*recorded(same_shape, QUERIES, 2), *recorded(other_shape, QUERIES, 1, "chat")]
    assert read_recording(write(tmp_path / "r.jsonl", exchanges)).exchanges == exchanges


def test_what_is_of_no_use_is_counted(tmp_path: Path) -> None:
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    lines = [
        json.dumps({"endpoint": "/api/chat", "request": {"messages": conversation}, "answer": "x", "ended": "stop"}),
        json.dumps({"endpoint": "/api/generate", "request": {"prompt": "a", "raw": True}, "answer": "x", "ended": "stop"}),
        json.dumps({"endpoint": "/v1/chat/completions", "request": {"messages": 3}, "answer": "x", "ended": ""}),
        '{"endpoint": "/api/ge',
    ]
    exchanges = recorded(same_shape, QUERIES[:2], 1)
    found = read_recording(write(tmp_path / "r.jsonl", [*exchanges, exchanges[0]], *lines))
    assert len(found.exchanges) == 2
    assert dict(found.left_out) == {
        "asked again with the same words": 1,
        "with a whole conversation in it; let the client start afresh for each query": 1,
        "raw, without a system prompt": 1,
        "not readable": 2,
    }


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), (b"", "it is empty"), (b"x\n", "1 not readable"), (b"\xff", "not UTF-8")])
def test_a_file_that_is_no_recording_is_told_so(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_recording(tmp_path / "r.jsonl")


# Keeping the profile


def kept(tmp_path: Path, exchanges: list[Exchange], force: bool = False, accept: Callable[[], object] = lambda: None) -> tuple[Path, list[str]]:
    said: list[str] = []
    recording = write(tmp_path / "r.jsonl", exchanges)
    path = capture(recording, "", {"jessy-cli": SHIPPED}, lambda name: tmp_path / f"{name}.yaml", force, accept, said.append)
    return path, said


def test_a_sure_profile_is_shown_and_kept(tmp_path: Path) -> None:
    path, said = kept(tmp_path, recorded(same_shape, QUERIES, 2))
    assert stage_prompt(YAML(typ="safe").load(path), 0, "x", []) == same_shape("x", [])
    assert "sure: 16 of 16 requests, of 8 queries, are rebuilt from it letter for letter" in said
    assert any("Rapor yazma." in line for line in said)
    assert [line for line in said if "git ignores" in line and "in place of specs/clients/jessy-cli.yaml" in line]


def test_a_profile_that_is_not_sure_is_shown_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not sure enough to train on"):
        kept(tmp_path, recorded(same_shape, QUERIES[2:4], 2))
    assert not (tmp_path / "jessy-cli.yaml").exists()
    assert kept(tmp_path, recorded(same_shape, QUERIES[2:4], 2), force=True)[0].is_file()


def test_a_profile_that_the_project_cannot_load_leaves_the_last_one(tmp_path: Path) -> None:
    from generators.errors import Problem, SpecErrors

    def refuse() -> None:
        raise SpecErrors([Problem("build/clients/jessy-cli.yaml", 1, 1, "is wrong")])

    with pytest.raises(UserError, match="is wrong"):
        kept(tmp_path, recorded(same_shape, QUERIES, 2), accept=refuse)
    assert not (tmp_path / "jessy-cli.yaml").exists()
    (tmp_path / "jessy-cli.yaml").write_text("the last one")
    with pytest.raises(UserError, match="is wrong"):
        kept(tmp_path, recorded(same_shape, QUERIES, 2), accept=refuse)
    assert (tmp_path / "jessy-cli.yaml").read_text() == "the last one"


@pytest.mark.parametrize(
    ("name", "clients", "words"),
    [
        ("", {}, "specs/clients/ holds no client"),
        ("", {"a": SHIPPED, "b": SHIPPED}, "there are several clients; name one with --client; there are a, b"),
        ("jesy-cli", {"jessy-cli": SHIPPED}, "no client 'jesy-cli'; did you mean 'jessy-cli'\\?"),
    ],
)
def test_the_client_must_be_known(name: str, clients: dict[str, Any], words: str, tmp_path: Path) -> None:
    recording = write(tmp_path / "r.jsonl", recorded(same_shape, QUERIES, 1))
    with pytest.raises(UserError, match=words):
        capture(recording, name, clients, lambda each: tmp_path / each, False, lambda: None, lambda line: None)


# In the project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the client was captured, as a person does it."""
    root = make(tmp_path_factory.mktemp("captured") / "project")
    (root / "build" / "recordings").mkdir()
    write(root / "build" / "recordings" / "client.jsonl", recorded(same_shape, QUERIES, 2))
    code, said = doit(root, "capture", "--recording", "build/recordings/client.jsonl")
    assert code == 0, said
    return root


def test_a_captured_client_takes_the_place_of_the_shipped_one(project: Path) -> None:
    found = load(project, keep=False)
    assert stage_prompt(found.clients["jessy-cli"], 0, "x", []) == same_shape("x", [])
    assert found.client_files == {"jessy-cli": "build/clients/jessy-cli.yaml"}
    assert load(project, keep=False, captured=False).clients["jessy-cli"]["systems"] == [text.strip() for text in SHIPPED["systems"]]


def test_training_and_evaluation_are_asked_in_the_captured_words(project: Path) -> None:
    found, paths = load(project, keep=False), Paths(project)
    for slice_of in (corpus.frames_slice(found, paths, "tiny"), release.lock_slice(found, "jessy-mini"), judging.evaluate_slice(found, "jessy-mini")):
        assert "Rapor yazma." in slice_of["build/clients/jessy-cli.yaml"]["stages"][0]["prompts"][0]
        assert "specs/clients/jessy-cli.yaml" not in slice_of
    corpus.samples(found, paths, "turkish/greetings")
    rows = [json.loads(line) for line in paths.samples("turkish/greetings").read_text(encoding="utf-8").splitlines()]
    paths.dataset.mkdir(exist_ok=True)
    for split, part in (("train", rows[5:]), ("valid", rows[:5])):
        (paths.dataset / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    corpus.frames(found, paths, "tiny")
    framed = [json.loads(line) for line in (paths.recipe("tiny").frames / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [row["messages"] for row in framed if row["metadata"]["framing"] == "jessy-cli"]
    assert asked and all(messages[0]["content"] == "Sen JESSY'sin.\nKısa konuş." for messages in asked)
    assert all(parse_answer(SHIPPED, messages[-1]["content"]).text for messages in asked)


def test_a_mistake_in_a_captured_client_is_told_with_its_place(project: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(project / "specs", tmp_path / "specs")
    shutil.copytree(project / "templates", tmp_path / "templates")
    (tmp_path / "build" / "clients").mkdir(parents=True)
    text = (project / "build" / "clients" / "jessy-cli.yaml").read_text(encoding="utf-8").replace("protocol: confidence", "protocol: konfidence")
    (tmp_path / "build" / "clients" / "jessy-cli.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"build/clients/jessy-cli\.yaml:\d+:\d+: protocol: 'konfidence-layers-content'"):
        load(tmp_path, keep=False)


def test_without_a_recording_it_says_how_to_make_one(project: Path) -> None:
    code, said = doit(project, "capture")
    assert code == 1 and "run doit serve --record FILE" in said and "Traceback" not in said
