"""Talking to the finished model in the terminal: answers as they come, the personas, and verdicts on answers for `doit feedback`.

Lines are typed, or come through a pipe, one query each. A line that begins with `/` is a command.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generators import progress
from generators.answering import Answer, Deployed, Llama, composed, fitted, merged
from generators.errors import UserError, did_you_mean, one_of
from generators.files import human_seconds, private_folder, to_json

Message = dict[str, str]
Say = Callable[[str], None]
_NO_LIMIT = 2**31  # tokens
_MARKER_SPARE = 12  # characters that the iterations' number and the marker's end may take


def chat(llama: Llama, deployed: Mapping[str, Deployed], tiers: dict[str, Any], feedback: Path) -> None:
    """Talk until the input ends. deployed: by persona, the first one is met first. tiers: the whole tiers file. feedback: file of verdicts.

    Raises UserError when llama.cpp is gone.
    """
    screen = Screen()
    conversation = Conversation(llama, deployed, tiers, feedback, screen)
    screen.note(f"{conversation.model.name}, as {conversation.persona}. /help lists what else can be typed; Ctrl-D leaves.")
    lines = screen.typed(lambda: conversation.persona) if progress.on_terminal() and sys.stdin.isatty() else screen.piped()
    for line in lines:
        if line.strip():
            conversation.take(line.strip())


@contextmanager
def ctrl_c(handler: Any) -> Iterator[None]:
    """What Ctrl-C does meanwhile: `default_int_handler` raises KeyboardInterrupt, `SIG_IGN` does nothing."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Screen:
    """The terminal, or plain text in a pipe."""

    def __init__(self) -> None:
        self._console = progress.console()

    def piped(self) -> Iterator[str]:
        """Lines until the end."""
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")
        yield from sys.stdin

    def typed(self, persona: Callable[[], str]) -> Iterator[str]:
        """Lines until Ctrl-D. Ctrl-C counts while a line is awaited, and while an answer is: typed twice, it shall not end the talk."""
        with suppress(ImportError):
            import readline  # noqa: F401  arrow keys and a history for `input`, where there is one

        with ctrl_c(signal.SIG_IGN):
            while True:
                try:
                    with ctrl_c(signal.default_int_handler), redirect_stdout(sys.__stdout__):  # `input` edits lines only on the real one
                        line = input(f"\n{persona()}> ")
                except KeyboardInterrupt:
                    self.write("\n")
                    self.note("Ctrl-D leaves")
                    continue
                except EOFError:
                    self.write("\n")
                    return
                yield line

    def write(self, text: str) -> None:
        """A piece of an answer, without what would command the terminal."""
        from rich.text import Text

        kept = "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")
        self._console.print(Text(kept), end="", soft_wrap=True)

    def note(self, line: str) -> None:
        """A line that is no answer."""
        from rich.text import Text

        self._console.print(Text(f"   {line}" if line else "", style="dim"), soft_wrap=True)


