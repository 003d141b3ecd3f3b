"""Tiny random models of every supported architecture, as Hugging Face directories and as GGUF files.

The GGUF is written with the `gguf` package and its tensor names, not with our own code, so that the two can be held against each other.
Sizes are the smallest in which nothing is trivial: grouped keys, heads that are not hidden size / heads where the architecture allows
it, a window shorter than the test texts.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ARCHITECTURES = ("gemma", "gemma2", "gemma3", "llama", "qwen2", "qwen3")
SENTENCEPIECE = ("gemma", "gemma2", "gemma3")  # which of them come with SentencePiece's tokenizer
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' + "
    "message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CORPUS = [
    "naber kanka, nasıl gidiyor? İyidir valla, senden naber? Günaydın! Bugün hava çok güzel, öğleden sonra çay içelim mi?",
    "The first thought is rarely the best one. I think ownership in Rust is a set of rules that the compiler checks at compile time.",
    "fn main() { let x = vec![1, 2, 3]; println!(\"{:?}\", x); }  // don't panic, it's fine: we'll see 1234 and 56",
] * 3  # fmt: skip
_HIDDEN_SIZE = 64
LLAMA3_SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


def template_of(architecture: str) -> str:
    return GEMMA_TEMPLATE if architecture in SENTENCEPIECE else CHATML_TEMPLATE


def end_of_turn_of(architecture: str) -> str:
    return "<end_of_turn>" if architecture in SENTENCEPIECE else "<|im_end|>"


def spec_of(architecture: str, source: dict[str, Any], parameters: int = 1_000_000) -> dict[str, Any]:
    """A model spec with one source."""
    return {"architecture": architecture, "parameters": parameters, "context_length": 512, "sources": [source]}


def config_of(architecture: str, vocabulary_size: int, **overrides: Any) -> dict[str, Any]:
    """config.json of a tiny model; `overrides` go over it."""
    config: dict[str, Any] = {
        "architectures": [{"gemma": "Gemma", "gemma2": "Gemma2", "gemma3": "Gemma3", "llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[
            architecture] + "ForCausalLM"],
        "model_type": "gemma3_text" if architecture == "gemma3" else architecture,
        "vocab_size": vocabulary_size,
        "hidden_size": _HIDDEN_SIZE,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16 if architecture == "qwen2" else 32,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": architecture != "llama",
    }  # fmt: skip
    if architecture == "gemma2":
        config |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096}
    if architecture in ("gemma2", "gemma3"):
        config["query_pre_attn_scalar"] = config["head_dim"]
    if architecture == "gemma3":
        config |= {"sliding_window": 16, "sliding_window_pattern": 2, "rope_local_base_freq": 1000.0}
    return config | overrides


def weights_of(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """float16 weights by Hugging Face name, such that the next-token distribution is neither flat nor a single token."""
    rng = np.random.default_rng(seed)
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    gemma = config["model_type"].startswith("gemma")

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal((rows, columns), dtype=np.float32) * scale / np.sqrt(columns)).astype(np.float16)

    def norm(size: int) -> np.ndarray:
        return (rng.standard_normal(size, dtype=np.float32) * 0.2 + (0 if gemma else 1)).astype(np.float16)

    weights = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden, 3.0), "model.norm.weight": norm(hidden)}
    for layer in range(config["num_hidden_layers"]):
        block = {
            "self_attn.q_proj.weight": matrix(queries, hidden),
            "self_attn.k_proj.weight": matrix(keys, hidden),
            "self_attn.v_proj.weight": matrix(keys, hidden),
            "self_attn.o_proj.weight": matrix(hidden, queries),
            "mlp.gate_proj.weight": matrix(inner, hidden),
            "mlp.up_proj.weight": matrix(inner, hidden),
            "mlp.down_proj.weight": matrix(hidden, inner),
            "input_layernorm.weight": norm(hidden),
            "post_attention_layernorm.weight": norm(hidden),
        }
        if config["model_type"] in ("gemma2", "gemma3_text"):
            block |= {"pre_feedforward_layernorm.weight": norm(hidden), "post_feedforward_layernorm.weight": norm(hidden)}
        if config["model_type"] in ("gemma3_text", "qwen3"):
            block |= {"self_attn.q_norm.weight": norm(head), "self_attn.k_norm.weight": norm(head)}
        if config["model_type"] == "qwen2" or config.get("attention_bias"):
            sizes = {"q_proj": queries, "k_proj": keys, "v_proj": keys} | ({} if config["model_type"] == "qwen2" else {"o_proj": hidden})
            block |= {f"self_attn.{name}.bias": matrix(1, size, np.sqrt(size) / 3)[0] for name, size in sizes.items()}
        weights |= {f"model.layers.{layer}.{name}": value for name, value in block.items()}
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(config["vocab_size"], hidden, 3.0)
    return weights


def write_hf(
    folder: Path, architecture: str, seed: int = 0, vocabulary_from: Path | None = None, dtype: str = "F16", **overrides: Any
) -> Path:
    """A tiny model in Hugging Face layout. vocabulary_from: an imported base, such as `embedded_base`, whose tokenizer it gets; else a
    small one of the architecture's kind. dtype: F16, BF16 or F32. overrides: of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    if vocabulary_from is not None:
        tokenizer = (vocabulary_from / "tokenizer.json").read_text()
        settings = json.loads((vocabulary_from / "tokenizer_config.json").read_text())
        size = json.loads((vocabulary_from / "config.json").read_text())["vocab_size"]
    else:
        tokenizer, settings = (_sentencepiece_tokenizer if architecture in SENTENCEPIECE else _byte_level_tokenizer)()
        size = len(json.loads(tokenizer)["model"]["vocab"]) + 3  # rows without a token, as many models have
        settings = settings | {"chat_template": template_of(architecture)}
    config = config_of(architecture, size, **overrides)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    save_safetensors(folder / "model.safetensors", weights_of(config, seed), dtype)
    return folder


