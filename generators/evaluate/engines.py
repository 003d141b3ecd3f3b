"""What answers: the GGUF in llama.cpp (the artefact that ships), MLX, a running Ollama, any OpenAI-compatible server.

All of them generate from the same messages; those that own a tokenizer here are handed token ids, so that what is judged is what
was trained on. Engines may be asked from several threads; `slots` says how many requests they work on side by side.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from generators.errors import UserError
from generators.files import sha256_file, sha256_text, to_json

Messages = list[dict[str, str]]
Watch = Callable[[str], str]  # the answer so far -> why it need not go on, or nothing


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. extra: further parameters by the names that llama.cpp and Ollama share (top_p, repeat_penalty, ...)."""

    max_tokens: int = 320
    temperature: float = 0.0
    seed: int = 0
    extra: tuple[tuple[str, float], ...] = ()

    def key(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed, **dict(self.extra)}


@dataclass(frozen=True)
class Generation:
    """ended: `stop` by itself, `length` at max_tokens, or what the watch said. seconds and first_token_s: wall time since the request."""

    text: str
    tokens: int
    prompt_tokens: int
    seconds: float
    first_token_s: float
    ended: str


class Engine(Protocol):
    """name: for people. digest: changes whenever answers may. load_seconds: from cold to ready, 0 where it was running already."""

    name: str
    digest: str
    slots: int
    load_seconds: float

    def prompt_key(self, messages: Messages) -> str:
        """What, with the digest and the sampling, decides the answer."""
        ...

    def generate(self, messages: Messages, sampling: Sampling, watch: Watch | None = None) -> Generation: ...

    def log_probabilities(self, messages: Messages, answer: str) -> list[float]:
        """Natural logarithm of each answer token's probability. Raises UserError where the engine cannot tell."""
        ...


