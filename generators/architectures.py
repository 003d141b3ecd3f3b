"""The architectures that can be imported, fused and exported, and how each is written in its two homes.

Hugging Face (config.json, safetensors) on one side, GGUF (metadata, tensors) on the other; names and keys are those of
llama.cpp's `convert_hf_to_gguf.py` and `gguf-py/gguf/tensor_mapping.py`. Two values differ between the homes: Gemma's norm weights are
stored plus one in a GGUF, and llama's query and key rows stand there in another order (`row_order`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generators import gguf_file
from generators.errors import UserError, one_of

if TYPE_CHECKING:
    import numpy as np

    from generators.gguf_file import Entry, GgufFile

_LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_GEMMA3_LOCAL_BASE, _GEMMA3_PATTERN = 10000.0, 6  # rotation base of the windowed blocks; every how many blocks one sees everything
_ROPE_FREQUENCIES = "rope_freqs.weight"  # a table that llama.cpp derives from llama3's rope scaling; no weight of the model
# Tensors that a GGUF may have although no weight of the model answers to them; `output.weight` is a copy of a tied embedding.
DERIVED_TENSORS = (_ROPE_FREQUENCIES, "output.weight")

# Without these a config.json describes no model.
_CONFIG_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
)  # fmt: skip

_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
_NORM_BEFORE = {"post_attention_layernorm": "ffn_norm"}
_NORMS_AROUND = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


@dataclass(frozen=True)
class Architecture:
    """name: GGUF's. model_type, hf_class: config.json's. block: parts of a block, Hugging Face's name to GGUF's.
    norm_offset: what a GGUF's norm weights are larger by. permuted: whether query and key rows are reordered.
    biases: projections that always have a bias. tied: whether the embedding is always the output as well.
    head_dim_free: whether a head's width may differ from hidden size / heads. windowed: whether some blocks attend to a window only."""

    name: str
    model_type: str
    hf_class: str
    block: Mapping[str, str]
    norm_offset: float = 0.0
    permuted: bool = False
    biases: tuple[str, ...] = ()
    tied: bool = False
    head_dim_free: bool = True
    windowed: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def gguf_name(self, hf_name: str) -> str | None:
        """`model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`; None when it is no weight of this architecture."""
        module, _, kind = hf_name.rpartition(".")
        if module in _TOP:
            return f"{_TOP[module]}.{kind}"
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
        if match is None or match[2] not in self.block:
            return None
        return f"blk.{match[1]}.{self.block[match[2]]}.{kind}"

    def weights(self, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every tensor that a model of this config has: its Hugging Face name and its shape. One at a time, because a damaged config
        may promise any number of them: who looks for them stops at the first that is missing."""
        hidden, vocabulary = config["hidden_size"], config["vocab_size"]
        yield "model.embed_tokens.weight", (vocabulary, hidden)
        yield "model.norm.weight", (hidden,)
        if not config["tie_word_embeddings"]:
            yield "lm_head.weight", (vocabulary, hidden)
        block = self._block_weights(config)
        for layer in range(config["num_hidden_layers"]):
            for part, shape in block.items():
                yield f"model.layers.{layer}.{part}", shape

    def _block_weights(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        hidden, inner, head = config["hidden_size"], config["intermediate_size"], head_dim(config)
        queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
        outputs = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "o_proj": hidden}
        shapes: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (queries, hidden),
            "self_attn.k_proj.weight": (keys, hidden),
            "self_attn.v_proj.weight": (keys, hidden),
            "self_attn.o_proj.weight": (hidden, queries),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        for projection in tuple(outputs) if config.get("attention_bias") and self.permuted else self.biases:
            shapes[f"self_attn.{projection}.bias"] = (outputs[projection],)
        for part in self.block:
            if part in _HEAD_NORMS:
                shapes[f"{part}.weight"] = (head,)
            elif part.endswith("norm"):
                shapes[f"{part}.weight"] = (hidden,)
        return shapes


_GEMMA: dict[str, Any] = {"norm_offset": 1.0, "tied": True}
_ALL = (
    Architecture("gemma", "gemma", "GemmaForCausalLM", _BLOCK | _NORM_BEFORE, **_GEMMA),
    Architecture(
        "gemma2", "gemma2", "Gemma2ForCausalLM", _BLOCK | _NORMS_AROUND, **_GEMMA, windowed=True, defaults={"sliding_window": 4096}
    ),
    Architecture(
        "gemma3", "gemma3_text", "Gemma3ForCausalLM", _BLOCK | _NORMS_AROUND | _HEAD_NORMS, norm_offset=1.0, windowed=True,
        defaults={"rope_theta": 1_000_000.0, "sliding_window": 512},
    ),
    Architecture("llama", "llama", "LlamaForCausalLM", _BLOCK | _NORM_BEFORE, permuted=True),
    Architecture(
        "qwen2", "qwen2", "Qwen2ForCausalLM", _BLOCK | _NORM_BEFORE, biases=("q_proj", "k_proj", "v_proj"), head_dim_free=False,
        defaults={"rope_theta": 1_000_000.0},
    ),
    Architecture(
        "qwen3", "qwen3", "Qwen3ForCausalLM", _BLOCK | _NORM_BEFORE | _HEAD_NORMS, defaults={"rope_theta": 1_000_000.0}
    ),
)  # fmt: skip
SUPPORTED: tuple[str, ...] = tuple(architecture.name for architecture in _ALL)


def of_gguf(name: str, where: object) -> Architecture:
    """Raises UserError, naming `where` and what is supported, for any other `general.architecture`."""
    for architecture in _ALL:
        if architecture.name == name:
            return architecture
    raise UserError(f"{where}: architecture {name!r} is not supported; supported: {one_of(SUPPORTED)}")


def of_config(config: Mapping[str, Any], where: object) -> Architecture:
    """By config.json's `model_type`. Raises UserError like `of_gguf`."""
    model_type = config.get("model_type")
    if model_type == "gemma3":
        raise UserError(f"{where}: gemma3 with an image encoder is not supported; use a text-only gemma3_text model (270M, 1B)")
    for architecture in _ALL:
        if architecture.model_type == model_type:
            return architecture
    raise UserError(f"{where}: architecture {model_type!r} is not supported; supported: {one_of(SUPPORTED)}")


def head_dim(config: Mapping[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def row_order(architecture: Architecture, hf_name: str, config: Mapping[str, Any]) -> np.ndarray | None:
    """(rows,) int: which Hugging Face row each GGUF row is, or None where they are the same.

    llama.cpp rotates neighbouring values of a head, transformers the two halves of it: within a head of d rows, row 2j + i of the GGUF
    is row i * d/2 + j (`LlamaModel.permute` in convert_hf_to_gguf.py).
    """
    import numpy as np

    if not architecture.permuted:
        return None
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(hf_name.split(".")[-2])
    if heads is None:
        return None
    width = head_dim(config)
    return np.arange(heads * width).reshape(heads, 2, width // 2).swapaxes(1, 2).reshape(-1)


# GGUF metadata to config.json.


def config_of_gguf(architecture: Architecture, gguf: GgufFile) -> dict[str, Any]:
    """The config.json of the model in a GGUF. Raises UserError when metadata it stands on is missing or not supported."""
    prefix = architecture.name
    hidden, heads = _whole(gguf, f"{prefix}.embedding_length"), _whole(gguf, f"{prefix}.attention.head_count")
    config: dict[str, Any] = {
        "architectures": [architecture.hf_class],
        "model_type": architecture.model_type,
        "vocab_size": _embedding_rows(gguf),
        "hidden_size": hidden,
        "intermediate_size": _whole(gguf, f"{prefix}.feed_forward_length"),
        "num_hidden_layers": _whole(gguf, f"{prefix}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _whole(gguf, f"{prefix}.attention.head_count_kv", heads),
        "head_dim": _whole(gguf, f"{prefix}.attention.key_length", hidden // heads),
        "max_position_embeddings": _whole(gguf, f"{prefix}.context_length"),
        "rms_norm_eps": _real(gguf, f"{prefix}.attention.layer_norm_rms_epsilon"),
        "rope_theta": _real(gguf, f"{prefix}.rope.freq_base", 10000.0),
        "tie_word_embeddings": architecture.tied or "output.weight" not in gguf.tensors,
    }
    if not architecture.head_dim_free and config["head_dim"] != hidden // heads:
        raise UserError(f"{gguf.path}: {prefix} with heads of {config['head_dim']} values instead of {hidden // heads} is not supported")
    if architecture.name == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in gguf.tensors
    if scaling := _rope_scaling_of_gguf(architecture, gguf, config):
        config["rope_scaling"] = scaling
    return config | _gemma_config(architecture, gguf, config)


def _gemma_config(architecture: Architecture, gguf: GgufFile, config: dict[str, Any]) -> dict[str, Any]:
    name = architecture.name
    if not name.startswith("gemma"):
        return {"hidden_act": "silu"}
    own: dict[str, Any] = {"hidden_activation": "gelu_pytorch_tanh"}
    if architecture.windowed:
        own["sliding_window"] = _whole(gguf, f"{name}.attention.sliding_window", architecture.defaults["sliding_window"])
        # The largest of each family scale attention by the model's width, as llama.cpp knows them: by the number of blocks.
        by_width = (name, config["num_hidden_layers"]) in (("gemma2", 46), ("gemma3", 62))
        own["query_pre_attn_scalar"] = config["hidden_size"] // config["num_attention_heads"] if by_width else config["head_dim"]
    if name == "gemma2":
        own["attn_logit_softcapping"] = _real(gguf, "gemma2.attn_logit_softcapping", 50.0)
        own["final_logit_softcapping"] = _real(gguf, "gemma2.final_logit_softcapping", 30.0)
    if name == "gemma3":
        own["rope_local_base_freq"] = _real(gguf, "gemma3.rope.freq_base_swa", _GEMMA3_LOCAL_BASE)
        own["sliding_window_pattern"] = _whole(gguf, "gemma3.attention.sliding_window_pattern", _GEMMA3_PATTERN)
    return own


def _whole(gguf: GgufFile, key: str, default: int | None = None) -> int:
    """A positive whole number; where a file gives one for each block, the one they all have. UserError for anything else."""
    value = gguf.require(key) if default is None else gguf.value(key, default)
    if isinstance(value, list) and value:
        if len(set(value)) != 1:
            raise UserError(f"{gguf.path}: {key} differs between blocks, which is not supported")
        value = value[0]
    if type(value) is not int or value <= 0:
        raise UserError(f"{gguf.path}: {key} is {value!r}, a positive whole number is due")
    return value


def _real(gguf: GgufFile, key: str, default: float | None = None) -> float:
    """A positive number; float32's 9.99999997e-07 as the 1e-06 it was written from. UserError for anything else."""
    value = gguf.require(key) if default is None else gguf.value(key, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise UserError(f"{gguf.path}: {key} is {value!r}, a positive number is due")
    return _short(value)


def _embedding_rows(gguf: GgufFile) -> int:
    if "token_embd.weight" not in gguf.tensors:
        raise UserError(f"{gguf.path}: tensor token_embd.weight is missing")
    return gguf.tensors["token_embd.weight"].shape[0]


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _rope_scaling_of_gguf(architecture: Architecture, gguf: GgufFile, config: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = gguf.value(f"{architecture.name}.rope.scaling.type", "none")
    if _ROPE_FREQUENCIES in gguf.tensors:
        return _llama3_scaling_of_table(gguf, config)
    if kind == "none":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": _real(gguf, f"{architecture.name}.rope.scaling.factor")}
    raise UserError(f"{gguf.path}: rope scaling {kind!r} is not supported; supported: none, linear, llama3")


def _llama3_scaling_of_table(gguf: GgufFile, config: Mapping[str, Any]) -> dict[str, Any]:
    """llama3's scaling, told from the table that was derived from it."""
    import numpy as np

    table = gguf.rows(_ROPE_FREQUENCIES)[0]
    scaling = {"rope_type": "llama3", "factor": _short(float(table.max())), **_LLAMA3_ROPE}
    fits = 2 * len(table) == head_dim(config)
    if not fits or not np.allclose(table, llama3_frequencies({**config, "rope_scaling": scaling}), rtol=1e-4):
        raise UserError(f"{gguf.path}: {_ROPE_FREQUENCIES} holds no rope scaling of llama3's kind; others are not supported")
    return scaling


def llama3_frequencies(config: Mapping[str, Any]) -> np.ndarray:
    """(head_dim / 2,) float32: by how much each rotation is slowed down under llama3's rope scaling."""
    import numpy as np

    scaling, width = config["rope_scaling"], head_dim(config)
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    wavelengths = 2 * math.pi * config["rope_theta"] ** (np.arange(0, width, 2) / width)
    smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


# config.json to GGUF metadata.


def normalise_config(config: Mapping[str, Any], has_output: bool, where: object) -> dict[str, Any]:
    """A config.json with what our modules and mlx_lm read at the top level: newer transformers keep rotation under `rope_parameters`.

    has_output: whether the weights hold an output matrix of their own, which decides where the config does not say. Raises UserError for
    an unsupported architecture, a missing size, quantised weights, or rope scaling other than linear and llama3.
    """
    architecture = of_config(config, where)
    for key in _CONFIG_SIZES:
        if type(config.get(key)) is not int or config[key] <= 0:
            raise UserError(f"{where}: config.json has {key} {config.get(key)!r}, a positive whole number is due")
    if "quantization" in config or "quantization_config" in config:
        raise UserError(f"{where}: the weights are quantised; give the repository with the original float weights")
    own = {**architecture.defaults, **config}
    rope = config.get("rope_parameters") or {}
    if "full_attention" in rope:  # gemma3: one entry for each kind of block
        own.setdefault("rope_local_base_freq", rope.get("sliding_attention", {}).get("rope_theta", _GEMMA3_LOCAL_BASE))
        rope = rope["full_attention"]
    if "rope_theta" not in config and "rope_theta" in rope:
        own["rope_theta"] = rope["rope_theta"]
    own.setdefault("rope_theta", 10000.0)
    own.setdefault("num_key_value_heads", config["num_attention_heads"])
    own.setdefault("rms_norm_eps", 1e-6)
    own["rope_scaling"] = _rope_scaling_of_config(config.get("rope_scaling") or rope, where)
    own["tie_word_embeddings"] = architecture.tied or config.get("tie_word_embeddings", not has_output)
    own["head_dim"] = head_dim(own)
    if architecture.name == "gemma3":
        own.setdefault("rope_local_base_freq", _GEMMA3_LOCAL_BASE)
        own.setdefault("sliding_window_pattern", _window_pattern(config))
    return own


def _window_pattern(config: Mapping[str, Any]) -> int:
    """Every how many blocks one attends to everything."""
    kinds = config.get("layer_types") or []
    default = config.get("_sliding_window_pattern", _GEMMA3_PATTERN)
    return kinds.index("full_attention") + 1 if "full_attention" in kinds else default


def _rope_scaling_of_config(rope: Mapping[str, Any], where: object) -> dict[str, Any] | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": rope["factor"]}
    if kind == "llama3":
        return {"rope_type": "llama3", "factor": rope["factor"], **{key: rope[key] for key in _LLAMA3_ROPE}}
    raise UserError(f"{where}: rope scaling {kind!r} is not supported; supported: default, linear, llama3")


def metadata_of_config(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, Entry]:
    """The model's metadata of a GGUF, tokenizer and names aside. config: as `normalise_config` returns it."""
    prefix, scaling = architecture.name, config.get("rope_scaling") or {}
    width = head_dim(config)
    numbers = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
    }
    if architecture.head_dim_free:
        numbers |= {"attention.key_length": width, "attention.value_length": width}
    if prefix == "llama":
        numbers |= {"vocab_size": config["vocab_size"], "rope.dimension_count": width}
    if architecture.windowed:
        numbers["attention.sliding_window"] = config["sliding_window"]
    metadata = {"general.architecture": gguf_file.text(prefix), "general.type": gguf_file.text("model")}
    metadata |= {f"{prefix}.{key}": gguf_file.uint32(value) for key, value in numbers.items()}
    metadata[f"{prefix}.attention.layer_norm_rms_epsilon"] = gguf_file.float32(config["rms_norm_eps"])
    metadata[f"{prefix}.rope.freq_base"] = gguf_file.float32(config["rope_theta"])
    if scaling.get("rope_type") == "linear":
        metadata[f"{prefix}.rope.scaling.type"] = gguf_file.text("linear")
        metadata[f"{prefix}.rope.scaling.factor"] = gguf_file.float32(scaling["factor"])
    return metadata | _gemma_metadata(prefix, config)


def _gemma_metadata(prefix: str, config: Mapping[str, Any]) -> dict[str, Entry]:
    if prefix == "gemma2":
        caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
        return {f"gemma2.{key}": gguf_file.float32(config.get(key) or default) for key, default in caps.items()}
    metadata: dict[str, Entry] = {}
    if prefix == "gemma3":  # what every released model has is left out, as llama.cpp's converter leaves it
        if config["rope_local_base_freq"] != _GEMMA3_LOCAL_BASE:
            metadata["gemma3.rope.freq_base_swa"] = gguf_file.float32(config["rope_local_base_freq"])
        if config["sliding_window_pattern"] != _GEMMA3_PATTERN:
            metadata["gemma3.attention.sliding_window_pattern"] = gguf_file.uint32(config["sliding_window_pattern"])
    return metadata


def derived_tensors(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Tables that llama.cpp wants as float32 tensors beside the weights."""
    if (config.get("rope_scaling") or {}).get("rope_type") != "llama3":
        return {}
    return {_ROPE_FREQUENCIES: llama3_frequencies(config)}
