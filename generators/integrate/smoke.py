"""One query after the integration, as the client asks it: over HTTP in the client's own frame, and by the client's binary where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators import clients
from generators.errors import UserError
from generators.files import human_seconds

Client = dict[str, Any]
Report = Callable[[str], None]
_CONNECT_S = 5.0
_SHOWN = 160  # characters of an answer in its line
_SPARE_S = 30  # for a client to start, beside its own time-outs


@dataclass(frozen=True)
class Query:
    """text: what is asked. model: its name on the server. deploy: the command that brings it there."""

    text: str
    model: str
    deploy: str


def ask_server(client: Client, name: str, query: Query, url: str, report: Report) -> bool:
    """Take `query` through the client's stages on the server at `url`, telling time and parse of each. False where no server answers.

    Raises UserError when the server has no such model or fails, takes longer than the client waits, or says what the client cannot read.
    """
    import httpx

    from generators.ollama_address import is_loopback

    with httpx.Client(base_url=url, timeout=_CONNECT_S, trust_env=not is_loopback(url), verify=url.startswith("https:")) as http:
        try:
            http.get("/api/version")
        except httpx.HTTPError:
            report(f"not tried: no Ollama answers at {url} (OLLAMA_HOST); start it with `ollama serve`, then run this again")
            return False
        report(f"{query.text!r} to {query.model} at {url}, asked as {name} asks (POST /api/{client['endpoint']}):")
        began = time.perf_counter()
        result = clients.run_chain(client, query.text, lambda system, prompt: _asked(http, client, query, system, prompt, report))
    if result.error:
        raise UserError(f"{name} would answer with an error: {result.error}; the configuration stays as it is written")
    if not result.answer:
        raise UserError(f"{query.model} said nothing to {query.text!r}; the configuration stays as it is written")
    spent = human_seconds(time.perf_counter() - began)
    report(f"answer after {result.stages} of {len(client['stages'])} stages, {spent}: {_short(result.answer)!r}")
    return True


def _asked(http: Any, client: Client, query: Query, system: str, prompt: str, report: Report) -> str:
    """One request; its reply is told as the client reads it."""
    import httpx

    body: dict[str, Any] = {"model": query.model, "stream": False}
    if client["endpoint"] == "generate":
        body |= {"prompt": prompt, "system": system}
    else:
        body["messages"] = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    start = time.perf_counter()
    try:
        answer = http.post(f"/api/{client['endpoint']}", json=body, timeout=client["timeout_s"])
        reply = _reply(answer, client, query)
    except httpx.TimeoutException as error:
        limit = human_seconds(client["timeout_s"])
        raise UserError(f"no answer within {limit}, after which the client gives up; the configuration stays as it is written") from error
    except httpx.HTTPError as error:
        raise UserError(f"the connection broke in the middle of an answer ({type(error).__name__}); run it again") from error
    report(f"  {human_seconds(time.perf_counter() - start)}: {_parse(client, reply)}")
    return reply


def _reply(answer: Any, client: Client, query: Query) -> str:
    try:
        found = answer.json()
    except ValueError:
        found = {}
    if answer.status_code == 404:
        raise UserError(f"Ollama has no model {query.model}; bring it there with: {query.deploy}. The configuration stays as it is written")
    if answer.status_code != 200 or not isinstance(found, dict) or "error" in found:
        told = found.get("error") if isinstance(found, dict) else None
        raise UserError(f"Ollama failed to answer: {told or f'HTTP {answer.status_code}'}; the configuration stays as it is written")
    reply = found.get("response") if client["endpoint"] == "generate" else (found.get("message") or {}).get("content")
    if not isinstance(reply, str):
        raise UserError("what answered is no Ollama: its reply has no text; set OLLAMA_HOST")
    return reply


def _parse(client: Client, reply: str) -> str:
    """`confidence 0.97, layers C04,C01, 3 words; no line LAYERS`"""
    try:
        seen = clients.parse_answer(client, reply)
    except clients.Unparsable as error:
        return f"cannot be read: {error}"
    missing = [field for field in ("CONFIDENCE", "LAYERS", "CONTENT") if not re.search(rf"^\s*{field}\s*:", reply, re.MULTILINE)]
    told = f"confidence {seen.confidence:.2f}, layers {','.join(seen.layers) or 'none'}, {len(seen.text.split())} words"
    return told + (f"; no line {', '.join(missing)}: the client takes its defaults" if missing else "")


def run_binary(
    client: Client, name: str, query: Query, file: Path, environment: Mapping[str, str], hide: Callable[[str], str], report: Report
) -> bool:
    """Ask the client's own program, started as its scripts start it: beside `file`, with what stands in it as environment.

    hide: takes what is secret out of what the program prints. False where the program is not found.
    Raises UserError when it fails or does not end.
    """
    wanted = client.get("binary")
    if not wanted:
        return False
    program = shutil.which(wanted, path=os.pathsep.join([str(file.parent.resolve()), os.environ.get("PATH", os.defpath)]))
    if program is None:
        report(f"not run: the program {wanted} (binary: of specs/clients/{name}.yaml) is neither beside {file} nor on the PATH")
        return False
    limit = client["timeout_s"] * len(client["stages"]) + _SPARE_S
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [program, query.text],
            cwd=file.parent,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{program} did not end within {human_seconds(limit)}; the configuration stays as it is written") from error
    except OSError as error:
        raise UserError(f"{program} cannot be run: {error.strerror or error}") from error
    spent = human_seconds(time.perf_counter() - start)
    said = hide(done.stdout.strip())
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        why = f"{program} ended with code {done.returncode} after {spent}: {_short(hide(lines[-1]))}"
        raise UserError(f"{why}; the configuration stays as it is written")
    report(f"{program}: {spent}: {_short(said)!r}")
    return True


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