def _before_stop(text: str, stops: list[str]) -> str:
    """What follows a stop text is not part of the answer."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text.strip()


# --- llama.cpp --------------------------------------------------------------------------------------------------------------------


class LlamaEngine:
    """A GGUF in llama.cpp, asked with token ids through `/completion`."""

    def __init__(self, server: Any, gguf: Path, tokenizer: Any, chat_format: dict[str, Any]):
        self.name = f"llama.cpp {gguf.name}"
        self.digest = sha256_file(gguf)
        self.slots: int = server.slots
        self.load_seconds: float = server.load_seconds
        self._url: str = server.url
        self._post = server.post
        self._tokenizer = tokenizer
        self._stop = list(dict.fromkeys([chat_format["end_of_turn"], *chat_format["stop"]]))
        self._threads = threading.local()
        self._lock = threading.Lock()  # the tokenizer keeps a table of texts

    def prompt_key(self, messages: Messages) -> str:
        return sha256_text(to_json(self._encode(messages)))

    def generate(self, messages: Messages, sampling: Sampling, watch: Watch | None = None) -> Generation:
        ids = self._encode(messages)
        body = {
            "prompt": ids,
            "n_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "stop": self._stop,
            "cache_prompt": True,
            "stream": True,
            "return_tokens": True,
            "repeat_penalty": 1.0,
            **dict(sampling.extra),
        }
        start = time.perf_counter()
        text, tokens, first, ended = "", 0, 0.0, "length"
        for event in self._events(body):
            first = first or time.perf_counter() - start
            tokens = event.get("tokens_predicted", tokens)
            # llama.cpp shows control tokens as nothing; spelled out, a check sees them. An empty content may also be text that could become a
            # stop text ("<") and is held back: it comes with the next event.
            text += event["content"] or self._tokenizer.control_text(event.get("tokens", []))
            if event.get("stop"):
                ended = "length" if event.get("stop_type") == "limit" else "stop"
            elif any(stop in text[-32:] for stop in self._stop):
                ended = "stop"  # a control token: llama.cpp shows it as nothing, so its own comparison of texts misses it
                break
            elif watch and tokens % 4 == 0 and (reason := watch(text.strip())):
                ended = reason
                break  # closing the stream frees the slot
        return Generation(_before_stop(text, self._stop), tokens, len(ids), time.perf_counter() - start, first, ended)

    def log_probabilities(self, messages: Messages, answer: str) -> list[float]:
        """Each answer token is forced by a grammar of token ids; llama.cpp reports its probability as it was before."""
        ids, wanted = self._encode(messages), self._tokenizer.encode_text(answer)
        if not wanted:
            return []
        body = {
            "prompt": ids,
            "n_predict": len(wanted),
            "temperature": 0,
            "cache_prompt": True,
            "n_probs": 1,
            "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in wanted),
        }
        found = self._post("/completion", body)["completion_probabilities"]
        if [token["id"] for token in found] != wanted:
            raise UserError(f"{self.name} did not follow the tokens of the answer; this llama.cpp is too old for log-probabilities")
        return [float(token["logprob"]) for token in found]

    def _encode(self, messages: Messages) -> list[int]:
        with self._lock:
            return self._tokenizer.encode_prompt(messages)

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        import httpx

        client = self._client()
        try:
            with client.stream("POST", self._url + "/completion", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise UserError(f"llama.cpp refused a query: {response.status_code} {response.text[:300]}")
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        event = json.loads(line[6:])
                        if "error" in event:
                            raise UserError(f"llama.cpp failed in a query: {event['error']}")
                        yield event
        except httpx.HTTPError as error:
            raise UserError(f"llama.cpp stopped answering ({type(error).__name__}); {self.name}") from error

    def _client(self) -> Any:
        """One a thread; each request has a connection of its own, since llama.cpp closes it behind a stream."""
        import httpx

        if not hasattr(self._threads, "client"):
            self._threads.client = httpx.Client(
                timeout=600, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
            )
        return self._threads.client


@contextmanager
def llama(
    gguf: Path, model: Path, chat_format: dict[str, Any], slots: int = 4, context: int = 4096, threads: int | None = None
) -> Iterator[LlamaEngine]:
    """llama.cpp on `gguf`, with the tokenizer of the model directory. Raises UserError when a file is missing or does not load."""
    from generators.llama_server import serving
    from generators.tokens import Tokenizer

    if not gguf.is_file():
        raise UserError(f"{gguf} does not exist; run: doit gguf (or doit base, for the base model)")
    tokenizer = Tokenizer.load(model, chat_format)
    with serving(gguf.resolve(), context=context, slots=slots, threads=threads) as server:
        yield LlamaEngine(server, gguf, tokenizer, chat_format)


# --- MLX --------------------------------------------------------------------------------------------------------------------------


class _OneThread:
    """Does what it is handed, one after the other, in a thread that ends with the process: MLX's streams belong to the thread that made them,
    and one that ended before would take its streams along while they run, which ends the process."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._run, name="mlx", daemon=True).start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()

        def work() -> None:
            try:
                done.set_result(function(*arguments))
            except BaseException as error:
                done.set_exception(error)

        self._work.put(work)
        return done

    def _run(self) -> None:
        while True:
            self._work.get()()


@cache
def _mlx_thread() -> _OneThread:
    """Of all engines: mlx-lm makes a stream when it is loaded."""
    return _OneThread()


@dataclass
class _Request:
    """One that waits for its answer, or is being answered. said: the tokens so far. first_token_s: 0 before the first."""

    ids: list[int]
    sampling: Sampling
    watch: Watch | None
    answer: Future[Generation] = field(default_factory=Future)
    started: float = field(default_factory=time.perf_counter)
    said: list[int] = field(default_factory=list)
    first_token_s: float = 0.0


