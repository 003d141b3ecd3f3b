"""A recipe's models in Ollama: one for each persona, all over one blob, each checked before it takes the place of the one before.

Where Ollama has a model of that name, the new one is made beside it, as a candidate; when every check has passed it is copied over the
old one, which costs nothing. A deployment that fails, or is interrupted, leaves in Ollama what was there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators import modelfile_reader
from generators.chat_format import Format
from generators.deploy import checks, history
from generators.deploy.server import Ollama, Version
from generators.errors import UserError
from generators.files import human_bytes, human_seconds, sha256_file

__all__ = ["deploy", "roll_back"]

_CANDIDATE = "candidate"  # the tag of a model that is still being checked
_SHOWN_ANSWER = 100  # characters of an answer in its line
Report = Callable[[str], None]


@dataclass(frozen=True)
class Questions:
    """What a model is asked before it is released. budget_s: an answer that takes longer is told as slow."""

    queries: Sequence[str]
    budget_s: float
    chat_format: Format


@dataclass(frozen=True)
class Target:
    """One model to be made. name: in Ollama. modelfile: its text. facts: what the history is to say beside what was measured."""

    name: str
    modelfile: str
    gguf: Path
    sha256: str
    facts: Mapping[str, Any]


def deploy(
    url: str, modelfiles: Mapping[str, Path], gguf: Path, questions: Questions, deployments: Path, facts: Mapping[str, Any], report: Report
) -> list[history.Deployment]:
    """Bring `gguf` under each name with the values of its Modelfile into the Ollama at `url`; return what was added to the history.

    modelfiles: by the model's name in Ollama. deployments: folder of the history. facts: what its records say of the recipe.
    Raises UserError when no Ollama answers, it is too old, it fails in anything that it is asked, or a check does not pass.
    """
    if not gguf.is_file():
        raise UserError(f"{gguf} does not exist; run: doit gguf")
    with Ollama(url) as server:
        version = _greet(server, report)
        sha256 = sha256_file(gguf)
        targets = [Target(name, path.read_text(encoding="utf-8"), gguf, sha256, facts) for name, path in modelfiles.items()]
        return _place(server, version, targets, history.next_number(deployments, modelfiles), questions, deployments, report)


def roll_back(url: str, models: Sequence[str], questions: Questions, deployments: Path, report: Report) -> list[history.Deployment]:
    """Undo the newest deployment of `models`: bring back what those that it changed were before, checked like any other; return what was
    added to the history. A model that was new in it stays.

    Raises UserError as `deploy` does, and where there is nothing to go back to.
    """
    earlier = history.to_restore(deployments, models)
    if not earlier:
        known = next((model for model in models if history.last(deployments, model)), None)
        why = f"{known} is the first that was deployed" if known else f"nothing was deployed as {models[0]}"
        raise UserError(f"there is nothing to go back to: {why} ({deployments})")
    with Ollama(url) as server:
        version = _greet(server, report)
        targets = [_target_of(server, deployments, found) for found in earlier]
        return _place(server, version, targets, history.next_number(deployments, models), questions, deployments, report)


def _greet(server: Ollama, report: Report) -> Version:
    version = server.version()
    note = " (a build from source, taken for the newest)" if version.is_development else ""
    report(f"Ollama {version} at {server.url}{note}")
    return version


def _target_of(server: Ollama, deployments: Path, found: history.Deployment) -> Target:
    """An earlier deployment, to be made again. Its GGUF is either kept here or still in Ollama."""
    gguf = history.kept_gguf(deployments, found.sha256)
    if not gguf.is_file() and not server.has_blob(found.sha256):
        raise UserError(
            f"{found.record['model']}: the GGUF of deployment {found.number} ({found.record['gguf']['name']}, sha256 {found.sha256[:12]}…) is "
            "neither kept nor in Ollama any more; build it again from the specs of that time"
        )
    facts = {"recipe": found.record.get("recipe")}
    facts |= {"restores": found.number, "previous": found.previous, "gguf_name": found.record["gguf"]["name"]}
    return Target(found.record["model"], found.modelfile.read_text(encoding="utf-8"), gguf, found.sha256, facts)


# One after the other


def _place(
    server: Ollama, version: Version, targets: Sequence[Target], number: int, questions: Questions, deployments: Path, report: Report
) -> list[history.Deployment]:
    """number: of this deployment in the history."""
    added = []
    for target in targets:
        _upload(server, target, report)
        measured = _release(server, version, target, questions, report)
        done = _remember(deployments, number, target, {"ollama": {"version": str(version), "url": server.url}, **measured}, report)
        added += [done] if done else []
    for path in history.forget_ggufs(deployments):
        report(f"{path.name} is no longer needed for a rollback, and was deleted")
    return added


def _upload(server: Ollama, target: Target, report: Report) -> None:
    """Once for all models of a GGUF; an Ollama that rewrites blobs, and throws the original away, is sent it again."""
    from generators import progress

    name = str(target.facts.get("gguf_name", target.gguf.name))
    if server.has_blob(target.sha256):
        report(f"{name}: Ollama has it already")
        return
    size = target.gguf.stat().st_size
    with progress.bar(f"{name}, MB sent", math.ceil(size / 1e6)) as advance:
        server.upload(target.gguf, target.sha256, advance)
    report(f"{name}: {human_bytes(size)} sent, sha256 {target.sha256}")


def _release(server: Ollama, version: Version, target: Target, questions: Questions, report: Report) -> dict[str, Any]:
    """Make the model, check it, and only then let it take the place of one that is there. Returns what was measured."""
    file, name = modelfile_reader.read(target.modelfile), target.name
    made = f"{name}:{_CANDIDATE}" if name in server.digests() else name
    try:
        _create(server, version, made, file, target)
        digest = server.digests().get(made, "")
        measured = _check(server, version, target, made, digest, file, questions, report)
        if made != name:
            server.copy(made, name)
            if server.digests().get(name) != digest:
                raise UserError(f"{name}: Ollama holds another model under this name than the one that it was just given")
    except BaseException:
        _discard(server, made, report)
        raise
    if made != name:
        _discard(server, made, report)
    report(f"{name}: ready, try it with: ollama run {name}")
    return {**measured, "manifest": digest}


def _create(server: Ollama, version: Version, made: str, file: modelfile_reader.Modelfile, target: Target) -> None:
    try:
        server.create(made, file, f"{target.name}.gguf", target.sha256)
    except UserError as error:
        if version.rewrites_blobs and "llama-quantize" in str(error):
            raise UserError(f"{error}; Ollama 0.30.0 to 0.34.0 refuse files that load well: update it to 0.34.1 or later") from error
        raise


def _discard(server: Ollama, made: str, report: Report) -> None:
    """Whatever went wrong before is what must be told: that a candidate stays is only said."""
    try:
        if made in server.digests():
            server.delete(made)
    except UserError as error:
        report(f"{made} may still be in Ollama ({error}); the next deployment replaces it")


def _check(
    server: Ollama,
    version: Version,
    target: Target,
    model: str,
    digest: str,
    file: modelfile_reader.Modelfile,
    questions: Questions,
    report: Report,
) -> dict[str, Any]:
    """model: its name for now. digest: of its manifest."""
    shown = server.show(model)
    checks.check_values(target.name, file, shown.file)
    report(f"{target.name}: Ollama shows every value as it was rendered")
    checks.check_blob(target.name, target.gguf, target.sha256, shown, version, report)
    load_seconds = checks.check_loaded(server, model, digest)
    rendered = checks.check_rendering(server, model, file, questions.chat_format)
    report(f"{target.name}: {rendered} conversations are rendered as in training; loaded in {human_seconds(load_seconds)}")
    answered = checks.check_answers(server, model, questions.queries, questions.chat_format)
    for query, answer in answered:
        rate = f", {answer.tokens_per_s:.0f} tokens/s" if answer.tokens_per_s else ""
        slow = f", over the budget of {questions.budget_s:g} s" if answer.seconds > questions.budget_s else ""
        report(f"   {query!r} -> {_short(answer.text)!r} ({answer.seconds:.2f} s{rate}{slow})")
    return {
        "blob": shown.blob,
        "rewritten": shown.blob != target.sha256,
        "conversations_rendered": rendered,
        "load_seconds": round(load_seconds, 3),
        "answers": checks.as_facts(answered),
    }


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_ANSWER else text[: _SHOWN_ANSWER - 1] + "…"


def _remember(deployments: Path, number: int, target: Target, measured: dict[str, Any], report: Report) -> history.Deployment | None:
    """Add to the history; what was deployed just so already adds nothing, so that a rollback leads to something else."""
    from datetime import UTC, datetime

    current = history.last(deployments, target.name)
    facts = {key: value for key, value in target.facts.items() if key != "gguf_name"}
    if current and "restores" not in facts and current.is_of(target.modelfile, target.sha256):
        report(f"{target.name}: as in deployment {current.number}; the history stays")
        return None
    if target.gguf.is_file():
        history.keep_gguf(deployments, target.gguf, target.sha256)
    name = target.facts.get("gguf_name", target.gguf.name)
    record = {
        "deployed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "restores": None,
        "previous": current.in_effect if current else None,
        **facts,
        "gguf": {"name": name, "sha256": target.sha256},
        **measured,
    }
    added = history.add(deployments, target.name, number, target.modelfile, record)
    report(f"{target.name}: deployment {number}, kept in {added.folder}")
    return added
