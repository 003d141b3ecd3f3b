"""The routes: Ollama's and OpenAI's over one llama.cpp, one answer at a time, the others in a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from generators.answering import Answer, Deployed, Llama, composed, fitted, merged
from generators.errors import UserError
from generators.files import human_seconds
from generators.serve import models as told
from generators.serve import requests
from generators.serve.recording import Recorder
from generators.serve.replies import Ollama, OpenAI, Reply, Times, nothing, refusal
from generators.serve.requests import Ask, Refused

Say = Callable[[str], None]
API_VERSION = "0.34.1"  # the Ollama whose interface this is: clients ask for it to know what they may send
MOST_WAITING = 512  # requests in the queue, as Ollama's OLLAMA_MAX_QUEUE has it
_CLIENT_GONE = 499


def application(service: Service) -> ASGIApp:
    routes = [
        Route("/", service.alive),
        Route("/api/version", service.version),
        Route("/api/tags", service.tags),
        Route("/api/show", service.show, methods=["POST"]),
        Route("/api/generate", service.generate, methods=["POST"]),
        Route("/api/chat", service.chat, methods=["POST"]),
        Route("/v1/models", service.openai_models),
        Route("/v1/chat/completions", service.completion, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {Refused: _refused, UserError: _failed, HTTPException: _no_route}
    return LocalOnly(Starlette(routes=routes, exception_handlers=handlers))


class Service:
    """The endpoints. What is wrong with a request is raised as Refused.

    deployed: by name. recorder: keeps requests and answers. report: gets a line for every answer, without its words.
    """

    def __init__(
        self, llama: Llama, deployed: Mapping[str, Deployed], weights: told.Weights, recorder: Recorder | None, report: Say
    ):
        self._llama, self._models, self._weights, self._recorder, self._report = llama, deployed, weights, recorder, report
        self._queue = Queue(MOST_WAITING)
        self._under_way: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """End the answers under way; their clients are told."""
        for task in tuple(self._under_way):
            task.cancel()

    async def alive(self, request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": API_VERSION})

    async def tags(self, request: Request) -> Response:
        return JSONResponse(told.tags(self._models, self._weights))

    async def show(self, request: Request) -> Response:
        return JSONResponse(told.show(requests.shown(await request.body(), self._models), self._weights))

    async def openai_models(self, request: Request) -> Response:
        return JSONResponse(told.openai_list(self._models, self._weights))

    async def generate(self, request: Request) -> Response:
        times = Times()
        return await self._ollama(request, requests.generate(await request.body(), self._models), times, chat=False)

    async def chat(self, request: Request) -> Response:
        times = Times()
        return await self._ollama(request, requests.chat(await request.body(), self._models), times, chat=True)

    async def _ollama(self, request: Request, ask: Ask, times: Times, chat: bool) -> Response:
        if ask.nothing:
            return JSONResponse(nothing(ask, chat))
        prompt, options = self._prompt(ask)
        return await self._answered(request, ask, prompt, options, Ollama(ask, chat, prompt), times)

    async def completion(self, request: Request) -> Response:
        times = Times()
        ask, with_usage = requests.completion(await request.body(), self._models)
        prompt, options = self._prompt(ask)
        return await self._answered(request, ask, prompt, options, OpenAI(ask, with_usage), times)

    # one answer

    def _prompt(self, ask: Ask) -> tuple[str | list[int], dict[str, Any]]:
        """(token ids, or a raw text; options)"""
        options = merged(ask.model.modelfile, ask.options)
        if ask.raw:
            return ask.raw, options
        context = min(self._llama.context, int(options.get("num_ctx", self._llama.context)))
        # a conversation that goes on from token ids has had the examples before them
        messages = composed(ask.model.modelfile, ask.messages, examples=not ask.context)
        tokenizer = self._llama.tokenizer
        if any(token >= tokenizer.vocabulary_size for token in ask.context):
            raise Refused(400, "context holds a token that the model does not have")
        try:
            ids = fitted(tokenizer, messages, context - len(ask.context), options)
        except UserError as error:
            raise Refused(400, str(error)) from error
        return [*ask.context, *(ids[ids[:1] == [tokenizer.bos_id] :] if ask.context else ids)], options

    async def _answered(
        self, request: Request, ask: Ask, prompt: str | list[int], options: dict[str, Any], reply: Reply, times: Times
    ) -> Response:
        self._queue.check()
        answer, pieces = self._llama.answer(options), Pieces()
        tell = partial(self._tell, request.url.path, await request.body(), ask, answer, times)
        task = asyncio.create_task(self._write(pieces, self._llama.pieces(prompt, options, answer, ask.schema), times, tell))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda _: pieces.end(UserError("the server was stopped")))  # seen where it was cancelled
        if ask.stream:
            return StreamingResponse(_stream(pieces, task, reply, answer, times), media_type=reply.media_type)
        if not await _done_before_hung_up(task, request):
            return Response(status_code=_CLIENT_GONE)
        async for _ in pieces.read():
            pass  # the answer has the whole text; what went wrong is raised here
        return JSONResponse(reply.whole(answer, times))

    async def _write(self, pieces: Pieces, source: AsyncGenerator[str, None], times: Times, tell: Callable[[], None]) -> None:
        """The answer's text into `pieces`, when its turn has come. A task of its own, so that it can be ended whoever waits for it."""
        try:
            async with self._queue.turn():
                times.begin()
                try:
                    async with aclosing(source) as opened:
                        async for piece in opened:
                            pieces.put(piece)
                finally:
                    tell()
            pieces.end()
        except Exception as error:  # whoever reads the pieces gets it
            pieces.end(error)

    def _tell(self, path: str, body: bytes, ask: Ask, answer: Answer, times: Times) -> None:
        waited = f" after {human_seconds(times.load_s)} in the queue" if times.load_s > 1 else ""
        end = "" if answer.ended else ", not to its end"
        self._report(f"{ask.model.name}: {human_seconds(times.total_s)}{waited}, {answer.tokens} tokens{end}")
        if self._recorder is not None:
            self._recorder.keep(path, requests.decoded(body), answer.text, answer.ended)


