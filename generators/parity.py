"""The parity gate: what the model was trained on and what an engine sends it are the same token ids, or the build fails.

The same conversations are rendered by our tokenizer, by llama.cpp with the finished GGUF (its chat template and its tokenizer), by the
Modelfile's Go TEMPLATE as Ollama runs it, and by a live Ollama where one holds the model. What an engine cannot do by its design (keep
control tokens that a user typed as text, trim white space) is a warning with its evidence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from generators import modelfile_reader
from generators.chat_format import Format, Message, render
from generators.errors import UserError
from generators.files import read_jsonl, write_json
from generators.llama_server import LlamaServer, serving
from generators.modelfile_reader import Modelfile
from generators.tokens import Tokenizer

LLAMA_CPP, TEMPLATE, OLLAMA = "llama.cpp", "Ollama's TEMPLATE", "live Ollama"
_AROUND_IDS, _AROUND_TEXT = 4, 40  # tokens and characters shown on each side of a difference
_OLLAMA_TIMEOUT_S = 120  # the first request loads the model


@dataclass(frozen=True)
class Conversation:
    """messages: up to what the model is to answer."""

    name: str
    messages: list[Message]


@dataclass(frozen=True)
class Rendering:
    """What one engine makes of a conversation. ids: BOS included where it has one."""

    text: str
    ids: list[int]


@dataclass(frozen=True)
class Engine:
    """rendered: what it makes of messages. composed: the messages that it then answers, its own additions among them."""

    name: str
    rendered: Callable[[list[Message]], Rendering]
    composed: Callable[[list[Message]], list[Message]] = list


def check(
    model: Path,
    chat_format: Format,
    gguf: Path,
    modelfiles: Mapping[str, Path],
    valid: Path,
    target: Path,
    report: Callable[[str], None],
    deployed: str | None = None,
) -> dict[str, Any]:
    """Compare every engine on `shapes`, on what Ollama sends with each Modelfile, and on every prompt of `valid`; write and return the
    figures: {engines: [{engine, conversations, tokens, different, warnings}], warnings: [...], longest_prompt}.

    model: directory with the tokenizer that trained. modelfiles: by persona. valid: frames/valid.jsonl. deployed: name in Ollama, asked
    only where a server answers. Raises UserError, showing both texts and ids around the first difference, and leaves `target` alone.
    """
    tokenizer = Tokenizer.load(model, chat_format)
    files = {persona: modelfile_reader.read_file(path) for persona, path in modelfiles.items()}
    check_stops(chat_format, {modelfiles[persona]: file for persona, file in files.items()})
    check_end_of_turn(gguf, tokenizer)
    conversations = [*shapes(chat_format), *as_sent(files), *prompts_of(valid)]
    longest, warnings = _fits_context(files, tokenizer, conversations)
    with serving(gguf, context=256) as server:
        rows, excused = compare(server, tokenizer, files, conversations, report, deployed)
    warnings += excused
    for what in dict.fromkeys(warning["what"] for warning in warnings):
        report(f"warning: {what}")
    figures = {"engines": rows, "warnings": warnings, "longest_prompt": longest}
    write_json(target, figures)
    return figures


def compare(
    server: LlamaServer,
    tokenizer: Tokenizer,
    files: Mapping[str, Modelfile],
    conversations: Sequence[Conversation],
    report: Callable[[str], None],
    deployed: str | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(figures of each engine, warnings). Raises UserError for the first engine that differs without an excuse."""
    rows: list[dict[str, Any]] = []
    warnings: list[dict[str, Any]] = []
    for engine in _engines(server, files, deployed, report):
        judged = Judgement(engine.name, tokenizer)
        for said in conversations:
            judged.judge(said, engine)
        judged.enforce()
        warnings += judged.warnings
        rows.append(judged.figures)
        report(f"{engine.name}: {judged.tokens} tokens of {judged.conversations} conversations are as trained")
    return rows, warnings


# Conversations


