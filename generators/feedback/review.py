"""A person goes through the proposal: accept, edit, reject, later. Only what is accepted enters `specs/`, and nothing is asked twice.

What is accepted was tried out before, in a copy of the specs; then it is written, and the project is loaded. Where it no longer loads,
because somebody edited the specs meanwhile, the file is put back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.feedback import editing, store
from generators.feedback.attacks import attack_in
from generators.feedback.insertion import inserted
from generators.feedback.judging import BRACKETS, Proposed
from generators.feedback.privacy import placeholders_in, strip
from generators.feedback.proposal import category_file
from generators.feedback.texts import cleaned
from generators.feedback.trial import Trial
from generators.files import atomic_path

Say = Callable[[str], None]
Ask = Callable[[str], str | None]  # a question to its answer; None at the end of the input
Edit = Callable[[str], str]
QUESTION = "[a]ccept, [e]dit, [r]eject, [l]ater, [q]uit? "
_SURE = "accept it all the same? [y/N] "


@dataclass(frozen=True)
class Person:
    """How the one who decides is spoken to."""

    ask: Ask
    edit: Edit
    say: Say


@dataclass(frozen=True)
class Desk:
    """What decisions are made with. accept: loads the project, raises SpecErrors where it cannot. leaks: what of the questions of an example is
    held out or evaluated, a line each. keep: names that are no personal data. control_tokens: of the project's chat formats."""

    root: Path
    decisions: Path
    categories: Sequence[str]
    trial: Trial
    accept: Callable[[], object]
    leaks: Callable[[Sequence[str]], list[str]]
    keep: Sequence[str] = ()
    control_tokens: Sequence[str] = ()


@dataclass
class Reviewed:
    accepted: int = 0
    rejected: int = 0
    later: int = 0


def review(proposed: Sequence[Proposed], desk: Desk, person: Person) -> Reviewed:
    """Walk through all of them, or until the person quits or the input ends. What is not decided is asked again the next time."""
    result = Reviewed()
    for number, each in enumerate(proposed, 1):
        decision = _decided(each, f"{number} of {len(proposed)}", desk, person)
        if decision is None:
            result.later += len(proposed) - number + 1
            break
        setattr(result, decision, getattr(result, decision) + 1)
    return result


def _decided(proposed: Proposed, which: str, desk: Desk, person: Person) -> str | None:
    """accepted, rejected or later; None where the person quits."""
    _show(proposed, which, person.say)
    while True:
        said = person.ask(QUESTION)
        word = said.strip().lower()[:1] if said is not None else "q"
        if word == "a" and _accepted(proposed, desk, person):
            return "accepted"
        if word == "r":
            store.decide(desk.decisions, proposed.id, store.REJECTED, proposed.place.category, proposed.candidate.sources[0])
            return "rejected"
        if word == "l":
            return "later"
        if word == "q":
            return None
        if word == "e":
            proposed = _edited(proposed, desk, person)
            _show(proposed, which, person.say)
        elif word != "a":
            person.say("a, e, r, l or q, and Enter")


# --- showing ----------------------------------------------------------------------------------------------------------------------


def _show(proposed: Proposed, which: str, say: Say) -> None:
    place, candidate, example = proposed.place, proposed.candidate, proposed.example
    other = f" (or {place.runner_up})" if place.runner_up and place.runner_up != place.category else ""
    tier, spoken = example.get("tier", place.tier), example.get("language", place.language)
    say("")
    say(f"{which}: {place.category}{other}, {tier}, {spoken}; {'; '.join(proposed.why)}")
    say(f"   from {', '.join(candidate.sources[:3])}" + (f" and {len(candidate.sources) - 3} more" if len(candidate.sources) > 3 else ""))
    for turn in example.get("turns") or [example]:
        _say_turn("user", turn.get("user", ""), say)
        _say_turn("jessy", turn.get("jessy", ""), say)
    if candidate.said:
        _say_turn("said", candidate.said, say)
    if candidate.taken_out:
        say("   taken out: " + ", ".join(f"{count} {kind}" for kind, count in candidate.taken_out.items()))
    for gate in proposed.gates:
        say(f"   to be edited: {gate}")


