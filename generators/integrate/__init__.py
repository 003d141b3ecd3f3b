"""The client's configuration file set to the deployed model: shown as a diff, done on a yes, undone on request, and tried with one query.

What is set stands in the client's profile (`configuration:` of specs/clients/*.yaml). All else in the file stays byte for byte.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from generators.errors import UserError, chosen, one_of
from generators.integrate import backups, env_file
from generators.integrate.smoke import Query, ask_server, run_binary
from generators.templates import render_text

__all__ = ["Query", "Target", "asked_on_terminal", "client_to_configure", "integrate", "smoke_test", "target", "undo"]

Client = dict[str, Any]
Report = Callable[[str], None]
Agree = Callable[[str], bool]
_YES = ("y", "yes", "e", "evet")


@dataclass(frozen=True)
class Target:
    """file: to be edited. values: what is to be set in it. backups: folder of what was there before. on: the command that goes on without a
    question."""

    file: Path
    values: Mapping[str, str]
    backups: Path
    on: str


def client_to_configure(clients: Mapping[str, Client], wanted: str) -> str:
    """The client that is named, or the only one that has a configuration file. Raises UserError where that is not one."""
    configured = [name for name, client in clients.items() if "configuration" in client]
    if wanted:
        if chosen(list(clients), wanted, "client") not in configured:
            raise UserError(f"specs/clients/{wanted}.yaml names no configuration file; give it `configuration:` with a file and keys")
        return wanted
    if not configured:
        raise UserError("no client of specs/clients/ names a configuration file; give one `configuration:` with a file and keys")
    if len(configured) > 1:
        raise UserError(f"several clients have a configuration file; name one with --client: {one_of(configured)}")
    return configured[0]


def target(client: Client, file: str, root: Path, model: str, max_iterations: int, backups: Path, on: str) -> Target:
    """file: as it was asked for, the file itself or the folder that it is in; empty for the profile's path. root: of the project.

    Raises UserError for a folder that does not exist: a mistyped path is no wish for a new file.
    """
    configuration = client["configuration"]
    path = root / (Path(file).expanduser() if file else Path(configuration["file"]).expanduser())
    name = Path(configuration["file"]).name
    if file and path.is_dir():
        path /= name
    elif not path.parent.is_dir() or (file and not path.exists() and "." not in path.name):
        raise UserError(f"{path} does not exist; name with --file the folder that the client's {name} is in, or that file")
    values = {key: render_text(text, model=model, max_iterations=max_iterations) for key, text in configuration["keys"].items()}
    return Target(path, values, backups, on)


def integrate(client: str, aim: Target, agree: Agree | None, report: Report) -> None:
    """Set the values of `aim` in its file. client: its name. agree: asks a person; None where there is none to ask and none has said yes.

    Raises UserError for a file that cannot be edited or was changed meanwhile, and when nobody says yes; then nothing was written.
    """
    before = env_file.read(aim.file)
    now = env_file.parsed(before, aim.file) if before is not None else []
    wanted = env_file.with_values(now if before is not None else _heading(client), aim.values)
    for doubt in env_file.doubts(now):
        report(f"{aim.file}: {doubt}")
    data = env_file.joined(wanted)
    if data == before:
        report(f"{aim.file}: all {len(aim.values)} settings of {client} are as they should be; nothing to write")
        return
    report(f"{aim.file}: {'what changes' if before is not None else 'a new file'}; other keys' values, and comments, are not shown")
    _show(env_file.masked_diff(now, wanted, aim.values, aim.file.name), report)
    _agreed(agree, f"write {aim.file}?", aim.on)
    _unchanged(aim.file, before)
    backup = backups.keep(aim.backups, aim.file, before, data, aim.values)
    try:
        env_file.write(aim.file, data)
    except BaseException:
        backups.forget(backup)
        raise
    kept = f"; as it was before: {backup.path.with_suffix('.env')}" if before is not None else ""
    report(f"{aim.file}: written{kept}; --undo brings it back")


def _heading(client: str) -> list[env_file.Entry]:
    return [env_file.Entry(f"# {client}, as specs/clients/{client}.yaml sets it\n", None, None, 1)]


def undo(aim: Target, agree: Agree | None, report: Report) -> None:
    """Bring back what the last integration changed in the file of `aim`. What was edited in it since stays.

    Raises UserError as `integrate` does, and where there is nothing to undo.
    """
    backup = backups.last(aim.backups, aim.file)
    if backup is None:
        raise UserError(f"there is nothing to undo: {aim.file} was not integrated from here")
    data = env_file.read(aim.file)
    if data is None:
        before = f"; as it was before: {backup.path.with_suffix('.env')}" if backup.before is not None else ", as it was before"
        raise UserError(f"{aim.file} is gone{before}")
    earlier = env_file.parsed(backup.before or b"", aim.file)
    now, values = env_file.parsed(data, aim.file), backup.record["values"]
    untouched = backups.digest(data) == backup.record["after"]
    restored = earlier if untouched else env_file.without_values(now, earlier, values)
    removed = untouched and backup.record["made"]
    report(f"{aim.file}: {'was made by the integration, so it goes' if removed else 'back to what it was'}")
    if not untouched:
        report("it was edited since: only what the integration has set, and nobody has changed, goes back")
    _show(env_file.masked_diff(now, restored, values, aim.file.name), report)
    _agreed(agree, f"{'delete' if removed else 'write'} {aim.file}?", aim.on)
    _unchanged(aim.file, data)
    if removed:
        aim.file.unlink()
    else:
        env_file.write(aim.file, env_file.joined(restored))
    backups.forget(backup)
    report(f"{aim.file}: {'deleted' if removed else 'as before'}")


def asked_on_terminal(question: str) -> bool:
    """Whether a person says yes; Ctrl-D and an empty line are no."""
    from contextlib import redirect_stdout

    try:
        with redirect_stdout(sys.__stdout__):  # where `input` shows its prompt and edits the line
            return input(f"   {question} [y/N] ").strip().lower() in _YES
    except EOFError:
        return False


def smoke_test(client: Client, name: str, aim: Target, query: Query, url: str, report: Report) -> None:
    """Ask one query as the client does, over HTTP and by its own program, and tell what came back. Where no server answers that is said.

    Raises UserError when the answer is none that the client can use.
    """
    if not ask_server(client, name, query, url, report):
        return
    entries = env_file.parsed(env_file.read(aim.file) or b"", aim.file)
    hide = partial(env_file.without_secrets, entries=entries, ours=aim.values)
    run_binary(client, name, query, aim.file, env_file.settings(entries), hide, report)


def _show(lines: Sequence[str], report: Report) -> None:
    for line in lines:
        report(f"  {line}".rstrip())


def _agreed(agree: Agree | None, question: str, on: str) -> None:
    if agree is None:
        raise UserError(f"nothing was written: there is nobody to ask, standard input is no terminal; to go on: {on}")
    if not agree(question):
        raise UserError(f"nothing was written; to go on: {on}")


def _unchanged(file: Path, before: bytes | None) -> None:
    """A person may take minutes to say yes."""
    if env_file.read(file) != before:
        raise UserError(f"{file} was changed meanwhile; nothing was written, run it again")
