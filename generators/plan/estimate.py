"""Seconds, memory and disk of a stage: as measured when it last ran on this machine, else from parameter and token counts.

The formulas give the order of magnitude, no more. With N parameters:

- training takes 4 N operations a token: 2 forward and 2 backward through the activations; the base's own gradients are not computed.
  It holds the base in the training dtype, three times over with activations and gradients;
- reading a prompt takes 2 N operations a token, and writing an answer reads all weights once a token;
- importing, merging and writing a model pass over its weights once.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Operations and bytes a second that a stage gets out of a machine, not what its maker says. The CPU's are for one core with a tuned BLAS.
_KINDS = {"cpu": (1e11, 3e10), "metal": (3e12, 1e11), "cuda": (5e13, 1e12)}
_WEIGHTS_A_SECOND = 3e7  # weights that one core dequantises, merges and quantises in a second
_BITS = {"F16": 16, "BF16": 16, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q5_0": 5.5, "Q4_K_M": 4.9, "Q4_0": 4.5, "auto": 8.5}
_LETTERS_A_TOKEN = 3.0  # of Turkish and English text, by Gemma's tokenizer
_PROMPT_TOKENS, _ANSWER_TOKENS = 150, 50  # of an evaluation query
_MEASURED_TOKENS = 5000  # of the samples that quantisations are measured on
_LOADING_S, _MODEST_MEMORY = 10.0, 150e6  # what starting an engine, and any stage without a model, takes
_ADAPTER_SHARE = 0.08  # weights of an adapter of rank 16 on all layers, to those of a small base, in float32


@dataclass(frozen=True)
class Machine:
    """name: as in what was measured. kind: cpu, metal or cuda. cores: that work on a stage."""

    name: str
    kind: str
    cores: int

    @classmethod
    def here(cls) -> Machine:
        """By what the system shows; no library is loaded to ask."""
        from generators.measure import this_machine

        metal = sys.platform == "darwin" and platform.machine() == "arm64"
        kind = "metal" if metal else "cuda" if Path("/dev/nvidia0").exists() else "cpu"
        return cls(this_machine(), kind, os.cpu_count() or 1)

    @property
    def operations(self) -> float:
        return _KINDS[self.kind][0] * (self.cores if self.kind == "cpu" else 1)

    @property
    def bandwidth(self) -> float:
        return _KINDS[self.kind][1]


@dataclass(frozen=True)
class Work:
    """What there is to do. parameters: of the base. letters: of all samples. queries: asked of both models."""

    parameters: int = 0
    letters: int = 0
    epochs: int = 0
    queries: int = 0
    quantisations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """measured: whether seconds and memory were, when the stage last ran here."""

    seconds: float
    memory: int
    disk: int
    measured: bool


def estimate(stage: str, work: Work, then: Work, taken: Mapping[str, Any], targets: list[Path], machine: Machine) -> Estimate:
    """stage: the task's name without the part after the colon. taken: of its last success, when there was `then` to do. targets: what it
    writes. Seconds that were measured are scaled by what the formulas say of `work` and `then`."""
    seconds, memory, disk = _formulas(stage, work, machine)
    there = [path.stat().st_size for path in targets if path.is_file()]
    disk = sum(there) if there and len(there) == len(targets) else disk
    measured = taken.get("machine") == machine.name and "seconds" in taken
    if measured:
        seconds, memory = float(taken["seconds"]) * seconds / _formulas(stage, then, machine)[0], int(taken["memory_bytes"])
    return Estimate(seconds, int(memory), int(disk), measured)


def _formulas(stage: str, work: Work, machine: Machine) -> tuple[float, float, float]:
    """Seconds, bytes of memory, bytes of disk."""
    n, width = work.parameters, 4 if machine.kind == "cpu" else 2
    passing = n / (_WEIGHTS_A_SECOND * machine.cores)
    if stage == "base":
        return passing, 2 * _MODEST_MEMORY, 4 * n
    if stage == "train":
        tokens = work.epochs * work.letters / _LETTERS_A_TOKEN
        return _LOADING_S + 4 * n * tokens / machine.operations, 3 * width * n, _ADAPTER_SHARE * n
    if stage == "fuse":
        return passing, 2 * _MODEST_MEMORY, 2 * n
    if stage == "gguf":
        files = sum(_BITS[name] / 8 * n for name in work.quantisations)
        return passing * len(work.quantisations) + _LOADING_S, 2 * _MODEST_MEMORY + n, files
    if stage == "quantisations":
        return (len(work.quantisations) + 2) * (_LOADING_S + 2 * n * _MEASURED_TOKENS / machine.operations), (width + 1) * n, 1e4
    if stage == "parity":
        return 2 * _LOADING_S, 2 * _MODEST_MEMORY + n, 1e5
    if stage == "evaluate":
        return _LOADING_S + work.queries * _seconds_a_query(n, machine), _MODEST_MEMORY + 1.5 * n, 1e6
    return 1.0, _MODEST_MEMORY, 1e6


def _seconds_a_query(parameters: int, machine: Machine) -> float:
    """Of the tuned model and of the base, both held in about a byte a weight."""
    return 2 * (2 * parameters * _PROMPT_TOKENS / machine.operations + _ANSWER_TOKENS * parameters / machine.bandwidth)
