"""The parity gate, with llama.cpp itself on tiny models: what is equal passes, and each way to break a template is caught."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import cached_property
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from ruamel.yaml import YAML

from generators import parity
from generators.chat_format import go_template, jinja_template, render
from generators.errors import UserError
from generators.files import read_json, write_jsonl
from generators.gguf import write_gguf
from generators.llama_server import serving
from generators.modelfile import render_modelfile
from generators.modelfile_reader import read, read_file
from generators.ollama_address import ollama_host

ROOT = Path(__file__).parents[1]
SPECS = ROOT / "specs" / "chat_formats"
METADATA = {"general.name": "tiny", "general.license": "none"}
PERSONA = {
    "display_name": "A",
    "identity": "Sen A'sın.",
    "principles": [],
    "style": ["Kısa konuş."],
    "brevity": "Uzatma.",
    "parameters": {"num_ctx": 512},
    "messages": [{"user": "selam", "jessy": "Selam!"}],
    "template": "persona/system.j2",
}
SAMPLES = [
    {"messages": [{"role": "user", "content": "naber"}, {"role": "assistant", "content": "iyi"}], "metadata": {"id": "a"}},
    {
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "  boşluk"}, {"role": "assistant", "content": "iyi"}],
        "metadata": {"id": "b"},
    },
]


def chat_format(name: str) -> dict[str, Any]:
    return {"system_separator": "\n\n", **YAML(typ="safe").load(SPECS / f"{name}.yaml")}


def silent(line: str) -> None:
    """Nothing is shown."""


def with_indentation(folder: Path) -> None:
    """Runs of two and four spaces as one token each, in merges too: Gemma has such a token for every length, the tiny tokenizer has not."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8").replace('"▁▁▁"', '"▁▁▁▁"'))
    tokenizer["model"]["merges"][:0] = [["▁", "▁"], ["▁▁", "▁▁"]]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


