"""A project as a person has it: this one's specs and templates, and a recipe of two steps for a tiny random model with Gemma 3's tokenizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tiny_models import write_gguf, write_hf

ROOT = Path(__file__).parents[1]
MODEL = """\
description: A tiny random model with Gemma 3's tokenizer.
architecture: gemma3
chat_format: gemma
context_length: 2048
parameters: 17000000
sources:
  - gguf: tiny.gguf
licence: {name: none, url: none, notice: It is random numbers.}
"""
RECIPE = """\
description: Two steps on the tiny model.
base: tiny
personas: [jessy, casual]
framings: {mix: {persona: 0.5, none: 0.2, jessy-cli: 0.3}}
lora: {rank: 4, alpha: 8}
training: {batch_size: 4, max_steps: 2, validate_every: 2}
export: {quantisations: [Q8_0]}
deploy: {name: tiny}
evaluation: {suites: [multiturn], framings: [persona], max_tokens: 8}
"""


def write(root: Path, embedded_base: Path) -> Path:
    """The recipe `tiny` is the default one, so that a plain `doit` builds it."""
    for name in ("specs", "templates", "docs"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    (root / "generators").symlink_to(ROOT / "generators")
    (root / "build").mkdir()
    (root / "specs" / "models" / "tiny.yaml").write_text(MODEL)
    (root / "specs" / "recipes" / "tiny.yaml").write_text(RECIPE)
    project = root / "specs" / "project.yaml"
    project.write_text(project.read_text(encoding="utf-8").replace("default_recipe: jessy-mini", "default_recipe: tiny"), encoding="utf-8")
    write_hf(root / "hf", "gemma3", vocabulary_from=embedded_base)
    write_gguf(root / "hf", root / "tiny.gguf")
    return root


def doit(project: Path, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """said: its standard input."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-m", "doit", *words]
    return subprocess.run(command, cwd=project, env=environment, input=said, capture_output=True, text=True, timeout=300)