class Pieces:
    """Text on its way from the task that makes it to the response that sends it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[str | Exception | None] = asyncio.Queue()

    def put(self, piece: str) -> None:
        self._waiting.put_nowait(piece)

    def end(self, error: Exception | None = None) -> None:
        self._waiting.put_nowait(error)

    async def read(self) -> AsyncIterator[str]:
        """Raises the error that it ended with."""
        while (piece := await self._waiting.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece


async def _stream(pieces: Pieces, task: asyncio.Task[None], reply: Reply, answer: Answer, times: Times) -> AsyncIterator[str]:
    try:
        async for piece in pieces.read():
            yield reply.piece(piece)
    except UserError as error:
        yield reply.error(str(error))
        return
    finally:
        task.cancel()  # the client may have hung up
    yield reply.end(answer, times)


async def _done_before_hung_up(task: asyncio.Task[None], request: Request) -> bool:
    """Wait for the task; it is cancelled when the client is gone first."""
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        task.cancel()
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


class Queue:
    """One at a time, in the order in which they came."""

    def __init__(self, most: int):
        self._most, self._waiting = most, 0
        self._lock = asyncio.Lock()

    def check(self) -> None:
        """Raises Refused when too many wait already."""
        if self._waiting >= self._most:
            raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()


# --- who may ask, and what goes wrong ---------------------------------------------------------------------------------------------


class LocalOnly:
    """Answers programs of this machine: a page of a browser that calls itself by another name, or comes from elsewhere, is refused."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host, origin = headers.get(b"host", b"localhost").decode("latin-1"), headers.get(b"origin", b"").decode("latin-1")
            if not _is_local(f"//{host}") or (origin and not _is_local(origin)):
                await Response(status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_local(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return name in ("localhost", "127.0.0.1", "::1") or name.endswith(".localhost")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(refusal(error.status, error.message, _speaks_openai(request)), error.status)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(refusal(500, str(error), _speaks_openai(request)), 500)


def _speaks_openai(request: Request) -> bool:
    return request.url.path.startswith("/v1/")


async def _no_route(request: Request, error: Exception) -> Response:
    """In the words of the web framework that Ollama is written with."""
    status = getattr(error, "status_code", 500)
    words = {404: "404 page not found", 405: "405 method not allowed"}
    return PlainTextResponse(words.get(status, str(status)), status, getattr(error, "headers", None))
