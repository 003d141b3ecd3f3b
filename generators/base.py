"""A base model, wherever it comes from, as a directory that `mlx_lm.load` loads: build/models/<name>/.

From a GGUF the weights are dequantised tensor by tensor, and config and tokenizer rebuilt from the metadata; the GGUF itself is kept
beside them (`base.gguf`), since the export starts from its bytes. A Hugging Face directory keeps its weights as they are. Its tokenizer
is rebuilt as well, by the rules that llama.cpp follows, so that training and the engine cut text alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators import architectures, base_sources, safetensors_stream
from generators.errors import UserError
from generators.files import atomic_directory, human_bytes, read_json, require_disk, sha256_file, sha256_text, write_json

if TYPE_CHECKING:
    import numpy as np

    from generators.architectures import Architecture
    from generators.base_sources import Found
    from generators.gguf_file import GgufFile
    from generators.gguf_tokenizer import Vocabulary

Report = Callable[[str], None]
BASE_GGUF = "base.gguf"


def at_hand(spec: Mapping[str, Any]) -> str | None:
    """Which source of the model spec would be used, without importing it; None when none is on this machine."""
    found, _ = base_sources.find(spec["sources"])
    return None if found is None else found.description


def import_base(
    spec: Mapping[str, Any], name: str, target: Path, chat_template: str, report: Report, end_of_turn: str | None = None
) -> dict[str, Any]:
    """Make `target` from the first source at hand; a repository is downloaded only when nothing is. Returns what source.json holds.

    end_of_turn: the token that ends an answer; it joins the model's own end tokens in config.json. Raises UserError, with `target` as it
    was, when no source is at hand, when the hash or the architecture is another than the spec's, or when the file is damaged.
    """
    found = _found_or_downloaded(spec, name, report)
    require_disk(target.parent, 4 * spec["parameters"], f"base {name}")  # two bytes a parameter, and the source beside them
    report(f"base {name}: {found.description}")
    with atomic_directory(target) as folder:
        if found.path is not None and found.path.is_dir():
            source = _import_directory(spec, found, folder, chat_template, end_of_turn)
        else:
            source = _import_gguf(spec, found, folder, chat_template, end_of_turn)
        write_json(folder / "source.json", source)
    size = f"{source['parameters']:,} parameters, {source['file_type']}, {human_bytes(source['size'])}"
    report(f"base {name}: {source['architecture']}, {size}")
    return source


def _found_or_downloaded(spec: Mapping[str, Any], name: str, report: Report) -> Found:
    found, reasons = base_sources.find(spec["sources"])
    if found is not None:
        return found
    for source in spec["sources"]:
        if "repo" in source:
            return base_sources.download(source, report)
    raise UserError(f"base {name} is not at hand: {'; '.join(reasons)}")


def _check_architecture(spec: Mapping[str, Any], architecture: Architecture, where: object) -> None:
    if spec["architecture"] != architecture.name:
        raise UserError(f"{where}: this is a {architecture.name} model, the spec says {spec['architecture']}")


# A GGUF.


def _import_gguf(spec: Mapping[str, Any], found: Found, folder: Path, chat_template: str, end_of_turn: str | None) -> dict[str, Any]:
    from generators.gguf_file import GgufFile
    from generators.gguf_tokenizer import vocabulary_of_gguf

    digest = base_sources.fetch_gguf(found, folder / BASE_GGUF)
    with _naming(found, folder / BASE_GGUF), GgufFile(folder / BASE_GGUF) as gguf:
        architecture = architectures.of_gguf(gguf.require("general.architecture"), found.description)
        _check_architecture(spec, architecture, found.description)
        config = architectures.config_of_gguf(architecture, gguf)
        tensors = _weights_of_gguf(architecture, config, gguf)
        vocabulary = vocabulary_of_gguf(gguf)
        if len(vocabulary.tokens) != config["vocab_size"]:
            raise UserError(f"{gguf.path}: {len(vocabulary.tokens)} tokens for an embedding of {config['vocab_size']} rows")
        dtype = "BF16" if any(gguf.tensors[theirs].type == "BF16" for _, theirs, _ in tensors) else "F16"
        _write_config(folder, config | {"dtype": {"F16": "float16", "BF16": "bfloat16"}[dtype]}, vocabulary, end_of_turn)
        with ThreadPoolExecutor(1) as beside:  # Python's work on the tokenizer leaves the second core to the weights
            tokenizer = beside.submit(_write_tokenizer, folder, vocabulary, chat_template, config["max_position_embeddings"])
            _write_weights(folder / "model.safetensors", architecture, config, gguf, tensors, dtype)
            tokenizer.result()
        return {
            "source": found.description,
            "path": str(found.path or found.package),
            "sha256": digest,
            "architecture": architecture.name,
            "parameters": sum(_count(shape) for _, _, shape in tensors),
            "file_type": _file_type(gguf),
            "size": gguf.file_size,
        }


@contextmanager
def _naming(found: Found, temporary: Path) -> Iterator[None]:
    """In errors, the name of the source in place of that of a file that is removed when the import fails."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(temporary), str(found.path or found.description))) from error


