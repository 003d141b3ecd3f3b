"""A running Ollama, asked through its official client; what that lacks (the version, blobs, a whole `show`, renderings) over plain HTTP.

Whatever goes wrong on the way, an error in the middle of a stream and a dropped connection among it, is a UserError of one line.
Source: ollama, docs/api.md and server/routes.go, server/create.go of 0.17 to 0.34.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.modelfile_reader import Modelfile
from generators.ollama_address import is_loopback

_CONNECT_S = 5.0
_SLOWEST_S = 600.0  # between two signs of life: a large model is read from a slow disk before its first token
_CHUNK = 1_000_000  # bytes of an upload at a time; progress is told in MB
_DIGEST = re.compile(r"sha256[-:]([0-9a-f]{64})")


@dataclass(frozen=True, order=True)
class Version:
    """As `/api/version` tells it. final: a release candidate comes before its release. Compares by all but its text."""

    numbers: tuple[int, int, int]
    final: bool = True

    @classmethod
    def of(cls, text: str) -> Version:
        """Raises UserError for what is no version."""
        found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?([-+].*)?$", text.strip())
        if not found:
            raise UserError(f"Ollama calls its version {text!r}, and a version such as 0.34.1 is expected")
        major, minor, patch, more = found.groups()
        return cls((int(major), int(minor), int(patch or 0)), not (more or "").startswith("-"))

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers)) + ("" if self.final else " (release candidate)")

    @property
    def is_development(self) -> bool:
        """Built from source, with no release's number: taken for the newest."""
        return self.numbers == (0, 0, 0)

    @property
    def rewrites_blobs(self) -> bool:
        """`create` runs a GGUF through llama-quantize and keeps what that writes: other bytes, the same tensors.

        Source: github.com/ollama/ollama/issues/17554.
        """
        return self.numbers >= FIRST_REWRITING and self < Version(FIRST_KEEPING)


# The oldest whose parser, templates and parameters are those that generators/modelfile_reader.py and parity.py were written from.
OLDEST = (0, 17, 0)
FIRST_REWRITING, FIRST_KEEPING = (0, 30, 0), (0, 34, 1)


@dataclass(frozen=True)
class Answer:
    """seconds and first_token_s: wall time since the request. tokens_per_s: as the server measured it, None where it did not."""

    text: str
    seconds: float
    first_token_s: float
    tokens: int
    tokens_per_s: float | None
    ended: str


@dataclass(frozen=True)
class Shown:
    """A model as the server holds it. blob: sha256 of its GGUF there. tensors: (type, values) by name, empty where it tells none."""

    file: Modelfile
    blob: str
    tensors: dict[str, tuple[str, int]]


