"""How stages become doit tasks. With dodo.py, the only place that knows doit.

A task is up to date while three things are as at its last success: the slice of the specs that it reads (`reads`), its input files, and
the source of its stage. The slice itself is stored, with what the run took, so that `plan` can name what changed and say how long.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DodoTaskLoader
from doit.dependency import SqliteDB
from doit.exceptions import InvalidDodoFile, TaskError, TaskFailed
from doit.reporter import ConsoleReporter

from generators.errors import EXIT_FAILED, EXIT_GATE, SpecErrors, UserError, did_you_mean

if TYPE_CHECKING:
    from generators.plan import Stage, Success

Task = dict[str, Any]
_PACKAGE = Path("generators")  # where a project has the program in its own folder; else it is the one that is installed
EXIT_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
EXIT_UNREAD = 141  # the same of SIGPIPE
_INTERRUPTED = "interrupted; what was finished is kept, and the next doit goes on"


def load_project(root: Path) -> Any:
    """The project's specs. A mistake in them ends doit with exit code 3 and every problem, one a line, before anything is touched."""
    from generators.specs.project import load

    sys.excepthook = _one_line_for_an_interrupt
    source_files.cache_clear()
    try:
        return load(root, keep="plan" not in sys.argv[1:])
    except SpecErrors as errors:
        count = len(errors.problems)
        raise InvalidDodoFile(f"{count} problem{'s' if count > 1 else ''} in the specs; nothing was built.\n{errors}") from None


class Reads:
    """Up to date while the slice of the specs that the task reads is that of its last success, whatever the order of its keys.

    reads: the slice, or a function that gives it, called once and only when somebody asks. A digest is compared; the slice itself is kept
    for `plan` (see WriteThrough).
    """

    def __init__(self, reads: Any):
        self._reads = reads

    @cached_property
    def value(self) -> Any:
        return self._reads() if callable(self._reads) else self._reads

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.value, sort_keys=True).encode()).hexdigest()

    def __call__(self, task: Any, values: dict[str, Any]) -> bool:
        task.value_savers.append(lambda: {"reads": self.digest, "slice": self.value})
        return bool(values.get("reads") == self.digest)


def task(
    basename: str,
    name: str | None,
    doc: str,
    action: Callable[..., Any],
    *,
    reads: Any = None,
    inputs: Iterable[Path] = (),
    targets: Iterable[Path] = (),
    source: Iterable[str] = (),
    after: Iterable[str] = (),
    always: bool = False,
    params: Iterable[Any] = (),
    pos_arg: str | None = None,
    alone: str | None = None,
) -> Task:
    """One doit task. reads: see `Reads`. source: modules of the stage, relative to the package. after: tasks that come first.
    always: run whenever asked, told by its own output alone, and nothing about it is remembered. alone: an option of the task's with which
    nothing comes first."""
    made: Task = {
        "basename": basename,
        "doc": doc,
        "actions": [_guarded(action, measured=not always)],
        "verbosity": 2,
        "file_dep": [str(path) for path in [*inputs, *source_files(tuple(source))]],
        "targets": [str(path) for path in targets],
        "task_dep": list(after),
        "uptodate": [False] if always else [Reads(reads)],
        "title": lambda made_task: made_task.name,
        "meta": {"speaks_for_itself": always, "alone": alone},
    }
    if params:
        made["params"] = list(params)
    if pos_arg:
        made["pos_arg"] = pos_arg
    return made | ({"name": name} if name else {})


@cache
def source_files(modules: tuple[str, ...]) -> list[Path]:
    """`samples` is every module of that sub-package and of those in it, `templates.py` is one module."""
    found: list[Path] = []
    package = _PACKAGE if _PACKAGE.is_dir() else Path(__file__).parent
    for module in modules:
        path = package / module
        if path.suffix == ".py":
            found.append(path)
        else:
            found += sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names if name.endswith(".py"))
    return found


_REFERENCE = re.compile(r"""{%-?\s*(?:include|import|extends|from)\s+["']([^"']+)["']""")


def template_files(folder: Path, *names: str) -> list[Path]:
    """Templates with all that they include, import or extend."""
    found: list[Path] = []
    waiting = list(names)
    while waiting:
        path = folder / waiting.pop()
        if path not in found and path.is_file():
            found.append(path)
            waiting += _REFERENCE.findall(path.read_text(encoding="utf-8", errors="replace"))
    return sorted(found)


# --- running ----------------------------------------------------------------------------------------------------------------------


