"""Asking an engine: one query in its frame, many side by side, and the answers kept so that an interrupted evaluation goes on."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from generators import clients
from generators.clients import Observation
from generators.evaluate.cases import Query, messages
from generators.evaluate.checks import shown_marker
from generators.evaluate.engines import Engine, Generation, Sampling, Watch
from generators.evaluate.repetition import is_looping, recited
from generators.files import to_json
from generators.turkish import words


@dataclass(frozen=True)
class Frames:
    """What the queries are framed with. system: the persona's. clients: by name. tiers: the whole tiers file."""

    system: str
    clients: dict[str, dict[str, Any]]
    tiers: dict[str, Any]


@dataclass
class Answer:
    """text: as the user would read it. replies: of the engine, one a stage. stages: of a client's loop, 1 elsewhere.

    iterations: what the model named under the directive. error: why the client would have shown none. alone: asked with no other
    request beside it, so that seconds and first_token_s mean something. cached: no engine was asked.
    """

    text: str
    replies: list[Generation] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    iterations: int | None = None
    error: str = ""
    alone: bool = False
    cached: bool = False

    @property
    def stages(self) -> int:
        return max(1, len(self.replies))

    @property
    def seconds(self) -> float:
        return sum(reply.seconds for reply in self.replies)

    @property
    def first_token_s(self) -> float:
        return self.replies[0].first_token_s if self.replies else 0.0

    @property
    def tokens(self) -> int:
        return sum(reply.tokens for reply in self.replies)

    @property
    def ended(self) -> str:
        """Of the stage whose answer is shown."""
        return self.replies[-1].ended if self.replies else "stop"

    @property
    def cut_short(self) -> bool:
        """Whether the watch ended it: then it is not known how many stages a client would have needed."""
        return self.ended not in ("stop", "length")


class Cache:
    """Generations by engine, sampling and prompt, in one file an engine that only grows; a line cut short by a kill is passed over."""

    def __init__(self, folder: Path, engine: Engine):
        self._file = folder / f"{engine.digest[:16]}.jsonl"
        self._lock = threading.Lock()
        self._known: dict[str, Generation] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self._file.is_file():
            for line in self._file.read_text(encoding="utf-8").split("\n"):
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # the line that was being written when the last evaluation was killed, and the end of the file
                key = row.pop("key")
                self._known[key] = Generation(**row)

    def get(self, key: str) -> Generation | None:
        return self._known.get(key)

    def put(self, key: str, generation: Generation) -> None:
        with self._lock:
            self._known[key] = generation
            with self._file.open("a", encoding="utf-8") as out:
                out.write("" if out.tell() == 0 or self._ends_a_line() else "\n")
                out.write(to_json({"key": key, **asdict(generation)}) + "\n")

    def _ends_a_line(self) -> bool:
        with self._file.open("rb") as data:
            data.seek(-1, 2)
            return data.read() == b"\n"


def ask(query: Query, engine: Engine, frames: Frames, sampling: Sampling, cache: Cache | None = None, alone: bool = False) -> Answer:
    """One query as the person would ask it. alone: measure it, so nothing is taken from the cache and nothing cut short."""
    sampling = replace(sampling, seed=sampling.seed + query.repeat)
    watch, limit = (None, 0) if alone else _watch(query, frames)
    answer = Answer("", alone=alone, cached=not alone and cache is not None)

    def generate(sent: list[dict[str, str]]) -> str:
        key = f"{engine.prompt_key(sent)} {to_json(sampling.key())} {limit}"
        found = cache.get(key) if cache and not alone else None
        if found is None:
            answer.cached = False
            found = engine.generate(sent, sampling, watch)
            if cache and not alone:
                cache.put(key, found)
        answer.replies.append(found)
        return found.text

    if query.in_client:
        _through_client(query, frames.clients[query.framing], generate, answer)
    else:
        answer.text = generate(messages(query, frames.system, frames.tiers))
        if query.framing == "directive":
            answer.iterations, answer.text = split_marker(answer.text, frames.tiers)
    return answer


