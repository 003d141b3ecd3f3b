"""`doit integrate`: what is written into a client's `.env`, what is left alone, what is never shown, and the query that is asked afterwards."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from finished_project import ROOT, doit, make, start
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from generators import integrate as integrating
from generators.errors import UserError
from generators.integrate import Query, Target, env_file

CLIENT: dict[str, Any] = {
    "separator": "\n", "timeout_s": 20, "endpoint": "generate", **YAML(typ="safe").load(ROOT / "specs" / "clients" / "jessy-cli.yaml"),
}
VALUES = {"LLM_PROVIDER": "ollama", "LLM_MODEL": "jessy-v2", "MAX_ITERATIONS": "9", "LLM_TIMEOUT_SECS": "60"}
SECRET = "sk-live-0123456789abcdef"
ENV = f"""\
# old key: {SECRET}-retired
OPENAI_API_KEY={SECRET}

export LLM_PROVIDER="openai"   # was: {SECRET}
LLM_MODEL = gpt-4
MEMORY_LIMIT_MB=512
"""
QUERY = Query("sana bisi sorucam", "jessy-v2", "doit deploy:jessy-v2")
REPLY = "CONFIDENCE: 0.97\nLAYERS: C04,C01\nCONTENT:\nSor kanka, dinliyorum."


def edited(text: str | bytes, values: dict[str, str] = VALUES) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return env_file.joined(env_file.with_values(env_file.parsed(data, Path(".env")), values))


class Session:
    """One person's `.env` and what is said about it."""

    def __init__(self, folder: Path, text: str | None = ENV):
        self.file, self.said = folder / ".env", list[str]()
        self.aim = Target(self.file, VALUES, folder / "backups", "doit integrate --yes")
        if text is not None:
            self.file.write_bytes(text.encode())

    @property
    def told(self) -> str:
        return "\n".join(self.said)

    def integrate(self, agrees: bool | None = True) -> None:
        integrating.integrate("jessy-cli", self.aim, None if agrees is None else lambda question: bool(agrees), self.said.append)

    def undo(self) -> None:
        integrating.undo(self.aim, lambda question: True, self.said.append)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


# --- what is written --------------------------------------------------------------------------------------------------------------


def test_our_keys_get_their_values_and_all_else_stays() -> None:
    assert edited(ENV).decode() == f"""\
# old key: {SECRET}-retired
OPENAI_API_KEY={SECRET}

export LLM_PROVIDER=ollama   # was: {SECRET}
LLM_MODEL=jessy-v2
MEMORY_LIMIT_MB=512
MAX_ITERATIONS=9
LLM_TIMEOUT_SECS=60
"""


@pytest.mark.parametrize(
    ("before", "after"),
    {
        "quotes go": ("K='old value'\n", "K=v\n"),
        "blanks around the sign go": ("K = old\n", "K=v\n"),
        "a comment behind it stays": ("K=old # why\n", "K=v # why\n"),
        "a comment behind nothing stays": ("K= # why\n", "K=v # why\n"),
        "a hash in the value is no comment": ("K=a#b\n", "K=v\n"),
        "indentation and export stay": ("  export K=old\n", "  export K=v\n"),
        "a name without a value gets one": ("K\n", "K=v\n"),
        "the same key twice is set twice": ("K=1\nA=2\nK=3\n", "K=v\nA=2\nK=v\n"),
        "a key in a comment is not it": ("#K=old\n", "#K=old\nK=v\n"),
        "a longer name is another key": ("MY_K=1\nK2=2\n", "MY_K=1\nK2=2\nK=v\n"),
        "Windows line ends stay": ("A=1\r\nK=old\r\nB=2\r\n", "A=1\r\nK=v\r\nB=2\r\n"),
        "a new line ends as the others": ("A=1\r\n", "A=1\r\nK=v\r\n"),
        "a last line without an end gets one": ("A=1", "A=1\nK=v\n"),
        "a last line of ours stays without one": ("A=1\nK=old", "A=1\nK=v"),
        "an empty file": ("", "K=v\n"),
        "a value over several lines stays": ('A="one\n two"\nK=old\n', 'A="one\n two"\nK=v\n'),
        "blank lines stay": ("\n\n\nK=old\n\n\n", "\n\n\nK=v\n\n\n"),
    }.values(),
)
def test_an_edit(before: str, after: str) -> None:
    assert edited(before, {"K": "v"}).decode() == after
    assert edited(after, {"K": "v"}).decode() == after


