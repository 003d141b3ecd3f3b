"""Sound in and out: WAV files, the microphone, the loudspeaker. Samples are int16, one channel."""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import atomic_path

RECOGNITION_RATE = 16_000  # samples a second that speech recognition takes
_BETWEEN_SENTENCES_S = 0.25
_INSTALL = "pip install -e '.[voice]'"
_FILES_INSTEAD = "or use files: doit voice --audio question.wav --out answer.wav"


@dataclass(frozen=True)
class Sound:
    """samples: (N,) int16. rate: samples a second."""

    samples: Any
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def read_wav(path: Path) -> Sound:
    """Of 16-bit PCM; several channels are averaged. Raises wave.Error or EOFError for anything else."""
    import numpy as np

    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise wave.Error(f"{8 * file.getsampwidth()} bits a sample, 16 are expected")
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.int16)
        if file.getnchannels() > 1:
            samples = samples.reshape(-1, file.getnchannels()).mean(axis=1).astype(np.int16)
        return Sound(samples, file.getframerate())


def write_wav(path: Path, sounds: Sequence[Sound]) -> float:
    """One after the other with a breath in between, at the rate of the first. Returns the seconds. Raises UserError where it cannot be written."""
    import numpy as np

    rate = sounds[0].rate
    breath = np.zeros(int(rate * _BETWEEN_SENTENCES_S), np.int16)
    parts = [part for sound in sounds for part in (_resampled(sound, rate), breath)][:-1]
    samples = np.concatenate(parts)
    try:
        with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(samples.astype("<i2").tobytes())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return len(samples) / rate


def _resampled(sound: Sound, rate: int) -> Any:
    """Linear; voices of 16 and 22 kHz may share a file."""
    import numpy as np

    if sound.rate == rate or not len(sound.samples):
        return sound.samples
    places = np.linspace(0, len(sound.samples) - 1, round(len(sound.samples) * rate / sound.rate))
    return np.interp(places, np.arange(len(sound.samples)), sound.samples).astype(np.int16)


class Device:
    """The system's own microphone and loudspeaker. Raises UserError, with the remedy, where there is no way to one that is needed."""

    def __init__(self, needs: Sequence[str]):
        """needs: of `input` and `output`."""
        try:
            import sounddevice
        except ImportError as error:
            raise UserError(f"the microphone and the loudspeaker take sounddevice; run: {_INSTALL}, {_FILES_INSTEAD}") from error
        except OSError as error:  # the library below it
            raise UserError(f"there is no PortAudio here ({error}); on Debian: apt install libportaudio2, {_FILES_INSTEAD}") from error
        self._sounddevice = sounddevice
        for kind in needs:
            try:
                sounddevice.query_devices(kind=kind)
            except (sounddevice.PortAudioError, ValueError) as error:
                what = {"input": "microphone", "output": "loudspeaker"}[kind]
                raise UserError(f"this machine has no {what} that can be used; connect one, {_FILES_INSTEAD}") from error

    def play(self, sound: Sound) -> None:
        """Until it has ended."""
        try:
            self._sounddevice.play(sound.samples, sound.rate)
            self._sounddevice.wait()
        except self._sounddevice.PortAudioError as error:
            raise UserError(f"the loudspeaker failed: {error}") from error

    def record(self, until: Callable[[], object]) -> Any:
        """What is said until `until` returns. Returns (N,) float32 at RECOGNITION_RATE."""
        import numpy as np

        heard: list[Any] = []
        try:
            with self._sounddevice.InputStream(
                samplerate=RECOGNITION_RATE, channels=1, dtype="int16", callback=lambda block, *_: heard.append(block[:, 0].copy())
            ):
                until()
        except self._sounddevice.PortAudioError as error:
            raise UserError(f"the microphone failed: {error}") from error
        return (np.concatenate(heard) if heard else np.zeros(0, np.int16)).astype(np.float32) / 32768