class Conversation:
    """What was said, and under which persona it goes on."""

    def __init__(self, llama: Llama, deployed: Mapping[str, Deployed], tiers: dict[str, Any], feedback: Path, screen: Screen):
        self._llama, self._deployed, self._tiers, self._feedback, self._screen = llama, deployed, tiers, feedback, screen
        self.persona = next(iter(deployed))
        self.turns: list[Message] = []
        self._iterations = self._is_long = False
        self._last: dict[str, Any] = {}

    @property
    def model(self) -> Deployed:
        return self._deployed[self.persona]

    def take(self, line: str) -> None:
        """A query, or a command."""
        if not line.startswith("/"):
            self._ask(line)
            return
        word, _, rest = line[1:].partition(" ")
        commands = self._commands()
        if word in commands:
            commands[word][1](rest.strip())
        else:
            self._screen.note(f"no command /{word}{did_you_mean(word, commands)}; /help lists them")

    # commands

    def _commands(self) -> dict[str, tuple[str, Callable[[str], None]]]:
        return {
            "persona": ("NAME: go on under another persona; without a name, list them", self._switch),
            "iterations": ("ask for the number of thinking passes, or no longer", self._count_iterations),
            "good": ("keep the last answer as a good one, for doit feedback", lambda _: self._judge("good", None)),
            "bad": ("keep it as a bad one", lambda _: self._judge("bad", None)),
            "better": ("TEXT: keep it with the answer that would have been right", self._correct),
            "clear": ("begin a new conversation", self._clear),
            "help": ("this list", self._help),
        }

    def _switch(self, name: str) -> None:
        if name in self._deployed:
            self.persona = name
            self._screen.note(f"now {self.model.name}, as {name}")
        else:
            missed = f"no persona {name!r}{did_you_mean(name, self._deployed)}; " if name else ""
            self._screen.note(f"{missed}there are {one_of(self._deployed)}")

    def _count_iterations(self, _: str) -> None:
        self._iterations = not self._iterations
        self._screen.note("answers come with their iterations" if self._iterations else "answers come without their iterations")

    def _correct(self, text: str) -> None:
        if text:
            self._judge("better", text)
        else:
            self._screen.note("write the right answer behind it: /better TEXT")

    def _judge(self, verdict: str, correction: str | None) -> None:
        if not self._last:
            self._screen.note("nothing was answered yet")
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = {"query": self._last["query"], "answer": self._last["answer"], "verdict": verdict, "correction": correction}
        row |= {"conversation": self._last["conversation"], "persona": self._last["persona"], "model": self._last["model"], "time": now}
        try:
            private_folder(self._feedback.parent)
            with self._feedback.open("a", encoding="utf-8") as out:
                out.write(to_json(row) + "\n")
        except OSError as error:
            self._screen.note(f"cannot be kept in {self._feedback}: {error.strerror or error}")
            return
        self._screen.note(f"kept in {self._feedback}" + ("" if verdict != "bad" else "; /better TEXT says what would have been right"))

    def _clear(self, _: str) -> None:
        self.turns, self._last, self._is_long = [], {}, False
        self._screen.note("a new conversation")

    def _help(self, _: str) -> None:
        for name, (meaning, _action) in self._commands().items():
            self._screen.note(f"/{name:<11}{meaning}")

    # answers

    def _ask(self, query: str) -> None:
        self.turns.append({"role": "user", "content": query})
        options = merged(self.model.modelfile, {})
        try:
            ids = fitted(self._llama.tokenizer, self._messages(), self._llama.context, options)
        except UserError as error:
            self.turns.pop()
            self._screen.note(str(error))
            return
        self._tell_of_room(ids, options)
        answer = self._llama.answer(options)
        shown = Shown(self._tiers["marker"] if self._iterations else "")
        start = time.perf_counter()
        try:
            with ctrl_c(signal.default_int_handler):
                asyncio.run(self._show(ids, options, answer, shown, start))
        except KeyboardInterrupt:
            answer.ended = "stopped"
        self._screen.write(shown.take(answer.text, done=True) + "\n")
        self._screen.note(described(answer, shown, time.perf_counter() - start))
        self._keep(query, shown.text)

    def _tell_of_room(self, ids: list[int], options: dict[str, Any]) -> None:
        """Once a conversation: what no longer fits is left out."""
        if not self._is_long and len(fitted(self._llama.tokenizer, self._messages(), _NO_LIMIT, options)) > len(ids):
            self._is_long = True
            self._screen.note("the conversation no longer fits into the context; its oldest exchanges are left out")

    def _messages(self) -> list[Message]:
        """The Modelfile's examples show no iterations: where these are asked for, they would teach against it."""
        from generators.framing import directive_system

        model = self.model.modelfile
        if not self._iterations:
            return composed(model, self.turns)
        system = {"role": "system", "content": directive_system(model.system, self._tiers).strip()}
        return composed(model, [system, *self.turns], examples=False)

    async def _show(self, ids: list[int], options: dict[str, Any], answer: Answer, shown: Shown, start: float) -> None:
        async for _ in self._llama.pieces(ids, options, answer):
            new = shown.take(answer.text)
            if new and not shown.first_s:
                shown.first_s = time.perf_counter() - start
            self._screen.write(new)
            await asyncio.sleep(0)  # where Ctrl-C is heard, also while pieces come faster than they are shown

    def _keep(self, query: str, text: str) -> None:
        """An answer that was stopped before its first word leaves nothing behind."""
        if text:
            self.turns.append({"role": "assistant", "content": text})
            before = list(self.turns[:-2])
            self._last = {"query": query, "answer": text, "persona": self.persona, "model": self.model.name, "conversation": before}
        else:
            self.turns.pop()


class Shown:
    """What of an answer was shown: without white space around it, and without the marker of iterations that it may begin with.

    marker: the tiers' template of it, empty where none was asked for. first_s: seconds to the first word.
    """

    def __init__(self, marker: str = ""):
        self._marker = marker
        self.text = ""
        self.iterations: int | None = None
        self.first_s = 0.0

    def take(self, text: str, done: bool = False) -> str:
        """What is new in `text`, the whole answer so far; nothing while it may still turn out to be the marker."""
        visible = self._visible(text.strip(), done)
        new = visible[len(self.text) :]
        self.text = visible
        return new

    def _visible(self, text: str, done: bool) -> str:
        if not self._marker:
            return text
        from generators.evaluate.asking import split_marker

        self.iterations, rest = split_marker(text, {"marker": self._marker})
        opening = self._marker.strip().partition("{{")[0]
        undecided = opening.startswith(text[: len(opening)]) and len(text) < len(self._marker) + _MARKER_SPARE
        return "" if self.iterations is None and undecided and not done else rest


def described(answer: Answer, shown: Shown, seconds: float) -> str:
    """`1.2 s, first word after 0.3 s, 14 tokens, 2 iterations`"""
    parts = [human_seconds(seconds)]
    if shown.first_s:
        parts.append(f"first word after {human_seconds(shown.first_s)}")
    parts.append(f"{answer.tokens} tokens")
    if shown.iterations is not None:
        parts.append(f"{shown.iterations} iteration{'s' if shown.iterations != 1 else ''}")
    if answer.ended in ("length", "stopped"):
        parts.append("cut off: num_predict or the context is reached" if answer.ended == "length" else "stopped")
    return ", ".join(parts)
