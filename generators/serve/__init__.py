"""The finished model on loopback, as Ollama and as OpenAI serve one, without either: a thin layer over llama.cpp.

`serve(...)` blocks until Ctrl-C. With a recorder, what clients send is kept for `doit capture`.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.errors import UserError

if TYPE_CHECKING:
    from generators.answering import Deployed

_LAST_SECONDS = 5  # that clients are given to take what is on its way when the server is to end


def serve(
    gguf: Path,
    quantisation: str,
    model: Path,
    chat_format: dict[str, Any],
    deployed: Sequence[Deployed],
    port: int,
    record: Path | None,
    report: Callable[[str], None],
) -> None:
    """Serve `gguf` under the names of `deployed` until SIGINT or SIGTERM. port: 0 for any that is free. model: directory with the tokenizer.

    Raises UserError when a package is missing, the port is taken, or the GGUF does not load.
    """
    uvicorn = _uvicorn()
    from generators.answering import opened
    from generators.serve.app import Service, application
    from generators.serve.models import weights_of
    from generators.serve.recording import Recorder

    recorder = Recorder(record) if record else None
    with _listening(port) as listener, opened(gguf, model, chat_format, deployed) as llama:
        service = Service(llama, {each.name: each for each in deployed}, weights_of(gguf, quantisation), recorder, report)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        report(f"{url} serves {', '.join(each.name for each in deployed)}; Ctrl-C ends it")
        if recorder:
            report(f"what clients send is kept in {recorder.path}: people's words, to be kept out of git")
        quiet = {"log_level": "error", "access_log": False, "server_header": False}
        config = uvicorn.Config(application(service), lifespan="off", timeout_graceful_shutdown=_LAST_SECONDS, **quiet)
        with _ending(server := uvicorn.Server(config), service.stop):
            server.run(sockets=[listener])
    report("ended")


def _uvicorn() -> Any:
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; run: pip install -e '.[serve]'") from error
    return uvicorn


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is none; ports are 1 to 65535, and 0 is any that is free")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} of 127.0.0.1 cannot be used ({error.strerror}); choose another with --port") from error
        listener.listen()  # whoever asks from now on waits for the model to load
        yield listener


@contextmanager
def _ending(server: Any, stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM end the server, and then nothing else: uvicorn on its own would raise them once more behind itself.
    stop: ends what is under way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    @contextmanager
    def captured() -> Iterator[None]:
        yield

    def end(number: int, frame: Any) -> None:
        stop()
        server.handle_exit(number, frame)

    server.capture_signals = captured
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, end) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