class MlxEngine:
    """A model directory in MLX, with an adapter or without. Greedy answers are computed side by side, a token of each in one pass over the
    weights; drawn ones alone, since MLX draws from one stream of random numbers."""

    slots = 16

    def __init__(self, model: Path, chat_format: dict[str, Any], adapter: Path | None = None):
        self._thread = _mlx_thread()
        self._waiting: SimpleQueue[_Request] = SimpleQueue()
        self._lock = threading.Lock()  # the tokenizer keeps a table of texts
        self._thread.submit(self._load, model, chat_format, adapter).result()

    def prompt_key(self, messages: Messages) -> str:
        return sha256_text(to_json(self._encode(messages)))

    def generate(self, messages: Messages, sampling: Sampling, watch: Watch | None = None) -> Generation:
        if sampling.temperature:
            return self._thread.submit(self._drawn, messages, sampling, watch).result()
        request = _Request(self._encode(messages), sampling, watch)
        self._waiting.put(request)
        self._thread.submit(self._answer_those_waiting)
        return request.answer.result()

    def log_probabilities(self, messages: Messages, answer: str) -> list[float]:
        return self._thread.submit(self._log_probabilities, messages, answer).result()

    def _load(self, model: Path, chat_format: dict[str, Any], adapter: Path | None) -> None:
        from generators.device import current, load_mlx
        from generators.tokens import Tokenizer

        start = time.perf_counter()
        self._mx = load_mlx()
        import mlx_lm.utils

        self._model, _ = mlx_lm.utils.load_model(model)
        if adapter is not None:
            self._model = mlx_lm.utils.load_adapters(self._model, str(adapter))
        if current().kind == "cpu":
            self._model.set_dtype(self._mx.float32)  # half precision has no fast kernels there
        self._model.eval()
        self._tokenizer = Tokenizer.load(model, chat_format)
        self._stop = list(dict.fromkeys([chat_format["end_of_turn"], *chat_format["stop"]]))
        self.name = f"MLX {model.name}" + (f" + {adapter.parent.name}/{adapter.name}" if adapter else "")
        files = sorted(model.glob("*.safetensors")) + ([adapter / "adapters.safetensors"] if adapter else [])
        self.digest = sha256_text("".join(map(sha256_file, files)))
        self.load_seconds = time.perf_counter() - start

    def _encode(self, messages: Messages) -> list[int]:
        with self._lock:
            return self._tokenizer.encode_prompt(messages)

    def _answer_those_waiting(self) -> None:
        """Until nobody waits. Those who come meanwhile join in; their own turn then finds nothing to do."""
        from mlx_lm.generate import BatchGenerator

        if self._waiting.empty():
            return
        batch, answering = BatchGenerator(self._model, completion_batch_size=self.slots), dict[int, _Request]()
        try:
            while answering or not self._waiting.empty():
                while not self._waiting.empty():
                    request = self._waiting.get()
                    answering[batch.insert([request.ids], [request.sampling.max_tokens])[0]] = request
                for told in batch.next_generated():
                    ended = self._ended(answering[told.uid], told.token) or ("length" if told.finish_reason else "")
                    if ended and not told.finish_reason:
                        batch.remove([told.uid])
                    if ended:
                        self._hand_over(answering.pop(told.uid), ended)
        except BaseException as error:
            for request in answering.values():
                request.answer.set_exception(error)
        finally:
            batch.close()

    def _ended(self, request: _Request, token: int) -> str:
        """Why the answer ends with this token, or nothing."""
        request.first_token_s = request.first_token_s or time.perf_counter() - request.started
        request.said.append(int(token))
        raw = self._tokenizer.decode(request.said[-8:], skip_special=False)
        if token == self._tokenizer.end_of_turn_id or any(stop in raw for stop in self._stop):
            return "stop"
        return request.watch(self._text(request.said)) if request.watch and len(request.said) % 8 == 0 else ""

    def _hand_over(self, request: _Request, ended: str) -> None:
        seconds, text = time.perf_counter() - request.started, self._text(request.said)
        request.answer.set_result(Generation(text, len(request.said), len(request.ids), seconds, request.first_token_s, ended))

    def _drawn(self, messages: Messages, sampling: Sampling, watch: Watch | None) -> Generation:
        from mlx_lm.generate import generate_step
        from mlx_lm.sample_utils import make_sampler

        request, ended = _Request(self._encode(messages), sampling, watch), ""
        self._mx.random.seed(sampling.seed)
        sampler = make_sampler(temp=sampling.temperature, top_p=dict(sampling.extra).get("top_p", 0.0))
        for token, _ in generate_step(self._mx.array(request.ids), self._model, max_tokens=sampling.max_tokens, sampler=sampler):
            if ended := self._ended(request, int(token)):
                break
        self._hand_over(request, ended or "length")
        return request.answer.result()

    def _log_probabilities(self, messages: Messages, answer: str) -> list[float]:
        mx, ids, wanted = self._mx, self._encode(messages), self._tokenizer.encode_text(answer)
        if not wanted:
            return []
        logits = self._model(mx.array([ids + wanted]))[0, len(ids) - 1 : -1].astype(mx.float32)
        chosen = mx.take_along_axis(logits, mx.array(wanted)[:, None], axis=-1)[:, 0]
        return [float(value) for value in (chosen - mx.logsumexp(logits, axis=-1)).tolist()]

    def _text(self, ids: list[int]) -> str:
        return _before_stop(self._tokenizer.decode(ids, skip_special=False), self._stop)


# --- servers of others ------------------------------------------------------------------------------------------------------------


