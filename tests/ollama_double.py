"""A stand-in for Ollama: a small HTTP server that is NOT Ollama, holds no model and answers with set words.

It keeps to what Ollama documents, and to what its source does where the documents are silent (docs/api.md; server/routes.go and
server/create.go of 0.24, 0.30 and 0.34):

- `GET /api/version`.
- `HEAD /api/blobs/sha256:<hex>` 200 or 404. `POST` of it: 201; 200 where it is there; 400 for bytes of another digest, which are not kept.
- `POST /api/create` with `files`, `template`, `system`, `parameters`, `messages`, `license`: NDJSON of `status`, the last of it `success`.
  `adapters`, a blob that is missing and a bad path are 400; what comes up later is an `{"error": ...}` line after HTTP 200. A model of that
  name is replaced, and blobs that no model has any more are deleted.
- 0.30.0 to 0.34.0 put a GGUF through llama-quantize: the model is of a blob with the same tensors and other bytes, and a file that is no GGUF
  fails there. All others keep the blob as it came.
- `POST /api/show`: values, the `modelfile` with the blob's path in FROM, `parameters` in no fixed order, as Go's `%#v` writes them, tensors.
- `GET /api/tags`, `GET /api/ps`, `POST /api/copy`, `DELETE /api/delete`; names without a tag are `:latest`; 404 for a model that is not there.
- `POST /api/chat`: no messages loads the model; `_debug_render_only` gives the prompt; else an answer, streamed or whole.

`faults` breaks it on purpose; see Faults.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Sor kanka, dinliyorum."


@dataclass
class Faults:
    """*_error: a line in the middle of a stream. *_drops: the connection, in the middle. *_stops: a stream that ends early, in order.
    upload_loses: the last byte. shows: what `show` tells instead. renders: the prompt instead. keeps_nothing_loaded: `ps` stays empty.
    copies_nothing: `copy` says it did, and did not. silent: no `_debug_info`."""

    create_error: str = ""
    create_drops: bool = False
    create_stops: bool = False
    upload_loses: bool = False
    upload_drops: bool = False
    chat_error: str = ""
    chat_drops: bool = False
    chat_stops: bool = False
    shows: Callable[[dict[str, Any]], dict[str, Any]] = dict
    renders: Callable[[str], str] = str
    keeps_nothing_loaded: bool = False
    copies_nothing: bool = False
    silent: bool = False


@dataclass
class Model:
    """blob: digest of its GGUF. values: of the request that made it."""

    blob: str
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return sha256(json.dumps([self.blob, self.values], sort_keys=True).encode())


class OllamaDouble:
    """`with running("0.34.1") as ollama:` then `ollama.url`. requests: what it was asked, as `POST /api/create jessy-v2`."""

    def __init__(self, version: str):
        self.version = version
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, Model] = {}
        self.in_memory: dict[str, str] = {}
        self.requests: list[str] = []
        self.faults = Faults()
        self.answers: dict[str, str] = {}
        self.url = ""

    @property
    def rewrites(self) -> bool:
        return (0, 30, 0) <= tuple(map(int, re.findall(r"\d+", self.version)[:3])) < (0, 34, 1)

    def forget_unused_blobs(self) -> None:
        wanted = {model.blob for model in self.models.values()}
        self.blobs = {digest: data for digest, data in self.blobs.items() if digest in wanted}


@contextmanager
def running(version: str = "0.34.1") -> Iterator[OllamaDouble]:
    double = OllamaDouble(version)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": double}))
    server.daemon_threads = True
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def full_name(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


class _Refused(Exception):
    """status and error of an answer that is no stream."""

    def __init__(self, status: int, error: str):
        self.status, self.error = status, error


class _Dropped(Exception):
    """The connection is to be closed in the middle."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece; where there are several, none waits 40 ms for the acknowledgement of the one before
    disable_nagle_algorithm = True
    double: OllamaDouble

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    # Routes

    def do_HEAD(self) -> None:
        there = self.path.removeprefix("/api/blobs/sha256:") in self.double.blobs
        self._note()
        self._send(200 if there else 404, b"")

    def do_GET(self) -> None:
        self._note()
        double = self.double
        if self.path == "/api/version":
            return self._json({"version": double.version})
        if self.path == "/api/tags":
            return self._json({"models": [{"name": name, "model": name, "digest": model.digest} for name, model in double.models.items()]})
        if self.path == "/api/ps":
            return self._json({"models": [{"name": name, "model": name, "digest": digest} for digest, name in double.in_memory.items()]})
        return self._send(404, b"404 page not found", "text/plain")

    def do_POST(self) -> None:
        if self.path.startswith("/api/blobs/"):
            return self._guarded(self._blob)
        routes = {"/api/create": self._create, "/api/show": self._show, "/api/copy": self._copy, "/api/chat": self._chat}
        return self._guarded(routes[self.path]) if self.path in routes else self._send(404, b"404 page not found", "text/plain")

    def do_DELETE(self) -> None:
        self._guarded(self._delete)

    def _guarded(self, route: Callable[[], None]) -> None:
        try:
            route()
        except _Refused as refused:
            self._json({"error": refused.error}, refused.status)
        except _Dropped:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    # What they do

    def _blob(self) -> None:
        self._note()
        wanted = self.path.removeprefix("/api/blobs/sha256:")
        data = self._body()
        if self.double.faults.upload_loses:
            data = data[:-1]
        if wanted in self.double.blobs:
            return self._send(200, b"")
        if sha256(data) != wanted:
            raise _Refused(400, f'digest mismatch, expected "sha256:{wanted}", got "sha256:{sha256(data)}"')
        self.double.blobs[wanted] = data
        return self._send(201, b"")

    def _create(self) -> None:
        asked = self._asked()
        if asked.get("adapters"):
            raise _Refused(400, "LoRA adapters are no longer supported")
        (path, digest), *more = asked["files"].items()
        assert not more, "the double takes one file"
        if path.startswith("/") or ".." in path or ":" in path:
            raise _Refused(400, f"file path must be relative: {path}")
        blob = digest.removeprefix("sha256:")
        if blob not in self.double.blobs:
            raise _Refused(400, f"blob not found for {path} (digest {digest}): file does not exist")
        self._stream(self._creating(asked, blob))

    def _creating(self, asked: dict[str, Any], blob: str) -> Iterator[dict[str, Any]]:
        double, faults = self.double, self.double.faults
        yield {"status": "parsing GGUF"}
        if not double.blobs[blob].startswith(b"GGUF"):
            told = "failed to validate GGUF with llama-quantize without compatibility patches: llama-quantize failed: exit status 1"
            yield {"error": told if double.rewrites else "invalid file magic"}
            return
        if faults.create_error:
            yield {"error": faults.create_error}
            return
        if faults.create_drops:
            raise _Dropped
        if faults.create_stops:
            return
        if double.rewrites:
            yield {"status": "verifying conversion"}
            data = reordered(double.blobs[blob])
            blob = sha256(data)
            double.blobs[blob] = data
        kept = ("template", "system", "parameters", "messages", "license")
        double.models[full_name(asked["model"])] = Model(blob, {key: asked[key] for key in kept if key in asked})
        double.forget_unused_blobs()
        yield {"status": f"using existing layer sha256:{blob}"}
        yield {"status": "writing manifest"}
        yield {"status": "success"}

    def _show(self) -> None:
        model = self._model(self._asked()["model"])
        values = model.values
        licence = values.get("license", [])
        found = {
            "modelfile": f'# Modelfile generated by "ollama show"\n# FROM x:latest\n\nFROM /models/blobs/sha256-{model.blob}\n',
            "parameters": "\n".join(shown_parameters(values.get("parameters", {}))),
            "template": values.get("template", "{{ .Prompt }}"),
            "system": values.get("system", ""),
            "license": licence if isinstance(licence, str) else "\n".join(licence),
            "messages": values.get("messages"),
            "details": {"format": "gguf"},
            "model_info": {},
            "tensors": tensors(self.double.blobs[model.blob]),
        }
        self._json(self.double.faults.shows(found))

    def _copy(self) -> None:
        asked = self._asked("source")
        model = self._model(asked["source"])
        if not self.double.faults.copies_nothing:
            self.double.models[full_name(asked["destination"])] = model
            self.double.forget_unused_blobs()
        self._send(200, b"")

    def _delete(self) -> None:
        name = self._asked()["model"]
        self._model(name)
        del self.double.models[full_name(name)]
        self.double.forget_unused_blobs()
        self._send(200, b"")

    def _chat(self) -> None:
        asked, faults = self._asked(), self.double.faults
        model = self._model(asked["model"])
        if not faults.keeps_nothing_loaded:
            self.double.in_memory.setdefault(model.digest, full_name(asked["model"]))
        if not asked["messages"]:
            return self._json({"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"})
        if asked.get("_debug_render_only"):
            prompt = faults.renders(render(model.values, asked["messages"]))
            return self._json({"_debug_info": {"rendered_template": prompt}} if not faults.silent else {"done": True})
        answer = self.double.answers.get(asked["messages"][-1]["content"], ANSWER)
        return self._stream(self._answering(answer))

    def _answering(self, answer: str) -> Iterator[dict[str, Any]]:
        faults = self.double.faults
        for index, piece in enumerate(re.findall(r"\S+\s*", answer)):
            yield {"message": {"role": "assistant", "content": piece}, "done": False}
            if index == 1 and faults.chat_error:
                yield {"error": faults.chat_error}
                return
            if index == 1 and faults.chat_drops:
                raise _Dropped
            if index == 1 and faults.chat_stops:
                return
        counts = {"eval_count": 6, "eval_duration": 120_000_000, "prompt_eval_count": 20, "total_duration": 200_000_000}
        yield {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **counts}

    # HTTP

    def _note(self, name: str = "") -> None:
        self.double.requests.append(f"{self.command} {self.path.split('sha256:')[0]}{' ' + name if name else ''}")

    def _asked(self, key: str = "model") -> dict[str, Any]:
        asked = json.loads(self._body())
        self._note(asked[key])
        return asked

    def _model(self, name: str) -> Model:
        if full_name(name) not in self.double.models:
            raise _Refused(404, f"model '{name}' not found")
        return self.double.models[full_name(name)]

    def _body(self) -> bytes:
        if self.double.faults.upload_drops and self.path.startswith("/api/blobs/"):
            self.rfile.read(1000)
            raise _Dropped
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, parts: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            line = json.dumps(part, ensure_ascii=False).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


