"""A retrained model is a candidate until it has proven that it is not worse than what is deployed: cases, decision, lock, schedule.

What is held out of the feedback becomes cases of a suite of its own. The candidate is promoted if no gate falls and the paired comparison over
all cases is not worse beyond its interval.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import atomic_directory, sha256_text, write_text

Row = dict[str, Any]
Report = Callable[[str], None]

FEEDBACK = "feedback"  # the suite of held-out cases
_LIKENESS = 0.3  # chrF to the reference: the same thing said otherwise reaches it, another answer does not


# --- held-out feedback ------------------------------------------------------------------------------------------------------------


def feedback_suite(path: Path, rules: Row, report: Report) -> Row | None:
    """The held-out feedback (see generators/feedback/store.py) as a suite, None where there is none.

    Each line is {id, query, conversation, reference, verdict, tier, language, source}, of which `query` and `reference` are needed. A
    reference that nobody judged (verdict null) is nothing to be like: its case is judged by what is asked of every answer. rules: of the
    classifier, for a query whose tier is not given. A line that is no case is left out, and told.
    """
    if not path.is_file():
        return None
    cases: dict[str, Row] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip():
            try:
                case = _case(json.loads(line), rules)
                cases.setdefault(case["id"], case)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                report(f"{path}:{number} is no held-out case, and is left out ({error!r})")
    if not cases:
        return None
    defaults: list[Row] = [{"no_generic": True}, {"no_repetition": True}]
    return {"description": "Feedback that no sample is made of.", "defaults": defaults, "cases": list(cases.values())}


def _case(row: Row, rules: Row) -> Row:
    from generators.classify import classify
    from generators.language import detect

    query, reference, said = str(row["query"]), str(row["reference"]), _turns(row.get("conversation") or [])
    asked: Row = {"turns": [*said, {"user": query}]} if said else {"query": query}
    judged = row.get("verdict", "good") is not None
    return {
        "id": str(row.get("id") or sha256_text(json.dumps([said, query]))[:12]),
        **asked,
        "language": row.get("language") or detect(reference) or detect(query) or "tr",
        "tier": row.get("tier") or classify(query, rules).tier,
        "checks": [{"similar_to": {"references": [reference], "chrf": _LIKENESS}}] if judged else [],
    }


def _turns(messages: Sequence[Row]) -> list[Row]:
    """Messages as a case's earlier turns. Raises ValueError where they do not come in pairs."""
    said = [(message["role"], str(message["content"])) for message in messages if message["role"] != "system"]
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2):
        raise ValueError("the conversation does not go from user to assistant and back")
    return [{"user": said[index][1], "jessy": said[index + 1][1]} for index in range(0, len(said), 2)]


# --- the decision -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """reasons: in words, one a line."""

    promoted: bool
    reasons: list[str]


def decide(before: Iterable[Row], now: Iterable[Row], paired: Row) -> Decision:
    """Whether a candidate takes the place of what is deployed.

    before, now: the gates of both, over the same cases. paired: all cases of both (see `scores.paired`), the candidate the second.
    """
    from generators.compare import paired_in_words

    fallen = list(_fallen({gate["name"]: gate for gate in before}, now))
    high = paired["difference"]["high"]
    worse = [f"case by case it is worse, by more than chance: {paired_in_words(paired)}"] if high is not None and high < 0 else []
    if fallen or worse:
        return Decision(False, [*fallen, *worse])
    return Decision(True, ["no gate falls", f"case by case it is not worse: {paired_in_words(paired)}"])


def _fallen(before: Mapping[str, Row], now: Iterable[Row]) -> Iterator[str]:
    """A gate that was passed, and is missed or no longer measured."""
    from generators.evaluate import describe_gate

    for gate in now:
        was = before.get(gate["name"])
        if was and was["passed"] and not gate["passed"]:
            yield f"the gate {describe_gate(gate)} falls: before, it was {describe_gate(was).split(' ', 1)[1].partition(' (wanted')[0]}"


# --- what is kept -----------------------------------------------------------------------------------------------------------------


def keep_adapter(adapter: Path, folder: Path, sha256: str, made_from: str, wanted: Iterable[str]) -> None:
    """Keep the adapter of a deployed GGUF, and forget those of others.

    folder: of all that are kept. sha256: of the GGUF. made_from: digest of the samples and settings. wanted: digests whose adapters stay.
    """
    if (adapter / "adapters.safetensors").is_file():
        with atomic_directory(folder / sha256) as filling:
            shutil.copytree(adapter, filling / "adapter")
            write_text(filling / "made_from", made_from)
    keep = {sha256, *wanted}
    for path in folder.glob("*"):
        if path.name not in keep:
            shutil.rmtree(path)


def kept_adapter(folder: Path, sha256: str) -> tuple[Path | None, str]:
    """(folder of the adapter, what it was made from) of a deployed GGUF; (None, "") where it was not kept."""
    found = folder / sha256
    if not (found / "made_from").is_file():
        return None, ""
    return found / "adapter", (found / "made_from").read_text(encoding="utf-8")


# --- one at a time ----------------------------------------------------------------------------------------------------------------


@contextmanager
def alone(lock: Path, what: str, report: Report) -> Iterator[None]:
    """Nobody else retrains until the block ends. what: `retraining of jessy-mini`.

    The lock is the system's, which lets go of it when the process ends, however it ends; the file only says who had it. Raises UserError,
    saying who has it, while another process does.
    """
    import fcntl
    from datetime import datetime

    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f"another {file.read().strip() or 'retraining'} goes on; one at a time, so this one ends here") from None
        file.seek(0)
        if left := file.read().strip():
            report(f"an earlier {left} was cut off; what it finished is used")
        file.truncate(0)
        file.write(f"{what} (process {os.getpid()}, since {datetime.now():%Y-%m-%d %H:%M})\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


# --- by itself, every week --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """When (weekday as cron counts, from Sunday's 0, None for every day), in which folder, and what is run. log: relative to the folder."""

    weekday: int | None
    hour: int
    minute: int
    folder: Path
    recipe: str
    log: str
    environment: Mapping[str, str]

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "doit", f"retrain:{self.recipe}"]

    def crontab(self) -> str:
        """One line. Cron takes `%` for the end of a line unless it is escaped."""
        day = "*" if self.weekday is None else str(self.weekday)
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        run = " ".join([*settings, shlex.join(self.command)])
        line = f"cd {shlex.quote(str(self.folder))} && {run} >> {shlex.quote(self.log)} 2>&1"
        return f"{self.minute} {self.hour} * * {day} " + line.replace("%", r"\%")

    def launchd(self, label: str) -> str:
        """A property list for ~/Library/LaunchAgents/."""
        import plistlib

        when = {"Hour": self.hour, "Minute": self.minute} | ({} if self.weekday is None else {"Weekday": self.weekday})
        log = str(self.folder / self.log)
        job: Row = {
            "Label": label,
            "ProgramArguments": self.command,
            "WorkingDirectory": str(self.folder),
            "StartCalendarInterval": when,
            "StandardOutPath": log,
            "StandardErrorPath": log,
        }
        if self.environment:
            job["EnvironmentVariables"] = dict(self.environment)
        return plistlib.dumps(job, sort_keys=False).decode()
