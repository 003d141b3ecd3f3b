"""Suites to queries: every case in every framing, with its checks, its half and the messages it is asked with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from generators.evaluate.checks import declared
from generators.framing import directive_system

Suites = dict[str, dict[str, Any]]
PLAIN_FRAMINGS = ("persona", "none", "directive")  # any other framing is the name of a client
HALVES = ("dev", "test")  # recipes are tuned on the one and told by the other


@dataclass(frozen=True)
class Query:
    """One case in one framing. text: the user's last words. repeat: 0, or more where the temperature is above 0."""

    suite: str
    case: str
    framing: str
    repeat: int
    text: str
    history: tuple[tuple[str, str], ...]
    language: str
    tier: str
    half: str
    checks: tuple[tuple[str, Any], ...] = field(compare=False)

    @property
    def id(self) -> str:
        return f"{self.suite}/{self.case}"

    @property
    def in_client(self) -> bool:
        return self.framing not in PLAIN_FRAMINGS

    @property
    def word_limit(self) -> int | None:
        """Most words that the answer may have, where a check says so."""
        limits = [wanted["max"] for name, wanted in self.checks if name == "words" and "max" in wanted]
        return min(limits) if limits else None


def queries(suites: Suites, framings: list[str], repeats: int = 1, half: str | None = None) -> Iterator[Query]:
    """Framing by framing, so that neighbours share their prompt's beginning. half: `dev`, `test`, or None for both.

    A client asks one question at a time: conversations of several turns are left out of its frame. The directive asks for the
    iterations, and only the suite `iterations` judges those.
    """
    for framing in framings:
        for suite_name, suite in suites.items():
            if framing == "directive" and suite_name != "iterations":
                continue
            for case in suite["cases"]:
                if half in (None, half_of(suite_name, case)):
                    found = _query(suite_name, suite, case, framing)
                    if not (found.history and found.framing not in ("persona", "none")):
                        yield from (_repeated(found, repeat) for repeat in range(repeats))


def half_of(suite: str, case: dict[str, Any]) -> str:
    """`dev` or `test`: as the case says, else drawn by its id, so that a new case moves no other."""
    if case.get("half"):
        return str(case["half"])
    return "dev" if hashlib.blake2b(f"{suite}/{case['id']}".encode(), digest_size=1).digest()[0] % 2 == 0 else "test"


def messages(query: Query, system: str, tiers: dict[str, Any]) -> list[dict[str, str]]:
    """What is sent in a plain framing: the persona's system prompt, none, or the persona's with the iteration directive."""
    found: list[dict[str, str]] = []
    if query.framing == "persona":
        found.append({"role": "system", "content": system})
    elif query.framing == "directive":
        found.append({"role": "system", "content": directive_system(system, tiers)})
    for user, answer in query.history:
        found += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return [*found, {"role": "user", "content": query.text}]


def _query(suite_name: str, suite: dict[str, Any], case: dict[str, Any], framing: str) -> Query:
    turns = case.get("turns") or [{"user": case["query"]}]
    return Query(
        suite=suite_name,
        case=case["id"],
        framing=framing,
        repeat=0,
        text=turns[-1]["user"],
        history=tuple((turn["user"], turn["jessy"]) for turn in turns[:-1]),
        language=case["language"],
        tier=case["tier"],
        half=half_of(suite_name, case),
        checks=tuple(declared(suite, case)),
    )


def _repeated(query: Query, repeat: int) -> Query:
    return replace(query, repeat=repeat)