_Weight = tuple[str, str, tuple[int, ...]]  # Hugging Face name, GGUF name, shape


def _weights_of_gguf(architecture: Architecture, config: Mapping[str, Any], gguf: GgufFile) -> list[_Weight]:
    """Every weight, found and in shape. Raises UserError for one that is missing, and for tensors that nothing would read."""
    weights: list[_Weight] = []
    for ours, shape in architecture.weights(config):
        theirs = architecture.gguf_name(ours)
        assert theirs is not None
        if theirs not in gguf.tensors:
            raise UserError(f"{gguf.path}: tensor {theirs} is missing")
        if gguf.tensors[theirs].shape != shape:
            raise UserError(f"{gguf.path}: tensor {theirs} has shape {gguf.tensors[theirs].shape}, {shape} is due")
        weights.append((ours, theirs, shape))
    unknown = set(gguf.tensors) - {theirs for _, theirs, _ in weights} - set(architectures.DERIVED_TENSORS)
    if unknown:
        raise UserError(f"{gguf.path}: tensor {min(unknown)} is no part of a {architecture.name} model as it is known here")
    return weights


def _write_weights(
    target: Path, architecture: Architecture, config: Mapping[str, Any], gguf: GgufFile, weights: list[_Weight], dtype: str
) -> None:
    import numpy as np

    from generators.slices import in_order, row_slices

    def jobs() -> Iterator[Callable[[], np.ndarray]]:
        for ours, theirs, shape in weights:
            order = architectures.row_order(architecture, ours, config)
            back = None if order is None else np.argsort(order)
            offset = architecture.norm_offset if theirs.endswith("_norm.weight") else 0.0
            for start, stop in row_slices(shape):
                yield partial(_weight_slice, gguf, theirs, start, stop, back, offset, dtype)

    with target.open("wb") as out:
        out.write(safetensors_stream.header([(ours, shape, dtype) for ours, _, shape in weights]))
        for data in in_order(jobs()):
            out.write(data.data)


def _weight_slice(gguf: GgufFile, name: str, start: int, stop: int, order: np.ndarray | None, offset: float, dtype: str) -> np.ndarray:
    from generators.quantise import encode
    from generators.slices import reordered_rows

    rows = reordered_rows(partial(gguf.rows, name), gguf.tensors[name].shape, start, stop, order)
    try:
        return encode(rows - offset if offset else rows, dtype)
    except UserError as error:
        raise UserError(f"{gguf.path}: tensor {name} {error}") from error


def _file_type(gguf: GgufFile) -> str:
    """The quantisation of the file, as llama.cpp spells it."""
    from gguf import LlamaFileType

    number = gguf.value("general.file_type")
    try:
        return LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return f"file type {number}"


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


# A Hugging Face directory.