class Ollama:
    """The server at `url`. Loopback is reached directly, whatever proxy the environment names."""

    def __init__(self, url: str):
        import httpx
        import ollama

        settings: dict[str, Any] = {
            "timeout": httpx.Timeout(_SLOWEST_S, connect=_CONNECT_S),
            "trust_env": not is_loopback(url),
            "verify": url.startswith("https:"),  # to read the certificates takes 80 ms, and plain HTTP has none
        }
        self.url = url
        self._client = ollama.Client(host=url, **settings)
        self._http = httpx.Client(base_url=url, **settings)

    def __enter__(self) -> Ollama:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._http.close()

    def version(self) -> Version:
        """Raises UserError when nothing answers, when it is no Ollama, and for a version that is too old."""
        import httpx

        try:
            answer = self._http.get("/api/version", timeout=_CONNECT_S)
            found = Version.of(answer.json()["version"])
        except httpx.HTTPError as error:
            raise UserError(_no_ollama(self.url, type(error).__name__)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"what answers at {self.url} is no Ollama (GET /api/version: {answer.status_code}); set OLLAMA_HOST") from error
        if found.numbers < OLDEST and not found.is_development:
            oldest = ".".join(map(str, OLDEST))
            raise UserError(f"the Ollama at {self.url} is {found}, and what is older than {oldest} reads models by other rules; update it")
        return found

    # Blobs

    def has_blob(self, sha256: str) -> bool:
        with self._asking("to look for a blob"):
            answer = self._http.head(f"/api/blobs/sha256:{sha256}")
            if answer.status_code not in (200, 404):
                raise UserError(f"Ollama failed to look for a blob: HTTP {answer.status_code}")
        return answer.status_code == 200

    def upload(self, file: Path, sha256: str, advance: Callable[[int], None]) -> None:
        """Send a file as the blob of that digest. advance: told of every MB sent, begun ones included."""

        def chunks() -> Iterator[bytes]:
            with file.open("rb") as data:
                while chunk := data.read(_CHUNK):
                    yield chunk
                    advance(1)

        headers = {"Content-Length": str(file.stat().st_size)}
        with self._asking(f"to take {file.name}"):
            answer = self._http.post(f"/api/blobs/sha256:{sha256}", content=chunks(), headers=headers)
            _accepted(answer, f"to take {file.name}")

    # Models

    def create(self, model: str, file: Modelfile, gguf: str, sha256: str) -> None:
        """Make `model` of a blob that is there, with the values of a Modelfile, through JSON: that loses no character.

        gguf: a name for the blob. Raises UserError for an error at any point of the stream, and for a stream that ends without success.
        """
        parameters: dict[str, Any] = {**file.parameters, **({"stop": file.stops} if file.stops else {})}
        status = ""
        with self._asking(f"to create {model}"):
            for part in self._client.create(
                model=model,
                files={gguf: f"sha256:{sha256}"},
                template=file.template or None,
                system=file.system or None,
                parameters=parameters or None,
                messages=file.messages or None,
                license=file.licences or None,
                stream=True,
            ):
                status = part.status or status
        if status != "success":
            raise UserError(f"Ollama stopped creating {model} without a word of success; its last was {status or 'nothing'!r}")

    def show(self, model: str) -> Shown:
        found = self._json("POST", "/api/show", f"to show {model}", {"model": model})
        return Shown(modelfile_of(found), _blob_of(found.get("modelfile", "")), _tensors_of(found.get("tensors") or []))

    def digests(self) -> dict[str, str]:
        """The digest of every model's manifest by the model's name, `:latest` left out."""
        with self._asking("to list its models"):
            return {str(found.model).removesuffix(":latest"): str(found.digest) for found in self._client.list().models}

    def loaded(self) -> set[str]:
        """Digests of the manifests of the models in memory."""
        with self._asking("to list what is loaded"):
            return {str(found.digest) for found in self._client.ps().models}

    def copy(self, source: str, target: str) -> None:
        with self._asking(f"to copy {source} to {target}"):
            self._client.copy(source, target)

    def delete(self, model: str) -> None:
        with self._asking(f"to delete {model}"):
            self._client.delete(model)

    def load(self, model: str) -> float:
        """Bring a model into memory. Returns the seconds that took."""
        start = time.perf_counter()
        with self._asking(f"to load {model}"):
            self._client.chat(model=model, messages=[])
        return time.perf_counter() - start

    def rendered(self, model: str, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that it would send the model; nothing is generated."""
        body = {"model": model, "messages": list(messages), "stream": False, "_debug_render_only": True}
        found = self._json("POST", "/api/chat", f"to render a conversation of {model}", body)
        try:
            return str(found["_debug_info"]["rendered_template"])
        except (KeyError, TypeError):
            raise UserError(f"the Ollama at {self.url} does not show what it renders ({json.dumps(found)[:120]}); update it") from None

    def ask(self, model: str, query: str) -> Answer:
        """One answer under the model's own parameters."""
        start, first, text, last = time.perf_counter(), 0.0, "", None
        with self._asking(f"in an answer of {model}"):
            for part in self._client.chat(model=model, messages=[{"role": "user", "content": query}], stream=True):
                first = first or time.perf_counter() - start
                text += part.message.content or ""
                last = part
        if last is None or not last.done:
            raise UserError(f"Ollama ended an answer of {model} in the middle: {text[-60:]!r}")
        rate = last.eval_count / last.eval_duration * 1e9 if last.eval_count and last.eval_duration else None
        return Answer(text.strip(), time.perf_counter() - start, first, last.eval_count or 0, rate, last.done_reason or "stop")

    # What goes wrong

    def _json(self, method: str, path: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._asking(what):
            answer = self._http.request(method, path, json=body)
            _accepted(answer, what)
            found = answer.json()
            if not isinstance(found, dict):
                raise UserError(f"Ollama failed {what}: it answered {answer.text[:120]!r}")
        return found

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """what: `to create jessy-v2`, as it follows "Ollama failed"."""
        import httpx
        import ollama

        try:
            yield
        except ollama.ResponseError as error:
            raise UserError(f"Ollama failed {what}: {_said(error.error)}") from error
        except httpx.ReadTimeout as error:
            raise UserError(f"Ollama failed {what}: it was silent for {_SLOWEST_S:.0f} s") from error
        except (httpx.HTTPError, ConnectionError) as error:
            raise UserError(f"the connection to the Ollama at {self.url} broke when it was asked {what} ({error}); run it again") from error
        except ValueError as error:  # JSON cut off in the middle, or of another form than the client knows
            raise UserError(f"Ollama failed {what}: its answer cannot be read ({str(error).splitlines()[0]})") from error


def _no_ollama(url: str, why: str) -> str:
    return (
        f"no Ollama answers at {url} ({why}); install it from https://ollama.com/download (macOS: brew install ollama), start it with "
        "`ollama serve` or name its address in OLLAMA_HOST, then run doit deploy again; all that was built stays"
    )


def _accepted(answer: Any, what: str) -> None:
    if answer.status_code not in (200, 201):
        raise UserError(f"Ollama failed {what}: {_said(answer.text) or f'HTTP {answer.status_code}'}")


def _said(text: str) -> str:
    """An error in one line, out of the JSON that it may come in."""
    try:
        text = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        pass  # then it is plain text
    return " ".join(str(text).split())


# Reading what `show` tells


def modelfile_of(found: Mapping[str, Any]) -> Modelfile:
    """The values of `/api/show`. Its own `modelfile` text would not do: a Modelfile has no escapes."""
    file = Modelfile(
        template=found.get("template") or "",
        system=found.get("system") or "",
        messages=[{"role": said["role"], "content": said.get("content", "")} for said in found.get("messages") or []],
        licences=[found["license"]] if found.get("license") else [],
    )
    for line in (found.get("parameters") or "").split("\n"):
        name, _, text = line.partition(" ")
        if name == "stop":
            file.stops.append(str(_go_value(text.strip())))
        elif name:
            file.parameters[name] = _go_value(text.strip())
    return file


def _go_value(text: str) -> Any:
    """A value as Go's `%#v` writes it: its escapes are Python's as well. Raises UserError for anything else."""
    import ast

    try:
        return {"true": True, "false": False}[text] if text in ("true", "false") else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UserError(
            f"Ollama shows a parameter as {text[:60]!r}, which is neither a number, nor true or false, nor quoted text"
        ) from None


def _blob_of(modelfile: str) -> str:
    """The digest in the path that FROM names."""
    source = next((line for line in modelfile.split("\n") if line.startswith("FROM ")), "")
    found = _DIGEST.search(source)
    return found[1] if found else ""


def _tensors_of(tensors: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    from math import prod

    return {tensor["name"]: (str(tensor["type"]).upper(), prod(tensor["shape"])) for tensor in tensors}