class Built:
    """A tiny model with its GGUF, Modelfile and framed samples."""

    def __init__(self, root: Path, architecture: str, name: str):
        self.root, self.format = root, chat_format(name)
        self.model = tiny_models.write_hf(root / "hf", architecture)
        if architecture == "gemma3":
            with_indentation(self.model)
        known = json.loads((self.model / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        present = {token["content"] for token in known}
        self.format["control_tokens"] = [token for token in self.format["control_tokens"] if token in present]
        self.gguf = self.with_template(jinja_template(self.format))
        self.modelfile = self.with_go_template(go_template(self.format))
        self.valid = root / "valid.jsonl"
        write_jsonl(self.valid, SAMPLES)

    def with_template(self, template: str, name: str = "m.gguf", end_of_turn: str = "") -> Path:
        target = self.root / name
        write_gguf(self.model, None, target, "F16", template, METADATA, silent, end_of_turn or self.format["end_of_turn"])
        return target

    def with_go_template(self, template: str, **over: Any) -> Path:
        target = self.root / "a.Modelfile"
        licence = {"name": "none", "url": "none"}
        target.write_text(
            render_modelfile(PERSONA, {**self.format, **over}, licence, "m.gguf", template, ROOT / "templates"), encoding="utf-8"
        )
        return target

    @cached_property
    def checked(self) -> Path:
        """The figures of the whole gate."""
        self.said: list[str] = []
        self.check(said=self.said)
        return self.root / "parity.json"

    def check(self, gguf: Path | None = None, said: list[str] | None = None) -> dict[str, Any]:
        """The whole gate, with an engine of its own."""
        report = said.append if said is not None else silent
        return parity.check(
            self.model, self.format, gguf or self.gguf, {"a": self.modelfile}, self.valid, self.root / "parity.json", report
        )

    def compare(self, server: Any, names: set[str], deployed: str | None = None, said: list[str] | None = None) -> list[dict[str, Any]]:
        """The engines on some shapes, with one that runs already. Returns their figures."""
        some = [shape for shape in parity.shapes(self.format) if shape.name in names]
        report = said.append if said is not None else silent
        files = {"a": read_file(self.modelfile)}
        return parity.compare(server, parity.Tokenizer.load(self.model, self.format), files, some, report, deployed)[0]


FEW = {"without system", "several turns with system"}


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("gemma"), "gemma3", "gemma")


@pytest.fixture(scope="module")
def server(gemma: Built) -> Iterator[Any]:
    with serving(gemma.gguf, context=256) as running:
        yield running


@pytest.mark.parametrize("name", ["gemma", "chatml"])
def test_what_was_trained_is_what_both_engines_send(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    built = request.getfixturevalue("gemma") if name == "gemma" else Built(tmp_path, "qwen2", "chatml")
    figures = read_json(built.checked)
    assert [(row["engine"], row["different"]) for row in figures["engines"]] == [("llama.cpp", 0), ("Ollama's TEMPLATE", 0)]
    assert figures["engines"][0]["conversations"] == len(parity.shapes(built.format)) + 1 + len(SAMPLES)
    assert (
        f"llama.cpp: {figures['engines'][0]['tokens']} tokens of {figures['engines'][0]['conversations']} conversations are as trained"
        in built.said
    )


def test_what_an_engine_cannot_do_is_a_warning_with_evidence(gemma: Built) -> None:
    found = {(warning["engine"], warning["conversation"]): warning for warning in read_json(gemma.checked)["warnings"]}
    assert set(found) == {
        ("llama.cpp", "control tokens in user text"),
        ("llama.cpp", "control tokens in system"),
        ("Ollama's TEMPLATE", "control tokens in user text"),
        ("Ollama's TEMPLATE", "control tokens in system"),
        ("Ollama's TEMPLATE", "white space around a message"),
        ("Ollama's TEMPLATE", "sample b"),
    }
    control = found["llama.cpp", "control tokens in user text"]
    assert control["what"].startswith("llama.cpp reads control tokens that a user types as control tokens")
    assert "'<start_of_turn>'" in control["evidence"]["sent_ids"]
    assert "'<start_of_turn>'" not in control["evidence"]["trained_ids"]


# The ways to break a template

GO = go_template(chat_format("gemma"))
BREAKS = {
    "a lost newline": (GO.replace("<start_of_turn>user\\n", "<start_of_turn>user", 1), "without system"),
    "a double BOS": ("<bos>" + GO, "without system"),
    "system text outside the user turn": (
        "{{ if .System }}{{ .System }}\n\n{{ end }}" + GO.replace('{{ $.System }}{{ "\\n\\n" }}', ""),
        "with system",
    ),
    "a trimmed space": (GO.replace('{{ "\\n\\n" }}{{ end }}', "\n\n{{- end }}", 1), "with system"),
    "a lost end of turn": (GO.replace('{{ .Content }}{{ "<end_of_turn>\\n" }}', "{{ .Content }}", 1), "without system"),
}


@pytest.mark.parametrize("way", BREAKS)
def test_a_broken_go_template_is_caught(gemma: Built, server: Any, way: str) -> None:
    template, first = BREAKS[way]
    assert template != GO
    tokenizer = parity.Tokenizer.load(gemma.model, gemma.format)
    broken = read(f'FROM x\nTEMPLATE """{template}"""\n')
    shown = [shape for shape in parity.shapes(gemma.format) if shape.name in {"without system", "with system"}]
    with pytest.raises(UserError, match=f"Ollama's TEMPLATE does not send what was trained: .* first {first!r} at token") as caught:
        parity.compare(server, tokenizer, {"a": broken}, shown, silent)
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("   trained: ") and lines[2].startswith("   sent:    ")
    assert all("  text " in line for line in lines[1:3]) and lines[1].split(": ", 1)[1] != lines[2].split(": ", 1)[1]


JINJA = jinja_template(chat_format("gemma"))


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        ("<start_of_turn>user\\n", "<start_of_turn>user", "without system"),
        ("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}", "without system"),
        ("{%- for", "{{ system }}{%- for", "with system"),
        ("(message['content'] | trim)", "message['content']", "white space around a message"),
        ("| trim) + '<end_of_turn>\\n'", "| trim)", "without system"),
    ],
)
def test_a_broken_chat_template_in_the_gguf_is_caught(gemma: Built, old: str, new: str, first: str) -> None:
    assert old in JINJA
    with serving(gemma.with_template(JINJA.replace(old, new, 1), "broken.gguf"), context=256) as broken:
        with pytest.raises(UserError, match=f"llama.cpp does not send what was trained: .* first {first!r}"):
            gemma.compare(broken, {"without system", "with system", "white space around a message"})


def test_a_missing_stop_is_caught(gemma: Built) -> None:
    try:
        gemma.with_go_template(GO, stop=["<start_of_turn>"])
        with pytest.raises(UserError, match="a.Modelfile: PARAMETER stop '<end_of_turn>' of the chat format is missing"):
            gemma.check()
        gemma.with_go_template(GO, stop=[*gemma.format["stop"], "."])
        with pytest.raises(UserError, match="PARAMETER stop '.' is none of the chat format's"):
            gemma.check()
    finally:
        gemma.with_go_template(GO)


def test_a_gguf_that_ends_answers_elsewhere_is_caught(gemma: Built) -> None:
    target = gemma.with_template(JINJA, "endless.gguf", "<start_of_turn>")
    with pytest.raises(UserError, match="ends an answer at the tokens .* and was trained to end it at"):
        gemma.check(target)


def test_a_mismatch_leaves_the_last_good_figures(gemma: Built) -> None:
    before = gemma.checked.read_bytes()
    gemma.with_go_template("<bos>" + GO)
    try:
        with pytest.raises(UserError, match="Ollama's TEMPLATE does not send what was trained"):
            gemma.check()
    finally:
        gemma.with_go_template(GO)
    assert gemma.checked.read_bytes() == before