def _guarded(action: Callable[..., Any], measured: bool) -> Callable[..., Any]:
    """What a user can cause ends in one clear line and its exit code; only a defect of the program shows a traceback.
    measured: what the run took is stored with its success."""

    def run(**params: Any) -> Any:
        from generators.measure import Measure

        measure = Measure()
        try:
            action(**params)
        except KeyboardInterrupt:
            _leave(_INTERRUPTED, EXIT_INTERRUPTED)
        except BrokenPipeError:
            if not _is_unread():
                raise
            _leave_unread()
        except UserError as error:
            if error.exit_code == EXIT_FAILED:
                return TaskFailed(str(error))
            if error.exit_code == EXIT_GATE:
                return TaskError(str(error))
            _leave(str(error), error.exit_code)
        except MemoryError:
            return TaskFailed("out of memory; close other programs or choose a smaller base or batch_size")
        return measure.taken() if measured else True

    run.__name__ = getattr(action, "__name__", "run")
    return run


class _Leave(SystemExit):
    """An exit code that survives the way from a worker process (`doit -n 2`), which hands it over as text."""

    def __init__(self, code: object):
        super().__init__(int(str(code)))


def _leave(message: str, code: int) -> None:
    sys.stderr.write(f"ERROR: {message}\n")
    sys.stderr.flush()
    raise _Leave(code)


def _is_unread() -> bool:
    """Whether whoever read what is said has gone, as in `doit classify | head`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _leave_unread() -> None:
    """Without a word, as other commands do then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
    raise _Leave(EXIT_UNREAD)