class _Decided(Exception):
    """A stage was cut short: the answer has failed, and the stages after it would change nothing."""


def _through_client(query: Query, client: dict[str, Any], generate: Callable[[list[dict[str, str]]], str], answer: Answer) -> None:
    def say(system: str, prompt: str) -> str:
        reply = generate([{"role": "system", "content": system}, {"role": "user", "content": prompt}])
        if answer.cut_short:
            raise _Decided
        return reply

    try:
        result = clients.run_chain(client, query.text, say)
    except _Decided:
        answer.text = answer.replies[-1].text
        return
    answer.observations, answer.error = result.observations, result.error
    answer.text = "" if result.error else result.answer
    if answer.alone and not result.error and answer.seconds > client["timeout_s"] * len(answer.replies):
        answer.error = f"the client gives up after {client['timeout_s']:g} s"


def split_marker(text: str, tiers: dict[str, Any]) -> tuple[int | None, str]:
    """The iterations that an answer names at its head by the tiers' marker, and the answer without it."""
    before, _, after = tiers["marker"].strip().partition("{{")
    after = after.partition("}}")[2].strip()
    found = re.match(re.escape(before) + r"\s*(\d{1,2})\s*" + re.escape(after), text.lstrip())
    return (int(found[1]), text.lstrip()[found.end() :].strip()) if found else (None, text)


def instructions(query: Query, frames: Frames) -> str:
    """What the model is told in the query's frame beside the conversation itself."""
    if query.in_client:
        client = frames.clients[query.framing]
        prompts = [clients.stage_prompt(client, stage, "", []) for stage in range(len(client["stages"]))]
        return "\n".join([clients.system(client), *prompts])
    return "\n".join(message["content"] for message in messages(query, frames.system, frames.tiers) if message["role"] == "system")


_HEAD = 40  # characters at the head of an answer in which the directive's marker may be on its way yet


def _watch(query: Query, frames: Frames) -> tuple[Watch, int]:
    """Reads along: a loop, a recital of the instructions, a marker that the reader would see, or a quarter more words than the answer may have,
    decides it as failed; the rest is not waited for. Eight words are for a client's header.
    """
    told = instructions(query, frames)
    limit = query.word_limit + query.word_limit // 4 + 8 if query.word_limit is not None else 10**6

    def shows_marker(text: str) -> bool:
        if query.in_client:
            return False  # its form of answer is made of markers
        if query.framing == "directive":
            named, rest = split_marker(text, frames.tiers)
            text = rest if named is not None else text[_HEAD:]
        return shown_marker(text) is not None

    def watch(text: str) -> str:
        if is_looping(text):
            return "loop"
        if recited(text, told):
            return "recital"
        if shows_marker(text):
            return "marker"
        return "words" if len(words(text)) > limit else ""

    return watch, limit


def ask_all(
    asked: list[Query], engine: Engine, frames: Frames, sampling: Sampling, cache: Cache | None, advance: Callable[[int], None]
) -> Iterator[tuple[Query, Answer]]:
    """Side by side in the engine's slots; in the order of `asked`. advance(1) is called, by one thread at a time, as each is done."""
    lock = threading.Lock()

    def work(query: Query) -> Answer:
        answer = ask(query, engine, frames, sampling, cache)
        with lock:
            advance(1)
        return answer

    with ThreadPoolExecutor(max(1, engine.slots)) as pool:
        waiting = [(query, pool.submit(work, query)) for query in asked]
        try:
            for query, future in waiting:
                yield query, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def ask_alone(asked: Iterable[Query], engine: Engine, frames: Frames, sampling: Sampling) -> Iterator[tuple[Query, Answer]]:
    """One at a time, on a warm engine: the first query of each framing is asked once before, and that answer is thrown away."""
    warm: set[str] = set()
    for query in asked:
        if query.framing not in warm:
            warm.add(query.framing)
            ask(query, engine, frames, replace(sampling, max_tokens=8), alone=True)
        yield query, ask(query, engine, frames, sampling, alone=True)
