"""The finished model as a GGUF: base tensors, plus the adapter, quantised, streamed from file to file; and the proof that it is whole.

Where the base came as a GGUF its metadata and tokenizer are copied, and tensors that the adapter leaves alone keep their bytes when
they have the right type already. Otherwise both are written from config.json and tokenizer.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators import architectures, ggml, gguf_file, safetensors_stream
from generators.architectures import Architecture
from generators.base import BASE_GGUF
from generators.errors import UserError
from generators.files import atomic_path, human_bytes, read_json, require_disk, sha256_file
from generators.gguf_file import Entry, GgufFile, Tensor
from generators.lora_delta import Delta, check_deltas, load_deltas
from generators.quantise import FILE_TYPES, QUANTISATIONS, check_quantisation, encode, needs_ggml, tensor_type

if TYPE_CHECKING:
    import numpy as np

    from generators.gguf_tokenizer import Vocabulary

__all__ = ["QUANTISATIONS", "check_gguf", "write_gguf"]

# Of a base's metadata: what is true of that file alone, and its chat templates, which ours replaces.
_OF_THE_BASE_FILE = (
    "general.alignment", "general.file_type", "general.quantization_version", "split.", "quantize.imatrix.", "tokenizer.chat_template",
)  # fmt: skip
_TEMPLATE, _EOT = "tokenizer.chat_template", "tokenizer.ggml.eot_token_id"
# Without these llama.cpp or Ollama refuses a file, or reads it wrongly.
_REQUIRED_KEYS = (
    "general.architecture", "general.name", "general.file_type", "general.quantization_version",
    "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.eos_token_id", _TEMPLATE,
)  # fmt: skip
_REQUIRED_MODEL_KEYS = (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon",
)  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """One tensor to be written. rows(start, stop): the base's rows as float32, in GGUF's order and values. raw: the same as stored, or
    None where the stored bytes are not what a GGUF holds. type: of the stored bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    rows: Callable[[int, int], np.ndarray]
    raw: Callable[[int, int], np.ndarray] | None
    delta: Delta | None = None


@dataclass(frozen=True)
class _Export:
    """Everything that goes into a file but for the types of its tensors. tied: the embedding is the output as well."""

    metadata: dict[str, Entry]
    vocabulary: Vocabulary
    parts: list[_Part]
    layers: int
    tied: bool


def write_gguf(
    base: Path,
    adapter: Path | None,
    target: Path,
    quantisation: str,
    chat_template: str,
    metadata: Mapping[str, str],
    report: Callable[[str], None],
    end_of_turn: str | None = None,
) -> dict[str, Any]:
    """Write `base` (+ `adapter`) to `target` in one of QUANTISATIONS. Returns {quantisation, size, sha256, bits_per_weight, tensors, kept,
    types}; kept: how many tensors have the base's very bytes, types: how many have each ggml type.

    metadata: texts by GGUF key (`general.name`, `general.license`, ...), over those of the base. end_of_turn: the token at which engines
    stop. Raises UserError, with `target` as it was: an unknown quantisation, a K-quant without llama.cpp, base and adapter that do not
    fit, values that are not finite, no disk.
    """
    check_quantisation(quantisation)
    deltas = load_deltas(adapter) if adapter is not None else {}
    with ExitStack() as opened:
        export = _open_base(base, deltas, adapter, opened)
        types = [tensor_type(part.name, part.shape, quantisation, export.layers, export.tied) for part in export.parts]
        if any(map(needs_ggml, types)) and ggml.quantiser() is None:
            raise UserError(f"{quantisation} is made by llama.cpp, which is not installed; run: pip install -e '.[embedded]'")
        plan = gguf_file.plan((part.name, part.shape, kind) for part, kind in zip(export.parts, types, strict=True))
        head = gguf_file.header(_finished_metadata(export, quantisation, chat_template, metadata, end_of_turn), plan)
        require_disk(target.parent, len(head) + sum(tensor.size for tensor in plan), f"{target.name}")
        report(f"{target.name}: writing {len(plan)} tensors, {len(deltas)} of them changed by the adapter")
        with atomic_path(target) as temporary, temporary.open("wb") as out:
            out.write(head)
            for data in _tensor_data(export.parts, plan):
                out.write(data)
    size = target.stat().st_size
    weights = sum(tensor.rows * tensor.shape[-1] for tensor in plan)
    report(f"{target.name}: {human_bytes(size)}, {8 * size / weights:.2f} bits a weight")
    return {
        "quantisation": quantisation,
        "size": size,
        "sha256": sha256_file(target),
        "bits_per_weight": 8 * size / weights,
        "tensors": len(plan),
        "kept": sum(_keeps_bytes(part, tensor) for part, tensor in zip(export.parts, plan, strict=True)),
        "types": dict(Counter(types).most_common()),
    }


def _keeps_bytes(part: _Part, tensor: Tensor) -> bool:
    return part.delta is None and part.raw is not None and part.type == tensor.type


