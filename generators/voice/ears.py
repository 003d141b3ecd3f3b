"""Speech to text: Whisper, run by faster-whisper on any processor."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from generators.errors import UserError
from generators.voice.speakable import LANGUAGES

DEFAULT = "small"  # the smallest of Whisper's models that follows everyday Turkish


class Heard(NamedTuple):
    """language: `tr` or `en`."""

    text: str
    language: str


class Ears(Protocol):
    """What hears. audio: a file, or (N,) float32 samples at 16 kHz. language: `tr`, `en`, or empty to find out."""

    def hear(self, audio: Path | Any, language: str) -> Heard: ...


class Whisper:
    """model: a name that faster-whisper knows, fetched on first use, or a folder in CTranslate2's layout."""

    def __init__(self, model: str):
        """Raises UserError when the library is missing or the model cannot be had."""
        if importlib.util.find_spec("faster_whisper") is None:
            raise UserError("speech recognition is not installed; run: pip install -e '.[voice]'")
        import faster_whisper

        self._library = faster_whisper
        try:
            self._model = faster_whisper.WhisperModel(model, device="auto", compute_type="int8")
        except Exception as error:  # of the hub's, the file system's and CTranslate2's making
            raise UserError(
                f"the recognition model {model} cannot be loaded ({_first_line(error)}); it is fetched on first use, so that takes a connection; "
                "else name a folder that has it: --whisper FOLDER"
            ) from error

    def hear(self, audio: Path | Any, language: str) -> Heard:
        """Raises UserError for a file that is no sound."""
        samples = self._decoded(audio) if isinstance(audio, Path) else audio
        if not len(samples):
            return Heard("", language or "tr")
        if not language:
            _, _, found = self._model.detect_language(samples)
            language = max((share, name) for name, share in found if name in LANGUAGES)[1]
        segments, _ = self._model.transcribe(samples, language=language, vad_filter=True, condition_on_previous_text=False)
        return Heard(" ".join(segment.text.strip() for segment in segments).strip(), language)

    def _decoded(self, path: Path) -> Any:
        try:
            return self._library.decode_audio(str(path))
        except Exception as error:  # FFmpeg's errors, one class each
            raise UserError(f"{path} cannot be read as sound ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
