"""One training on several machines: the trainer started on each of them by `mlx.launch`, and what the first one tells passed on.

Every machine has this project in the same folder, with its environment and the base; ssh reaches it without a password. Everything else
(rows, settings, checkpoints) comes from the first one, which is this.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import read_json, write_json

_LOOK_EVERY_S = 0.5
_PATIENCE_S = 30.0  # for mlx.launch and the others to end when the first process has
_PORT = 32323  # mlx.launch's own; with ring every process takes the next one
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ENDED = re.compile(r"Node with rank (\d+) (exited with code -?\d+|was killed)")  # as mlx.launch says it
_STOPPED = ("was killed", "exited with code -15")  # by mlx.launch, as another one had ended
_TRANSPORT = "[ring]"  # its own lines repeat, ten times over, what the error at the end says


class LaunchFailed(UserError):
    """exit_code: as the first process would have ended with."""

    def __init__(self, message: str, exit_code: int = UserError.exit_code):
        super().__init__(message)
        self.exit_code = exit_code


def on_several(hosts: Sequence[str]) -> bool:
    """Whether a recipe's `training.hosts` means more than this machine alone."""
    return len(hosts) > 1 or is_hostfile(hosts)


def is_hostfile(hosts: Sequence[str]) -> bool:
    return len(hosts) == 1 and hosts[0].endswith(".json")


def run(
    request: dict[str, Any], hosts: Sequence[str], backend: str | None, folder: Path, watcher: Any, port: int = _PORT
) -> dict[str, Any]:
    """Train `request` (of generators.train) on `hosts`. folder: where request and list of machines are left. Returns the run's summary.

    hosts: names or addresses, this machine first; one twice for two processes; or the path of a file as mlx.distributed_config writes it.
    Raises UserError for machines that cannot be reached, and LaunchFailed with what the first process said when it ended early.
    """
    machines = _machines(hosts)
    names = [machine["ssh"] for machine in _listed(machines)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "hosts.json", _with_this_one_first(machines))
    write_json(folder / "request.json", request)
    how = f"the transport {backend}" if backend else "its own choice of transport"
    watcher.say(f"training in {len(names)} processes, on {', '.join(names)}, through mlx.launch with {how}; what is made is written here")
    relay = _Relay(watcher, names)
    with subprocess.Popen(
        _command(machines, folder, backend, port),
        stdin=subprocess.PIPE,  # mlx.launch hands it on, see _look_after
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is handed on to the first process only, which tells the others at the end of a step
    ) as process:
        with _handing_on_signals(process, relay):
            relay.read(process)
    return relay.summary()


def _command(machines: Any, folder: Path, backend: str | None, port: int) -> list[str]:
    each = _listed(machines)
    on_first = sum(machine["ssh"] == each[0]["ssh"] for machine in each)  # of which each gets a GPU of its own
    return [
        *_launcher(),
        *("--hostfile", str((folder / "hosts.json").resolve()), "-n", str(on_first)),
        *(("--backend", backend) if backend else ()),
        *("--starting-port", str(port), "--nccl-port", str(port), "--cwd", str(Path(__file__).parents[2])),
        *("--", sys.executable, "-m", "generators.train.member", str((folder / "request.json").resolve()), backend or "any"),
    ]


def _launcher() -> list[str]:
    beside = Path(sys.executable).parent / "mlx.launch"
    found = str(beside) if beside.is_file() else shutil.which("mlx.launch")
    if found is None:
        raise UserError("training.hosts needs mlx.launch, which comes with MLX; run: pip install -e '.[embedded]'")
    return [sys.executable, found] if beside.is_file() else [found]


def _listed(machines: Any) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = machines["hosts"] if isinstance(machines, dict) else machines
    return listed


def _machines(hosts: Sequence[str]) -> Any:
    """A hostfile of mlx.launch."""
    if is_hostfile(hosts):
        return _read_hostfile(Path(hosts[0]))
    machines = [{"ssh": host, "ips": [_address(host)]} for host in hosts]
    _require_reachable(hosts, [machine["ips"][0] for machine in machines])
    return machines


def _with_this_one_first(machines: Any) -> Any:
    """The first machine is this one, which needs no ssh: mlx.launch takes 127.0.0.1 for that."""
    here = _listed(machines)[0]["ssh"]
    each = [machine | {"ssh": "127.0.0.1"} if machine["ssh"] == here else machine for machine in _listed(machines)]
    return machines | {"hosts": each} if isinstance(machines, dict) else each


def _read_hostfile(path: Path) -> Any:
    try:
        machines = read_json(path)
        if not all(isinstance(machine["ssh"], str) for machine in _listed(machines)) or len(_listed(machines)) < 2:
            raise ValueError("it lists no two machines")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"training.hosts: {path} is no list of machines ({type(error).__name__}: {error}); mlx.distributed_config writes one"
        ) from error
    return machines