def _tensor_data(parts: Sequence[_Part], plan: Sequence[Tensor]) -> Iterator[Any]:
    """The data section: tensors in order, each padded."""
    from generators.slices import in_order, row_slices

    def jobs() -> Iterator[Callable[[], Any]]:
        for part, tensor in zip(parts, plan, strict=True):
            for start, stop in row_slices(part.shape):
                yield partial(_encoded_slice, part, tensor, start, stop)
            yield partial(bytes, gguf_file.padding(tensor.size))

    yield from in_order(jobs())


def _encoded_slice(part: _Part, tensor: Tensor, start: int, stop: int) -> np.ndarray:
    if _keeps_bytes(part, tensor):
        assert part.raw is not None
        return part.raw(start, stop)
    rows = part.rows(start, stop)
    try:
        return encode(part.delta.apply(rows, start) if part.delta else rows, tensor.type)
    except UserError as error:
        raise UserError(f"tensor {part.name} {error}") from error


# The two kinds of base.


def _open_base(base: Path, deltas: dict[str, Delta], adapter: Path | None, opened: ExitStack) -> _Export:
    config = _read_config(base)
    architecture = architectures.of_config(config, base)
    if adapter is not None:
        check_deltas(deltas, dict(architecture.weights(config)), adapter)
    by_gguf_name = {}
    for name, delta in deltas.items():
        theirs = architecture.gguf_name(name)
        assert theirs is not None
        by_gguf_name[theirs] = delta.reordered(architectures.row_order(architecture, name, config))
    if (base / BASE_GGUF).is_file():
        return _export_of_gguf(opened.enter_context(GgufFile(base / BASE_GGUF)), config, by_gguf_name)
    return _export_of_directory(base, architecture, config, by_gguf_name, opened)


