"""The tokenizer of a model, in its two homes: the metadata of a GGUF and a tokenizer.json.

A `Vocabulary` holds what both say. From it `build_tokenizer` makes a tokenizer that gives the ids llama.cpp gives on the same
vocabulary, and `metadata_of` what a GGUF needs. Two kinds are known, under llama.cpp's names:

- `llama`, SentencePiece's BPE: spaces become `▁`, pairs merge in the order of the scores of what they form, what no token covers becomes
  bytes (`llm_tokenizer_spm` in src/llama-vocab.cpp). A merge is every pair of tokens whose texts together are a token.
- `gpt2`, byte-level BPE: a regular expression cuts the text into words (`tokenizer.ggml.pre` names it), and ranked merges work on each.

Control tokens are matched in text only where the caller asks for it (llama.cpp's `parse_special`, here `encode`'s); user-defined tokens
always, longest first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from generators import gguf_file
from generators.errors import UserError, one_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from generators.gguf_file import Entry, GgufFile

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's token types

_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The regular expressions of each `tokenizer.ggml.pre`, applied one after the other (src/llama-vocab.cpp).
_PRE_TOKENISERS: dict[str, tuple[str, ...]] = {
    "llama-bpe": (rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",),
    "qwen2": (rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}",),
    "smollm": (r"\p{N}", _GPT2),
    "gpt-2": (_GPT2,),
}
_PRE_ALIASES = {
    "llama3": "llama-bpe", "llama-v3": "llama-bpe", "falcon3": "llama-bpe", "pixtral": "llama-bpe",
    "deepseek-r1-qwen": "qwen2", "starcoder": "smollm", "refact": "smollm",
}  # fmt: skip
# How the tokenizer.json files on the hub spell the contractions.
_HUB_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

# Older conversions gave these no type of their own, and llama.cpp then reads them as plain text.
_CONTROL_TOKENS = frozenset(
    "<start_of_turn> <end_of_turn> <|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <|start_header_id|> <|end_header_id|> "
    "<|begin_of_text|> <|end_of_text|>".split()
)
_GEMMA_CONTROL_TOKENS = frozenset({"<mask>", "<2mass>", "[@BOS@]"})
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "eot": "eot"}  # ours, and GGUF's name for it


@dataclass(frozen=True)
class Vocabulary:
    """kind: `llama` or `gpt2`. tokens, types, scores: one for each id; scores are those of kind `llama`, empty for `gpt2`.
    merges: `a b` by rank, kind `gpt2` only. pre: name of its word cutter. ids: of `bos`, `eos`, `unk`, `pad`, `eot`, where there is one.
    add_bos, add_eos: whether they frame a text. add_space_prefix: whether a text starts as if after a space."""

    kind: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    pre: str = "default"
    ids: Mapping[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = False

    def token(self, role: str) -> str | None:
        """The text of the `bos`, `eos`, `unk`, `pad` or `eot` token."""
        return self.tokens[self.ids[role]] if role in self.ids else None


def encode(tokenizer: Tokenizer, text: str, parse_special: bool = False, add_special: bool = False) -> list[int]:
    """Token ids of `text`. parse_special: whether control tokens spelt out in it count as such; otherwise they stay text.
    add_special: whether BOS and EOS are added where the model wants them."""
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text, add_special_tokens=add_special).ids


# From a GGUF.


def vocabulary_of_gguf(gguf: GgufFile) -> Vocabulary:
    """Raises UserError when the metadata is incomplete, or for a kind of tokenizer that is not known."""
    kind = gguf.require("tokenizer.ggml.model")
    tokens = gguf.require("tokenizer.ggml.tokens")
    types = gguf.value("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    scores = gguf.require("tokenizer.ggml.scores") if kind == "llama" else []
    pre = gguf.value("tokenizer.ggml.pre", "default")
    _check_kind(kind, pre, str(gguf.path))
    if len(types) != len(tokens) or (scores and len(scores) != len(tokens)):
        raise UserError(f"{gguf.path}: {len(tokens)} tokens, but {len(types)} types and {len(scores)} scores")
    ids = {ours: gguf.value(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in _ROLES.items()}
    ids = {role: number for role, number in ids.items() if number is not None and 0 <= number < len(tokens)}
    bos_by_default = kind == "llama" or _PRE_ALIASES.get(pre, pre) == "llama-bpe"
    vocabulary = Vocabulary(
        kind=kind,
        tokens=tokens,
        types=types,
        scores=scores,
        merges=gguf.require("tokenizer.ggml.merges") if kind == "gpt2" else [],
        pre=pre if kind == "gpt2" else "default",
        ids=ids,
        add_bos=gguf.value("tokenizer.ggml.add_bos_token", bos_by_default) and "bos" in ids,
        add_eos=gguf.value("tokenizer.ggml.add_eos_token", False) and "eos" in ids,
        add_space_prefix=gguf.value("tokenizer.ggml.add_space_prefix", kind == "llama"),
    )
    return restore_types(vocabulary, gguf.value("general.architecture", ""))


def _check_kind(kind: str, pre: str, where: str) -> None:
    if kind not in ("llama", "gpt2"):
        raise UserError(f"{where}: tokenizer {kind!r} is not supported; supported: llama (SentencePiece BPE), gpt2 (byte-level BPE)")
    if kind == "gpt2" and _PRE_ALIASES.get(pre, pre) not in _PRE_TOKENISERS:
        known = sorted({*_PRE_TOKENISERS, *_PRE_ALIASES})
        raise UserError(f"{where}: the pre-tokeniser {pre!r} is not supported; supported: {one_of(known)}")


def restore_types(vocabulary: Vocabulary, architecture: str) -> Vocabulary:
    """Give tokens the types that older conversions lost, so that a turn's markers are control tokens in every engine.

    For Gemma these left everything that SentencePiece calls user-defined as normal: the tokens before the first byte token, among
    them the turn markers, runs of newlines and, spelt with `▁`, runs of spaces.
    """
    tokens, types = list(vocabulary.tokens), list(vocabulary.types)
    first_byte = types.index(BYTE) if architecture.startswith("gemma") and BYTE in types else 0
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind not in (NORMAL, USER_DEFINED):
            continue
        if token in _CONTROL_TOKENS or (number < first_byte and (token.startswith("<unused") or token in _GEMMA_CONTROL_TOKENS)):
            types[number] = CONTROL
        elif number < first_byte and kind == NORMAL:
            types[number], tokens[number] = USER_DEFINED, token.replace("▁", " ")
    return replace(vocabulary, tokens=tokens, types=types)


# To a tokenizer.


def build_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """A tokenizer with llama.cpp's ids for this vocabulary. Control tokens are its special tokens."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer(_sentencepiece_model(vocabulary) if vocabulary.kind == "llama" else _byte_level_model(vocabulary))
    _set_pipeline(tokenizer, vocabulary)
    special, plain = [], []
    for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True):
        if kind in (CONTROL, UNKNOWN) and token:
            special.append(AddedToken(token, special=True, normalized=False))
        elif kind == USER_DEFINED and token:
            plain.append(AddedToken(token, special=False, normalized=False))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)
    _frame(tokenizer, vocabulary)
    return tokenizer


