"""How the build behaves as a program: exit codes, what it says, what it remembers, and what it costs to ask."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_project import RECIPE, ROOT, at, built_once, checked_once, doit

from generators.tasks import Reads, WriteThrough, successes, tasks_of, template_files

# A project of three tasks, each told what to do by a file of its name.
DODO = """\
import time
from pathlib import Path

from generators import errors
from generators.tasks import task

HERE = Path()


def act(name):
    with open("log.txt", "a") as log:
        log.write(name + "\\n")
    asked = (HERE / f"{name}.do").read_text() if (HERE / f"{name}.do").exists() else ""
    if asked == "sleep":
        Path("asleep").touch()
        for _ in range(600):
            time.sleep(0.1)  # a signal that comes just before a sleep is only seen after it
    elif asked:
        exec(asked)
    (HERE / f"{name}.txt").write_text(name)


def task_one():
    '''The first'''
    return task("one", None, task_one.__doc__, lambda: act("one"), reads=1, targets=[HERE / "one.txt"])


def task_two():
    '''The second'''
    return task("two", None, task_two.__doc__, lambda: act("two"), reads=2, inputs=[HERE / "one.txt"], targets=[HERE / "two.txt"])


def task_look():
    '''Only looks'''
    return task("look", None, task_look.__doc__, lambda: print("looking"), always=True)


