"""A project whose recipe is finished: the specs of this one, and a tiny model whose answer is known, as a real GGUF with a real tokenizer.

The model says one text, token after token, and ends: its blocks add nothing, and its head gives each token of the text the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import save_safetensors, weights_of, write_gguf, write_hf

ROOT = Path(__file__).parents[1]
ANSWER = "Sor kanka, bu çay güzel!"  # no token of it comes twice, or it would go round in a circle
CONTEXT = 2048
MODEL = """\
description: A tiny model that says one thing.
architecture: llama
chat_format: chatml
context_length: 2048
parameters: 60000
sources:
  - directory: hf
licence: {name: none, url: none, notice: It is hardly a model.}
"""
RECIPE = """\
description: The tiny model, finished.
base: tiny
personas: [jessy, casual]
framings: {mix: {persona: 0.7, jessy-cli: 0.3}}
export: {quantisations: [F16]}
deploy: {name: tiny}
evaluation: {suites: [multiturn], framings: [persona], max_tokens: 8}
"""


def write_model(folder: Path, answer: str = ANSWER, end: str = "<|im_end|>") -> Path:
    """The model in Hugging Face layout, its GGUF beside it as tiny.gguf. end: the control token after the answer."""
    from tokenizers import Tokenizer

    write_hf(folder, "llama", max_position_embeddings=CONTEXT)
    config, tokenizer = json.loads((folder / "config.json").read_text()), Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = [tokenizer.encode("\n").ids[0], *tokenizer.encode(answer).ids, tokenizer.token_to_id(end)]  # a prompt ends with a line break
    assert len(set(said)) == len(said), [tokenizer.decode([token]) for token in said]
    weights = weights_of(config)
    for name in weights:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = np.zeros_like(weights[name])
    embedded, head = weights["model.embed_tokens.weight"].astype(np.float32), np.zeros_like(weights["lm_head.weight"])
    weights["model.norm.weight"][:] = 1
    for token, following in zip(said, said[1:], strict=False):
        direction = embedded[token] / np.linalg.norm(embedded[token])
        head[following] = (direction * 8).astype(np.float16)  # normed, a row has the length 8: logits of 64 against a few
    save_safetensors(folder / "model.safetensors", weights | {"lm_head.weight": head})
    write_gguf(folder, folder / "tiny.gguf")
    return folder


def make(root: Path, answer: str = ANSWER, end: str = "<|im_end|>") -> Path:
    """The project under `root`, with what `chat` and `serve` read of a build of the recipe `tiny`, which is the default."""
    for name in ("specs", "templates"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    (root / "generators").symlink_to(ROOT / "generators")
    (root / "specs" / "models" / "tiny.yaml").write_text(MODEL)
    (root / "specs" / "recipes" / "tiny.yaml").write_text(RECIPE)
    project = root / "specs" / "project.yaml"
    project.write_text(project.read_text(encoding="utf-8").replace("default_recipe: jessy-mini", "default_recipe: tiny"), encoding="utf-8")
    persona = root / "specs" / "personas" / "jessy.yaml"  # one thread: two of them wait for one another on a busy machine
    persona.write_text(
        persona.read_text(encoding="utf-8").replace("num_ctx: 4096", f"num_ctx: {CONTEXT}\n  num_thread: 1"), encoding="utf-8"
    )
    model = write_model(root / "build" / "models" / "tiny", answer, end)
    recipe = root / "build" / "recipes" / "tiny"
    recipe.mkdir(parents=True)
    (model / "tiny.gguf").rename(recipe / "tiny-F16.gguf")
    return root


def start(root: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    """doit with these words, its output in one pipe."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")} | {"PYTHONUNBUFFERED": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-m", "doit", *words], cwd=root, env=environment, **pipes | options)


def doit(root: Path, *words: str, typed: str = "") -> tuple[int, str]:
    """(exit code, what was printed). typed: what comes in at standard input."""
    process = start(root, *words)
    out, _ = process.communicate(typed, timeout=300)
    return process.returncode, out