def _sentencepiece_model(vocabulary: Vocabulary) -> Any:
    from tokenizers.models import BPE

    numbers = _numbers(vocabulary)
    return BPE(
        vocab=numbers, merges=_merges_of_scores(vocabulary, numbers), byte_fallback=True, fuse_unk=True, unk_token=vocabulary.token("unk")
    )


def _numbers(vocabulary: Vocabulary) -> dict[str, int]:
    """Token to id, placeholders left out. Of tokens with the same text the last counts, as in llama.cpp; the others get a text that no
    input holds."""
    pairs = [
        (token, number)
        for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind != UNUSED or token != _placeholder(number)
    ]
    numbers = dict(pairs)
    for token, number in pairs:
        if numbers[token] != number:
            numbers[f"{token}\0{number}"] = number
    return numbers


def _placeholder(number: int) -> str:
    """What a GGUF has, as llama.cpp's converter names it, for a row of the embedding that no token belongs to."""
    return f"[PAD{number}]"


def _merges_of_scores(vocabulary: Vocabulary, numbers: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of tokens that forms a token, the best-scored result first."""
    merges = []
    for token, score in zip(vocabulary.tokens, vocabulary.scores, strict=True):
        for cut in range(1, len(token)):
            left = numbers.get(token[:cut])
            if left is not None and (right := numbers.get(token[cut:])) is not None:
                merges.append((-score, left, right))
    merges.sort()
    return [(vocabulary.tokens[left], vocabulary.tokens[right]) for _, left, right in merges]


def _byte_level_model(vocabulary: Vocabulary) -> Any:
    from tokenizers.models import BPE

    numbers = _numbers(vocabulary)
    pairs = (tuple(merge.split(" ")) for merge in vocabulary.merges)
    merges = [pair for pair in pairs if len(pair) == 2 and {*pair, "".join(pair)} <= numbers.keys()]
    whole_words = _PRE_ALIASES.get(vocabulary.pre, vocabulary.pre) == "llama-bpe"  # a word that is a token needs no merges there
    return BPE(vocab=numbers, merges=merges, ignore_merges=whole_words)


def _set_pipeline(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    if vocabulary.kind == "gpt2":
        patterns = _PRE_TOKENISERS[_PRE_ALIASES.get(vocabulary.pre, vocabulary.pre)]
        cutters: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cutters, to_bytes])
        tokenizer.decoder = decoders.ByteLevel()
        return
    spaces = normalizers.Replace(" ", "▁")
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.add_space_prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(steps)


def _frame(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """BOS and EOS around a text, where the model wants them."""
    from tokenizers.processors import TemplateProcessing

    first = [vocabulary.token("bos")] if vocabulary.add_bos else []
    last = [vocabulary.token("eos")] if vocabulary.add_eos else []
    frame = [token for token in first + last if token]
    if frame:
        single = " ".join([*(t for t in first if t), "$A", *(t for t in last if t)])
        pair = " ".join([*(t for t in first if t), "$A:0", *(f"{t}:1" for t in first if t), "$B:1", *(f"{t}:1" for t in last if t)])
        tokenizer.post_processor = TemplateProcessing(
            single=single, pair=pair, special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(frame)]
        )


def tokenizer_config(vocabulary: Vocabulary, chat_template: str, context_length: int) -> dict[str, Any]:
    """tokenizer_config.json beside the tokenizer.json, as transformers and mlx_lm read it."""
    roles = {f"{role}_token": vocabulary.token(role) for role in ("bos", "eos", "unk", "pad")}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is, whatever the model's type
        **{name: token for name, token in roles.items() if token is not None},
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "chat_template": chat_template,
    }


# From a tokenizer.json.


def vocabulary_of_json(tokenizer_json: str, config: Mapping[str, Any], rows: int, where: object) -> Vocabulary:
    """The vocabulary of a tokenizer.json. config: tokenizer_config.json. rows: of the token embedding; ids without a token are padded.

    Raises UserError when it is no BPE, when its word cutter is none that llama.cpp names, or when it has more tokens than `rows`.
    """
    source = _read_source(tokenizer_json, where)
    model = source["model"]
    numbers = {**model["vocab"], **{token["content"]: token["id"] for token in source.get("added_tokens") or []}}
    if max(numbers.values()) >= rows:
        raise UserError(f"{where}: the tokenizer has ids up to {max(numbers.values())}, the embedding {rows} rows")
    byte_level = '"ByteLevel"' in json.dumps([source.get("pre_tokenizer"), source.get("decoder")])
    kind = "gpt2" if byte_level else "llama"
    tokens = [_placeholder(number) for number in range(rows)]
    types = [UNUSED] * rows
    for token, number in numbers.items():
        tokens[number], types[number] = token, NORMAL
    _mark_added(source, tokens, types, kind)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]] if kind == "gpt2" else []
    ids = _role_ids(config, numbers)
    if kind == "llama" and "unk" in ids:
        types[ids["unk"]] = UNKNOWN if types[ids["unk"]] == NORMAL else types[ids["unk"]]
    return Vocabulary(
        kind=kind,
        tokens=tokens,
        types=types,
        scores=_scores_of_merges(model["merges"], tokens, types) if kind == "llama" else [],
        merges=merges,
        pre=_pre_of_json(source.get("pre_tokenizer"), where) if kind == "gpt2" else "default",
        ids=ids,
        add_bos=_frames(source, config, ids, "bos"),
        add_eos=_frames(source, config, ids, "eos"),
        add_space_prefix='"Prepend"' in json.dumps(source.get("normalizer")) or _metaspace_prefix(source.get("pre_tokenizer")),
    )


def _read_source(tokenizer_json: str, where: object) -> dict[str, Any]:
    try:
        source = json.loads(tokenizer_json)
        kind, parts = source["model"]["type"], {*source["model"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: this is no tokenizer.json ({error})") from error
    if kind != "BPE":
        raise UserError(f"{where}: a tokenizer of type {kind!r} is not supported; supported: BPE")
    if not {"vocab", "merges"} <= parts or not source["model"]["vocab"]:
        raise UserError(f"{where}: the tokenizer has no vocabulary or no merges")
    return source


def _mark_added(source: Mapping[str, Any], tokens: list[str], types: list[int], kind: str) -> None:
    """Types of the added tokens and of SentencePiece's byte tokens. User-defined runs of `▁` are spelt with spaces in a GGUF."""
    for token in source.get("added_tokens") or []:
        number = token["id"]
        types[number] = CONTROL if token["special"] else USER_DEFINED
        if kind == "llama" and not token["special"]:
            tokens[number] = token["content"].replace("▁", " ")
    if kind == "llama":
        places = {token: number for number, token in enumerate(tokens)}
        for byte in range(256):
            if (number := places.get(f"<0x{byte:02X}>")) is not None:
                types[number] = BYTE


def _scores_of_merges(merges: list[Any], tokens: list[str], types: list[int]) -> list[float]:
    """SentencePiece's scores have only their order to give: minus the rank of the first merge that forms the token."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    # Characters and bytes are never the result of a merge; tokens out of reach get a score below all others.
    never = [0 if len(token) == 1 or kind == BYTE else len(merges) for token, kind in zip(tokens, types, strict=True)]
    return [-float(ranks.get(token, rank)) for token, rank in zip(tokens, never, strict=True)]


def _role_ids(config: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, int]:
    tokens = {role: _content(config.get(f"{role}_token")) for role in ("bos", "eos", "unk", "pad")}
    return {role: numbers[token] for role, token in tokens.items() if token in numbers}


def _content(token: Any) -> str:
    """The text of a special token, which tokenizer_config.json gives as text or as an object."""
    return str(token.get("content") if isinstance(token, dict) else token)


def _frames(source: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int], role: str) -> bool:
    """Whether a text is framed by this token: as tokenizer_config.json says, or else as the post-processor does it."""
    if role not in ids:
        return False
    declared = config.get(f"add_{role}_token")
    if declared is not None:
        return declared
    return json.dumps(_content(config[f"{role}_token"])) in json.dumps(source.get("post_processor"))


def _metaspace_prefix(pre_tokenizer: Any) -> bool:
    return bool(pre_tokenizer) and pre_tokenizer.get("type") == "Metaspace" and pre_tokenizer.get("prepend_scheme", "always") != "never"


def _pre_of_json(pre_tokenizer: Any, where: object) -> str:
    """llama.cpp's name of the word cutter. Raises UserError for one it has no name for."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer]) if pre_tokenizer else []
    patterns: list[str] = []
    for step in steps:
        if step["type"] == "Split":
            patterns.append(step["pattern"].get("Regex", "").replace(_HUB_CONTRACTIONS, _CONTRACTIONS))
        elif step["type"] == "Digits" and step.get("individual_digits"):
            patterns.append(r"\p{N}")
        elif step["type"] == "ByteLevel" and step.get("use_regex", True):
            patterns.append(_GPT2)
    for name, known in _PRE_TOKENISERS.items():
        if tuple(patterns) == known:
            return name
    raise UserError(f"{where}: the tokenizer cuts words in a way that is not supported ({patterns}); supported: {one_of(_PRE_TOKENISERS)}")


# To a GGUF.


def metadata_of(vocabulary: Vocabulary) -> dict[str, Entry]:
    """The tokenizer's metadata of a GGUF."""
    metadata = {
        "tokenizer.ggml.model": gguf_file.text(vocabulary.kind),
        "tokenizer.ggml.pre": gguf_file.text(vocabulary.pre),
        "tokenizer.ggml.tokens": gguf_file.texts(vocabulary.tokens),
        "tokenizer.ggml.token_type": gguf_file.int32s(vocabulary.types),
    }
    if vocabulary.kind == "llama":
        metadata["tokenizer.ggml.scores"] = gguf_file.float32s(vocabulary.scores)
        metadata["tokenizer.ggml.add_space_prefix"] = gguf_file.flag(vocabulary.add_space_prefix)
    else:
        metadata["tokenizer.ggml.merges"] = gguf_file.texts(vocabulary.merges)
    for role, number in vocabulary.ids.items():
        metadata[f"tokenizer.ggml.{_ROLES[role]}_token_id"] = gguf_file.uint32(number)
    metadata["tokenizer.ggml.add_bos_token"] = gguf_file.flag(vocabulary.add_bos)
    metadata["tokenizer.ggml.add_eos_token"] = gguf_file.flag(vocabulary.add_eos)
    return metadata