DOIT_CONFIG = {"default_tasks": ["two"]}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "dodo.py").write_text(DODO)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def start(root: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "doit", *words]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(root: Path, *words: str) -> tuple[int, str, str]:
    process = start(root, *words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def log(root: Path) -> list[str]:
    return (root / "log.txt").read_text().split() if (root / "log.txt").exists() else []


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


# --- exit codes -------------------------------------------------------------------------------------------------------------------

FAILURES = {
    "a user's error": ('raise errors.UserError("no room; make some")', 1, "ERROR: two: no room; make some\n", ""),
    "a missed gate": ('raise errors.GateMissed("turkish 80 %")', 2, "ERROR: two: turkish 80 %\n", ""),
    "wrong specs": (
        'raise errors.SpecErrors([errors.Problem("specs/a.yaml", 3, 5, "is wrong")])', 3, "", "ERROR: specs/a.yaml:3:5: is wrong\n",
    ),
    "no memory": ("raise MemoryError", 1, "ERROR: two: out of memory; close other programs or choose a smaller base or batch_size\n", ""),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_a_user_can_cause_is_one_line_and_an_exit_code(what: str, tiny: Path) -> None:
    action, code, out, err = FAILURES[what]
    (tiny / "two.do").write_text(action)
    returned, printed, complained = run(tiny)
    assert (returned, printed, complained) == (code, f"▸ one\n▸ two\n{out}", err)


@pytest.mark.parametrize(("what", "words"), [("wrong specs", ("-n", "2")), ("a user's error", ("-n", "2")), ("a missed gate", ("-n", "2"))])
def test_the_exit_code_is_the_same_with_several_processes(what: str, words: tuple[str, ...], tiny: Path) -> None:
    action, code, out, err = FAILURES[what]
    (tiny / "two.do").write_text(action)
    returned, printed, complained = run(tiny, *words)
    assert returned == code and out in printed and err in complained and "Traceback" not in printed + complained


def test_a_defect_of_the_program_shows_its_traceback(tiny: Path) -> None:
    (tiny / "two.do").write_text("1 / 0")
    code, out, err = run(tiny)
    assert code == 2 and "ZeroDivisionError" in out + err


def test_a_failure_is_tried_again_and_what_came_before_is_not(tiny: Path) -> None:
    (tiny / "two.do").write_text('raise errors.UserError("not yet")')
    assert run(tiny)[0] == 1
    (tiny / "two.do").unlink()
    assert run(tiny)[0] == 0
    assert log(tiny) == ["one", "two", "two"]


# --- interruptions ----------------------------------------------------------------------------------------------------------------

INTERRUPTED = "ERROR: interrupted; what was finished is kept, and the next doit goes on\n"


def test_an_interrupt_is_one_line_and_code_130(tiny: Path) -> None:
    (tiny / "two.do").write_text("sleep")
    process = start(tiny)
    wait_for(tiny / "asleep", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "▸ one\n▸ two\n", INTERRUPTED)
    (tiny / "two.do").unlink()
    assert run(tiny)[0] == 0
    assert log(tiny) == ["one", "two", "two"]


def test_a_killed_build_forgets_nothing_that_was_finished(tiny: Path) -> None:
    (tiny / "two.do").write_text("sleep")
    process = start(tiny)
    wait_for(tiny / "asleep", process)
    process.kill()
    process.communicate(timeout=60)
    (tiny / "two.do").unlink()
    code, out, _ = run(tiny)
    assert code == 0 and out == "▸ two\n"
    assert log(tiny) == ["one", "two", "two"]


@pytest.mark.parametrize("words", [("list",), ("look",), ()], ids=" ".join)
def test_when_nobody_reads_any_more_it_ends_without_a_word(words: tuple[str, ...], tiny: Path) -> None:
    """As in `doit list | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "doit", *words]
    with os.fdopen(writer, "w") as pipe:
        ended = subprocess.run(command, cwd=tiny, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert ended.returncode in (141, -signal.SIGPIPE) and ended.stderr == ""


# --- what it says -----------------------------------------------------------------------------------------------------------------


def test_with_nothing_to_do_it_says_so(tiny: Path) -> None:
    assert run(tiny)[1] == "▸ one\n▸ two\n"
    assert run(tiny) == (0, "Nothing to do: everything is up to date.\n", "")


def test_a_task_that_only_looks_speaks_for_itself(tiny: Path) -> None:
    assert run(tiny, "look") == (0, "looking\n", "")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with checked_once():
        yield built_once(tmp_path_factory)


def test_an_interrupt_before_any_task_is_one_line_too(built: Path, tmp_path: Path) -> None:
    """Python then dies of the signal, which a shell reports as 130."""
    shutil.copytree(built, tmp_path / "project")
    root = tmp_path / "project"
    with (root / "dodo.py").open("a", encoding="utf-8") as out:
        out.write("\nimport time\nPath('asleep').touch()\nfor _ in range(600):\n    time.sleep(0.1)\n")
    process = start(root)
    wait_for(root / "asleep", process)
    process.send_signal(signal.SIGINT)
    printed, complained = process.communicate(timeout=60)
    assert (process.returncode, printed, complained) == (-signal.SIGINT, "", INTERRUPTED)


def order_of_creators(root: Path) -> list[str]:
    found = re.findall(r"^def task_(\w+)", (root / "dodo.py").read_text(encoding="utf-8"), re.MULTILINE)
    return [name[:1] + name[1:].replace("_", "-") for name in found]


def test_the_list_of_tasks_is_a_table_of_contents_in_build_order(built: Path) -> None:
    code, out, _ = run(built, "list")
    shown = [line.split(None, 1) for line in out.splitlines()]
    assert code == 0 and [name for name, _ in shown] == [name for name in order_of_creators(built) if not name.startswith("_")]
    assert all(len(doc) > 10 for _, doc in shown)
    names = [name for name, _ in shown]
    stages = ["doctor", "plan", "samples", "dataset", "base", "train", "fuse", "gguf", "modelfile", "evaluate", "report"]
    assert [name for name in names if name in stages] == stages


def all_tasks(built: Path) -> list[Any]:
    with at(built):
        return tasks_of(runpy.run_path("dodo.py"))


def test_every_task_and_every_part_of_one_says_what_it_does(built: Path) -> None:
    assert [task.name for task in all_tasks(built) if not (task.doc or "").strip()] == []


def test_no_two_tasks_write_the_same_file(built: Path) -> None:
    targets = [target for task in all_tasks(built) for target in task.targets]
    assert len(targets) == len(set(targets))


# --- what it costs to ask ---------------------------------------------------------------------------------------------------------

HEAVY = (
    "mlx", "mlx_lm", "transformers", "numpy", "matplotlib", "jinja2", "cerberus", "ruamel", "rich", "gguf", "tokenizers", "httpx", "rapidfuzz",
    "datasketch", "py3langid", "psutil",
)
OWN_PARTS = ("generators.specs.schema", "generators.specs.validate", "generators.progress", "generators.files", "generators.plan")


def test_nothing_heavy_is_imported_to_find_that_there_is_nothing_to_do(built: Path) -> None:
    """In a fresh interpreter, with the cache of the specs as the last build left it."""
    program = (
        "import sys; from doit.doit_cmd import DoitMain; assert DoitMain().run([]) == 0;"
        f"print([name for name in {HEAVY + OWN_PARTS} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(built)}
    subprocess.run(command, cwd=built, env=environment, capture_output=True, check=True, timeout=120)  # the key of the cache names its path
    finished = subprocess.run(command, cwd=built, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.stdout == "Nothing to do: everything is up to date.\n[]\n", finished.stderr


def test_slices_are_only_made_for_tasks_that_are_asked_for() -> None:
    made: list[str] = []
    reads = Reads(lambda: made.append("made") or {"a": 1})
    assert made == []
    assert reads.value == {"a": 1} and reads.value == {"a": 1} and made == ["made"]


# --- what it remembers ------------------------------------------------------------------------------------------------------------


class FakeTask:
    def __init__(self) -> None:
        self.value_savers: list[Any] = []


def saved(reads: Reads) -> dict[str, Any]:
    """What is stored when a task with these reads succeeds."""
    task = FakeTask()
    reads(task, {})
    return task.value_savers[0]()


def test_a_slice_is_up_to_date_while_it_equals_the_last_whatever_the_order_of_keys() -> None:
    before = saved(Reads({"a": 1, "b": [1, 2]}))
    assert before["slice"] == {"a": 1, "b": [1, 2]}
    assert Reads({"b": (1, 2), "a": 1})(FakeTask(), before)
    assert not Reads({"a": 2, "b": [1, 2]})(FakeTask(), before)
    assert not Reads({"a": 1, "b": [2, 1]})(FakeTask(), before)


def test_a_task_without_a_slice_is_not_up_to_date_before_its_first_run() -> None:
    assert not Reads(None)(FakeTask(), {}) and Reads(None)(FakeTask(), saved(Reads(None)))


def test_looking_leaves_no_database(tiny: Path) -> None:
    assert run(tiny, "look")[0] == 0 and run(tiny, "list")[0] == 0
    assert not (tiny / "build").exists()


def test_looking_changes_no_byte_of_a_database(tiny: Path) -> None:
    assert run(tiny)[0] == 0
    database = tiny / "build" / ".doit.db"
    before, stamp = database.read_bytes(), database.stat().st_mtime_ns
    assert run(tiny, "look")[0] == 0 and run(tiny)[1].startswith("Nothing to do")
    assert (database.read_bytes(), database.stat().st_mtime_ns) == (before, stamp)


def test_a_missing_build_folder_is_made(tiny: Path) -> None:
    assert run(tiny)[0] == 0 and (tiny / "build" / ".doit.db").is_file()


def test_a_task_that_is_forgotten_runs_again(tiny: Path) -> None:
    assert run(tiny)[0] == 0
    assert run(tiny, "forget", "two")[0] == 0
    assert run(tiny)[1] == "▸ two\n"


def test_seconds_and_memory_of_each_task_are_stored(tiny: Path) -> None:
    (tiny / "two.do").write_text("import time; block = bytearray(60_000_000); time.sleep(0.3)")
    assert run(tiny)[0] == 0
    found = successes(tiny / "build" / ".doit.db")
    assert set(found) == {"one", "two"} and found["two"].reads == 2
    assert 0.3 <= found["two"].taken["seconds"] < 30 and found["one"].taken["seconds"] < found["two"].taken["seconds"]
    assert found["two"].taken["memory_bytes"] > 60e6
    assert list(found["two"].files) == ["one.txt"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak of memory on request")
def test_the_peak_of_one_task_is_not_told_of_the_next(tiny: Path) -> None:
    (tiny / "one.do").write_text("block = bytearray(200_000_000)")
    assert run(tiny)[0] == 0
    found = successes(tiny / "build" / ".doit.db")
    assert found["one"].taken["memory_bytes"] > 200e6 > found["two"].taken["memory_bytes"]


def test_what_was_never_built_has_no_successes(tmp_path: Path) -> None:
    assert successes(tmp_path / "none.db") == {} and not (tmp_path / "none.db").exists()


def test_each_success_is_on_disk_before_the_next_task(tmp_path: Path) -> None:
    from doit.dependency import JSONCodec

    backend = WriteThrough(str(tmp_path / "db"), JSONCodec())
    for entry, value in (("_values_:", {"reads": "digest", "slice": {"a": 1}}), ("checker:", "MD5Checker"), ("deps:", ())):
        backend.set("one", entry, value)
    with sqlite3.connect(f"file:{tmp_path / 'db'}?mode=ro", uri=True) as other:
        assert [name for (name,) in other.execute("select task_id from doit")] == ["one"]
    assert successes(tmp_path / "db")["one"].reads == {"a": 1}


# --- templates and several processes ----------------------------------------------------------------------------------------------


def test_a_template_brings_all_that_it_includes_imports_and_extends(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_text('{% extends "b.j2" %}{%- from "d.j2" import x %}')
    (tmp_path / "b.j2").write_text("{% include 'c.j2' %}{% import 'gone.j2' as gone %}")
    (tmp_path / "c.j2").write_text("{% include 'a.j2' %}")
    (tmp_path / "d.j2").write_text("")
    assert [path.name for path in template_files(tmp_path, "a.j2")] == ["a.j2", "b.j2", "c.j2", "d.j2"]


def test_two_processes_build_the_same(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(built, root, ignore=shutil.ignore_patterns("build"))
    (root / "build").mkdir()
    code, out, err = run(root, "-n", "2", "dataset")
    assert code == 0, out + err
    for file in ("dataset/train.jsonl", "dataset/valid.jsonl", "samples/turkish/slang.jsonl"):
        assert (root / "build" / file).read_bytes() == (built / "build" / file).read_bytes()
    assert run(root, "dataset")[1] == "Nothing to do: everything is up to date.\n"


def test_a_mistake_in_a_spec_ends_with_code_3_before_anything_is_touched(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(built, root)
    recipe = root / "specs" / "recipes" / f"{RECIPE}.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("base: gemma-3-270m", "base: gemma-3-270"), encoding="utf-8")
    state = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (root / "build").rglob("*")}
    code, out, err = run(root)
    assert code == 3 and out == "" and "Traceback" not in err
    assert "1 problem in the specs; nothing was built." in err and "did you mean 'gemma-3-270m'?" in err
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (root / "build").rglob("*")} == state


def test_doit_in_this_process_and_in_one_of_its_own_agree(built: Path) -> None:
    """The other tests of the build run doit in their own process."""
    assert doit(built, "run", f"report:{RECIPE}")[:2] == (0, [])
    assert run(built, f"report:{RECIPE}")[:2] == (0, "Nothing to do: everything is up to date.\n")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("samles", "'samples'"), ("samples:turkish/slan", "'samples:turkish/slang'"), (f"train:{RECIPE}i", f"'train:{RECIPE}'")],
)
def test_a_task_that_does_not_exist_is_answered_with_the_one_that_was_meant(built: Path, word: str, meant: str) -> None:
    code, _, errors = run(built, word)
    assert code == 3
    assert f"no task {word!r}; did you mean {meant}? (doit list --all shows them)" in errors and "Traceback" not in errors
