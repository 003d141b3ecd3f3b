"""How stages become doit tasks. With dodo.py, the only place that knows doit.

A task is up to date while three things are as at its last success: the slice of the specs that it reads (`reads`), its input files, and
the source of its stage. The slice itself is stored, so that `plan` can name what changed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Callable, Iterable

from doit.dependency import SqliteDB
from doit.exceptions import InvalidDodoFile, TaskError, TaskFailed
from doit.reporter import ConsoleReporter

from generators.errors import EXIT_FAILED, EXIT_GATE, SpecErrors, UserError

Task = dict[str, Any]
_PACKAGE = Path("generators")


def load_project(root: Path) -> Any:
    """The project's specs. A mistake in them ends doit with exit code 3 and every problem, one a line, before anything is touched."""
    from generators.specs.project import load

    try:
        return load(root)
    except SpecErrors as errors:
        count = len(errors.problems)
        raise InvalidDodoFile(f"{count} problem{'s' if count > 1 else ''} in the specs; nothing was built.\n{errors}") from None


class Reads:
    """Up to date while `value`, the slice of the specs that the task reads, equals the one of its last success."""

    def __init__(self, value: Any):
        self.value = json.loads(json.dumps(value))  # as it comes back from the database

    def __call__(self, task: Any, values: dict[str, Any]) -> bool:
        task.value_savers.append(lambda: {"reads": self.value})
        return bool(values.get("reads") == self.value)


def task(
    basename: str, name: str | None, doc: str, action: Callable[[], Any], *, reads: Any = None, inputs: Iterable[Path] = (),
    targets: Iterable[Path] = (), source: Iterable[str] = (), after: Iterable[str] = (), always: bool = False, params: Iterable[Any] = (),
    pos_arg: str | None = None,
) -> Task:
    """One doit task. source: modules of the stage, relative to the package. after: tasks that come first. always: run whenever asked."""
    made: Task = {
        "basename": basename, "doc": doc, "actions": [_guarded(action)], "verbosity": 2,
        "file_dep": [str(path) for path in [*inputs, *source_files(source)]],
        "targets": [str(path) for path in targets], "task_dep": list(after), "uptodate": [False] if always else [Reads(reads)],
        "title": lambda made_task: made_task.name,
    }
    if params:
        made["params"] = list(params)
    if pos_arg:
        made["pos_arg"] = pos_arg
    return made | ({"name": name} if name else {})


def source_files(modules: Iterable[str]) -> list[Path]:
    """`samples` is every module of that sub-package, `templates.py` is one module."""
    found: list[Path] = []
    for module in modules:
        path = _PACKAGE / module
        found += sorted(path.glob("*.py")) if path.suffix != ".py" else [path]
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


def _guarded(action: Callable[..., Any]) -> Callable[..., Any]:
    """What a user can cause ends in one clear line and its exit code; only a defect of the program shows a traceback."""

    def run(**params: Any) -> Any:
        try:
            action(**params)
        except KeyboardInterrupt:
            _leave(f"interrupted; what was finished is kept, and the next doit goes on", 130)
        except UserError as error:
            if error.exit_code == EXIT_FAILED:
                return TaskFailed(str(error))
            if error.exit_code == EXIT_GATE:
                return TaskError(str(error))
            _leave(str(error), error.exit_code)
        except MemoryError:
            return TaskFailed("out of memory; close other programs or choose a smaller base or batch_size")
        return True

    run.__name__ = getattr(action, "__name__", "run")
    return run


def _leave(message: str, code: int) -> None:
    sys.stderr.write(f"ERROR: {message}\n")
    raise SystemExit(code)


class Reporter(ConsoleReporter):
    """One line a task that runs; what is up to date is silent; failures in one clear line."""

    desc = "one line a task"

    def __init__(self, outstream: Any, options: dict[str, Any]):
        super().__init__(outstream, options)
        self.ran = 0
        self.failed = False

    def execute_task(self, task: Any) -> None:
        if task.actions and not task.name.startswith("_"):
            self.ran += 1
            self.write(f"▸ {task.name}\n")
            self.outstream.flush()

    def skip_uptodate(self, task: Any) -> None:
        """Silent: only what runs is worth a line."""

    def add_failure(self, task: Any, fail: Any) -> None:
        self.failed = True
        known = isinstance(fail, (TaskFailed, TaskError)) and not getattr(fail, "traceback", None)
        message = fail.message if known else fail.get_msg()
        self.write(f"ERROR: {task.name}: {message}\n")

    def complete_run(self) -> None:
        if not self.ran and not self.failed and not self.runtime_errors:
            self.write("Nothing to do: everything is up to date.\n")
        for error in self.runtime_errors:
            self.write(f"ERROR: {error}\n")


class WriteThrough(SqliteDB):
    """doit's sqlite backend, committed after every task: a build that is killed forgets nothing that was finished."""

    desc = "sqlite, committed after every task"

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        super().set(task_id, dependency, value)
        if dependency == "deps:":  # the last entry that doit writes for a task
            self._conn.execute("insert or replace into doit values (?,?)", (task_id, self.codec.encode(self._cache[task_id])))
            self._conn.commit()
            self._dirty.discard(task_id)
