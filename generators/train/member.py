"""One process of a training on several machines: `python -m generators.train.member REQUEST BACKEND`, started by mlx.launch.

REQUEST is read by the first process only, which tells the others; what it does it tells in JSON lines on its standard output:
{"event": "say" | "step" | "measured" | "pid" | "summary" | "error", "value": ...}. The others are silent but for errors of their own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from generators.errors import UserError


class _Teller:
    """The watcher of the first process."""

    def tell(self, event: str, value: Any) -> None:
        line = (json.dumps({"event": event, "value": value}) + "\n").encode()
        with suppress(BrokenPipeError):  # whoever listened is gone; the training need not be
            os.write(sys.stdout.fileno(), line)  # whole, from any thread

    def say(self, line: str) -> None:
        self.tell("say", line)

    def step(self, step: int, steps: int, loss: float) -> None:
        self.tell("step", [step, steps, loss])

    def measured(self, metrics: dict[str, Any]) -> None:
        self.tell("measured", metrics)


class _Silent(_Teller):
    def tell(self, event: str, value: Any) -> None:
        """The first process tells."""


def main(request: str, backend: str, grace_s: str = "60") -> int:
    """grace_s: how many seconds after a signal a step may take. Returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nothing is read; mlx.launch stops asking, see generators.train.launch
    from generators.train.peers import join

    try:
        peers = join(backend)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the training has handlers of its own; before and after it there is nothing to save
    teller = _Teller() if peers.first else _Silent()
    _end_when_stuck(teller, float(grace_s))
    teller.tell("pid", os.getpid())
    try:
        teller.tell("summary", _train(peers, request, teller))
    except UserError as error:  # it concerns all, and the first process tells it
        teller.tell("error", {"message": str(error), "exit_code": error.exit_code})
        return error.exit_code if peers.first else 0
    return 0


def _train(peers: Any, path: str, teller: _Teller) -> dict[str, Any]:
    from generators import train

    request = train.Request(**json.loads(peers.told(Path(path).read_text(encoding="utf-8") if peers.first else "")))
    prepared, problem = None, ""
    try:
        prepared = train.prepare(request, teller, rows_too=peers.first)
    except UserError as error:
        problem = str(error)
    _agree(peers, problem, Path(request.base))
    assert prepared is not None
    prepared.take_rows(peers.told(prepared.rows_as_text()))
    return train.work(request, prepared, teller, peers)


def _agree(peers: Any, problem: str, base: Path) -> None:
    """Raises UserError in all processes where one of them cannot train, or would train something else."""
    import platform

    mine = {"host": platform.node(), "problem": problem, **({} if problem else _what_must_be_alike(base))}
    everyone = [json.loads(text) for text in peers.gather(json.dumps(mine))]
    for told in everyone:
        if told["problem"]:
            raise UserError(f"on {told['host']}: {told['problem']}")
    for told in everyone[1:]:
        for what, value in told.items():
            if what not in ("host", "problem") and value != everyone[0][what]:
                raise UserError(f"{told['host']} has another {what} than {everyone[0]['host']}; make them alike, with the same files")


def _what_must_be_alike(base: Path) -> dict[str, str]:
    from importlib.metadata import version

    from generators.files import sha256_file, sha256_text

    program = sorted(Path(__file__).parent.rglob("*.py"))
    return {
        f"base in {base}": sha256_text(" ".join(map(sha256_file, sorted(base.glob("*.safetensors"))))),
        "version of this project": sha256_text(" ".join(map(sha256_file, program))),
        "version of MLX": f"{version('mlx')}, {version('mlx-lm')}",
    }


def _end_when_stuck(teller: _Teller, grace_s: float) -> None:
    """A sum that another process never answers blocks this one where Python handles no signal: then a signal ends it all the same."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)

    def wait() -> None:
        while (number := os.read(read, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
            continue
        time.sleep(grace_s)
        message = "another machine of the group does not answer any more; the next doit goes on from the last checkpoint that was written"
        teller.tell("error", {"message": message, "exit_code": UserError.exit_code})
        os._exit(128 + number)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