# What a model's values look like from outside


def shown_parameters(parameters: dict[str, Any]) -> list[str]:
    lines = [
        f"{name:<30} {go_value(each)}" for name, value in parameters.items() for each in (value if isinstance(value, list) else [value])
    ]
    others = [line for line in lines if not line.startswith("stop ")]
    random.shuffle(others)  # Go walks through a map in no fixed order; the stops of one key stay in theirs
    at = random.randrange(len(others) + 1)
    return [*others[:at], *(line for line in lines if line.startswith("stop ")), *others[at:]]


def go_value(value: Any) -> str:
    """`%#v` of what JSON holds: text in strconv.Quote's way, numbers as short as they go."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(_go_letter(letter) for letter in value) + '"'
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def _go_letter(letter: str) -> str:
    named = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return named.get(letter) or (letter if letter.isprintable() else f"\\u{ord(letter):04x}")


def render(values: dict[str, Any], messages: list[dict[str, str]]) -> str:
    """The prompt: the model's own system where the messages begin with none, its messages, theirs; those of one role in a row are joined."""
    whole = [*(values.get("messages") or []), *messages]
    if messages[0]["role"] != "system" and values.get("system"):
        whole = [{"role": "system", "content": values["system"]}, *whole]
    joined: list[dict[str, str]] = []
    for said in whole:
        if joined and joined[-1]["Role"] == said["role"]:
            joined[-1]["Content"] += "\n\n" + said["content"]
        else:
            joined.append({"Role": said["role"], "Content": said["content"]})
    system = "\n\n".join(said["content"] for said in whole if said["role"] == "system")
    return str(_compiled(values["template"]).render({"System": system, "Messages": joined, "Response": ""}))


@cache
def _compiled(template: str) -> Any:
    import gotpl

    return gotpl.Template(template, missing_key="zero")


# GGUF, by the format's own package


def _reader(data: bytes) -> Any:
    import tempfile

    import gguf

    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        return gguf.GGUFReader(file.name, "c")


def tensors(data: bytes) -> list[dict[str, Any]]:
    return [{"name": each.name, "type": each.tensor_type.name, "shape": each.shape.tolist()} for each in _reader(data).tensors]


def reordered(data: bytes) -> bytes:
    """The same file with its metadata in the opposite order."""
    fields = [each for name, each in _reader(data).fields.items() if not name.startswith("GGUF.")]
    spans = [(each.offset, each.offset + sum(part.nbytes for part in each.parts)) for each in fields]
    whole = io.BytesIO(data)
    whole.seek(spans[0][0])
    for start, stop in reversed(spans):
        whole.write(data[start:stop])
    return whole.getvalue()