def _say_turn(who: str, text: str, say: Say) -> None:
    for number, line in enumerate(str(text).split("\n")):
        say(f"   {who + '>' if not number else '':<7}{line}")


# --- editing ----------------------------------------------------------------------------------------------------------------------


def _edited(proposed: Proposed, desk: Desk, person: Person) -> Proposed:
    """As the person leaves it; as it was where that cannot be used, with the reason."""
    before = editing.as_document(proposed.example, proposed.place.category, list(desk.categories))
    try:
        after = person.edit(before)
        if after == before or not after.strip():
            person.say("   left as it was")
            return proposed
        category, example = editing.from_document(after, list(desk.categories))
    except UserError as error:
        for line in str(error).splitlines():
            person.say(f"   {line}")
        return proposed
    runner_up = proposed.place.runner_up if category == proposed.place.category else ""
    place = proposed.place._replace(category=category, runner_up=runner_up)
    note = proposed.example["source"] + ("" if proposed.example["source"].endswith("edited by a person") else ", edited by a person")
    return replace(proposed, place=place, example={**example, "source": note}, gates=())


# --- accepting --------------------------------------------------------------------------------------------------------------------


def _accepted(proposed: Proposed, desk: Desk, person: Person) -> bool:
    """Whether it is in the specs now. Whatever stands against it is told, and left to the person where the project would still load."""
    file = category_file(proposed.place.category)
    try:
        after = inserted((desk.root / file).read_bytes(), file, [proposed.example])
        doubts = [*_doubts(proposed.example, desk), *desk.trial.missed({file: after})]
        if doubts:
            for doubt in doubts:
                person.say(f"   {doubt}")
            if (person.ask(_SURE) or "").strip().lower()[:1] != "y":
                return False
            after = inserted((desk.root / file).read_bytes(), file, [proposed.example])
        _put(desk.root / file, after, desk.accept)
    except (UserError, OSError) as error:
        person.say("   it cannot be taken over; the specs are as they were:")
        for line in str(error).splitlines():
            person.say(f"   {line}")
        if "dataset.balance" in str(error):
            person.say("   leave it for later: examples of other groups, or a wider tolerance in specs/project.yaml, make room for it")
        return False
    store.decide(desk.decisions, proposed.id, store.ACCEPTED, proposed.place.category, proposed.candidate.sources[0])
    person.say(f"   now the last example of {file}")
    return True


def _put(path: Path, data: bytes, accept: Callable[[], object]) -> None:
    """Write the file; put it back, byte for byte, unless the project loads with it."""
    path = path.resolve()  # a link stays one
    before, loads = path.read_bytes(), False
    try:
        _write(path, data)
        accept()
        loads = True
    finally:
        if not loads and path.read_bytes() == data:
            _write(path, before)


def _write(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
        temporary.chmod(mode)


def _doubts(example: dict[str, Any], desk: Desk) -> Iterator[str]:
    """What the dataset's gates do not look at: personal data, attacks, what is held out."""
    texts = list(texts_of(example))
    for text in texts:
        for stands in placeholders_in(text):
            yield BRACKETS.format(stands)
        found = strip(cleaned(text), keep=desk.keep).counts
        if found:
            yield f"it holds what looks like personal data ({', '.join(found)}): {text[:80]!r}"
        attack = attack_in(cleaned(text), desk.control_tokens)
        if attack:
            yield f"it holds what looks like an attack ({attack}): {text[:80]!r}"
    asked = [turn["user"] for turn in example.get("turns") or [example] if isinstance(turn, dict) and isinstance(turn.get("user"), str)]
    yield from desk.leaks(asked)


def texts_of(value: Any) -> Iterator[str]:
    """Every text in an example but the note of where it came from."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("source", "language", "tier"):
                yield from texts_of(item)
