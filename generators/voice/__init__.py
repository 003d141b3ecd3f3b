"""Talking with the finished model: speech in, an answer of llama.cpp's, speech out, which begins with the answer's first sentence.

A question comes from the microphone or from a file, the answer goes to the loudspeaker or into one.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generators.answering import Deployed, Llama, TooLong, composed, fitted, merged
from generators.errors import UserError
from generators.files import human_seconds
from generators.voice.audio import Device, Sound, write_wav
from generators.voice.ears import Ears, Heard
from generators.voice.mouth import Mouth
from generators.voice.speakable import Sentence, Speaker

__all__ = ["Conversation", "answer_file", "converse"]

Report = Callable[[str], None]
Emit = Callable[[Sound], None]


class Mouthpiece:
    """Says sentences one after the other beside whatever else goes on. first_s: when the first one could be heard, by time.perf_counter."""

    def __init__(self, mouth: Mouth, emit: Emit):
        self._mouth, self._emit = mouth, emit
        self._waiting: queue.Queue[Sentence | None] = queue.Queue()
        self._failed: BaseException | None = None
        self.first_s = 0.0
        self._thread = threading.Thread(target=self._speak, daemon=True)

    def __enter__(self) -> Mouthpiece:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits until all was said, unless something went wrong meanwhile; raises what went wrong in speaking."""
        if kind is not None:
            self._drop_the_rest()
        self._waiting.put(None)
        self._thread.join()
        if kind is None and self._failed is not None:
            raise self._failed

    def say(self, sentence: Sentence) -> None:
        if self._failed is None:
            self._waiting.put(sentence)

    def _speak(self) -> None:
        while (sentence := self._waiting.get()) is not None:
            try:
                sound = self._mouth.say(sentence)
                self.first_s = self.first_s or time.perf_counter()
                self._emit(sound)
            except BaseException as error:
                self._failed = error
                return

    def _drop_the_rest(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()


class Conversation:
    """What was said so far. model: the persona as it is deployed."""

    def __init__(self, llama: Llama, model: Deployed, mouth: Mouth, report: Report):
        self._llama, self._model, self._mouth, self._report = llama, model, mouth, report
        self._turns: list[dict[str, str]] = []

    def answer(self, heard: Heard, emit: Emit) -> str:
        """Answer what was heard, each sentence to `emit` as soon as it can be. Returns the answer as it is written.

        Raises UserError when llama.cpp or the voice fails, or the question does not fit into the context.
        """
        self._turns.append({"role": "user", "content": heard.text})
        options = merged(self._model.modelfile, {})
        try:
            ids = fitted(self._llama.tokenizer, composed(self._model.modelfile, self._turns), self._llama.context, options)
        except TooLong:
            self._turns.pop()
            raise
        answer, speaker, start = self._llama.answer(options), Speaker(heard.language), time.perf_counter()

        async def speak() -> None:
            async for piece in self._llama.pieces(ids, options, answer):
                for sentence in speaker.feed(piece):
                    mouthpiece.say(sentence)

        with Mouthpiece(self._mouth, emit) as mouthpiece:
            asyncio.run(speak())
            for sentence in speaker.finish():
                mouthpiece.say(sentence)
            written = time.perf_counter() - start
        text = answer.text.strip()
        self._turns.append({"role": "assistant", "content": text})
        first = (
            f", first sentence after {human_seconds(mouthpiece.first_s - start)}" if mouthpiece.first_s else ", nothing of it can be spoken"
        )
        self._report(f"answered: {text!r} ({human_seconds(written)}{first})")
        return text


def answer_file(
    conversation: Conversation, ears: Ears, audio: Path, language: str, out: Path | None, device: Device | None, report: Report
) -> None:
    """One question out of a file, its answer into another or to the loudspeaker of `device`.

    Raises UserError where nothing is heard, nothing can be spoken, and as `Conversation.answer` does.
    """
    heard = _hear(ears, audio, language, report)
    if not heard.text:
        raise UserError(f"no words were heard in {audio}")
    sounds: list[Sound] = []
    if out is None:
        assert device is not None, "an answer goes somewhere"
        conversation.answer(heard, device.play)
        return
    text = conversation.answer(heard, sounds.append)
    if not sounds:
        raise UserError(f"nothing of the answer can be spoken: {text[:80]!r}; {out} was not written")
    report(f"{out}: {human_seconds(write_wav(out, sounds))} of speech")


def _hear(ears: Ears, audio: Path | Any, language: str, report: Report) -> Heard:
    start = time.perf_counter()
    heard = ears.hear(audio, language)
    report(f"heard ({heard.language}): {heard.text!r} ({human_seconds(time.perf_counter() - start)})")
    return heard


def converse(conversation: Conversation, ears: Ears, device: Device, language: str, report: Report) -> None:
    """With the microphone, question after question, until the input ends: Enter begins one, Enter ends it."""
    report("Enter begins a question, Enter ends it; Ctrl-D leaves")
    while _entered(""):
        report("listening …")
        samples = device.record(lambda: _entered(""))
        heard = _hear(ears, samples, language, report)
        if not heard.text:
            report("no words were heard")
            continue
        try:
            conversation.answer(heard, device.play)
        except TooLong as error:
            report(str(error))


def _entered(prompt: str) -> bool:
    try:
        input(prompt)
    except EOFError:
        return False
    return True