def save_safetensors(path: Path, weights: dict[str, np.ndarray], dtype: str = "F16") -> None:
    from generators.device import load_mlx

    mx = load_mlx()
    kind = {"F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32}[dtype]
    mx.save_safetensors(str(path), {name: mx.array(value).astype(kind) for name, value in weights.items()}, metadata={"format": "mlx"})


def save_adapter(folder: Path, base: Path, kind: str = "lora", rank: int = 4, scale: float = 2.0, seed: int = 1, touch: str = "") -> Path:
    """A random adapter of mlx_lm's format on the linear layers of `base` whose name holds `touch`, strong enough to change every answer."""
    from generators.device import load_mlx

    mx = load_mlx()
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    keys = set()
    for name, value in mx.load(str(base / "model.safetensors")).items():
        module = name.removesuffix(".weight")
        if not module.endswith("_proj") or touch not in module:
            continue
        rows, columns = value.shape
        keys.add(module.split(".", 3)[3])
        weights[f"{module}.lora_a"] = rng.standard_normal((columns, rank), dtype=np.float32) / np.sqrt(columns)
        weights[f"{module}.lora_b"] = rng.standard_normal((rank, rows), dtype=np.float32) * 0.1
        if kind == "dora":
            length = np.linalg.norm(np.array(value.astype(mx.float32)), axis=1)
            weights[f"{module}.m"] = (length * rng.uniform(0.8, 1.2, rows)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(folder / "adapters.safetensors", weights, "F32")
    parameters = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": sorted(keys)}
    (folder / "adapter_config.json").write_text(json.dumps({"fine_tune_type": kind, "num_layers": -1, "lora_parameters": parameters}))
    return folder


def write_gguf(hf: Path, target: Path, dtype: str = "F16") -> Path:
    """The model in `hf` as a GGUF with F16 or F32 matrices, by the `gguf` package."""
    import gguf

    from generators.device import load_mlx

    mx = load_mlx()
    config = json.loads((hf / "config.json").read_text())
    name = config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(target, name)
    _add_hyperparameters(writer, config)
    _add_tokenizer(writer, hf, config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[name.upper()], config["num_hidden_layers"])
    for ours, array in mx.load(str(hf / "model.safetensors")).items():
        value = np.array(array.astype(mx.float32))
        theirs = str(names.get_name(ours, try_suffixes=(".weight", ".bias")))
        if name == "llama" and (".q_proj." in ours or ".k_proj." in ours):
            heads = config["num_attention_heads" if ".q_proj." in ours else "num_key_value_heads"]
            value = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
        if name.startswith("gemma") and ours.endswith("norm.weight"):
            value = value + 1
        writer.add_tensor(theirs, value if value.ndim == 1 or dtype == "F32" else value.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add_hyperparameters(writer: Any, config: dict[str, Any]) -> None:
    writer.add_name("tiny")
    writer.add_file_type(1)
    writer.add_quantization_version(2)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if config["model_type"] == "llama":
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_vocab_size(config["vocab_size"])
    if "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if config["model_type"] == "gemma3_text":
        writer.add_sliding_window_pattern(config["sliding_window_pattern"])
        writer.add_float32("gemma3.rope.freq_base_swa", config["rope_local_base_freq"])


def _add_tokenizer(writer: Any, hf: Path, rows: int) -> None:
    from generators.gguf_tokenizer import vocabulary_of_json

    settings = json.loads((hf / "tokenizer_config.json").read_text())
    vocabulary = vocabulary_of_json((hf / "tokenizer.json").read_text(), settings, rows, hf)
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.kind == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    else:
        writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.ids["bos"])
    writer.add_eos_token_id(vocabulary.ids["eos"])
    writer.add_add_bos_token(vocabulary.add_bos)


@cache
def _byte_level_tokenizer(pre: str = "qwen2") -> tuple[str, dict[str, Any]]:
    """(tokenizer.json, tokenizer_config.json) of a byte-level BPE, as Qwen's is on the hub."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    digits = {"qwen2": r"\p{N}", "llama-bpe": r"\p{N}{1,3}"}[pre]
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    vocabulary = tokenizer.get_vocab()
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"):
        vocabulary[token] = len(vocabulary)
    tokenizer.model = models.BPE(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer.to_str(), {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


@cache
def _sentencepiece_tokenizer() -> tuple[str, dict[str, Any]]:
    """(tokenizer.json, tokenizer_config.json) of a BPE with byte fallback, as Gemma's is on the hub."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator([word for text in _CORPUS for word in text.replace(" ", " \0").split("\0")], trainers.BpeTrainer(
        vocab_size=320, show_progress=False))  # fmt: skip
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    control, plain = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"], ["\n", "\n\n", "▁▁", "▁▁▁"]
    tokens = dict.fromkeys([*control, *plain, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = _every_split(vocabulary, pieces)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)])
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": {"content": "<unk>"}, "pad_token": "<pad>"}
    return tokenizer.to_str(), roles


