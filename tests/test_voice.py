"""`doit voice`: what is heard is answered by the real llama.cpp and spoken sentence by sentence; what is missing is told in one line.

Recognition and voices are stand-ins, as their names say, since neither comes with the tests: what they hear and say is set or noted.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
import wave
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from finished_project import ROOT, write_model
from ruamel.yaml import YAML

from generators import voice
from generators.answering import Deployed, Llama, TooLong, opened
from generators.errors import UserError
from generators.paths import Paths
from generators.specs.project import Project
from generators.stages import talking
from generators.voice import Mouthpiece
from generators.voice.audio import RECOGNITION_RATE, Device, Sound, read_wav, write_wav
from generators.voice.ears import Heard, Whisper
from generators.voice.mouth import Espeak, MacSay, Piper, mouth
from generators.voice.speakable import Sentence

CHATML: dict[str, Any] = YAML(typ="safe").load(ROOT / "specs" / "chat_formats" / "chatml.yaml")
MODELFILE = """FROM x
SYSTEM Sen JESSY'sin.
PARAMETER temperature 0
PARAMETER num_ctx 256
PARAMETER num_thread 1
PARAMETER num_predict 60
PARAMETER stop <|im_end|>
"""
ANSWER = "Selam kanka! Bu %20 güzel."


class StandInEars:
    """Hears what it is told to, and knows nothing of sound."""

    def __init__(self, *texts: str, language: str = "tr"):
        self.texts, self.language, self.asked = list(texts), language, list[Any]()

    def hear(self, audio: Any, language: str) -> Heard:
        self.asked.append((audio, language))
        return Heard(self.texts.pop(0), language or self.language)


class StandInMouth:
    """Says nothing: a tenth of a second of silence a letter, and notes what it was to say."""

    name = "a stand-in for a voice"

    def __init__(self, fails: str = ""):
        self.said, self.fails = list[Sentence](), fails

    def say(self, sentence: Sentence) -> Sound:
        if self.fails:
            raise UserError(self.fails)
        self.said.append(sentence)
        return Sound(np.zeros(len(sentence.text) * 100, np.int16), 1000)


class StandInDevice:
    """A microphone and a loudspeaker of nobody's."""

    def __init__(self) -> None:
        self.played: list[Sound] = []

    def play(self, sound: Sound) -> None:
        self.played.append(sound)

    def record(self, until: Any) -> Any:
        until()
        return np.zeros(RECOGNITION_RATE, np.float32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    model = write_model(tmp_path_factory.mktemp("model") / "tiny", ANSWER)
    with opened(model / "tiny.gguf", model, CHATML, [Deployed("tiny", "jessy", MODELFILE)]) as running:
        yield running


class Talk:
    def __init__(self, llama: Llama, mouth: StandInMouth | None = None):
        self.said: list[str] = []
        self.mouth = mouth or StandInMouth()
        self.conversation = voice.Conversation(llama, Deployed("tiny", "jessy", MODELFILE), self.mouth, self.said.append)

    @property
    def spoken(self) -> list[str]:
        return [sentence.text for sentence in self.mouth.said]


@pytest.fixture
def talk(llama: Llama) -> Talk:
    return Talk(llama)


# --- from a question to an answer -------------------------------------------------------------------------------------------------


def test_a_question_in_a_file_is_answered_into_a_file(talk: Talk, tmp_path: Path) -> None:
    ears, out = StandInEars("bi şey sorcam"), tmp_path / "answer.wav"
    voice.answer_file(talk.conversation, ears, tmp_path / "question.wav", "", out, None, talk.said.append)
    assert talk.spoken == ["Selam kanka!", "Bu yüzde yirmi güzel."]
    assert {sentence.language for sentence in talk.mouth.said} == {"tr"} and ears.asked == [(tmp_path / "question.wav", "")]
    letters = sum(map(len, talk.spoken))
    assert len(read_wav(out).samples) == letters * 100 + 250  # with a breath between the two
    assert talk.said[0].startswith("heard (tr): 'bi şey sorcam' (") and talk.said[1].startswith(f"answered: {ANSWER!r} (")
    assert "first sentence after" in talk.said[1] and talk.said[2].endswith(" s of speech")


def test_without_a_file_it_goes_to_the_loudspeaker(talk: Talk, tmp_path: Path) -> None:
    device = StandInDevice()
    voice.answer_file(talk.conversation, StandInEars("selam"), tmp_path / "question.wav", "tr", None, device, talk.said.append)
    assert len(device.played) == 2


def test_speaking_begins_while_the_answer_is_still_written(talk: Talk, llama: Llama) -> None:
    """The first sentence is said before the last piece is there: it is the pieces that wait here."""
    first_was_said, seen = threading.Event(), list[bool]()
    pieces = llama.pieces

    async def slow(ids: list[int], options: Any, answer: Any) -> Any:
        async for piece in pieces(ids, options, answer):
            if "güzel" in answer.text and not seen:
                seen.append(first_was_said.wait(timeout=10))
            yield piece

    talk.conversation._llama = SimpleNamespace(
        tokenizer=llama.tokenizer, context=llama.context, answer=llama.answer, pieces=slow
    )  # type: ignore[assignment]
    talk.conversation.answer(Heard("selam", "tr"), lambda sound: first_was_said.set())
    assert seen == [True]


def test_what_was_said_before_is_part_of_the_conversation(talk: Talk) -> None:
    talk.conversation.answer(Heard("selam", "tr"), lambda sound: None)
    talk.conversation.answer(Heard("peki", "tr"), lambda sound: None)
    assert [turn["content"] for turn in talk.conversation._turns] == ["selam", ANSWER, "peki", ANSWER]


def test_a_file_without_words_is_told(talk: Talk, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no words were heard in .*silence\.wav$"):
        voice.answer_file(talk.conversation, StandInEars(""), tmp_path / "silence.wav", "", tmp_path / "out.wav", None, talk.said.append)
    assert not (tmp_path / "out.wav").exists()


def test_a_question_that_is_too_long_leaves_the_conversation_as_it_was(talk: Talk) -> None:
    with pytest.raises(TooLong):
        talk.conversation.answer(Heard("uzun " * 400, "tr"), lambda sound: None)
    assert talk.conversation._turns == []


def test_a_voice_that_fails_ends_it_with_its_words(llama: Llama) -> None:
    talk = Talk(llama, StandInMouth(fails="espeak-ng could not say it"))
    with pytest.raises(UserError, match="espeak-ng could not say it"):
        talk.conversation.answer(Heard("selam", "tr"), lambda sound: None)


def test_what_fails_in_between_is_not_spoken_to_the_end() -> None:
    said, goes_on = list[str](), threading.Event()

    class SlowStandInMouth(StandInMouth):
        def say(self, sentence: Sentence) -> Sound:
            said.append(sentence.text)
            goes_on.wait(timeout=10)
            return super().say(sentence)

    with pytest.raises(KeyboardInterrupt), Mouthpiece(SlowStandInMouth(), lambda sound: None) as mouthpiece:
        for number in range(5):
            mouthpiece.say(Sentence(str(number), "tr"))
        goes_on.set() if said else threading.Timer(0.05, goes_on.set).start()
        raise KeyboardInterrupt
    assert len(said) <= 2


def test_with_the_microphone_question_follows_question(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["", "", "", "", "", ""])  # three questions: Enter begins one, Enter ends it

    def enter(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", enter)
    device, ears = StandInDevice(), StandInEars("selam", "", "peki")
    voice.converse(talk.conversation, ears, device, "tr", talk.said.append)
    assert len(device.played) == 4 and "no words were heard" in talk.said and len(ears.asked) == 3
    assert ears.asked[0][0].dtype == np.float32 and ears.asked[0][1] == "tr"


# --- what is missing --------------------------------------------------------------------------------------------------------------


def no_module(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in names else find(name, *more))
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_module(monkeypatch, "faster_whisper", "piper", "sounddevice")
    for make, what in (
        (lambda: Whisper("small"), "speech recognition is not installed"),
        (lambda: Piper([tmp_path / "x.onnx"]), "Piper is not installed"),
        (lambda: Device(["input"]), "take sounddevice"),
    ):
        with pytest.raises(UserError) as caught:
            make()
        assert what in str(caught.value) and "pip install -e '.[voice]'" in str(caught.value) and "\n" not in str(caught.value)


def stand_in_sounddevice(fails: bool) -> Any:
    """A stand-in for the library: it knows devices, or none."""

    class PortAudioError(Exception):
        pass

    def query_devices(kind: str) -> dict[str, str]:
        if fails:
            raise PortAudioError("Error querying device -1")
        return {"name": kind}

    return SimpleNamespace(PortAudioError=PortAudioError, query_devices=query_devices)


@pytest.mark.parametrize(("kind", "name"), [("input", "microphone"), ("output", "loudspeaker")])
def test_a_machine_without_a_device_is_told_what_goes_without(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", stand_in_sounddevice(fails=True))
    with pytest.raises(UserError, match=f"no {name} that can be used; connect one, or use files: doit voice --audio question.wav --out"):
        Device([kind])
    monkeypatch.setitem(sys.modules, "sounddevice", stand_in_sounddevice(fails=False))
    Device([kind])


def test_a_machine_without_any_voice_is_told_where_one_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UserError, match="piper.download_voices tr_TR-dfki-medium.*espeak-ng"):
        mouth([])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"language": "de"}, "no language 'de'; there are tr, en"),
        ({"out": "a.wav"}, "a question comes from a file, --audio question.wav, or from the microphone"),
        ({"audio": "no.wav", "out": "a.wav"}, "no.wav does not exist; name a sound file with --audio"),
        ({"audio": "there.wav", "out": "no/a.wav"}, "there is no folder"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_loaded(arguments: dict[str, str], why: str, tmp_path: Path) -> None:
    (tmp_path / "there.wav").touch()
    wanted = {"audio": "", "out": "", "language": "", "whisper": "small", **arguments}
    with pytest.raises(UserError) as caught:
        talking.voice(Project(), Paths(tmp_path), "tiny", **wanted, voices=[])
    assert why in str(caught.value) and "\n" not in str(caught.value)


# --- sound ------------------------------------------------------------------------------------------------------------------------


def test_sounds_of_other_rates_share_a_file(tmp_path: Path) -> None:
    wave_of = np.arange(1000, dtype=np.int16)
    seconds = write_wav(tmp_path / "a.wav", [Sound(wave_of, 1000), Sound(np.arange(2000, dtype=np.int16), 2000)])
    found = read_wav(tmp_path / "a.wav")
    assert (found.rate, len(found.samples)) == (1000, 2250) and seconds == pytest.approx(2.25)
    assert (found.samples[:1000] == wave_of).all() and not found.samples[1000:1250].any() and found.samples[-1] == 1999


def test_two_channels_become_one(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.array([[10, 30], [0, 2]], "<i2").tobytes())
    assert read_wav(tmp_path / "a.wav").samples.tolist() == [20, 1]


SPEAKER = """#!{python}
# A stand-in for a speech program: it writes one sample for each letter that it is given, and what it was called with.
import sys, wave
arguments = sys.argv[1:]
if arguments == ["-v", "?"]:
    print("Albert              en_US    # Hello!\\nYelda (Enhanced)    tr_TR    # Merhaba\\nFilip               tr_TR    # Selam")
    sys.exit()
text = sys.stdin.read()
if "dur" in text:
    sys.exit("no such voice\\nand more")
open({log!r}, "a").write(" ".join(word for word in arguments if ".wav" not in word) + "|" + text + "\\n")
target = next(word for word in arguments if word.endswith(".wav"))
with wave.open(target, "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(22050); file.writeframes(b"\\1\\0" * len(text))
"""


def stand_in_program(folder: Path, name: str) -> Path:
    program = folder / name
    program.write_text(SPEAKER.format(python=sys.executable, log=str(folder / "log.txt")))
    program.chmod(0o755)
    return program


def test_espeak_is_given_language_and_text(tmp_path: Path) -> None:
    speaks = Espeak(str(stand_in_program(tmp_path, "espeak-ng")))
    assert speaks.say(Sentence("-w çay", "tr")) == Sound(pytest.approx(np.ones(6)), 22050)
    speaks.say(Sentence("Tea", "en"))
    assert (tmp_path / "log.txt").read_text().splitlines() == ["-v tr --stdin -w|-w çay", "-v en-gb --stdin -w|Tea"]
    with pytest.raises(UserError, match="espeak-ng could not say 'dur': no such voice$"):
        speaks.say(Sentence("dur", "tr"))


def test_the_mac_speaks_with_its_first_voice_of_the_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_program(tmp_path, "say")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    speaks = mouth([])
    assert isinstance(speaks, MacSay) and speaks.name == "macOS say (Yelda (Enhanced), Albert)"
    assert speaks.say(Sentence("çay", "tr")).rate == 22050
    assert (tmp_path / "log.txt").read_text() == "-v Yelda (Enhanced) --file-format=WAVE --data-format=LEI16@22050 -o -f -|çay\n"


def test_a_piper_voice_is_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piper", SimpleNamespace(PiperVoice=None))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    (tmp_path / "tr.onnx").touch()
    for path, missing in ((tmp_path / "no.onnx", "no.onnx"), (tmp_path / "tr.onnx", "tr.onnx.json")):
        with pytest.raises(UserError, match=f"{missing} does not exist; a Piper voice is NAME.onnx with NAME.onnx.json beside it"):
            Piper([path])


# --- with the extra, where it is installed ----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_the_real_espeak_speaks_turkish() -> None:
    sound = Espeak(str(shutil.which("espeak-ng"))).say(Sentence("Sor kanka, dinliyorum.", "tr"))
    assert 0.8 < sound.seconds < 4 and np.abs(sound.samples).max() > 1000
