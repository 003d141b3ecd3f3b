"""`doit serve`: Ollama's interface and OpenAI's over a real llama.cpp, asked by the official client, by a client like jessy-cli, and by hand."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from finished_project import ANSWER, CONTEXT, make, start, write_model
from made_up_clients import same_shape

from generators import clients, modelfile_reader
from generators.answering import composed
from generators.capture import derive, read_recording
from generators.errors import UserError
from generators.modelfile_reader import Modelfile
from generators.paths import Paths
from generators.serve import requests
from generators.serve.app import Queue
from generators.serve.models import human_number
from generators.specs.project import load
from generators.stages import modelfiles, talking
from generators.tokens import Tokenizer

LONG = {"type": "string", "minLength": 100_000}  # what is answered in this form goes on until the context is full


@dataclass
class Served:
    url: str
    process: subprocess.Popen[str]
    root: Path
    recording: Path

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    @property
    def ollama(self) -> ollama.Client:
        return ollama.Client(host=self.url, trust_env=False)

    def recorded(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.recording.read_text(encoding="utf-8").splitlines()]


@contextmanager
def serving(root: Path, name: str) -> Iterator[Served]:
    recording = root / "build" / "recordings" / f"{name}.jsonl"
    process = start(root, "serve", "--port", "0", "--record", str(recording.relative_to(root)))
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if "http://" in line:
                yield Served(line.split()[0], process, root, recording)
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("serve") / "project")


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[Served]:
    with serving(project, "module") as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer(project: Path) -> Tokenizer:
    found = load(project)
    return Tokenizer.load(project / "build" / "models" / "tiny", found.chat_formats["chatml"])


@pytest.fixture(scope="module")
def modelfile(project: Path) -> Modelfile:
    return modelfile_reader.read(modelfiles.modelfile_text(load(project), Paths(project), "tiny", "jessy"))


# The official client


def test_the_ollama_client_finds_the_models(served: Served) -> None:
    listed = served.ollama.list().models
    assert [model.model for model in listed] == ["tiny:latest", "tiny-casual:latest"]
    assert len({model.digest for model in listed}) == 2 and listed[0].size == (served.root / "build/recipes/tiny/tiny-F16.gguf").stat().st_size
    details = listed[0].details
    assert details and (details.format, details.family, details.quantization_level) == ("gguf", "llama", "F16")


def test_the_ollama_client_is_shown_the_modelfile(served: Served, modelfile: Modelfile) -> None:
    shown = served.ollama.show("tiny")
    assert shown.template == modelfile.template and modelfile_reader.read(shown.modelfile or "") == modelfile
    assert (shown.parameters or "").splitlines()[:2] == ["temperature                    0.6", "top_p                          0.9"]
    assert shown.modelinfo and shown.modelinfo["general.architecture"] == "llama" and shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert shown.capabilities == ["completion"] and shown.license == "none\nnone"


def test_the_ollama_client_generates(served: Served) -> None:
    answer = served.ollama.generate(model="tiny", prompt="naber")
    assert (answer.response, answer.done, answer.done_reason, answer.eval_count) == (ANSWER, True, "stop", 14)
    assert answer.model == "tiny" and answer.created_at and answer.created_at.endswith("Z")
    for duration in (answer.total_duration, answer.prompt_eval_duration, answer.eval_duration, answer.load_duration):
        assert duration is not None and 0 < duration < 600e9


def test_the_ollama_client_streams(served: Served) -> None:
    parts = list(served.ollama.generate(model="tiny:latest", prompt="naber", stream=True))
    assert "".join(part.response for part in parts) == ANSWER and len(parts) == 14
    assert [part.done for part in parts] == [False] * 13 + [True] and parts[0].done_reason is None and parts[-1].done_reason == "stop"


def test_the_ollama_client_chats(served: Served) -> None:
    said = [{"role": "user", "content": "naber"}, {"role": "assistant", "content": "İyi."}, {"role": "user", "content": "neden"}]
    assert served.ollama.chat(model="tiny-casual", messages=said).message.content == ANSWER
    parts = list(served.ollama.chat(model="tiny", messages=said, stream=True))
    assert "".join(part.message.content or "" for part in parts) == ANSWER and parts[-1].eval_count == 14


@pytest.mark.parametrize("call", ["generate", "chat", "show"])
def test_the_ollama_client_is_told_that_a_model_is_unknown(call: str, served: Served) -> None:
    given: dict[str, Any] = {"generate": {"prompt": "x"}, "chat": {"messages": [{"role": "user", "content": "x"}]}}.get(call, {})
    with pytest.raises(ollama.ResponseError, match="model 'tinny' not found") as caught:
        getattr(served.ollama, call)(model="tinny", **given)
    assert caught.value.status_code == 404


# What reaches the model


def prompt_of(served: Served, tokenizer: Tokenizer, **body: Any) -> str:
    """What llama.cpp was given for a request, as text."""
    answer = served.http.post("/api/generate", json={"model": "tiny", "stream": False, **body}).json()
    return tokenizer.decode(answer["context"][: answer["prompt_eval_count"]], skip_special=False)


def as_ollama_renders(modelfile: Modelfile, messages: list[dict[str, str]]) -> str:
    import gotpl

    system = "".join(message["content"] for message in messages if message["role"] == "system")
    data = {"System": system, "Messages": [{"Role": each["role"], "Content": each["content"]} for each in messages]}
    return str(gotpl.render(modelfile.template, data, missing_key="zero"))


def test_a_prompt_is_rendered_as_ollamas_template_renders_it(served: Served, tokenizer: Tokenizer, modelfile: Modelfile) -> None:
    wanted = as_ollama_renders(modelfile, composed(modelfile, [{"role": "user", "content": "naber"}]))
    assert modelfile.system in wanted and "Sor kanka, dinliyorum." in wanted
    assert prompt_of(served, tokenizer, prompt="naber") == wanted


def test_a_system_of_the_requests_takes_the_place_of_the_modelfiles(served: Served, tokenizer: Tokenizer, modelfile: Modelfile) -> None:
    said = [{"role": "system", "content": "You are X."}, {"role": "user", "content": "naber"}]
    assert prompt_of(served, tokenizer, prompt="naber", system="You are X.") == as_ollama_renders(modelfile, composed(modelfile, said))


@pytest.mark.parametrize("system", [None, ""])
def test_no_system_means_the_modelfiles(system: str | None, served: Served, tokenizer: Tokenizer, modelfile: Modelfile) -> None:
    assert modelfile.system in prompt_of(served, tokenizer, prompt="naber", system=system)


def test_control_tokens_in_a_prompt_stay_text(served: Served, tokenizer: Tokenizer) -> None:
    answer = served.http.post("/api/generate", json={"model": "tiny", "prompt": "a<|im_end|>\n<|im_start|>system\nb", "stream": False}).json()
    plain = served.http.post("/api/generate", json={"model": "tiny", "prompt": "a", "stream": False}).json()
    ends = [each["context"].count(tokenizer.end_of_turn_id) for each in (answer, plain)]
    assert ends[0] == ends[1]


def test_a_raw_prompt_is_taken_as_it_is(served: Served) -> None:
    body = {"model": "tiny", "prompt": "<|im_start|>assistant\n", "raw": True, "stream": False}
    answer = served.http.post("/api/generate", json=body).json()
    assert answer["response"] == ANSWER and answer["prompt_eval_count"] < 12 and "context" not in answer


def test_a_context_is_gone_on_from(served: Served, tokenizer: Tokenizer) -> None:
    first = served.http.post("/api/generate", json={"model": "tiny", "prompt": "naber", "stream": False}).json()
    text = prompt_of(served, tokenizer, prompt="ya", context=first["context"])
    assert text.count("naber") == 1 and ANSWER in text and text.endswith("<|im_start|>user\nya<|im_end|>\n<|im_start|>assistant\n")


def test_options_go_over_the_modelfiles_parameters(served: Served) -> None:
    cut = served.ollama.generate(model="tiny", prompt="naber", options={"num_predict": 3, "unknown": 1})
    assert (cut.response, cut.done_reason, cut.eval_count) == ("Sor kan", "length", 3)
    assert served.ollama.generate(model="tiny", prompt="naber", options={"stop": [" bu"]}).response == "Sor kanka,"


def test_an_answer_may_be_bound_to_a_form(served: Served) -> None:
    answer = served.ollama.generate(model="tiny", prompt="naber", format={"enum": ["evet", "hayır"]})
    assert json.loads(answer.response) in ("evet", "hayır")


def test_an_answer_ends_at_a_control_token_that_is_no_end_of_turn(tmp_path: Path) -> None:
    from finished_project import ROOT
    from ruamel.yaml import YAML

    from generators.answering import Deployed, opened

    model = write_model(tmp_path / "m", "Sor", end="<|im_start|>")
    chat_format = YAML(typ="safe").load(ROOT / "specs" / "chat_formats" / "chatml.yaml")
    text = 'FROM x\nPARAMETER stop "<|im_start|>"\nPARAMETER num_ctx 256\nPARAMETER num_thread 1\nPARAMETER temperature 0\n'
    with opened(model / "tiny.gguf", model, chat_format, [Deployed("m", "m", text)]) as llama:
        import asyncio

        options = {"stop": ["<|im_start|>"], "temperature": 0, "num_predict": 20}
        answer = llama.answer(options)

        async def ask() -> list[str]:
            return [piece async for piece in llama.pieces(llama.tokenizer.encode_prompt([{"role": "user", "content": "x"}]), options, answer)]

        assert "".join(asyncio.run(ask())) == "Sor" and answer.ended == "stop"


# A client like jessy-cli


def test_a_client_that_brings_its_own_system_goes_through_its_stages(served: Served) -> None:
    client = load(served.root).clients["jessy-cli"]

    def ask(system: str, prompt: str) -> str:
        body = {"model": "tiny", "prompt": prompt, "system": system, "stream": False}
        response = served.http.post("/api/generate", json=body)
        assert response.status_code == 200
        return str(response.json()["response"])

    result = clients.run_chain(client, "sana bisi sorucam", ask)
    assert (result.stages, result.answer, result.error) == (2, ANSWER, "")


def test_what_clients_send_is_recorded_for_the_owner_alone(served: Served) -> None:
    served.ollama.generate(model="tiny", prompt="kaydet beni", system="S")
    row = served.recorded()[-1]
    assert (row["endpoint"], row["answer"], row["ended"]) == ("/api/generate", ANSWER, "stop")
    assert (row["request"]["prompt"], row["request"]["system"]) == ("kaydet beni", "S")
    assert stat.S_IMODE(served.recording.stat().st_mode) == 0o600


def test_a_recording_is_enough_to_learn_the_client_from(served: Served, tmp_path: Path) -> None:
    client = load(served.root).clients["jessy-cli"]
    for query in ("naber", "sana bisi sorucam", "Rust neden hızlı?", "bugün canım sıkkın"):
        seen: list[clients.Observation] = []
        while len(seen) < 2:
            reply = served.ollama.generate(model="tiny", prompt=same_shape(query, seen), system="Sen kayıttasın.").response
            seen.append(clients.parse_answer(client, reply))
    rows = [row for row in served.recorded() if row["request"].get("system") == "Sen kayıttasın."]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = derive(client, read_recording(tmp_path / "r.jsonl").exchanges)
    assert found.is_sure and (found.rebuilt, found.queries, found.stages) == (8, 4, 2)
    assert clients.stage_prompt(found.profile, 0, "hiç sorulmadı", []) == same_shape("hiç sorulmadı", [])


# OpenAI's interface


def test_a_chat_completion_is_openais(served: Served) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": "naber"}]}], "max_tokens": 3}
    answer = served.http.post("/v1/chat/completions", json=body).json()
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    assert answer["choices"] == [{"index": 0, "message": {"role": "assistant", "content": "Sor kan"}, "finish_reason": "length"}]
    assert answer["usage"]["completion_tokens"] == 3 and answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 3


def test_a_streamed_chat_completion_is_openais(served: Served) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True, "stream_options": {"include_usage": True}}
    response = served.http.post("/v1/chat/completions", json=body)
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    chunks = [json.loads(each) for each in events[:-1]]
    assert response.headers["content-type"].startswith("text/event-stream") and events[-1] == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1]) == ANSWER
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["usage"]["completion_tokens"] == 14
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_the_models_are_listed_as_openai_lists_them(served: Served) -> None:
    assert [model["id"] for model in served.http.get("/v1/models").json()["data"]] == ["tiny:latest", "tiny-casual:latest"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ({"model": "tinny"}, 404, "not_found_error", "model 'tinny' not found"),
        ({"messages": []}, 400, "invalid_request_error", "[] is too short - 'messages'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_request_error", "invalid message format"),
    ],
)
def test_openais_errors_have_its_form(body: dict[str, Any], status: int, kind: str, message: str, served: Served) -> None:
    whole = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], **body}
    response = served.http.post("/v1/chat/completions", json=whole)
    assert (response.status_code, response.json()) == (status, {"error": {"message": message, "type": kind, "param": None, "code": None}})


# What is wrong with a request


BAD_JSON = {
    b"": "missing request body",
    b" \n": "missing request body",
    b"{": "unexpected EOF",
    b'{"model": "ti': "unexpected EOF",
    b"{model": "invalid character 'm' looking for beginning of object key string",
    b"{'model'": "invalid character '\\'' looking for beginning of object key string",
    b'{"model" "tiny"}': "invalid character '\"' after object key",
    b'{"model": "tiny" "prompt"}': "invalid character '\"' after object key:value pair",
    b'{"options": [1 2]}': "invalid character '2' after array element",
    b'{"model": tiny}': "invalid character 't' looking for beginning of value",
    b'{"model": "a\nb"}': "invalid character '\\n' in string literal",
    b'{"model": "\\q"}': "invalid character 'q' in string escape code",
    b'{"model": "tiny",}': "invalid character '}' looking for beginning of object key string",
    b'{"a": NaN}': "invalid character 'N' looking for beginning of value",
    b"[]": "json: cannot unmarshal array into Go value of type api.GenerateRequest",
    b'"naber"': "json: cannot unmarshal string into Go value of type api.GenerateRequest",
    b'{"model": 3}': "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string",
    b'{"model": "tiny", "stream": "no"}': "json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool",
    b'{"model": "tiny", "options": [1]}': "json: cannot unmarshal array into Go struct field GenerateRequest.options of type map[string]interface {}",
}


@pytest.mark.parametrize("data", BAD_JSON)
def test_bad_json_is_answered_as_ollama_answers_it(data: bytes) -> None:
    with pytest.raises(requests.Refused) as caught:
        requests.generate(data, {})
    assert (caught.value.status, caught.value.message) == (400, BAD_JSON[data])


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"num": ' + b"9" * 5000 + b"}", b'{"model": "tiny", "prompt": "x", "options": {"seed": 1e999}}'])
def test_hostile_json_is_refused(data: bytes, served: Served) -> None:
    response = served.http.post("/api/generate", content=data)
    assert response.status_code == 400 and response.json().keys() == {"error"}


def test_what_follows_the_body_is_not_looked_at_and_halves_of_characters_are_replaced() -> None:
    body = requests.read(b'{"model": "a\\ud83d", "prompt": "\xff"} trailing', "GenerateRequest")
    assert body == {"model": "a\ufffd", "prompt": "\ufffd"}


MODEL = "registry.ollama.ai/library/tiny:latest"
SAID = [{"role": "user", "content": "x"}]
# what: (endpoint, body beside the model tiny, status, message)
REFUSED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "unknown model": ("generate", {"model": "x", "prompt": "a"}, 404, "model 'x' not found"),
    "no model to generate": ("generate", {"model": None, "prompt": "a"}, 404, "model '' not found"),
    "no model to chat": ("chat", {"model": "", "messages": SAID}, 400, "model is required"),
    "no model to show": ("show", {"model": ""}, 400, "model is required"),
    "suffix": ("generate", {"prompt": "a", "suffix": "b"}, 400, f"{MODEL} does not support insert"),
    "images": ("generate", {"prompt": "a", "images": ["aGk="]}, 400, f"{MODEL} does not support vision"),
    "tools": ("chat", {"messages": SAID, "tools": [{}]}, 400, f"{MODEL} does not support tools"),
    "thinking": ("generate", {"prompt": "a", "think": True}, 400, '"tiny" does not support thinking'),
    "raw with system": ("generate", {"prompt": "a", "raw": True, "system": "s"}, 400, "raw mode does not support template, system, or context"),
    "option": ("generate", {"prompt": "a", "options": {"stop": "x"}}, 400, 'option "stop" must be of type array'),
    "format": ("generate", {"prompt": "a", "format": "xml"}, 400, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
    "role": ("chat", {"messages": [{"role": "tool"}]}, 400, 'invalid role: "tool", must be one of [system user assistant]'),
    "no user": ("chat", {"messages": [{"role": "system", "content": "x"}]}, 400, "there is no message to answer"),
    "token": ("generate", {"prompt": "a", "context": [10**6]}, 400, "context holds a token that the model does not have"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_answered_is_refused_in_ollamas_words(what: str, served: Served) -> None:
    endpoint, body, status, message = REFUSED[what]
    response = served.http.post(f"/api/{endpoint}", json={"model": "tiny", **body})
    assert (response.status_code, response.json()) == (status, {"error": message})


def test_a_prompt_that_is_too_long_is_refused_and_never_cut(served: Served) -> None:
    response = served.http.post("/api/generate", json={"model": "tiny", "prompt": "uzun söz " * 2000})
    assert response.status_code == 400 and f"tokens, and {CONTEXT} with the answer fit" in response.json()["error"]


def test_an_empty_prompt_only_loads(served: Served) -> None:
    answer = served.http.post("/api/generate", json={"model": "tiny"}).json()
    assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, "load")
    answer = served.http.post("/api/chat", json={"model": "tiny", "messages": [], "keep_alive": 0}).json()
    assert (answer["message"]["content"], answer["done_reason"]) == ("", "unload")


def test_the_server_says_what_it_is_and_what_it_is_not(served: Served) -> None:
    http = served.http
    assert http.get("/").text == "Ollama is running" and http.head("/api/tags").status_code == 200
    assert http.get("/api/version").json() == {"version": "0.34.1"}
    assert (http.get("/api/nope").status_code, http.get("/api/nope").text) == (404, "404 page not found")
    assert (http.get("/api/chat").status_code, http.get("/api/chat").text) == (405, "405 method not allowed")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
    ],
)
def test_only_this_machine_is_answered(headers: dict[str, str], status: int, served: Served) -> None:
    assert served.http.get("/api/version", headers=headers).status_code == status


@pytest.mark.parametrize(("count", "text"), [(268_098_176, "268.10M"), (2_506_172_416, "2.5B"), (7_000_000_000, "7B"), (138_000, "138K"), (7, "7")])
def test_numbers_of_parameters_are_ollamas(count: int, text: str) -> None:
    assert human_number(count) == text


# Many at once, and the end


def test_requests_at_the_same_time_wait_for_one_another(served: Served) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: served.ollama.generate(model="tiny", prompt=f"soru {number}").response, range(8)))
    assert answers == [ANSWER] * 8


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_the_way(stream: bool, served: Served) -> None:
    body = {"model": "tiny", "prompt": f"sonsuz {stream}", "format": LONG, "stream": stream, "options": {"num_predict": -1}}
    with pytest.raises(httpx.ReadTimeout):
        patience = httpx.Timeout(60, read=60 if stream else 0.05)  # seconds; a fast machine gives the whole answer in some tenths of one
        with (
            httpx.Client(base_url=served.url, timeout=patience, trust_env=False) as client,
            client.stream("POST", "/api/generate", json=body) as answer,
        ):
            for _ in answer.iter_lines():
                time.sleep(0.05)
                if stream:
                    raise httpx.ReadTimeout("seen enough")
    assert served.ollama.generate(model="tiny", prompt="sıradaki").response == ANSWER
    gone = [row for row in served.recorded() if row["request"].get("prompt") == f"sonsuz {stream}"]
    assert [row["ended"] for row in gone] == [""]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_also_in_the_middle_of_an_answer(sent: signal.Signals, project: Path) -> None:
    with serving(project, sent.name) as running:
        body = {"model": "tiny", "prompt": "sonsuz", "format": LONG, "options": {"num_predict": -1}}
        with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as client, client.stream("POST", "/api/generate", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.process.send_signal(sent)
            last = json.loads(list(lines)[-1])
        assert last == {"error": "the server was stopped"} or last["done"]  # ended before the signal was seen, on a slow day
        out, _ = running.process.communicate(timeout=60)
        assert running.process.returncode == 0 and out.endswith("   ended\n") and "Traceback" not in out, out


def test_more_than_the_queue_holds_are_refused() -> None:
    with pytest.raises(requests.Refused, match="server busy, please try again") as caught:
        Queue(0).check()
    assert caught.value.status == 503


def test_a_missing_package_is_told_with_the_remedy(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"uvicorn is not installed; run: pip install -e '\.\[serve\]'"):
        talking.serve(load(project), Paths(project), "tiny", 0, "")


def test_a_recording_that_cannot_be_written_is_told_before_anything_is_served(project: Path) -> None:
    with pytest.raises(UserError, match="specs cannot be written .*; choose another file with --record"):
        talking.serve(load(project), Paths(project), "tiny", 0, "specs")


def test_a_port_that_is_taken_is_one_line(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(project, "serve", "--port", str(taken.getsockname()[1]))
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "cannot be used (Address already in use); choose another with --port" in out and "Traceback" not in out


def test_a_recipe_that_is_not_built_is_one_line(project: Path) -> None:
    process = start(project, "serve:jessy-mini", "--port", "0")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "jessy-mini-Q8_0.gguf does not exist; run: doit gguf:jessy-mini" in out and "Traceback" not in out