def _one_line_for_an_interrupt(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Ctrl-C between tasks; Python then ends with the signal, so that the shell sees 130."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(f"ERROR: {_INTERRUPTED}\n")
    else:
        sys.__excepthook__(kind, error, trace)


class Reporter(ConsoleReporter):
    """One line a task that runs; what is up to date is silent; failures in one clear line."""

    desc = "one line a task"

    def __init__(self, outstream: Any, options: dict[str, Any]):
        super().__init__(outstream, options)
        self.ran = 0
        self.failed = False

    def write(self, text: str) -> None:
        try:
            super().write(text)
            self.outstream.flush()
        except BrokenPipeError:
            _leave_unread()

    def execute_task(self, task: Any) -> None:
        if not task.actions or task.name.startswith("_"):
            return
        self.ran += 1
        if not (task.meta or {}).get("speaks_for_itself"):
            self.write(f"▸ {task.name}\n")

    def skip_uptodate(self, task: Any) -> None:
        """Silent: only what runs is worth a line."""

    def add_failure(self, task: Any, fail: Any) -> None:
        self.failed = True
        known = isinstance(fail, (TaskFailed, TaskError)) and not getattr(fail, "traceback", None)
        message = fail.message if known else fail.get_msg()
        self.write(f"ERROR: {task.name}: {message}\n")

    def complete_run(self) -> None:
        interrupted = sys.exc_info()[0] is not None  # doit reports while the exception that ends it is on its way
        if not self.ran and not self.failed and not self.runtime_errors and not interrupted:
            self.write("Nothing to do: everything is up to date.\n")
        for error in self.runtime_errors:
            self.write(f"ERROR: {error}\n")


# --- what is remembered -----------------------------------------------------------------------------------------------------------


class WriteThrough(SqliteDB):
    """doit's sqlite backend, committed after every task: a build that is killed forgets nothing that was finished.

    Until there is something to remember it is held in memory: a command that only looks leaves no file behind. Slices stand in a table of
    their own, which only `plan` reads: they are long, and a `doit` with nothing to do compares digests.
    """

    desc = "sqlite, committed after every task"
    _slice: Any = None

    def _sqlite3(self, name: str) -> Any:
        self._on_disk = os.path.exists(name)
        return super()._sqlite3(name if self._on_disk else ":memory:")

    def _to_disk(self) -> None:
        if not self._on_disk:
            os.makedirs(os.path.dirname(self.name) or ".", exist_ok=True)
            self._conn.close()  # type: ignore[has-type]
            self._conn = super()._sqlite3(self.name)
            self._on_disk = True

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        if dependency == "_values_:":
            self._slice = value.get("slice")
            value = {key: each for key, each in value.items() if key != "slice"}
        super().set(task_id, dependency, value)
        if dependency != "deps:":  # the last entry that doit writes for a task
            return
        self._dirty.discard(task_id)
        if not value and not self._cache[task_id].get("_values_:"):
            del self._cache[task_id]  # it runs whenever it is asked: nothing to remember
            return
        self._to_disk()
        self._conn.execute("insert or replace into doit values (?,?)", (task_id, self.codec.encode(self._cache[task_id])))
        if self._slice is not None:
            self._conn.execute("create table if not exists slices (task_id text not null primary key, slice text)")
            self._conn.execute("insert or replace into slices values (?,?)", (task_id, self.codec.encode(self._slice)))
        self._conn.commit()

    def dump(self) -> None:
        if self._dirty:
            self._to_disk()
        super().dump()


# --- for `plan` -------------------------------------------------------------------------------------------------------------------


def tasks_of(namespace: dict[str, Any]) -> list[Any]:
    """doit's tasks of a dodo.py, in the order of its creators. doit's own way there reads every creator's source to learn its line."""
    from doit.loader import generate_tasks

    creators = [value for name, value in namespace.items() if name.startswith("task_") and hasattr(value, "__code__")]
    creators.sort(key=lambda creator: creator.__code__.co_firstlineno)
    return [made for creator in creators for made in generate_tasks(creator.__name__.removeprefix("task_"), creator(), creator.__doc__)]


def stages_before(namespace: dict[str, Any], wanted: str) -> list[Stage]:
    """What dodo.py declares, as plain values: the task `wanted` and all that comes before it, in build order.

    namespace: dodo.py's. Raises UserError when there is no such task.
    """
    from doit.control import TaskControl

    tasks = TaskControl(tasks_of(namespace)).tasks
    if wanted not in tasks:
        raise UserError(f"no task {wanted!r}; doit list --all shows them")
    needed: set[str] = set()
    waiting = [wanted]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += tasks[name].task_dep
    return [_as_stage(tasks[name]) for name in tasks if name in needed and tasks[name].actions]


def _as_stage(task: Any) -> Stage:
    from generators.plan import Stage

    reads = next((check.value for check, _, _ in task.uptodate if isinstance(check, Reads)), None)
    reads = json.loads(json.dumps(reads))  # as it comes back from the database
    return Stage(task.name, reads, tuple(sorted(task.file_dep)), tuple(task.targets), tuple(task.task_dep))


def successes(database: Path) -> dict[str, Success]:
    """What is remembered of each task's last success, read without a change to the file; nothing where there is no database."""
    import sqlite3

    from generators.plan import Success

    if not database.is_file():
        return {}
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    try:
        tasks = connection.execute("select task_id, task_data from doit").fetchall()
        has_slices = connection.execute("select 1 from sqlite_master where name = 'slices'").fetchone()
        slices = dict(connection.execute("select task_id, slice from slices").fetchall()) if has_slices else {}
    finally:
        connection.close()
    found: dict[str, Success] = {}
    for name, data in tasks:
        stored = json.loads(data)
        files = {path: tuple(stored[path]) for path in stored.get("deps:") or () if path in stored}
        found[name] = Success(json.loads(slices.get(name, "null")), files, (stored.get("_values_:") or {}).get("taken") or {})
    return found


class Loader(DodoTaskLoader):
    """A stage that is named without a recipe means the default recipe, and `base` its base: dodo.py's DEFAULTS. `samples` stays all."""

    def load_tasks(self, cmd: Any, pos_args: Any) -> Any:
        if cmd.name in ("list", "info"):  # doit's own commands, which only write: `doit list | head` ends them without a word
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        tasks = tasks_of(self.namespace)
        _check_words(pos_args or [], tasks)
        for group in tasks:
            meant = [f"{group.name}:{name}" for name in self.namespace.get("DEFAULTS", ()) if f"{group.name}:{name}" in group.task_dep]
            if group.has_subtask and meant:
                group.task_dep = [name for name in group.task_dep if not name.startswith(f"{group.name}:")] + meant
                _name_recipe(pos_args, group.name, meant[0])
            if (group.meta or {}).get("alone") in (pos_args or ()):
                group.task_dep = []
        return tasks


def _check_words(words: list[str], tasks: list[Any]) -> None:
    """Each word up to the first option is a task or a target (`doit` says of others only that they are none). Raises InvalidDodoFile, which
    ends doit with exit code 3."""
    names = [task.name for task in tasks]
    known = {*names, *(target for task in tasks for target in task.targets)}
    for word in words:
        if word.startswith("-"):
            return
        if word not in known and "=" not in word and not set(word) & set("*?["):
            likely = [name for name in names if (":" in name) == (":" in word)]
            raise InvalidDodoFile(f"no task {word!r}{did_you_mean(word, likely)} (doit list --all shows them)")


def _name_recipe(words: list[str] | None, stage: str, meant: str) -> None:
    """`deploy --rollback` is `deploy:jessy-mini --rollback`: an option is a subtask's, and doit hands it to the task of that name. In place."""
    for index, word in enumerate((words or [])[:-1]):
        if words and word == stage and words[index + 1].startswith("-"):
            words[index] = meant