def _every_split(vocabulary: dict[str, int], pieces: list[str]) -> list[tuple[str, str]]:
    """Merges as transformers converts them from SentencePiece: all pairs that form a piece, in the order of the pieces."""
    return [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]


# The two engines, side by side.


def log_probabilities(folder: Path, ids: list[int]) -> np.ndarray:
    """(positions, vocabulary) float32: what MLX says in float32 that comes after each prefix of `ids`."""
    from mlx_lm.utils import load_model

    from generators.device import load_mlx

    mx = load_mlx()
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    logits = model(mx.array([ids])).astype(mx.float32)
    return np.array((logits - mx.logsumexp(logits, axis=-1, keepdims=True))[0])


def llama_log_probabilities(gguf: Path, ids: list[int], top: int = 40) -> dict[int, float]:
    """What llama.cpp says that comes after `ids`: the log-probabilities of its `top` likeliest tokens."""
    from generators.llama_server import serving

    with serving(gguf, context=512) as server:
        # An answer that ends at once, or in the middle of a character, is given without probabilities: so the answer is forced to be a
        # token that prints. The probabilities are those from before the force.
        force = [[ids[1], 1000.0]]
        body = {"prompt": ids, "n_predict": 1, "n_probs": top, "temperature": 0, "cache_prompt": False, "logit_bias": force}
        answer = server.post("/completion", body)
    return {token["id"]: token["logprob"] for token in answer["completion_probabilities"][0]["top_logprobs"]}
