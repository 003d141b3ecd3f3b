"""What a decoder of mlx-lm is made of: how the architectures differ, and where in a model each part is.

What is read here are modules; the engines make of them what they compute with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from generators.device import load_mlx
from generators.errors import UserError, one_of

mx = load_mlx()


@dataclass(frozen=True)
class Architecture:
    """activation: of the gate, `gelu_erf`, `gelu_tanh` or `silu`. norm_offset: what is added to a norm's weight. norms_around: whether the
    outputs of attention and MLP are normed too. embedding_scale: what the embeddings of a width are multiplied with, as mlx-lm rounds it."""

    activation: str
    norm_offset: float = 0.0
    norms_around: bool = False
    embedding_scale: Callable[[int], float] = lambda width: 1.0


def _rounded_root(width: int) -> float:
    return float(mx.array(width**0.5, mx.bfloat16).astype(mx.float32).item())


# By the last part of the name of mlx-lm's module. What its objects tell themselves (biases, query and key norms, windows, caps, rotary
# bases) is read from them.
ARCHITECTURES = {
    "gemma": Architecture("gelu_erf", norm_offset=1.0, embedding_scale=lambda width: width**0.5),
    "gemma2": Architecture("gelu_tanh", norm_offset=1.0, norms_around=True, embedding_scale=lambda width: width**0.5),
    "gemma3_text": Architecture("gelu_tanh", norm_offset=1.0, norms_around=True, embedding_scale=_rounded_root),
    "llama": Architecture("silu"),
    "qwen2": Architecture("silu"),
    "qwen3": Architecture("silu"),
}  # fmt: skip


def architecture_of(model: Any) -> Architecture:
    """Raises UserError for one that the engines do not know."""
    name = str(type(model).__module__.rsplit(".", 1)[-1])
    if name not in ARCHITECTURES:
        raise UserError(f"the trainer does not know the architecture {name}; it knows {one_of(ARCHITECTURES)}")
    return ARCHITECTURES[name]


@dataclass(frozen=True)
class Heads:
    """heads query heads share groups key heads of `size` numbers; window, soft_cap: None where there is none."""

    heads: int
    groups: int
    size: int
    window: int | None
    soft_cap: float | None

    @property
    def shared(self) -> int:
        """Query heads of a group."""
        return self.heads // self.groups

    @property
    def queries(self) -> int:
        """Numbers in the queries of a token."""
        return self.heads * self.size

    @property
    def keys(self) -> int:
        return self.groups * self.size


@dataclass(frozen=True)
class Named:
    """A module, and how the model's parameters call it."""

    name: str
    module: Any


@dataclass(frozen=True)
class Parts:
    """The modules of one block. after_attention, after_mlp, q_norm, k_norm: None where the architecture has none. scale: of the softmax."""

    query: Named
    key: Named
    value: Named
    output: Named
    gate: Named
    up: Named
    down: Named
    before_attention: Any
    after_attention: Any | None
    before_mlp: Any
    after_mlp: Any | None
    q_norm: Any | None
    k_norm: Any | None
    heads: Heads
    scale: float
    rope: Named


def parts_of(model: Any, index: int) -> Parts:
    block, path = model.layers[index], f"model.layers.{index}"
    attention, around = block.self_attn, architecture_of(model).norms_around
    query, key, value, output = (Named(f"{path}.self_attn.{part}", attention[part]) for part in ("q_proj", "k_proj", "v_proj", "o_proj"))
    gate, up, down = (Named(f"{path}.mlp.{part}", block.mlp[part]) for part in ("gate_proj", "up_proj", "down_proj"))
    return Parts(
        query=query, key=key, value=value, output=output, gate=gate, up=up, down=down,
        before_attention=block.input_layernorm,
        after_attention=block.post_attention_layernorm if around else None,
        before_mlp=block.pre_feedforward_layernorm if around else block.post_attention_layernorm,
        after_mlp=block.post_feedforward_layernorm if around else None,
        q_norm=attention.get("q_norm"), k_norm=attention.get("k_norm"),
        heads=_heads(model, block), scale=float(attention.scale), rope=Named(path, attention.rope),
    )  # fmt: skip


def _heads(model: Any, block: Any) -> Heads:
    attention = block.self_attn
    windowed = getattr(attention, "is_sliding", False) or getattr(block, "use_sliding", False)
    return Heads(
        heads=attention.n_heads, groups=attention.n_kv_heads, size=_outputs(attention.q_proj) // attention.n_heads,
        window=model.args.sliding_window if windowed else None, soft_cap=getattr(attention, "attn_logit_softcapping", None),
    )  # fmt: skip


def _outputs(module: Any) -> int:
    plain = module.linear if "linear" in module else module
    return int(plain.weight.shape[0])


def check_adapters(engine: str, known: Iterable[str], trained: Iterable[str]) -> None:
    """known: names of the linear layers whose adapters the engine trains. trained: of all that is trained. Raises UserError where these are
    not the same."""
    wanted, found = set(trained), {f"{name}.lora_{part}" for name in known for part in "ab"}
    if found != wanted or not found:
        other = sorted(wanted ^ found) or ["nothing"]
        raise UserError(f"the {engine} engine trains adapters of linear layers only; {other[0]} is trained here")


def check_rope(engine: str, named: Named, size: int) -> None:
    """Raises UserError for a rotary embedding that is not one of a head's `size` numbers, or turns otherwise than the engines know."""
    import mlx.nn as nn
    from mlx_lm.models.rope_utils import Llama3RoPE

    if type(named.module) not in (nn.RoPE, Llama3RoPE) or named.module.dims != size:
        kind = f"{type(named.module).__name__}({named.module.dims})"
        raise UserError(f"the {engine} engine does not compute the rotary embedding {kind} at {named.name}")
