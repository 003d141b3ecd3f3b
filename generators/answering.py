"""The finished model in llama.cpp, asked as a person or a client asks it: a conversation in, an answer out piece by piece.

What reaches the model is composed as Ollama composes it from a Modelfile (SYSTEM, MESSAGEs, PARAMETERs) and a request, and encoded as in
training: control tokens that somebody types stay text, and white space around a message is taken away.
Source: ollama, server/routes.go and server/prompt.go, template/template.go (collate), api/types.go (DefaultOptions), 0.34.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators import modelfile_reader
from generators.errors import UserError
from generators.modelfile_reader import Modelfile

if TYPE_CHECKING:
    from generators.chat_format import Format, Message
    from generators.llama_server import LlamaServer
    from generators.tokens import Tokenizer

Options = Mapping[str, Any]
CONTEXT = 4096  # tokens, where no Modelfile sets num_ctx: Ollama's default on small machines
_SILENCE_S = 600  # between two signs of life; a long prompt is read without one
# What Ollama takes where neither Modelfile nor request says anything. llama.cpp has other defaults, so all of them are sent.
_SAMPLING = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": -1,
}


@dataclass(frozen=True)
class Deployed:
    """A persona of a recipe as it is deployed. name: in Ollama, without a tag. text: its Modelfile."""

    name: str
    persona: str
    text: str

    @cached_property
    def modelfile(self) -> Modelfile:
        return modelfile_reader.read(self.text)


class TooLong(UserError):
    """The last message alone does not fit into the context."""


# --- what is asked ----------------------------------------------------------------------------------------------------------------


def composed(modelfile: Modelfile, messages: Sequence[Message], examples: bool = True) -> list[Message]:
    """The conversation with the Modelfile's SYSTEM, unless it begins with one of its own, and with its MESSAGEs before it."""
    own = bool(messages) and messages[0]["role"] == "system"
    head = [{"role": "system", "content": modelfile.system}] if modelfile.system and not own else []
    return collated([*head, *(modelfile.messages if examples else ()), *messages])


def collated(messages: Sequence[Message]) -> list[Message]:
    """All system texts as one at the head, and neighbours of one role as one message, with an empty line between them."""
    system = [message["content"] for message in messages if message["role"] == "system" and message["content"].strip()]
    joined: list[Message] = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    for message in messages:
        if message["role"] == "system":
            continue
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**joined[-1], "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append({"role": message["role"], "content": message["content"]})
    return joined