def _import_directory(spec: Mapping[str, Any], found: Found, folder: Path, chat_template: str, end_of_turn: str | None) -> dict[str, Any]:
    origin = found.path
    assert origin is not None
    files = safetensors_stream.model_files(origin)
    tensors = _weights_of_directory(files)
    config = architectures.normalise_config(_read_object(origin / "config.json"), "lm_head.weight" in tensors, origin)
    architecture = architectures.of_config(config, origin)
    _check_architecture(spec, architecture, origin)
    shapes = _weights_found(architecture, config, tensors, origin)
    vocabulary = _vocabulary_of_directory(origin, config["vocab_size"])
    for file in files:
        base_sources.link_or_copy(file, folder / file.name)
    _write_config(folder, config, vocabulary, end_of_turn)
    _write_tokenizer(folder, vocabulary, chat_template, config["max_position_embeddings"])
    digests = [sha256_file(file) for file in files]
    return {
        "source": found.description,
        "path": str(origin),
        "sha256": digests[0] if len(digests) == 1 else sha256_text("\n".join(digests)),
        "architecture": architecture.name,
        "parameters": sum(map(_count, shapes.values())),
        "file_type": "/".join(sorted({tensor.dtype for tensor in tensors.values()})),
        "size": sum(file.stat().st_size for file in files),
    }


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: an object is expected")
    return value


def _weights_of_directory(files: list[Path]) -> dict[str, safetensors_stream.StoredTensor]:
    tensors: dict[str, safetensors_stream.StoredTensor] = {}
    for file in files:
        with safetensors_stream.SafetensorsFile(file) as opened:
            tensors |= opened.tensors
    return tensors


def _weights_found(
    architecture: Architecture, config: Mapping[str, Any], tensors: Mapping[str, safetensors_stream.StoredTensor], where: Path
) -> dict[str, tuple[int, ...]]:
    """Every weight that the config asks for, found and in shape. Raises UserError like `_weights_of_gguf`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in architecture.weights(config):
        if name not in tensors:
            raise UserError(f"{where}: tensor {name} is missing")
        if tensors[name].shape != shape:
            raise UserError(f"{where}: tensor {name} has shape {tensors[name].shape}, {shape} is due")
        shapes[name] = shape
    unknown = [name for name in tensors if name not in shapes and name != "lm_head.weight" and not name.endswith("rotary_emb.inv_freq")]
    if unknown:
        raise UserError(f"{where}: tensor {min(unknown)} is no part of a {architecture.name} model as it is known here")
    return shapes


def _vocabulary_of_directory(folder: Path, rows: int) -> Vocabulary:
    from generators.gguf_tokenizer import vocabulary_of_json

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder}: no tokenizer.json in it; save the tokenizer with transformers' save_pretrained")
    config = _read_object(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    return vocabulary_of_json(path.read_text(encoding="utf-8"), config, rows, path)


# What both write.


def _write_config(folder: Path, config: Mapping[str, Any], vocabulary: Vocabulary, end_of_turn: str | None) -> None:
    """config.json, with the ids of the vocabulary; generation ends at its end token, its own end of turn, and `end_of_turn`."""
    ends = [vocabulary.ids[role] for role in ("eos", "eot") if role in vocabulary.ids]
    if end_of_turn is not None:
        if end_of_turn not in vocabulary.tokens:
            raise UserError(f"the base has no token {end_of_turn!r}, with which its chat format ends a turn; choose another chat_format")
        ends.append(vocabulary.tokens.index(end_of_turn))
    roles = {f"{role}_token_id": vocabulary.ids[role] for role in ("bos", "pad") if role in vocabulary.ids}
    ends = list(dict.fromkeys(ends))
    write_json(folder / "config.json", {**config, **roles, "eos_token_id": ends[0] if len(ends) == 1 else ends})


def _write_tokenizer(folder: Path, vocabulary: Vocabulary, chat_template: str, context_length: int) -> None:
    from generators.gguf_tokenizer import build_tokenizer, tokenizer_config

    build_tokenizer(vocabulary).save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", tokenizer_config(vocabulary, chat_template, context_length))
