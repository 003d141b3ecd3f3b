"""What is remembered beside the logs, in `feedback/`: decisions, so that nothing is asked twice, and what is held out for evaluation.

`decisions.jsonl`: `{"id", "decision": "accepted" | "rejected", "category", "source", "time"}`, one a line, added to and never rewritten.
It holds no text of a conversation.

`held_out.jsonl`: the evaluation cases that retraining is judged by, one a line:

    {"id": "…", "query": "…", "conversation": [{"role": "user" | "assistant", "content": "…"}, …], "reference": "…",
     "verdict": "good" | "better" | null, "group": "turkish", "category": "casual", "tier": "low", "language": "tr",
     "source": "feedback/chat.jsonl:12"}

conversation: what was said before the query, the oldest first, empty where nothing was. reference: the answer to compare with. verdict: what
a person said of the reference: `better`, they wrote it; `good`, a model gave it and they liked it; null, a model gave it and nobody judged
it, so that to be unlike it is no fault. Personal data is taken out of it as of a proposal. What is in it is never proposed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generators.dataset.quality import Query
from generators.errors import UserError
from generators.feedback.judging import Proposed
from generators.files import atomic_path, private_folder, to_json

ACCEPTED, REJECTED = "accepted", "rejected"
Row = dict[str, Any]


def decisions(path: Path) -> dict[str, str]:
    """What was decided, by id; the last word counts. A line that cannot be read decides nothing."""
    return {row["id"]: row["decision"] for _, row in _rows(path, "id", "decision") if row["decision"] in (ACCEPTED, REJECTED)}


def decide(path: Path, proposed_id: str, decision: str, category: str, source: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _add(path, [{"id": proposed_id, "decision": decision, "category": category, "source": source, "time": now}])


def held_out(path: Path) -> list[Row]:
    """The cases of held_out.jsonl, in its order. A line that cannot be read is none."""
    return [row for _, row in _rows(path, "id", "query", "reference")]


def held_queries(path: Path, name: str) -> list[Query]:
    """What the held-out cases ask, each with its id and its line in the file, called `name`."""
    return [Query(row["query"], row["id"], f"{name}:{number}") for number, row in _rows(path, "id", "query", "reference")]


def hold_out(path: Path, found: Iterable[Proposed]) -> int:
    """Add what is not there yet. Returns how many."""
    there = {row["id"] for row in held_out(path)}
    rows = [case_of(proposed) for proposed in found if proposed.id not in there]
    if rows:
        _add(path, rows)
    return len(rows)


def case_of(proposed: Proposed) -> Row:
    """A line of held_out.jsonl."""
    candidate, place = proposed.candidate, proposed.place
    group, _, category = place.category.partition("/")
    said = [
        {"role": role, "content": text} for turn in candidate.conversation for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return {
        "id": proposed.id,
        "query": candidate.query,
        "conversation": said,
        "reference": candidate.answer,
        "verdict": candidate.verdict,
        "group": group,
        "category": category,
        "tier": place.tier,
        "language": place.language,
        "source": candidate.sources[0],
    }


def _rows(path: Path, *needed: str) -> Iterator[tuple[int, Row]]:
    """(line number, row) of every line that is an object with text under the keys `needed`."""
    if not path.is_file():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and all(isinstance(row.get(key), str) for key in needed):
            yield number, row


def _add(path: Path, rows: Iterable[Row]) -> None:
    """Behind what is there, byte for byte, whole or not at all. Raises UserError where that cannot be."""
    try:
        private_folder(path.parent)
        there = path.read_bytes() if path.is_file() else b""
        if there and not there.endswith(b"\n"):
            there += b"\n"
        with atomic_path(path) as temporary:
            temporary.write_bytes(there + "".join(to_json(row) + "\n" for row in rows).encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