def shapes(chat_format: Format) -> list[Conversation]:
    """Every form that a conversation can take, from the plain to the hostile."""
    system = {"role": "system", "content": 'Sen JESSY\'sin.\n\nKısa konuş; "siz" deme.'}
    code = 'Şunu düzelt:\n```rust\nfn main() {\n    println!("{}", 1);\n}\n```'
    controls = " ".join(chat_format["control_tokens"])
    turns = [_said("user", "sana bisi sorucam"), _said("assistant", "Sor kanka, dinliyorum."), _said("user", "tabs mi\nspaces mi?")]
    return [
        Conversation("without system", [_said("user", "Merhaba!")]),
        Conversation("with system", [system, _said("user", "Merhaba!")]),
        Conversation("several turns", turns),
        Conversation("several turns with system", [system, *turns]),
        Conversation("empty user text", [_said("user", "")]),
        Conversation("empty system", [_said("system", ""), _said("user", "Merhaba!")]),
        Conversation("empty answer", [_said("user", "a"), _said("assistant", ""), _said("user", "b")]),
        Conversation("emoji", [system, _said("user", "👩‍💻🤷🏽‍♀️ naber 🇹🇷 ❤️")]),
        Conversation("code", [system, _said("user", code), _said("assistant", "`let x = 1;`"), _said("user", "{{ .System }} {% x %} <b>")]),
        Conversation("quotes and escapes", [_said("user", '"a" \'b\' `c` \\n \\u0041 “ç” """ $x')]),
        Conversation("scripts", [_said("user", "İıŞşĞğ é 日本語 العربية Ω\u00a0x\tz")]),
        Conversation("decomposed characters", [_said("user", "gu\u0308zel e\u0301")]),
        Conversation("control tokens in user text", [system, _said("user", f"sence {controls} ne demek")]),
        Conversation("control tokens in system", [_said("system", f"Kural: {controls}."), _said("user", "Merhaba!")]),
        Conversation("white space around a message", [_said("user", "  merhaba \n")]),
    ]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def as_sent(files: Mapping[str, Modelfile]) -> Iterator[Conversation]:
    """What Ollama makes of one question to each Modelfile: its SYSTEM, its MESSAGEs, then the question."""
    for persona, file in files.items():
        yield Conversation(f"{persona}'s Modelfile", composed_by_ollama(file, [_said("user", "Merhaba!")]))


def composed_by_ollama(file: Modelfile, messages: list[Message]) -> list[Message]:
    """What Ollama answers when it is sent `messages`: the Modelfile's SYSTEM where they bring none, its MESSAGEs, then they themselves.

    Source: ollama, server/routes.go (ChatHandler, GenerateHandler).
    """
    own = messages[0]["role"] == "system"
    system = messages[0]["content"] if own else file.system
    return [*([_said("system", system)] if system else []), *file.messages, *messages[own:]]


def prompts_of(valid: Path) -> Iterator[Conversation]:
    """Every framed sample up to its last answer."""
    for row in read_jsonl(valid):
        yield Conversation(f"sample {row['metadata']['id']}", row["messages"][:-1])


# Engines


def _engines(server: LlamaServer, files: Mapping[str, Modelfile], deployed: str | None, report: Callable[[str], None]) -> Iterator[Engine]:
    tokenised = _Tokenised(server)
    yield Engine(LLAMA_CPP, lambda messages: tokenised(server.apply_template(messages)))
    templates: dict[str, list[str]] = {}
    for persona, file in files.items():
        templates.setdefault(file.template, []).append(persona)
    for source, personas in templates.items():
        run = go_renderer(source)
        name = TEMPLATE if len(templates) == 1 else f"{TEMPLATE} of {', '.join(personas)}"
        yield Engine(name, lambda messages, run=run: tokenised(run(messages)))  # type: ignore[misc]
    first = next(iter(files.values()))
    live = live_ollama(deployed, first, report) if deployed else None
    if live is not None:
        yield Engine(OLLAMA, lambda messages: tokenised(live(messages)), lambda messages: composed_by_ollama(first, messages))


class _Tokenised:
    """Text to ids by llama.cpp's tokenizer, as both engines call it: BOS where the GGUF wants one, control tokens parsed."""

    def __init__(self, server: LlamaServer):
        self._server = server
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> Rendering:
        if text not in self._known:
            self._known[text] = self._server.tokenize(text, add_special=True, parse_special=True)
        return Rendering(text, self._known[text])


