"""Text to speech: Piper's voices, or what the system has, `say` on macOS and eSpeak NG elsewhere."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from generators.errors import UserError
from generators.voice.audio import Sound, read_wav
from generators.voice.speakable import Sentence

_LONGEST_S = 60  # that a system's voice may take for one sentence


class Mouth(Protocol):
    """What speaks. name: as it is told."""

    name: str

    def say(self, sentence: Sentence) -> Sound: ...


def mouth(voices: Sequence[str]) -> Mouth:
    """Piper with the voices that are named, else the voice of the system. Raises UserError, with the remedy, where there is none."""
    if voices:
        return Piper([Path(voice).expanduser() for voice in voices])
    if sys.platform == "darwin" and shutil.which("say"):
        return MacSay()
    if program := shutil.which("espeak-ng"):
        return Espeak(program)
    raise UserError(
        "there is no voice here; name a Piper voice, which `python -m piper.download_voices tr_TR-dfki-medium` fetches: "
        "--voice tr_TR-dfki-medium.onnx, or install eSpeak NG (Debian: apt install espeak-ng, macOS: brew install espeak-ng)"
    )


class Piper:
    """One voice a language; a sentence in another is said by the first."""

    def __init__(self, voices: Sequence[Path]):
        """voices: ONNX files, each with its .onnx.json beside it. Raises UserError when one does not load."""
        if importlib.util.find_spec("piper") is None:
            raise UserError("Piper is not installed; run: pip install -e '.[voice]'")
        from piper import PiperVoice

        self._voices: dict[str, Any] = {}
        for path in voices:
            if not path.is_file() or not Path(f"{path}.json").is_file():
                missing = path if not path.is_file() else f"{path}.json"
                raise UserError(f"{missing} does not exist; a Piper voice is NAME.onnx with NAME.onnx.json beside it")
            try:
                voice = PiperVoice.load(path)
            except Exception as error:  # ONNX Runtime's and JSON's
                raise UserError(f"{path} is no Piper voice ({str(error).splitlines()[0][:160]})") from error
            self._voices.setdefault(re.split("[-_]", voice.config.espeak_voice)[0], voice)
        self.name = f"Piper ({', '.join(path.stem for path in voices)})"

    def say(self, sentence: Sentence) -> Sound:
        import numpy as np

        voice = self._voices.get(sentence.language) or next(iter(self._voices.values()))
        parts = [chunk.audio_int16_array for chunk in voice.synthesize(sentence.text)]
        return Sound(np.concatenate(parts) if parts else np.zeros(0, np.int16), voice.config.sample_rate)


class Espeak:
    def __init__(self, program: str):
        self._program, self.name = program, "eSpeak NG"

    def say(self, sentence: Sentence) -> Sound:
        return _spoken([self._program, "-v", {"en": "en-gb"}.get(sentence.language, sentence.language), "--stdin", "-w"], [], sentence.text)


class MacSay:
    """The voices of macOS, the first of each language; without one, the voice that is set in the system."""

    def __init__(self) -> None:
        self._voices: dict[str, str] = {}
        listed = subprocess.run(["say", "-v", "?"], capture_output=True, text=True, timeout=_LONGEST_S).stdout
        for line in listed.splitlines():
            if found := re.match(r"(.+?)\s+([a-z]{2})[_-]\w+\s+#", line):
                self._voices.setdefault(found[2], found[1])
        self.name = (
            f"macOS say ({', '.join(self._voices[each] for each in ('tr', 'en') if each in self._voices) or 'the voice that is set'})"
        )

    def say(self, sentence: Sentence) -> Sound:
        voice = self._voices.get(sentence.language)
        command = ["say", *(["-v", voice] if voice else []), "--file-format=WAVE", "--data-format=LEI16@22050", "-o"]
        return _spoken(command, ["-f", "-"], sentence.text)


def _spoken(command: list[str], more: list[str], text: str) -> Sound:
    """command: its last word takes the file that is to be written. The text goes in by standard input: it is no option."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sentence.wav"
        try:
            done = subprocess.run([*command, str(target), *more], input=text, capture_output=True, text=True, timeout=_LONGEST_S)
            if done.returncode == 0:
                return read_wav(target)
            why = (done.stderr.strip() or f"code {done.returncode}").splitlines()[0]
        except (OSError, EOFError, wave.Error, subprocess.TimeoutExpired) as error:
            why = str(error)
    raise UserError(f"{command[0]} could not say {text[:40]!r}: {why}")
