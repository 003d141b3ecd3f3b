"""What is told of the served models: `/api/tags`, `/api/show`, `/v1/models`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generators.answering import Deployed
from generators.files import sha256_text
from generators.gguf_file import GgufFile

Json = dict[str, Any]
_LIST = 9  # GGUF's number of that kind of value
_HIDDEN = ("general.name", "tokenizer.chat_template")  # Ollama does not show them either


@dataclass(frozen=True)
class Weights:
    """What all models of a recipe share. info: the GGUF's metadata, null in place of lists. stamp: another after every change of the file;
    reading gigabytes for a digest at every start would be a long wait."""

    info: Json
    parameters: int
    quantisation: str
    size: int
    modified: str
    stamp: str

    @property
    def details(self) -> Json:
        family = self.info.get("general.architecture", "")
        return {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": human_number(self.parameters),
            "quantization_level": self.quantisation,
        }


def weights_of(gguf: Path, quantisation: str) -> Weights:
    """Raises UserError when the file is no GGUF."""
    with GgufFile(gguf) as file:
        count = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
        info = {key: None if entry.kind == _LIST else entry.value for key, entry in file.metadata.items() if key not in _HIDDEN}
    status = gguf.stat()
    modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat().replace("+00:00", "Z")
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    return Weights({**info, "general.parameter_count": count}, count, quantisation, status.st_size, modified, stamp)


def human_number(count: int) -> str:
    """`268.10M`, `2.5B`: as Ollama writes numbers of parameters."""
    for unit, size, digits in (("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0)):
        if count >= size:
            return f"{count / size:.0f}{unit}" if count % size == 0 else f"{count / size:.{digits}f}{unit}"
    return str(count)


def tags(models: Mapping[str, Deployed], weights: Weights) -> Json:
    return {"models": [_listed(model, weights) for model in models.values()]}


def _listed(model: Deployed, weights: Weights) -> Json:
    """The digest is of the model as a whole, so that personas differ in it."""
    name = f"{model.name}:latest"
    return {
        "name": name,
        "model": name,
        "modified_at": weights.modified,
        "size": weights.size,
        "digest": sha256_text(f"{weights.stamp} {model.name} {model.text}"),
        "details": weights.details,
    }


def show(model: Deployed, weights: Weights) -> Json:
    modelfile = model.modelfile
    parameters: list[tuple[str, Any]] = [*modelfile.parameters.items(), *(("stop", stop) for stop in modelfile.stops)]
    return {
        "license": "\n".join(modelfile.licences),
        "modelfile": model.text,
        "parameters": "\n".join(f"{name:<30} {_in_go(value)}" for name, value in parameters),
        "template": modelfile.template,
        "system": modelfile.system,
        "details": weights.details,
        "messages": modelfile.messages,
        "model_info": weights.info,
        "capabilities": ["completion"],
        "modified_at": weights.modified,
    }


def _in_go(value: Any) -> str:
    """A value as Go prints it with %#v."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def openai_list(models: Mapping[str, Deployed], weights: Weights) -> Json:
    created = int(datetime.fromisoformat(weights.modified).timestamp())
    data = [{"id": f"{name}:latest", "object": "model", "created": created, "owned_by": "library"} for name in models]
    return {"object": "list", "data": data}