def go_renderer(template: str) -> Callable[[list[Message]], str]:
    """A TEMPLATE as Ollama runs it. Raises UserError when Go would not parse it.

    Source: ollama, template/template.go (collate, Execute): missing keys are zero, messages of one role in a row are joined by a blank
    line, `.System` holds all system messages, which stay in `.Messages` as well. /api/chat and /api/generate both come here.
    """
    import gotpl

    try:
        compiled = gotpl.Template(template, missing_key="zero", functions={"json": lambda value: json.dumps(value, ensure_ascii=False)})
    except gotpl.TemplateError as error:
        raise UserError(f"the Modelfile's TEMPLATE is no Go template: {error}") from error

    def run(messages: list[Message]) -> str:
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        joined: list[dict[str, str]] = []
        for message in messages:
            if joined and joined[-1]["Role"] == message["role"]:
                joined[-1]["Content"] += "\n\n" + message["content"]
            else:
                joined.append({"Role": message["role"], "Content": message["content"]})
        try:
            return compiled.render({"System": system, "Messages": joined, "Response": "", "Tools": [], "Think": False, "IsThinkSet": False})
        except gotpl.TemplateError as error:
            raise UserError(f"the Modelfile's TEMPLATE fails on {len(messages)} messages: {error}") from error

    return run


def live_ollama(model: str, file: Modelfile, report: Callable[[str], None]) -> Callable[[list[Message]], str] | None:
    """How a running Ollama renders for `model`, or None where none runs, or where it does not hold the model of this Modelfile.

    It adds the Modelfile's SYSTEM and MESSAGEs by itself: `composed_by_ollama` says what it is to be compared with.
    """
    import httpx

    from generators.ollama_address import is_loopback, ollama_host

    host = ollama_host()
    through_proxies = not is_loopback(host)
    try:
        shown = httpx.post(f"{host}/api/show", json={"model": model}, timeout=5, trust_env=through_proxies)
    except httpx.HTTPError:
        report(f"no Ollama answers at {host}: three engines are compared")
        return None
    if shown.status_code != 200 or shown.json().get("template") != file.template:
        report(f"the Ollama at {host} does not hold this {model}: three engines are compared; doit deploy compares the fourth")
        return None

    def rendered(messages: list[Message]) -> str:
        body = {"model": model, "messages": messages, "stream": False, "_debug_render_only": True}
        answer = httpx.post(f"{host}/api/chat", json=body, timeout=_OLLAMA_TIMEOUT_S, trust_env=through_proxies).json()
        try:
            return str(answer["_debug_info"]["rendered_template"])
        except (KeyError, TypeError):
            raise UserError(f"the Ollama at {host} does not show what it renders ({json.dumps(answer)[:200]}); update it") from None

    return rendered


# Judging


class Judgement:
    """One engine against our tokenizer."""

    def __init__(self, engine: str, tokenizer: Tokenizer):
        self.engine, self.tokenizer = engine, tokenizer
        self.warnings: list[dict[str, Any]] = []
        self.different: list[tuple[Conversation, Rendering, Rendering]] = []
        self.conversations = self.tokens = 0

    @property
    def figures(self) -> dict[str, Any]:
        counts = {
            "conversations": self.conversations,
            "tokens": self.tokens,
            "different": len(self.different),
            "warnings": len(self.warnings),
        }
        return {"engine": self.engine, **counts}

    def judge(self, said: Conversation, engine: Engine) -> None:
        messages = engine.composed(said.messages)
        got = engine.rendered(said.messages)
        wanted = Rendering(render(self.tokenizer.chat_format, messages), self.tokenizer.encode_prompt(messages))
        self.conversations += 1
        self.tokens += len(wanted.ids)
        if got.ids == wanted.ids:
            return
        excuse = self._excuse(messages, wanted, got)
        if excuse:
            self.warnings.append(
                {"engine": self.engine, "what": excuse, "conversation": said.name, "evidence": self._evidence(wanted, got)}
            )
        else:
            self.different.append((said, wanted, got))

    def enforce(self) -> None:
        """Raises UserError for the first conversation that differs."""
        if not self.different:
            return
        said, wanted, got = self.different[0]
        shown = self._evidence(wanted, got)
        raise UserError(
            f"{self.engine} does not send what was trained: {len(self.different)} conversations differ, "
            f"first {said.name!r} at token {shown['token']}\n"
            f"   trained: {shown['trained_ids']}  text {shown['trained_text']!r}\n"
            f"   sent:    {shown['sent_ids']}  text {shown['sent_text']!r}"
        )

    def _excuse(self, messages: list[Message], wanted: Rendering, got: Rendering) -> str | None:
        """Why this difference lies in what the engine is, or None where it does not: the text must be the one that is expected of it."""
        text, chat_format = self._without_bos(got.text), self.tokenizer.chat_format
        contents = [message["content"] for message in messages]
        if any(token in content for token in chat_format["control_tokens"] for content in contents) and text == wanted.text:
            return f"{self.engine} reads control tokens that a user types as control tokens; our tokenizer keeps them text"
        if any(content != normalize("NFC", content) for content in contents) and text == wanted.text:
            return f"{self.engine} reads characters as they are typed; our tokenizer composes them first (NFC)"
        loose = any(content != content.strip() for content in contents)
        if loose and self.engine != LLAMA_CPP and text == _untrimmed(chat_format, messages):
            return f"{self.engine} cannot trim: white space around a message reaches the model"
        return None

    def _without_bos(self, text: str) -> str:
        """llama.cpp leaves the BOS of a chat template in the text where its tokenizer adds none."""
        bos = self.tokenizer.bos_id
        return text if bos is None or self.engine != LLAMA_CPP else text.removeprefix(self.tokenizer.decode([bos], skip_special=False))

    def _evidence(self, wanted: Rendering, got: Rendering) -> dict[str, Any]:
        token, character = _first_difference(wanted.ids, got.ids), _first_difference(wanted.text, got.text)
        if wanted.text == got.text:  # the same letters, read as other tokens
            character = len(self.tokenizer.decode(wanted.ids[self.tokenizer.bos_id in wanted.ids[:1] : token], skip_special=False))
        return {
            "token": token,
            "trained_ids": self._spelled(wanted.ids, token),
            "trained_text": _window(wanted.text, character),
            "sent_ids": self._spelled(got.ids, token),
            "sent_text": _window(got.text, character),
        }

    def _spelled(self, ids: Sequence[int], at: int) -> str:
        """`105 '<start_of_turn>' 2364 'user'` around a place."""
        shown = ids[max(0, at - _AROUND_IDS) : at + _AROUND_IDS]
        return " ".join(f"{token} {self.tokenizer.decode([token], skip_special=False)!r}" for token in shown) or "nothing"


