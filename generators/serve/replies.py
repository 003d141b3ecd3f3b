"""Answers in the forms that clients expect: Ollama's `/api/generate` and `/api/chat`, OpenAI's `/v1/chat/completions`.

Each form has a piece of a stream, its end, a whole answer, and an error. Source: ollama, docs/api.md and openai/openai.go, 0.34.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

from generators.answering import Answer
from generators.files import to_json
from generators.serve.requests import Ask

Json = dict[str, Any]
NDJSON, SSE = "application/x-ndjson", "text/event-stream"


class Reply(Protocol):
    """media_type: of a stream."""

    media_type: str

    def piece(self, text: str) -> str: ...

    def end(self, answer: Answer, times: Times) -> str: ...

    def whole(self, answer: Answer, times: Times) -> Json: ...

    def error(self, message: str) -> str:
        """In the middle of a stream, when the status is sent already."""
        ...


class Times:
    """Seconds since the request came: load_s until the answer was begun, total_s until now."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.load_s = 0.0

    def begin(self) -> None:
        self.load_s = self.total_s

    @property
    def total_s(self) -> float:
        return time.perf_counter() - self._start


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def refusal(status: int, message: str, openai: bool) -> Json:
    if not openai:
        return {"error": message}
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def nothing(ask: Ask, chat: bool) -> Json:
    """The answer to a request that only loads the model, or gives it up."""
    said: Json = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
    return {"model": ask.named, "created_at": now(), **said, "done": True, "done_reason": ask.nothing}


class Ollama:
    """chat: messages, as `/api/chat` has them; else `response`. context: token ids that a whole conversation goes on from, or none."""

    media_type = NDJSON

    def __init__(self, ask: Ask, chat: bool, prompt: str | list[int]):
        self._named, self._chat = ask.named, chat
        self._context = None if chat or isinstance(prompt, str) else prompt

    def piece(self, text: str) -> str:
        return to_json(self._said(text) | {"done": False}) + "\n"

    def end(self, answer: Answer, times: Times) -> str:
        return to_json(self._said("") | self._figures(answer, times)) + "\n"

    def whole(self, answer: Answer, times: Times) -> Json:
        return self._said(answer.text) | self._figures(answer, times)

    def error(self, message: str) -> str:
        return to_json({"error": message}) + "\n"

    def _said(self, text: str) -> Json:
        said: Json = {"message": {"role": "assistant", "content": text}} if self._chat else {"response": text}
        return {"model": self._named, "created_at": now(), **said}

    def _figures(self, answer: Answer, times: Times) -> Json:
        context = {} if self._context is None else {"context": [*self._context, *answer.ids]}
        return {
            "done": True,
            "done_reason": answer.ended,
            **context,
            "total_duration": nanoseconds(times.total_s),
            "load_duration": nanoseconds(times.load_s),
            "prompt_eval_count": answer.prompt_tokens,
            "prompt_eval_duration": nanoseconds(answer.prompt_s),
            "eval_count": answer.tokens,
            "eval_duration": nanoseconds(answer.answer_s),
        }


class OpenAI:
    """with_usage: whether a stream ends with the counts of tokens."""

    media_type = SSE

    def __init__(self, ask: Ask, with_usage: bool):
        self._with_usage = with_usage
        self._head = {"id": f"chatcmpl-{uuid4().hex[:12]}", "created": int(time.time()), "model": ask.named, "system_fingerprint": "fp_ollama"}

    def piece(self, text: str) -> str:
        return self._event(self._chunk({"role": "assistant", "content": text}, None))

    def end(self, answer: Answer, times: Times) -> str:
        return "".join(self._last_events(answer))

    def whole(self, answer: Answer, times: Times) -> Json:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.ended}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": _usage(answer)}

    def error(self, message: str) -> str:
        return self._event(refusal(500, message, openai=True))

    def _last_events(self, answer: Answer) -> Iterator[str]:
        yield self._event(self._chunk({"role": "assistant", "content": ""}, answer.ended))
        if self._with_usage:
            yield self._event({**self._chunk({}, None), "choices": [], "usage": _usage(answer)})
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: Json, ended: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": ended}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _event(self, value: Json) -> str:
        return f"data: {to_json(value)}\n\n"


def _usage(answer: Answer) -> Json:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": answer.prompt_tokens + answer.tokens,
    }
