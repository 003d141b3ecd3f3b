"""Is what Ollama holds what was built? Values, bytes, rendered prompts, memory, answers: each check passes or names what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

from generators import parity
from generators.chat_format import Format
from generators.deploy.server import Answer, Ollama, Shown, Version
from generators.errors import UserError
from generators.modelfile_reader import Modelfile

_AROUND = 40  # characters shown on each side of a difference
_HEX = 12  # digits of a digest that a person compares


def check_values(model: str, wanted: Modelfile, shown: Modelfile) -> None:
    """Raises UserError, naming every value of the Modelfile that Ollama shows otherwise."""
    differences = list(_differences(wanted, shown))
    if differences:
        raise UserError(f"{model}: Ollama shows other values than were sent: {'; '.join(differences)}")


def _differences(wanted: Modelfile, shown: Modelfile) -> Iterator[str]:
    for name, ours, theirs in (
        ("TEMPLATE", wanted.template, shown.template),
        ("SYSTEM", wanted.system, shown.system),
        ("LICENSE", "\n".join(wanted.licences), "\n".join(shown.licences)),
    ):
        if ours != theirs:
            yield f"{name} {_first_difference(ours, theirs)}"
    if wanted.stops != shown.stops:
        yield f"stops {shown.stops}, sent {wanted.stops}"
    for name in sorted({*wanted.parameters, *shown.parameters}):
        sent, got = wanted.parameters.get(name), shown.parameters.get(name)
        if sent != got or isinstance(sent, bool) != isinstance(got, bool):
            yield f"PARAMETER {name} {'missing' if got is None else got}, {'not sent' if sent is None else f'sent {sent}'}"
    if wanted.messages != shown.messages:
        pairs = enumerate(zip(wanted.messages, shown.messages, strict=False), 1)
        number = next((number for number, (ours, theirs) in pairs if ours != theirs), min(len(wanted.messages), len(shown.messages)) + 1)
        yield f"MESSAGE {number} of {len(wanted.messages)} ({len(shown.messages)} shown)"


def _first_difference(ours: str, theirs: str) -> str:
    at = len(commonprefix([ours, theirs]))
    window = slice(max(0, at - _AROUND), at + _AROUND)
    return f"{theirs[window]!r}, sent {ours[window]!r}"


def check_blob(model: str, gguf: Path, sha256: str, shown: Shown, version: Version, report: Callable[[str], None]) -> None:
    """The model's blob is our file. Where this version rewrites it, that is said, and its tensors must be ours.

    Raises UserError for any other difference.
    """
    if shown.blob == sha256:
        report(f"{model}: its blob is our file, sha256 {sha256[:_HEX]}…")
    elif not shown.blob:
        raise UserError(f"{model}: Ollama does not tell which blob it is made of")
    elif not version.rewrites_blobs:
        raise UserError(f"{model}: made of the blob {shown.blob[:_HEX]}…, and our {gguf.name} is {sha256[:_HEX]}…")
    else:
        _check_tensors(model, gguf, shown)
        report(
            f"{model}: Ollama {version} rewrites a GGUF that it is given: the blob is {shown.blob[:_HEX]}…, our file {sha256[:_HEX]}…; its "
            f"{len(shown.tensors)} tensors have our names, types and sizes. Ollama 0.34.1 and later keep the file as it is"
        )


def _check_tensors(model: str, gguf: Path, shown: Shown) -> None:
    from math import prod

    from generators.gguf_file import GgufFile

    with GgufFile(gguf) as file:
        ours = {name: (tensor.type, prod(tensor.shape)) for name, tensor in file.tensors.items()}
    if shown.tensors != ours:
        name = next(name for name in sorted({*ours, *shown.tensors}) if ours.get(name) != shown.tensors.get(name))
        raise UserError(
            f"{model}: Ollama rewrote {gguf.name}, and the tensor {name} is {_told(shown.tensors.get(name))}, ours {_told(ours.get(name))}"
        )


def _told(tensor: tuple[str, int] | None) -> str:
    return f"{tensor[0]} of {tensor[1]} values" if tensor else "missing"


def check_rendering(server: Ollama, model: str, file: Modelfile, chat_format: Format) -> int:
    """Every form of conversation, rendered by the server as the parity gate's TEMPLATE is. Returns how many there were.

    Raises UserError for the first that differs.
    """
    render = parity.go_renderer(file.template)
    shapes = parity.shapes(chat_format)
    for said in shapes:
        wanted, got = render(parity.composed_by_ollama(file, said.messages)), server.rendered(model, said.messages)
        if wanted != got:
            raise UserError(f"{model}: Ollama renders {said.name!r} otherwise than it was trained: {_first_difference(wanted, got)}")
    return len(shapes)


def check_answers(server: Ollama, model: str, queries: Sequence[str], chat_format: Format) -> list[tuple[str, Answer]]:
    """The basic queries with their answers. Raises UserError for an empty answer, and for one that shows a control token."""
    answered = []
    for query in queries:
        answer = server.ask(model, query)
        control = next((token for token in chat_format["control_tokens"] if token in answer.text), None)
        if not answer.text:
            raise UserError(f"{model}: no word came in answer to {query!r} ({answer.tokens} tokens, ended by {answer.ended})")
        if control:
            raise UserError(f"{model}: the answer to {query!r} shows the control token {control!r}: {answer.text[:80]!r}")
        answered.append((query, answer))
    return answered


def check_loaded(server: Ollama, model: str, digest: str) -> float:
    """Load the model and find it in memory. Returns the seconds that took."""
    seconds = server.load(model)
    loaded = server.loaded()
    if digest not in loaded:
        raise UserError(f"{model}: Ollama says that it loaded it, and among the {len(loaded)} models in memory it is not")
    return seconds


def as_facts(answered: Sequence[tuple[str, Answer]]) -> list[dict[str, Any]]:
    return [
        {
            "query": query,
            "answer": answer.text,
            "seconds": round(answer.seconds, 3),
            "first_token_s": round(answer.first_token_s, 3),
            "tokens": answer.tokens,
            "tokens_per_s": round(answer.tokens_per_s, 1) if answer.tokens_per_s else None,
            "ended": answer.ended,
        }
        for query, answer in answered
    ]