def _untrimmed(chat_format: Format, messages: list[Message]) -> str:
    """The conversation as an engine renders it that leaves white space where it is."""
    marks = [f"\x02{index}\x03" if message["content"].strip() else "" for index, message in enumerate(messages)]
    text = render(chat_format, [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)])
    for message, mark in zip(messages, marks, strict=True):
        text = text.replace(mark, message["content"]) if mark else text
    return text


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Where two sequences part; the length of the shorter where it begins the longer."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def _window(text: str, at: int) -> str:
    return text[max(0, at - _AROUND_TEXT) : at + _AROUND_TEXT]


def check_stops(chat_format: Format, files: Mapping[Path, Modelfile]) -> None:
    """Raises UserError when a Modelfile lacks a stop of its chat format, or has another."""
    for path, file in files.items():
        for stop in chat_format["stop"]:
            if stop not in file.stops:
                raise UserError(
                    f"{path}: PARAMETER stop {stop!r} of the chat format is missing, so that answers run on; run: doit modelfile"
                )
        extra = [stop for stop in file.stops if stop not in chat_format["stop"]]
        if extra:
            raise UserError(f"{path}: PARAMETER stop {extra[0]!r} is none of the chat format's, and the model was not trained to end there")


def check_end_of_turn(gguf: Path, tokenizer: Tokenizer) -> None:
    """Raises UserError when the engine would not stop at the token that ends a trained answer."""
    from generators.gguf_file import GgufFile

    with GgufFile(gguf) as file:
        ends = [file.value(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eos")]
    if tokenizer.end_of_turn_id not in ends:
        raise UserError(
            f"{gguf}: ends an answer at the tokens {ends}, and was trained to end it at {tokenizer.end_of_turn_id}; run: doit gguf"
        )


def _fits_context(
    files: Mapping[str, Modelfile], tokenizer: Tokenizer, conversations: Sequence[Conversation]
) -> tuple[int, list[dict[str, Any]]]:
    """The tokens of the longest prompt, and a warning for each Modelfile in which it would lose its head without a word."""
    lengths = {said.name: len(tokenizer.encode_prompt(said.messages)) for said in conversations}
    name = max(lengths, key=lambda name: lengths[name])
    warnings = []
    for persona, file in files.items():
        room, answer = int(file.parameters.get("num_ctx", 4096)), max(0, int(file.parameters.get("num_predict", 0)))
        if lengths[name] + answer > room:
            sizes = f"a prompt of {lengths[name]} tokens and an answer of {answer}"
            what = f"{persona}: {sizes} do not fit into num_ctx {room}; Ollama cuts the prompt's head"
            evidence = {"prompt": lengths[name], "num_predict": answer, "num_ctx": room}
            warnings.append({"engine": TEMPLATE, "what": what, "conversation": name, "evidence": evidence})
    return lengths[name], warnings
