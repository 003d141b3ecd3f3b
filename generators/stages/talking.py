"""The finished model at work on this machine: chat, voice, serve, capture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generators.stages.reading import chat_format_of
from generators.stages.release import deployed_models

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.specs.project import Project


def chat(project: Project, paths: Paths, name: str) -> None:
    from generators.answering import opened
    from generators.chat import chat as talk

    recipe = project.recipes[name]
    gguf = paths.recipe(name).gguf(recipe["export"]["quantisations"][0])
    deployed = deployed_models(project, paths, name)
    with opened(gguf, paths.model(recipe["base"]), chat_format_of(project, recipe), deployed) as llama:
        talk(llama, {each.persona: each for each in deployed}, project.tiers, paths.verdicts)


def voice(project: Project, paths: Paths, name: str, audio: str, out: str, language: str, whisper: str, voices: list[str]) -> None:
    """audio: a question in a file, empty for the microphone. out: file for the answer, empty for the loudspeaker. language: empty to find out.

    Whatever is missing is told before anything is loaded that takes long.
    """
    import sys

    from generators import progress
    from generators import voice as talking
    from generators.answering import opened
    from generators.errors import UserError, chosen
    from generators.voice.audio import Device
    from generators.voice.ears import Whisper
    from generators.voice.mouth import mouth
    from generators.voice.speakable import LANGUAGES

    if language:
        chosen(LANGUAGES, language, "language")
    if not audio and (out or not sys.stdin.isatty()):
        raise UserError("a question comes from a file, --audio question.wav, or from the microphone, on a terminal and without --out")
    question, answer = (paths.root / Path(each).expanduser() if each else None for each in (audio, out))
    if question is not None and not question.is_file():
        raise UserError(f"{question} does not exist; name a sound file with --audio")
    if answer is not None and not answer.parent.is_dir():
        raise UserError(f"{answer} cannot be written: there is no folder {answer.parent}")
    needs = [*([] if audio else ["input"]), *([] if out else ["output"])]
    device = Device(needs) if needs else None
    recipe = project.recipes[name]
    gguf, deployed = paths.recipe(name).gguf(recipe["export"]["quantisations"][0]), deployed_models(project, paths, name)
    speaks, ears = mouth(voices), Whisper(whisper)
    progress.say(f"{deployed[0].name}; hears with Whisper {whisper}, speaks with {speaks.name}")
    with opened(gguf, paths.model(recipe["base"]), chat_format_of(project, recipe), deployed) as llama:
        conversation = talking.Conversation(llama, deployed[0], speaks, progress.say)
        if question is not None:
            talking.answer_file(conversation, ears, question, language, answer, device, progress.say)
        else:
            assert device is not None
            talking.converse(conversation, ears, device, language, progress.say)


def serve(project: Project, paths: Paths, name: str, port: int, record: str) -> None:
    from generators import progress
    from generators.serve import serve as run

    recipe = project.recipes[name]
    quantisation = recipe["export"]["quantisations"][0]
    run(
        paths.recipe(name).gguf(quantisation),
        quantisation,
        paths.model(recipe["base"]),
        chat_format_of(project, recipe),
        deployed_models(project, paths, name),
        port,
        paths.root / record if record else None,
        progress.say,
    )


def capture(project: Project, paths: Paths, recording: str, client: str, force: bool) -> None:
    from generators import progress
    from generators.capture import capture as derive
    from generators.specs.project import load

    shipped = load(paths.root, keep=False, captured=False).clients
    accept = partial(load, paths.root, keep=False)
    derive(paths.root / recording if recording else None, client, shipped, paths.captured, force, accept, progress.say)