def test_a_prompt_that_does_not_fit_into_num_ctx_is_a_warning(gemma: Built) -> None:
    tokenizer = parity.Tokenizer.load(gemma.model, gemma.format)
    said = [
        parity.Conversation("short", [{"role": "user", "content": "a"}]),
        parity.Conversation("long", [{"role": "user", "content": "uzun " * 400}]),
    ]
    longest, warnings = parity._fits_context({"a": read_file(gemma.modelfile)}, tokenizer, said)
    assert longest > 512 and [warning["conversation"] for warning in warnings] == ["long"]
    assert "do not fit into num_ctx 512; Ollama cuts the prompt's head" in warnings[0]["what"]


@pytest.mark.parametrize("source", ["{{ if }}", "{{ .Messages", "{{ nothing .System }}"])
def test_a_template_that_go_does_not_parse_is_a_clear_error(source: str) -> None:
    with pytest.raises(UserError, match="the Modelfile's TEMPLATE"):
        parity.go_renderer(source)([{"role": "user", "content": "a"}])


# A live Ollama, played by a server that keeps to its documented behaviour


class Ollama(BaseHTTPRequestHandler):
    """Holds one model; renders with `run` what `composed_by_ollama` makes of a request."""

    modelfile: Any = None
    broken = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/show":
            answer: dict[str, Any] = {"template": self.modelfile.template}
        else:
            assert body["_debug_render_only"] is True and body["stream"] is False
            text = parity.go_renderer(self.modelfile.template)(parity.composed_by_ollama(self.modelfile, body["messages"]))
            answer = {"_debug_info": {"rendered_template": self.broken + text}} if self.broken != "old" else {"message": {"content": "hi"}}
        data = json.dumps(answer).encode()
        self.send_response(200 if body["model"] == "tiny" else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def ollama(gemma: Built, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ollama]]:
    running = HTTPServer(("127.0.0.1", 0), Ollama)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{running.server_port}")
    Ollama.modelfile, Ollama.broken = read_file(gemma.modelfile), ""
    yield Ollama
    running.shutdown()
    running.server_close()


def test_a_live_ollama_is_the_fourth_engine(gemma: Built, server: Any, ollama: type[Ollama]) -> None:
    figures = gemma.compare(server, FEW, deployed="tiny")
    assert [row["engine"] for row in figures] == ["llama.cpp", "Ollama's TEMPLATE", "live Ollama"]


def test_a_live_ollama_that_renders_otherwise_is_caught(gemma: Built, server: Any, ollama: type[Ollama]) -> None:
    ollama.broken = "<bos>"
    with pytest.raises(UserError, match="live Ollama does not send what was trained"):
        gemma.compare(server, FEW, deployed="tiny")


def test_an_ollama_that_cannot_show_what_it_renders_is_named(gemma: Built, server: Any, ollama: type[Ollama]) -> None:
    ollama.broken = "old"
    with pytest.raises(UserError, match="does not show what it renders .* update it"):
        gemma.compare(server, FEW, deployed="tiny")


def test_an_ollama_without_this_model_is_left_out_and_said(gemma: Built, server: Any, ollama: type[Ollama]) -> None:
    said: list[str] = []
    assert len(gemma.compare(server, FEW, deployed="other", said=said)) == 2
    assert any("does not hold this other: three engines are compared" in line for line in said)


def test_no_ollama_is_left_out_and_said(gemma: Built, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    said: list[str] = []
    assert len(gemma.compare(server, FEW, deployed="tiny", said=said)) == 2
    assert "no Ollama answers at http://127.0.0.1:1: three engines are compared" in said


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (None, "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":5000", "http://127.0.0.1:5000"),
        ("example", "http://example:11434"),
        ("https://example", "https://example:443"),
        ("http://1.2.3.4:80/", "http://1.2.3.4:80"),
    ],
)
def test_the_host_is_read_as_ollama_reads_it(monkeypatch: pytest.MonkeyPatch, value: str | None, host: str) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    if value is not None:
        monkeypatch.setenv("OLLAMA_HOST", value)
    assert ollama_host() == host


def test_ollama_adds_its_system_only_where_a_request_brings_none() -> None:
    file = read("FROM x\nSYSTEM own\nMESSAGE user e\nMESSAGE assistant f\n")
    example = [{"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}]
    asked = {"role": "user", "content": "a"}
    assert parity.composed_by_ollama(file, [asked]) == [{"role": "system", "content": "own"}, *example, asked]
    assert parity.composed_by_ollama(file, [{"role": "system", "content": "c"}, asked]) == [
        {"role": "system", "content": "c"},
        *example,
        asked,
    ]
    assert parity.composed_by_ollama(file, [{"role": "system", "content": ""}, asked]) == [*example, asked]
    assert "own" in render(chat_format("gemma"), parity.composed_by_ollama(file, [asked]))