def _address(host: str) -> str:
    """The IP address by which the others reach a host, given as `address`, `name` or `user@name`."""
    import socket

    name = host.rpartition("@")[2]
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise UserError(f"training.hosts: no machine {name!r} is known here ({error}); write its address, as 192.168.1.20") from error


def _require_reachable(hosts: Sequence[str], addresses: Sequence[str]) -> None:
    local = [ipaddress.ip_address(address).is_loopback for address in addresses]
    if any(local) and not all(local):
        wrong = hosts[local.index(True)]
        raise UserError(
            f"training.hosts: {wrong} is this machine's address for itself, where the others cannot reach it; write its address in the network"
        )


class _Relay:
    """Hears the first process (generators.train.member) and tells the watcher."""

    def __init__(self, watcher: Any, names: Sequence[str]):
        self._watcher, self._names = watcher, names
        self.first_pid: int | None = None
        self.stopped_by = 0  # a signal that this process handed on
        self._summary: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None
        self._said = ""  # last, by others than the first process and mlx.launch
        self._ended: dict[int, str] = {}  # by rank, how processes ended that did not end well
        self._first_is_done = threading.Event()

    def read(self, process: subprocess.Popen[bytes]) -> None:
        """Until all processes have ended."""
        assert process.stdout is not None and process.stderr is not None
        beside = threading.Thread(target=self._read_each, args=(process.stderr, self._tell))
        over = threading.Event()
        guard = threading.Thread(target=self._look_after, args=(process, over))
        for thread in (beside, guard):
            thread.start()
        try:
            self._read_each(process.stdout, self._take)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            beside.join()
            process.wait()
            over.set()
            self._first_is_done.set()
            guard.join()

    def _look_after(self, process: subprocess.Popen[bytes], over: threading.Event) -> None:
        """mlx.launch asks without a pause whether it can write to its processes, which takes a core; when it finds out that one here has
        closed its input, it leaves it in peace. And it waits for ever for a machine that does not answer."""
        assert process.stdin is not None
        while not over.wait(_LOOK_EVERY_S):
            with suppress(OSError):  # it has ended
                process.stdin.write(b"\n")
                process.stdin.flush()
            if self.first_pid is not None:  # now all have closed theirs
                break
        self._first_is_done.wait()
        if not over.wait(_PATIENCE_S):
            os.killpg(process.pid, signal.SIGKILL)

    @staticmethod
    def _read_each(lines: Any, use: Callable[[str], None]) -> None:
        for line in lines:
            if text := _COLOURS.sub("", line.decode(errors="replace")).strip():
                use(text)

    def _tell(self, text: str) -> None:
        if text.startswith(_TRANSPORT):
            return
        if ended := _ENDED.search(text):
            self._ended[int(ended[1])] = ended[2]
            if ended[1] == "0":
                self._first_is_done.set()
            return
        self._said = text
        self._watcher.say(text)

    def _take(self, text: str) -> None:
        try:
            event = json.loads(text)
            kind, value = event["event"], event["value"]
        except (ValueError, KeyError, TypeError):
            self._tell(text)
            return
        if kind == "pid":
            self.first_pid = value
        elif kind == "step":
            self._watcher.step(*value)
        elif kind in ("say", "measured"):
            getattr(self._watcher, kind)(value)
        elif kind in ("summary", "error"):
            self._summary, self._error = (value, None) if kind == "summary" else (None, value)
            self._first_is_done.set()

    def summary(self) -> dict[str, Any]:
        """Raises LaunchFailed where there is none."""
        if self._summary is not None:
            return self._summary
        if self._error is None:
            last = f" ({self._said})" if self._said else ""
            raise LaunchFailed(f"{self._who(0)}{last}; the next doit goes on from the last checkpoint, if there is one")
        message, code = self._error["message"], self._error["exit_code"]
        gone = [rank for rank, how in self._ended.items() if rank and how not in _STOPPED]
        if self.stopped_by or not gone:
            raise LaunchFailed(message, code)
        raise LaunchFailed(f"{self._who(gone[0])}: {message}")

    def _who(self, rank: int) -> str:
        return f"the process {rank} on {self._names[rank]} {self._ended.get(rank, 'ended without a word')}"


@contextmanager
def _handing_on_signals(process: subprocess.Popen[bytes], relay: _Relay) -> Iterator[None]:
    """SIGINT and SIGTERM reach the first process, which ends all of them in order; before it runs, everything is ended."""

    def hand_on(number: int, frame: Any) -> None:
        relay.stopped_by = number
        try:
            if relay.first_pid is not None:
                os.kill(relay.first_pid, number)
            else:
                os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it has ended meanwhile; what it said is read to its end

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, hand_on)
    except ValueError:
        pass  # not the main thread: signals go to whoever runs it
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