def _read_config(base: Path) -> dict[str, Any]:
    try:
        return read_json(base / "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"there is no base model in {base}; run: doit base") from error


def _export_of_gguf(gguf: GgufFile, config: Mapping[str, Any], deltas: Mapping[str, Delta]) -> _Export:
    from generators.gguf_tokenizer import vocabulary_of_gguf

    metadata = {key: entry for key, entry in gguf.metadata.items() if not key.startswith(_OF_THE_BASE_FILE)}
    vocabulary = vocabulary_of_gguf(gguf)
    if vocabulary.types != gguf.value("tokenizer.ggml.token_type"):  # types that an older conversion lost
        metadata["tokenizer.ggml.token_type"] = gguf_file.int32s(vocabulary.types)
        metadata["tokenizer.ggml.tokens"] = gguf_file.texts(vocabulary.tokens)
    parts = [
        _Part(name, tensor.shape, tensor.type, partial(gguf.rows, name), partial(gguf.raw, name), deltas.get(name))
        for name, tensor in gguf.tensors.items()
    ]
    return _Export(metadata, vocabulary, parts, config["num_hidden_layers"], "output.weight" not in gguf.tensors)


def _export_of_directory(
    base: Path, architecture: Architecture, config: Mapping[str, Any], deltas: Mapping[str, Delta], opened: ExitStack
) -> _Export:
    from generators.gguf_tokenizer import metadata_of, vocabulary_of_json

    files = [opened.enter_context(safetensors_stream.SafetensorsFile(path)) for path in safetensors_stream.model_files(base)]
    homes = {name: file for file in files for name in file.tensors}
    tokenizer = base / "tokenizer.json"
    if not tokenizer.is_file():
        raise UserError(f"{base}: no tokenizer.json in it; run: doit base")
    vocabulary = vocabulary_of_json(
        tokenizer.read_text(encoding="utf-8"), read_json(base / "tokenizer_config.json"), config["vocab_size"], tokenizer
    )
    parts = [_derived_part(name, table) for name, table in architectures.derived_tensors(config).items()]
    for name, shape in architecture.weights(config):
        if name not in homes:
            raise UserError(f"{base}: tensor {name} is missing; run: doit forget base && doit base")
        parts.append(_part_of_directory(homes[name], name, shape, architecture, config, deltas))
    metadata = architectures.metadata_of_config(architecture, config) | metadata_of(vocabulary)
    return _Export(metadata, vocabulary, parts, config["num_hidden_layers"], config["tie_word_embeddings"])


def _part_of_directory(
    file: safetensors_stream.SafetensorsFile,
    name: str,
    shape: tuple[int, ...],
    architecture: Architecture,
    config: Mapping[str, Any],
    deltas: Mapping[str, Delta],
) -> _Part:
    """A Hugging Face tensor as a GGUF has it: rows in llama.cpp's order, Gemma's norms plus one."""
    from generators.slices import reordered_rows

    theirs = architecture.gguf_name(name)
    assert theirs is not None
    order = architectures.row_order(architecture, name, config)
    offset = architecture.norm_offset if theirs.endswith("_norm.weight") else 0.0

    def rows(start: int, stop: int) -> np.ndarray:
        found = reordered_rows(partial(file.rows, name), shape, start, stop, order)
        return found + offset if offset else found

    as_stored = order is None and not offset
    return _Part(theirs, shape, file.tensors[name].dtype, rows, partial(file.raw, name) if as_stored else None, deltas.get(theirs))


def _derived_part(name: str, table: np.ndarray) -> _Part:
    return _Part(name, table.shape, "F32", rows=lambda start, stop: table.reshape(1, -1)[start:stop], raw=None)


def _finished_metadata(
    export: _Export, quantisation: str, chat_template: str, metadata: Mapping[str, str], end_of_turn: str | None
) -> dict[str, Entry]:
    finished = dict(export.metadata)
    finished.setdefault("general.name", gguf_file.text("model"))
    finished |= {key: gguf_file.text(value) for key, value in metadata.items()}
    finished["general.file_type"] = gguf_file.uint32(FILE_TYPES[quantisation])
    finished["general.quantization_version"] = gguf_file.uint32(2)
    finished[_TEMPLATE] = gguf_file.text(chat_template)
    if end_of_turn is not None:
        if end_of_turn not in export.vocabulary.tokens:
            raise UserError(f"the base has no token {end_of_turn!r}, with which its chat format ends a turn; choose another chat_format")
        finished[_EOT] = gguf_file.uint32(export.vocabulary.tokens.index(end_of_turn))
    return finished


# Integrity.


def check_gguf(path: Path, base: Path) -> dict[str, Any]:
    """Read `path` back and compare it with the model in `base`. Returns {tensors, parameters, size, bits_per_weight, types}.

    Raises UserError naming the first offence: a file cut short, a tensor of the base that is missing, twice there, in another shape or
    of a type that does not belong, one that the base does not have, NaN or infinite values, metadata or a chat template that is missing.
    """
    config = _read_config(base)
    architecture = architectures.of_config(config, base)
    with GgufFile(path) as gguf:
        _check_tensors(gguf, architecture, config)
        _check_metadata(gguf, architecture, config)
        _check_values(gguf)
        parameters = sum(tensor.rows * tensor.shape[-1] for tensor in gguf.tensors.values())
        return {
            "tensors": len(gguf.tensors),
            "parameters": parameters,
            "size": gguf.file_size,
            "bits_per_weight": 8 * gguf.file_size / parameters,
            "types": dict(Counter(tensor.type for tensor in gguf.tensors.values()).most_common()),
        }


def _check_tensors(gguf: GgufFile, architecture: Architecture, config: Mapping[str, Any]) -> None:
    due = {architecture.gguf_name(name): shape for name, shape in architecture.weights(config)}
    for name, shape in due.items():
        if name not in gguf.tensors:
            raise UserError(f"{gguf.path}: tensor {name} is missing")
        tensor = gguf.tensors[name]
        if tensor.shape != shape:
            raise UserError(f"{gguf.path}: tensor {name} has shape {tensor.shape}, the base {shape}")
        if len(shape) == 1 and tensor.type != "F32":
            raise UserError(f"{gguf.path}: tensor {name} is {tensor.type}; norms and biases are F32")
    for name in gguf.tensors:
        if name not in due and name not in architectures.DERIVED_TENSORS:
            raise UserError(f"{gguf.path}: tensor {name} is not in the base")


def _check_metadata(gguf: GgufFile, architecture: Architecture, config: Mapping[str, Any]) -> None:
    for key in (*_REQUIRED_KEYS, *(f"{architecture.name}.{key}" for key in _REQUIRED_MODEL_KEYS)):
        gguf.require(key)
    if gguf.value("general.architecture") != architecture.name:
        raise UserError(f"{gguf.path}: general.architecture is {gguf.value('general.architecture')}, the base is {architecture.name}")
    if not gguf.value(_TEMPLATE).strip():
        raise UserError(f"{gguf.path}: the chat template is empty")
    tokens, types = len(gguf.value("tokenizer.ggml.tokens")), len(gguf.value("tokenizer.ggml.token_type"))
    if not tokens == types == config["vocab_size"]:
        raise UserError(f"{gguf.path}: {tokens} tokens and {types} token types for an embedding of {config['vocab_size']} rows")


def _check_values(gguf: GgufFile) -> None:
    from generators.slices import in_order, row_slices

    jobs = (partial(_check_finite, gguf, name, *rows) for name, tensor in gguf.tensors.items() for rows in row_slices(tensor.shape))
    for _ in in_order(jobs):
        pass  # each raises what it finds


def _check_finite(gguf: GgufFile, name: str, start: int, stop: int) -> None:
    import numpy as np

    rows = gguf.rows(name, start, stop)
    if not (np.isfinite(rows.max()) and np.isfinite(rows.min())):
        raise UserError(f"{gguf.path}: tensor {name} holds NaN or infinite values")
