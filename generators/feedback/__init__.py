"""Continuous learning: what people left behind becomes a proposal for the specs, and nothing is learnt that no person accepted.

What is read: `feedback/` in the project, where `doit chat` keeps thumbs and corrections (`chat.jsonl`) and where logs may be dropped, and
whatever `--from` names besides: daily logs of jessy-cli (see daily_logs.py), its JSON exports, and plain JSONL (both in exports.py). The
folder stands beside the specs, not in build/, where a clean would take it along, and git ignores it, since it may hold personal data.

What comes of it: `build/feedback/proposal.{diff,json}` (see proposal.py), and in `feedback/` what is to be remembered: `decisions.jsonl`
and `held_out.jsonl`, the evaluation cases for retraining (see store.py for both). One question in five is held out, by a hash of its words,
before anybody is asked, and never proposed.

An example that is accepted goes behind the last one of its category file, and `count`, where the file declares one, is raised by one, so
that no other example loses a sample. The review tries every example out before it is written. A gate of the dataset that it would miss is
named, and a person decides; what the project would not load with is not written at all. That is so for a group that outgrows its balance in
specs/project.yaml beyond the tolerance: then examples of other groups come first, or the tolerance is widened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generators.dataset import quality
from generators.dataset.entries import Entry
from generators.errors import SpecErrors
from generators.feedback import proposal as proposals
from generators.feedback import store
from generators.feedback.candidates import Candidate, LeftOut, candidates_of
from generators.feedback.judging import Judged, Known, judge
from generators.feedback.logs import Read, files_of, read
from generators.feedback.proposal import Proposal
from generators.feedback.review import Desk, Person, review
from generators.feedback.trial import Gates, Trial, opened
from generators.files import private_folder

Say = Callable[[str], None]


@dataclass(frozen=True)
class Places:
    """root: the project. folder: its `feedback/`. proposal: the folder that the proposal is written to."""

    root: Path
    folder: Path
    decisions: Path
    held_out: Path
    proposal: Path

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Rules:
    """control_tokens: of the chat formats. unmarked: takes the marker of iterations off an answer. gates: those of the dataset that the specs
    under a root miss. accept: loads the project's specs; both raise SpecErrors where they cannot be loaded."""

    control_tokens: frozenset[str]
    unmarked: Callable[[str], str]
    gates: Gates
    accept: Callable[[], object]


def feedback(
    places: Places, sources: Sequence[Path], knowing: Callable[[], Known], rules: Rules, person: Person | None, say: Say
) -> Proposal | None:
    """Read, judge and propose; with a `person`, go through the proposal as well. None where there is nothing to read.

    sources: files and folders beside `places.folder`. knowing: asked once there is something to compare.
    Raises UserError for a source that is not there.
    """
    files = _read(places, sources)
    if not files:
        say("nothing to learn from yet: say /good, /bad or /better TEXT in doit chat, or name logs with --from PATH")
        return None
    known = knowing()
    with opened(places.root, rules.gates) as trial:
        judged = _judged(places, files, known, rules)
        made = _made(places, files, judged, store.hold_out(places.held_out, judged.held_out), trial)
        proposals.write(places.proposal, places.root, made)
        for line in proposals.summary(made, places.name(places.held_out), places.name(places.proposal), in_review=person is not None):
            say(line)
        if person is None or not judged.proposed:
            return made
        try:
            reviewed = review(judged.proposed, _desk(places, known, rules, trial), person)
        finally:  # what was decided before an interrupt is decided
            decided = store.decisions(places.decisions)
            left = [proposed for proposed in judged.proposed if proposed.id not in decided]
            if len(left) < len(judged.proposed):
                judged.proposed = left
                made = _made(places, files, judged, made.newly_held, trial)
                proposals.write(places.proposal, places.root, made)
        say(f"accepted {reviewed.accepted}, rejected {reviewed.rejected}, left for later {reviewed.later}")
        if reviewed.accepted:
            say("doit builds with them; git diff specs/ shows them")
    return made


def _read(places: Places, sources: Sequence[Path]) -> list[Read]:
    own = (places.decisions, places.held_out)
    folders = [*([private_folder(places.folder)] if places.folder.is_dir() else []), *sources]
    return [read(found) for found in files_of(places.root, folders, own)]


def _judged(places: Places, files: Sequence[Read], known: Known, rules: Rules) -> Judged:
    exchanges = [exchange for file in files for exchange in file.exchanges]
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for found in candidates_of(exchanges, rules.control_tokens, known.names, rules.unmarked):
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            candidates.append(found)
    held = store.held_queries(places.held_out, places.name(places.held_out))
    judged = judge(candidates, known, store.decisions(places.decisions), held)
    judged.left_out[:0] = left_out
    return judged


def _made(places: Places, files: Sequence[Read], judged: Judged, newly_held: int, trial: Trial) -> Proposal:
    made = Proposal(files, judged, newly_held=newly_held, held=len(store.held_out(places.held_out)))
    made.changes, made.unplaced = proposals.changes_of(places.root, made.ready)
    try:
        made.gates = trial.missed(made.changes)
    except SpecErrors as errors:
        made.gates = str(errors).splitlines()
    return made


def _desk(places: Places, known: Known, rules: Rules, trial: Trial) -> Desk:
    def leaks(asked: Sequence[str]) -> list[str]:
        entry = Entry("", "", "the example", "", "", None, tuple(asked), (), 0, 0, 0)
        queries = store.held_queries(places.held_out, places.name(places.held_out))
        return [found.message + f" ({found.sources[1]})" for found in quality.evaluation_leaks([entry], queries, known.limits)]

    return Desk(
        places.root, places.decisions, list(known.categories), trial, rules.accept, leaks, known.names, tuple(sorted(rules.control_tokens))
    )
