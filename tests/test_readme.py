"""What the README shows is so: its commands run, its example becomes the sample that it shows, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_project import ROOT, doit

README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALLS = {"pip install -e '.[embedded]' && doit", "pip install -e '.[test]' && pytest"}  # what .ci/run and `tiny_built` run
# exit code and part of the output, where it is not 0 or not quiet
ENDS: dict[str, tuple[int, str]] = {
    "doit diff": (1, "jessy.Modelfile"),  # all of them are new, and a difference is the exit code 1
    "doit deploy": (1, "Ollama"),  # none answers where tests run
    "doit integrate --file ../jessy": (1, "jessy does not exist"),
    "doit sweep:jessy-mini": (1, "declares no sweep"),  # training its points has a test of its own: test_sweep.py
    "doit voice --audio question.wav --out answer.wav": (1, "question.wav does not exist"),
    "doit chat": (0, ""),  # its standard input ends at once
}
# These run until they are stopped, want a recording, or train, and have tests of their own: test_serve.py, test_watch.py, test_retrain.py
LONG = {"doit serve", "doit watch", "doit retrain"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Every command of a shell block and of the table, as it is typed."""
    typed = [line for block in blocks("sh") for line in block.splitlines() if line and not line.startswith("#")]
    typed += re.findall(r"^\| `(doit[^`]*)`", README, re.MULTILINE)
    return list(dict.fromkeys(typed))


def test_the_install_commands_are_the_ones_that_ci_runs() -> None:
    assert INSTALLS <= set(commands())
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"pip install --quiet -e '.[test]'", "pytest"} <= set(script)


@pytest.mark.parametrize("command", [command for command in commands() if command not in INSTALLS and command not in LONG])
def test_a_command_runs_as_it_is_shown(command: str, tiny_built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    words = [re.sub("jessy-(mini|v2)", "tiny", word) for word in shlex.split(command)[1:]]
    finished = doit(tiny_built, *words)
    code, said = ENDS.get(command, (0, ""))
    told = finished.stdout + finished.stderr
    assert finished.returncode == code, told
    assert said in told and "Traceback" not in told


def test_every_task_of_the_readme_is_one_that_doit_lists(tiny_built: Path) -> None:
    listed = {line.split()[0] for line in doit(tiny_built, "list").stdout.splitlines() if line.strip()}
    for command in commands():
        typed = re.sub(r"--\w+ [^-]\S*", "", command)  # an option's value is no task
        words = [word for word in typed.split()[1:] if command.startswith("doit") and re.fullmatch(r"[a-z]+(:[a-z0-9-]+)?", word)]
        assert {word.split(":")[0] for word in words} <= listed | {"list"}, command


def test_the_ten_lines_become_the_sample_that_is_shown(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    shown = YAML(typ="safe").load(blocks("yaml")[0])
    sample = json.loads(blocks("json")[0])
    turn = shown["examples"][0]
    assert sample["messages"] == [{"role": "user", "content": turn["user"]}, {"role": "assistant", "content": turn["jessy"]}]
    assert (sample["metadata"]["tier"], sample["metadata"]["iterations"]) == (shown["tier"], shown["iterations"])


def test_the_sample_that_is_shown_is_one_of_the_build(tiny_built: Path) -> None:
    sample = json.loads(blocks("json")[0])
    rendered = (tiny_built / "build" / "samples" / "turkish" / "greetings.jsonl").read_text(encoding="utf-8")
    found = [row for row in map(json.loads, rendered.splitlines()) if row["messages"] == sample["messages"]]
    assert len(found) == 1
    assert {key: found[0]["metadata"].get(key) for key in sample["metadata"]} == sample["metadata"]


def test_links_and_pictures_lead_to_files_of_the_project() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README):
        path = target[0] or target[1]
        if not path.startswith("http"):
            assert (ROOT / path).exists(), path


def test_every_folder_at_the_top_is_in_the_file_tree() -> None:
    tree = blocks("text")[-1]
    for name in ("dodo.py", "specs/", "templates/", "generators/", "build/", "tests/", "docs/"):
        assert re.search(rf"^{re.escape(name)} ", tree, re.MULTILINE), name
