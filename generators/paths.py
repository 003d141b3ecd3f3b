"""Where everything lives: the only module that knows the layout of `build/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RecipePaths:
    """What one recipe makes."""

    root: Path

    @property
    def frames(self) -> Path:
        return self.root / "frames"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def training_summary(self) -> Path:
        return self.root / "training.json"

    @property
    def fused(self) -> Path:
        return self.root / "fused"

    def gguf(self, quantisation: str) -> Path:
        return self.root / f"{self.root.name}-{quantisation}.gguf"

    @property
    def export(self) -> Path:
        return self.root / "export.json"

    @property
    def quantisations(self) -> Path:
        return self.root / "quantisations.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.json"

    @property
    def parity(self) -> Path:
        return self.root / "parity.json"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def card(self) -> Path:
        return self.root / "README.md"

    @property
    def lock(self) -> Path:
        return self.root / "lock.json"


@dataclass(frozen=True)
class SweepPaths:
    """What the sweep of one recipe makes."""

    root: Path

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    def adapter(self, name: str) -> Path:
        """Where the points that share this adapter have it made: a folder for `Paths.made`."""
        return self.adapters / name

    def trained(self, name: str) -> Path:
        """How the training of that adapter ended."""
        return self.adapter(name) / "trained.json"

    def result(self, point: str) -> Path:
        return self.root / "points" / f"{point}.json"

    def rows(self, point: str) -> Path:
        return self.root / "points" / f"{point}.jsonl"

    @property
    def answers(self) -> Path:
        return self.root / "answers"

    @property
    def results(self) -> Path:
        return self.root / "results.json"


@dataclass(frozen=True)
class RetrainPaths:
    """What the retraining of one recipe makes, beside what is deployed."""

    root: Path

    @property
    def candidate(self) -> Path:
        """A folder for `Paths.made`."""
        return self.root / "candidate"

    @property
    def made_from(self) -> Path:
        """Of what the candidate's adapter was made."""
        return self.candidate / "made_from.json"

    @property
    def verdict(self) -> Path:
        return self.root / "verdict.json"

    @property
    def adapters(self) -> Path:
        """Of what is and was deployed, each in a folder named by the digest of its GGUF, to be trained on."""
        return self.root / "deployed"

    @property
    def log(self) -> Path:
        """Of runs that nobody watches; beside the folder, which a first run has yet to make."""
        return self.root.parent.with_suffix(".log")

    @property
    def lock(self) -> Path:
        """One for all recipes: two trainings at once are one too many for a machine."""
        return self.root.parent / "running"


@dataclass(frozen=True)
class Paths:
    """root: the folder that holds dodo.py, specs/ and templates/. made: the folder of recipes/ and modelfiles/, build/ where there is none;
    a candidate and the points of a sweep have one of their own."""

    root: Path
    made: Path | None = None

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def cache(self) -> Path:
        """What saves time and is nobody's to read; what is gone from it is worked out again."""
        return self.build / ".cache"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    def samples(self, category: str) -> Path:
        return self.build / "samples" / f"{category}.jsonl"

    @property
    def dataset(self) -> Path:
        return self.build / "dataset"

    def model(self, name: str) -> Path:
        return self.build / "models" / name

    def recipe(self, name: str) -> RecipePaths:
        return RecipePaths((self.made or self.build) / "recipes" / name)

    @property
    def deployments(self) -> Path:
        return self.build / "deployments"

    @property
    def integrations(self) -> Path:
        """What clients' configuration files were before `doit integrate`, a folder a client."""
        return self.build / "integrations"

    @property
    def feedback(self) -> Path:
        """What people left behind, and what was decided about it. Not in build/, where a clean would take it along; git ignores it."""
        return self.root / "feedback"

    @property
    def verdicts(self) -> Path:
        """What people said of answers in `doit chat`."""
        return self.feedback / "chat.jsonl"

    @property
    def decisions(self) -> Path:
        """What was accepted and rejected in `doit feedback --review`."""
        return self.feedback / "decisions.jsonl"

    @property
    def proposal(self) -> Path:
        return self.build / "feedback"

    def captured(self, client: str) -> Path:
        """The client as it really asks; in place of specs/clients/CLIENT.yaml where it is there (see generators.specs.project)."""
        return self.build / "clients" / f"{client}.yaml"

    def modelfile(self, recipe: str, persona: str) -> Path:
        return (self.made or self.build) / "modelfiles" / recipe / f"{persona}.Modelfile"

    @property
    def evaluations(self) -> Path:
        """Evaluations of one model alone, each in a folder named by the digest of all that decides it."""
        return self.build / "evaluations"

    def comparison(self, a: str, b: str) -> Path:
        return self.build / "compare" / f"{a}-vs-{b}"

    def sweep(self, recipe: str) -> SweepPaths:
        return SweepPaths(self.build / "sweeps" / recipe)

    def retrain(self, recipe: str) -> RetrainPaths:
        return RetrainPaths(self.build / "retrain" / recipe)

    @property
    def held_out(self) -> Path:
        """Feedback that no sample is made of: cases for a retrained model."""
        return self.feedback / "held_out.jsonl"
