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
class Paths:
    """root: the folder that holds dodo.py, specs/ and templates/."""

    root: Path

    @property
    def build(self) -> Path:
        return self.root / "build"

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
        return RecipePaths(self.build / "recipes" / name)

    @property
    def deployments(self) -> Path:
        return self.build / "deployments"

    @property
    def verdicts(self) -> Path:
        """What people said of answers in `doit chat`."""
        return self.build / "feedback" / "chat.jsonl"

    def captured(self, client: str) -> Path:
        """The client as it really asks; in place of specs/clients/CLIENT.yaml where it is there (see generators.specs.project)."""
        return self.build / "clients" / f"{client}.yaml"

    def modelfile(self, recipe: str, persona: str) -> Path:
        return self.build / "modelfiles" / recipe / f"{persona}.Modelfile"
