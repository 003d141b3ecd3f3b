"""What each persona of a recipe changes of the first: parameters and sentences of the system prompt, out of their Modelfiles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generators.modelfile_reader import Modelfile, Value, read_file

Row = dict[str, Any]
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_MOST = 160  # letters of what a variant says besides, or leaves out


def variants(modelfiles: Mapping[str, Path], deployed: Mapping[str, str]) -> list[Row]:
    """A row a persona: {variant, in Ollama, parameters, says besides, leaves out}; none where there is one persona only.

    modelfiles: by persona, the first is what the others are held against; those that are not there are left out. deployed: the name of each in
    Ollama. Raises UserError for a Modelfile that cannot be read.
    """
    read = {persona: read_file(path) for persona, path in modelfiles.items() if path.is_file()}
    if len(read) < 2:
        return []
    first = next(iter(read.values()))
    return [
        {
            "variant": persona,
            "in Ollama": deployed[persona],
            "parameters": _parameters(modelfile, first),
            "says besides": _excerpt(_sentences(modelfile), _sentences(first)),
            "leaves out": _excerpt(_sentences(first), _sentences(modelfile)),
        }
        for persona, modelfile in read.items()
    ]


def _parameters(modelfile: Modelfile, first: Modelfile) -> str:
    """All of the first, and of the others those that differ."""
    changed = modelfile is first
    shown = {name: value for name, value in modelfile.parameters.items() if changed or first.parameters.get(name) != value}
    gone = [f"no {name}" for name in first.parameters if name not in modelfile.parameters]
    return ", ".join([f"{name} {_said(value)}" for name, value in shown.items()] + gone) or "the same"


def _said(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _sentences(modelfile: Modelfile) -> list[str]:
    return [sentence for sentence in _SENTENCE_END.split(modelfile.system) if sentence]


def _excerpt(sentences: list[str], other: list[str]) -> str:
    text = " ".join(sentence for sentence in sentences if sentence not in other)
    return text if len(text) <= _MOST else text[: _MOST - 1].rsplit(" ", 1)[0] + "…"