def fitted(tokenizer: Tokenizer, messages: Sequence[Message], context: int, options: Options) -> list[int]:
    """Token ids of a collated conversation, without its oldest exchanges where it and an answer would not fit into `context` tokens.

    The system text and the last message stay. A conversation that ends with an assistant's words is to be gone on with.
    Raises TooLong when what stays does not fit, UserError for turns that are out of order.
    """
    system, turns = list(messages[:1]), list(messages[1:])
    if system and system[0]["role"] != "system":
        system, turns = [], [*system, *turns]
    if not turns or turns[0]["role"] != "user":
        raise UserError("a conversation begins with a message of the user")
    longest = int(options.get("num_predict", -1))
    answer = min(longest if longest > 0 else context // 4, context // 2)
    while True:
        ids = _encoded(tokenizer, [*system, *turns])
        if len(ids) + answer <= context or (len(turns) <= 2 and len(ids) < context):
            return ids
        if len(turns) <= 2:
            raise TooLong(f"the input length exceeds the context length: {len(ids)} tokens, and {context} with the answer fit")
        turns = turns[2:]


def _encoded(tokenizer: Tokenizer, messages: list[Message]) -> list[int]:
    if messages[-1]["role"] == "assistant":
        return tokenizer.encode_prompt(messages[:-1]) + tokenizer.encode_text(messages[-1]["content"].strip())
    return tokenizer.encode_prompt(messages)


def merged(modelfile: Modelfile, options: Options) -> dict[str, Any]:
    """A request's options over the Modelfile's PARAMETERs. stop: the request's texts in place of the Modelfile's, as in Ollama."""
    return {"stop": modelfile.stops, **modelfile.parameters, **options}


# --- what comes back --------------------------------------------------------------------------------------------------------------


class Answer:
    """One answer, fed with llama.cpp's events as they come.

    text: so far. ended: `stop` or `length`, empty while it goes on. tokens, prompt_tokens: counts. prompt_s, answer_s: what llama.cpp took.
    """

    def __init__(self, ends: Callable[[list[int]], bool] = lambda ids: False):
        """ends: whether token ids that llama.cpp shows as nothing are a control token at which to stop; it cannot stop at their text."""
        self._ends = ends
        self.text = self.ended = ""
        self.tokens = self.prompt_tokens = 0
        self.ids: list[int] = []
        self.prompt_s = self.answer_s = 0.0

    def feed(self, event: dict[str, Any]) -> str:
        """What the event adds to the text."""
        new = event.get("tokens", [])
        self.tokens = event.get("tokens_predicted", self.tokens)
        self.prompt_tokens = event.get("tokens_evaluated", self.prompt_tokens)
        timings = event.get("timings", {})
        self.prompt_s = timings.get("prompt_ms", self.prompt_s * 1000) / 1000
        self.answer_s = timings.get("predicted_ms", self.answer_s * 1000) / 1000
        if new and not event["content"] and self._ends(new):
            self.ended = "stop"
            return ""
        if event.get("stop"):
            self.ended = "length" if event.get("stop_type") == "limit" else "stop"
        self.ids += new
        self.text += event["content"]
        return str(event["content"])


class Llama:
    """A running llama.cpp with the tokenizer of what it runs. context: tokens of a prompt and its answer together."""

    def __init__(self, server: LlamaServer, tokenizer: Tokenizer, context: int):
        self.server, self.tokenizer, self.context = server, tokenizer, context

    def answer(self, options: Options) -> Answer:
        """An empty one, which ends at the chat format's end of turn and at control tokens among the stop texts."""
        stops = {self.tokenizer.chat_format["end_of_turn"], *options.get("stop", ())}
        return Answer(lambda ids: self.tokenizer.decode(ids, skip_special=False) in stops)

    async def pieces(self, prompt: str | list[int], options: Options, answer: Answer, schema: Any = None) -> AsyncGenerator[str, None]:
        """Feed `answer`, yielding each piece of its text; closing this ends llama.cpp's work on it.

        prompt: token ids; a text is taken as it is, control tokens included. schema: JSON schema of what may be answered.
        Raises UserError when llama.cpp refuses or is gone.
        """
        import httpx

        body = {"prompt": prompt, **request(options), **({} if schema is None else {"json_schema": schema})}
        try:
            async with (
                httpx.AsyncClient(timeout=_SILENCE_S, trust_env=False, verify=False) as client,
                client.stream("POST", f"{self.server.url}/completion", json=body) as response,
            ):
                if response.status_code != 200:
                    raise _refusal(await response.aread())
                async for line in response.aiter_lines():
                    piece = answer.feed(_event(line)) if line.startswith("data: ") else ""
                    if piece:
                        yield piece
                    if answer.ended:
                        return
        except httpx.HTTPError as error:
            raise UserError(f"llama.cpp stopped answering ({type(error).__name__})") from error


def request(options: Options) -> dict[str, Any]:
    """Ollama's options as llama.cpp's `/completion` calls them."""
    return {
        **_SAMPLING,
        **{name: options[name] for name in _SAMPLING if name in options},
        "n_predict": max(-1, int(options.get("num_predict", -1))),  # -2, until the context is full, is what llama.cpp does at -1
        "stop": list(options.get("stop", ())),
        "cache_prompt": True,
        "stream": True,
        "return_tokens": True,
        "timings_per_token": True,  # an answer that ends at a control token has no last event
    }


def _event(line: str) -> dict[str, Any]:
    event = json.loads(line.removeprefix("data: "))
    if "error" in event:
        raise UserError(f"llama.cpp failed: {event['error']}")
    return dict(event)


def _refusal(body: bytes) -> UserError:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return UserError(f"llama.cpp refused: {body[:300]!r}")
    if error.get("type") == "exceed_context_size_error":
        sizes = f"{error.get('n_prompt_tokens')} tokens, and {error.get('n_ctx')} with the answer fit"
        return TooLong(f"the input length exceeds the context length: {sizes}")
    return UserError(f"llama.cpp refused: {error.get('message')}")


@contextmanager
def opened(gguf: Path, model: Path, chat_format: Format, deployed: Sequence[Deployed]) -> Iterator[Llama]:
    """llama.cpp on `gguf`, with the context and the threads that the Modelfiles ask for.

    model: directory with the tokenizer that trained. Raises UserError when a file is missing or does not load.
    """
    from generators.llama_server import serving
    from generators.tokens import Tokenizer

    if not gguf.is_file():
        raise UserError(f"{gguf} does not exist; run: doit gguf:{gguf.parent.name}")
    tokenizer = Tokenizer.load(model, chat_format)
    parameters = [each.modelfile.parameters for each in deployed]
    context = max(int(each.get("num_ctx", CONTEXT)) for each in parameters)
    threads = max(int(each.get("num_thread", 0)) for each in parameters) or None
    with serving(gguf.resolve(), context=context, threads=threads) as server:
        yield Llama(server, tokenizer, context)