class OllamaEngine:
    """A model in a running Ollama, by its chat endpoint. The Modelfile's SYSTEM counts where the messages bring none."""

    slots = 1  # more wait in Ollama's own queue, and the waiting would count as answering
    load_seconds = 0.0

    def __init__(self, model: str, host: str | None = None):
        import ollama

        from generators.ollama_address import is_loopback, ollama_host

        self._host = host or ollama_host()
        self._client = ollama.Client(host=self._host, trust_env=not is_loopback(self._host))
        self._model = model
        self.name = f"Ollama {model}"
        self.digest = self._find()

    def _find(self) -> str:
        try:
            listed = self._client.list().models
        except Exception as error:  # the client passes on whatever its transport raises
            raise UserError(f"Ollama does not answer at {self._host} ({type(error).__name__}); start it with: ollama serve") from error
        for found in listed:
            if found.model in (self._model, f"{self._model}:latest"):
                return str(found.digest)
        raise UserError(f"Ollama has no model {self._model!r}; run: doit deploy")

    def prompt_key(self, messages: Messages) -> str:
        return sha256_text(to_json(messages))

    def generate(self, messages: Messages, sampling: Sampling, watch: Watch | None = None) -> Generation:
        options = {"temperature": sampling.temperature, "seed": sampling.seed, "num_predict": sampling.max_tokens, **dict(sampling.extra)}
        start = time.perf_counter()
        text, first, ended, tokens, prompt_tokens = "", 0.0, "length", 0, 0
        try:
            for part in self._client.chat(model=self._model, messages=messages, options=options, stream=True):
                first = first or time.perf_counter() - start
                text += part.message.content or ""
                tokens += 1
                if part.done:
                    ended = "length" if part.done_reason == "length" else "stop"
                    tokens, prompt_tokens = part.eval_count or tokens, part.prompt_eval_count or 0
                elif watch and tokens % 4 == 0 and (reason := watch(text.strip())):
                    ended = reason
                    break
        except Exception as error:  # see _find
            raise UserError(f"Ollama failed in a query to {self._model}: {error}") from error
        return Generation(text.strip(), tokens, prompt_tokens, time.perf_counter() - start, first, ended)

    def log_probabilities(self, messages: Messages, answer: str) -> list[float]:
        raise UserError("Ollama gives no probabilities for a text that is handed to it; use the GGUF in llama.cpp")


class OpenAIEngine:
    """Any server that speaks OpenAI's `/chat/completions`. url: up to and with `/v1`."""

    load_seconds = 0.0

    def __init__(self, url: str, model: str, key: str = "", slots: int = 1):
        self.name = f"{model} at {url}"
        self.digest = sha256_text(f"{url} {model}")  # a server tells no hash of its weights
        self.slots = slots
        self._url, self._model = url.rstrip("/"), model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def prompt_key(self, messages: Messages) -> str:
        return sha256_text(to_json(messages))

    def generate(self, messages: Messages, sampling: Sampling, watch: Watch | None = None) -> Generation:
        known = ("top_p", "presence_penalty", "frequency_penalty")
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "stream": True,
            **{name: value for name, value in sampling.extra if name in known},
        }
        start = time.perf_counter()
        text, first, ended, tokens = "", 0.0, "length", 0
        for event in self._events(body):
            choice = (event.get("choices") or [{}])[0]
            if piece := (choice.get("delta") or {}).get("content"):
                first = first or time.perf_counter() - start
                text, tokens = text + piece, tokens + 1
            if choice.get("finish_reason"):
                ended = "length" if choice["finish_reason"] == "length" else "stop"
            elif watch and tokens and tokens % 8 == 0 and (reason := watch(text.strip())):
                ended = reason
                break
        return Generation(text.strip(), tokens, 0, time.perf_counter() - start, first, ended)

    def log_probabilities(self, messages: Messages, answer: str) -> list[float]:
        raise UserError("a chat endpoint gives no probabilities for a text that is handed to it; use the GGUF in llama.cpp")

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        import httpx

        try:
            with httpx.stream("POST", f"{self._url}/chat/completions", json=body, headers=self._headers, timeout=600) as response:
                if response.status_code != 200:
                    response.read()
                    raise UserError(f"{self._url} refused a query: {response.status_code} {response.text[:300]}")
                for line in response.iter_lines():
                    if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                        yield json.loads(data)
        except httpx.HTTPError as error:
            raise UserError(f"{self._url} does not answer ({type(error).__name__})") from error