def test_bytes_that_are_no_utf8_stay() -> None:
    assert edited(b"NAME=\xff\xfe caf\xe9\nK=1\n", {"K": "v"}) == b"NAME=\xff\xfe caf\xe9\nK=v\n"


LINES = st.sampled_from(
    [
        "", "   ", "# a comment = 1", "KEY=value", "export KEY2='a b'", 'Q="two\nlines"', "ÜNLÜ=çay",
        "LLM_MODEL=old", " LLM_MODEL = 'x' # c", "LLM_MODEL= # c", "MAX_ITERATIONS",
    ]
)


@given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_the_file_other_lines_keep_their_bytes_and_a_second_time_changes_nothing(lines: list[str], ends: str, closed: bool) -> None:
    data = (ends.join(lines) + (ends if closed else "")).encode()
    before, once = env_file.parsed(data, Path(".env")), edited(data)
    after = env_file.parsed(once, Path(".env"))
    others = [entry.text.rstrip("\r\n") for entry in before if entry.key not in VALUES and entry.text.strip()]
    assert [entry.text.rstrip("\r\n") for entry in after if entry.key not in VALUES and entry.text.strip()] == others
    assert edited(once) == once and {key: env_file.settings(after)[key] for key in VALUES} == VALUES


def test_the_clients_start_script_reads_what_was_written(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(edited("# keys\nOPENAI_API_KEY=sk-1\nLLM_MODEL='gpt 4'\n"))
    script = "export $(grep -v '^#' .env | xargs); env"
    loaded = subprocess.run(["bash", "-c", script], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert loaded.stderr == "" and {"OPENAI_API_KEY=sk-1", *(f"{key}={value}" for key, value in VALUES.items())} <= set(loaded.stdout.split("\n"))


def test_what_start_scripts_stumble_over_is_told_with_its_line_and_without_its_value(tmp_path: Path) -> None:
    session = Session(tmp_path, "A=1\nPASSWORD=it's-secret\n")
    session.integrate()
    assert "line 2: a quotation mark is not closed on its line" in session.told and "secret" not in session.told


# --- a session: diff, yes, backup, undo -------------------------------------------------------------------------------------------


def test_nothing_is_written_without_a_yes(session: Session) -> None:
    for agrees, why in ((False, "nothing was written; to go on"), (None, "nothing was written: there is nobody to ask")):
        with pytest.raises(UserError, match=why) as caught:
            session.integrate(agrees)
        assert "doit integrate --yes" in str(caught.value)
    assert session.file.read_text() == ENV and not session.aim.backups.exists()
    assert "+LLM_MODEL=jessy-v2" in session.told  # the diff came first


@pytest.mark.parametrize(("typed", "agrees"), [("y", True), ("Evet ", True), ("", False), ("n", False), (None, False)])
def test_a_person_is_asked_and_only_a_yes_is_one(typed: str | None, agrees: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(prompt: str) -> str:
        assert prompt == "   write .env? [y/N] "
        if typed is None:
            raise EOFError
        return typed

    monkeypatch.setattr("builtins.input", answer)
    assert integrating.asked_on_terminal("write .env?") is agrees


def test_a_second_time_there_is_nothing_to_do_nor_to_ask(session: Session) -> None:
    session.integrate()
    once = session.file.stat().st_mtime_ns
    session.integrate(None)
    assert session.file.stat().st_mtime_ns == once and len(list(session.aim.backups.glob("*.json"))) == 1
    assert "nothing to write" in session.said[-1]


def test_undo_brings_back_every_byte_and_leaves_no_copy_of_the_keys(session: Session) -> None:
    session.integrate()
    assert session.file.read_text() != ENV
    session.undo()
    assert session.file.read_text() == ENV and list(session.aim.backups.iterdir()) == []
    with pytest.raises(UserError, match="nothing to undo"):
        session.undo()


def test_undo_keeps_what_was_edited_since(session: Session) -> None:
    session.integrate()
    now = session.file.read_text().replace("MEMORY_LIMIT_MB=512", "MEMORY_LIMIT_MB=1024").replace("MAX_ITERATIONS=9", "MAX_ITERATIONS=4")
    session.file.write_text(now + "ANTHROPIC_API_KEY=new\n")
    session.undo()
    assert session.file.read_text() == ENV.replace("512", "1024") + "MAX_ITERATIONS=4\nANTHROPIC_API_KEY=new\n"


def test_undo_of_a_file_that_is_gone_names_its_copy(session: Session) -> None:
    session.integrate()
    session.file.unlink()
    with pytest.raises(UserError, match=r"\.env is gone; as it was before: .*0001\.env$"):
        session.undo()


def test_two_integrations_are_undone_one_after_the_other(session: Session) -> None:
    session.integrate()
    first = session.file.read_text()
    session.aim = Target(session.file, {**VALUES, "LLM_MODEL": "other"}, session.aim.backups, "")
    session.integrate()
    session.undo()
    assert session.file.read_text() == first
    session.undo()
    assert session.file.read_text() == ENV


def test_a_missing_file_is_made_for_its_owner_alone_and_undone_by_deleting_it(tmp_path: Path) -> None:
    session = Session(tmp_path, None)
    session.integrate()
    assert session.file.read_text().splitlines()[1:] == [f"{key}={value}" for key, value in VALUES.items()]
    assert stat.S_IMODE(session.file.stat().st_mode) == 0o600
    session.undo()
    assert not session.file.exists()


def test_mode_and_link_of_the_file_stay_and_the_backup_is_private(session: Session, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "env"
    real.parent.mkdir()
    session.file.rename(real)
    session.file.symlink_to(real)
    real.chmod(0o640)
    session.integrate()
    assert session.file.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640 and "jessy-v2" in real.read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (session.aim.backups, *session.aim.backups.glob("*.env"))] == [0o700, 0o600]
    assert sorted(path.name for path in real.parent.iterdir()) == ["env"]


def test_a_file_that_changes_while_a_person_thinks_is_left_alone(session: Session) -> None:
    def agree(question: str) -> bool:
        session.file.write_text("CHANGED=1\n")
        return True

    with pytest.raises(UserError, match="changed meanwhile"):
        integrating.integrate("jessy-cli", session.aim, agree, session.said.append)
    assert session.file.read_text() == "CHANGED=1\n" and not session.aim.backups.exists()


@pytest.mark.parametrize(
    ("text", "line"), [("A=1\nthis is no setting\n", 2), ("\n\nA=1\nB=\"open\n", 4), ("A=1\n=value\n", 2), ("\ufeffA=1\n", 1), ("A=1\0\n", 1)]
)
def test_a_malformed_file_is_told_with_the_line_and_nothing_of_what_it_says(text: str, line: int, tmp_path: Path) -> None:
    session = Session(tmp_path, text)
    with pytest.raises(UserError) as caught:
        session.integrate()
    assert f"{session.file}:{line}: " in str(caught.value) and "no setting" not in str(caught.value)
    assert session.file.read_bytes() == text.encode()


def test_a_read_only_file_is_left_alone(session: Session) -> None:
    session.file.chmod(0o444)
    with pytest.raises(UserError, match="is read-only; make it writable with: chmod u\\+w"):
        session.integrate()
    assert session.file.read_text() == ENV


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    session = Session(tmp_path, None)
    session.file.mkdir()
    with pytest.raises(UserError, match="is a folder; name the client's file with --file"):
        session.integrate()


def test_a_file_that_cannot_be_written_leaves_no_copy_of_the_keys(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", lambda source, to: refuse() if str(to) == str(session.file) else os.rename(source, to))
    with pytest.raises(UserError, match=r"\.env cannot be written: Permission denied$"):
        session.integrate()
    assert session.file.read_text() == ENV and list(session.aim.backups.iterdir()) == []
    assert sorted(path.name for path in session.file.parent.iterdir()) == [".env", "backups"]


# --- secrets ----------------------------------------------------------------------------------------------------------------------


def test_secrets_are_in_nothing_that_is_said(session: Session) -> None:
    session.integrate()
    session.undo()
    assert SECRET not in session.told and "512" not in session.told
    assert " OPENAI_API_KEY=…" in session.told and "-LLM_MODEL=gpt-4" in session.told


def test_a_bare_key_on_a_line_and_a_password_in_an_address_are_not_shown(tmp_path: Path) -> None:
    session = Session(tmp_path, f"{SECRET}\nLLM_MODEL=http://me:{SECRET}@host/m\nB={SECRET}\n")
    session.integrate()
    assert SECRET not in session.told and "-LLM_MODEL=http://…@host/m" in session.told


# --- which client, which file -----------------------------------------------------------------------------------------------------


def test_the_client_is_the_one_that_has_a_configuration_file() -> None:
    bare = {key: value for key, value in CLIENT.items() if key != "configuration"}
    assert integrating.client_to_configure({"a": bare, "jessy-cli": CLIENT}, "") == "jessy-cli"
    for clients, wanted, why in (
        ({"a": CLIENT, "b": CLIENT}, "", "several clients have a configuration file; name one with --client: a, b"),
        ({"a": bare}, "", "no client of specs/clients/ names a configuration file"),
        ({"a": bare}, "a", "specs/clients/a.yaml names no configuration file"),
        ({"jessy-cli": CLIENT}, "jesy", "did you mean 'jessy-cli'"),
    ):
        with pytest.raises(UserError, match=re.escape(why)):
            integrating.client_to_configure(clients, wanted)


def test_the_shipped_profile_gives_the_values_of_the_client(tmp_path: Path) -> None:
    aim = integrating.target(CLIENT, str(tmp_path), tmp_path, "jessy-v2", 12, tmp_path, "")
    assert aim.file == tmp_path / ".env"
    assert {key: aim.values[key] for key in ("LLM_PROVIDER", "LLM_MODEL", "MAX_ITERATIONS")} == {
        "LLM_PROVIDER": "ollama", "LLM_MODEL": "jessy-v2", "MAX_ITERATIONS": "9",
    }
    assert 1 <= int(aim.values["LLM_TIMEOUT_SECS"]) <= 300 and int(aim.values["QUERY_TIMEOUT_SECS"]) >= 5


@pytest.mark.parametrize("mistyped", ["jesy", "jesy/.env"])
def test_a_mistyped_path_is_no_wish_for_a_new_file(mistyped: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; name with --file the folder that the client's .env is in, or that file"):
        integrating.target(CLIENT, str(tmp_path / mistyped), tmp_path, "jessy-v2", 9, tmp_path, "")


# --- one query --------------------------------------------------------------------------------------------------------------------


@contextmanager
def stand_in_server(*replies: str | int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A stand-in for Ollama that answers /api/generate with set replies, or status codes. Yields its address and what it was asked."""
    asked: list[dict[str, Any]] = []
    waiting = list(replies)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            self.answer(200, {"version": "0.34.1"})

        def do_POST(self) -> None:
            asked.append({"path": self.path, **json.loads(self.rfile.read(int(self.headers["content-length"])))})
            reply = waiting.pop(0)
            found = {"response": reply} if isinstance(reply, str) else {"error": f"model '{asked[-1]['model']}' not found"}
            self.answer(200 if isinstance(reply, str) else reply, found)

        def answer(self, status: int, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_query_is_asked_in_the_clients_frame_and_time_and_parse_are_told() -> None:
    said: list[str] = []
    with stand_in_server(REPLY) as (url, asked):
        assert integrating.smoke.ask_server(CLIENT, "jessy-cli", QUERY, url, said.append)
    [body] = asked
    assert (body["path"], body["model"], body["stream"]) == ("/api/generate", "jessy-v2", False)
    assert body["system"] == CLIENT["systems"][0].strip() and '"sana bisi sorucam"' in body["prompt"] and "CONFIDENCE" in body["prompt"]
    assert re.fullmatch(r"  \d\.\d s: confidence 0\.97, layers C04,C01, 3 words", said[1])
    assert re.fullmatch(r"answer after 1 of 2 stages, \d\.\d s: 'Sor kanka, dinliyorum\.'", said[2])


def test_an_unsure_answer_goes_through_all_stages() -> None:
    said: list[str] = []
    with stand_in_server("Sor bakalım.", REPLY) as (url, asked):
        integrating.smoke.ask_server(CLIENT, "jessy-cli", QUERY, url, said.append)
    assert len(asked) == 2 and "Sor bakalım." in asked[1]["prompt"]
    assert "no line CONFIDENCE, LAYERS, CONTENT: the client takes its defaults" in said[1] and "answer after 2 of 2 stages" in said[3]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("LAYERS: emotion\nCONTENT:\nx", "jessy-cli would answer with an error: layer 'emotion'"),
        (404, "Ollama has no model jessy-v2; bring it there with: doit deploy:jessy-v2"),
        (500, "Ollama failed to answer: model 'jessy-v2' not found"),
        ("LAYERS: C01\nCONTENT:\n", "jessy-v2 said nothing"),
    ],
)
def test_an_answer_that_the_client_cannot_use_is_one_line(reply: str | int, why: str) -> None:
    with stand_in_server(reply, reply) as (url, _), pytest.raises(UserError) as caught:
        integrating.smoke.ask_server(CLIENT, "jessy-cli", QUERY, url, lambda line: None)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_server_it_is_said_that_nothing_was_tried() -> None:
    said: list[str] = []
    assert not integrating.smoke.ask_server(CLIENT, "jessy-cli", QUERY, "http://127.0.0.1:9", said.append)
    assert said == ["not tried: no Ollama answers at http://127.0.0.1:9 (OLLAMA_HOST); start it with `ollama serve`, then run this again"]


def stand_in_client(folder: Path, text: str) -> None:
    """A stand-in for the client's program, a shell script beside its `.env`."""
    (folder / "jessy-cli").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "jessy-cli").chmod(0o755)


def test_the_clients_program_is_run_with_what_stands_in_the_file(session: Session) -> None:
    stand_in_client(session.file.parent, 'echo "$1: $LLM_MODEL by $LLM_PROVIDER, key $OPENAI_API_KEY"; echo "Processing: 0.10s"')
    session.integrate()
    with stand_in_server(REPLY) as (url, _):
        integrating.smoke_test(CLIENT, "jessy-cli", session.aim, QUERY, url, session.said.append)
    assert re.search(r"jessy-cli: 0\.\d s: 'sana bisi sorucam: jessy-v2 by ollama, key … Processing: 0\.10s'$", session.said[-1])
    assert SECRET not in session.told


def test_a_program_that_fails_is_told_by_its_last_line(session: Session) -> None:
    stand_in_client(session.file.parent, 'echo "starting"; echo "no key $OPENAI_API_KEY" >&2; exit 3')
    with stand_in_server(REPLY) as (url, _), pytest.raises(UserError, match=r"ended with code 3 after \d\.\d s: no key …;") as caught:
        integrating.smoke_test(CLIENT, "jessy-cli", session.aim, QUERY, url, session.said.append)
    assert SECRET not in str(caught.value)


def test_a_program_that_is_not_found_is_said(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(session.file.parent / "nowhere"))
    with stand_in_server(REPLY) as (url, _):
        integrating.smoke_test(CLIENT, "jessy-cli", session.aim, QUERY, url, session.said.append)
    assert session.said[-1].startswith("not run: the program jessy-cli (binary: of specs/clients/jessy-cli.yaml)")


# --- through doit -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("integrate") / "project")


def test_the_whole_way_against_the_served_model_and_back(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First without a yes, at a standard input that is no terminal. The real llama.cpp behind `doit serve` answers as Ollama does."""
    (tmp_path / ".env").write_text(ENV)
    server = start(project, "serve", "--port", "0")
    try:
        assert server.stdout is not None
        url = next(line.split()[0] for line in server.stdout if "http://" in line)
        monkeypatch.setenv("OLLAMA_HOST", url)
        refused, shown = doit(project, "integrate", "--file", str(tmp_path))
        untouched = (tmp_path / ".env").read_text()
        code, said = doit(project, "integrate:tiny", "--file", str(tmp_path / ".env"), "--yes")
    finally:
        server.kill()
        server.communicate()
    assert refused == 1 and "+LLM_MODEL=tiny" in shown and untouched == ENV and SECRET not in shown + said, shown
    assert shown.splitlines()[-1].endswith(f"to go on: doit integrate:tiny --file {tmp_path} --yes")
    assert code == 0, said
    assert f"to tiny at {url}, asked as jessy-cli asks (POST /api/generate):" in said and "Sor kanka, bu çay güzel!" in said
    code, said = doit(project, "integrate", "--undo", "--file", str(tmp_path), "--yes")
    assert code == 0 and (tmp_path / ".env").read_text() == ENV, said


def test_a_plain_build_never_integrates(project: Path) -> None:
    import runpy

    from small_project import at

    from generators.tasks import stages_before

    with at(project):
        names = {stage.name.partition(":")[0] for stage in stages_before(runpy.run_path("dodo.py"), "report:tiny")}
    assert "report" in names and "integrate" not in names
