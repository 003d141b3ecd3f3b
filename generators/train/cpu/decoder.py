"""An mlx-lm model read into plain values: views of its weights, and what makes its architecture differ from the others.

Nothing is copied: the weights are MLX's own memory, and an adapter's values are looked up anew at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generators.device import load_mlx
from generators.errors import UserError
from generators.train.blocks import Architecture, Heads, Named, architecture_of, check_rope, parts_of
from generators.train.cpu import kernels
from generators.train.cpu.projection import Linear, Projection

mx = load_mlx()
Array = np.ndarray


@dataclass(frozen=True)
class Norm:
    weight: Array
    eps: float

    def forward(self, x: Array, out: Array) -> None:
        kernels.rms_norm(x, self.weight, self.eps, out)

    def backward(self, dy: Array, x: Array, out: Array) -> Array:
        return kernels.rms_norm_backward(dy, x, self.weight, self.eps, out)


@dataclass(frozen=True)
class Rope:
    """A rotary embedding of mlx-lm: `module` turns (1, heads, tokens, size)."""

    module: Any
    size: int
    traditional: bool

    def tables(self, length: int) -> tuple[Array, Array]:
        """cos, sin: (length, size / 2), as MLX computes them: of a pair (1, 0) it makes (cos, sin)."""
        ones = np.zeros((1, 1, length, self.size), np.float32)
        kernels.halves(ones, self.traditional)[0][...] = 1
        turned = np.array(self.module(mx.array(ones)))[0, 0]
        cos, sin = kernels.halves(turned, self.traditional)
        return np.ascontiguousarray(cos), np.ascontiguousarray(sin)


@dataclass(frozen=True)
class Layer:
    """One block. heads: of queries and keys. scale: of the softmax. rope: index into the decoder's.
    enter: the projections to queries, keys and values; in the last block to keys and values, and `ask` to queries, as it has fewer rows.
    after_attention, after_mlp, q_norm, k_norm: None where the architecture has none."""

    enter: Projection
    ask: Projection | None
    output: Projection
    gate_up: Projection
    down: Projection
    before_attention: Norm
    after_attention: Norm | None
    before_mlp: Norm
    after_mlp: Norm | None
    q_norm: Norm | None
    k_norm: Norm | None
    heads: Heads
    scale: float
    rope: int

    def projections(self) -> list[Projection]:
        return [self.enter, *([self.ask] if self.ask else []), self.output, self.gate_up, self.down]

    def adapters(self) -> list[str]:
        """The names of its layers that have one."""
        return [linear.name for projection in self.projections() for linear in projection.linears if linear.lora is not None]


@dataclass(frozen=True)
class Decoder:
    """embedding: (vocabulary, width). head: (vocabulary, width), often the same array. soft_cap: of the logits, or None."""

    layers: tuple[Layer, ...]
    ropes: tuple[Rope, ...]
    embedding: Array
    embedding_scale: float
    norm: Norm
    head: Array
    soft_cap: float | None
    activation: kernels.Activation
    inner: int

    @property
    def width(self) -> int:
        return int(self.embedding.shape[1])


def read(model: Any) -> Decoder:
    """Raises UserError for an architecture, dtype, layer or rotary embedding that the engine does not compute."""
    architecture = architecture_of(model)
    mx.eval(model.parameters())
    ropes: list[Rope] = []
    layers = tuple(_layer(model, index, architecture, ropes) for index in range(len(model.layers)))
    embedding = view(model.model.embed_tokens, "model.embed_tokens")
    head = view(model.lm_head, "lm_head") if "lm_head" in model else embedding
    return Decoder(
        layers=layers, ropes=tuple(ropes), embedding=embedding, embedding_scale=architecture.embedding_scale(embedding.shape[1]),
        norm=_norm(model.model.norm, architecture), head=head, soft_cap=getattr(model, "final_logit_softcapping", None),
        activation=kernels.ACTIVATIONS[architecture.activation], inner=layers[0].gate_up.linears[0].outputs,
    )  # fmt: skip


def view(module: Any, where: str) -> Array:
    """The float32 weight of a plain module, without a copy."""
    if "scales" in module or module.weight.dtype != mx.float32:
        kind = "quantised" if "scales" in module else str(module.weight.dtype)
        raise UserError(f"the CPU engine computes in float32; {where} is {kind}")
    return np.array(module.weight, copy=False)


def _layer(model: Any, index: int, architecture: Architecture, ropes: list[Rope]) -> Layer:
    parts = parts_of(model, index)
    query, key, value, output = map(_linear, (parts.query, parts.key, parts.value, parts.output))
    gate, up, down = map(_linear, (parts.gate, parts.up, parts.down))
    is_last = index == len(model.layers) - 1

    def norm(module: Any) -> Norm | None:
        return None if module is None else _norm(module, architecture)

    return Layer(
        enter=Projection([key, value] if is_last else [query, key, value]), ask=Projection([query]) if is_last else None,
        output=Projection([output]), gate_up=Projection([gate, up]), down=Projection([down]),
        before_attention=_norm(parts.before_attention, architecture), after_attention=norm(parts.after_attention),
        before_mlp=_norm(parts.before_mlp, architecture), after_mlp=norm(parts.after_mlp),
        q_norm=norm(parts.q_norm), k_norm=norm(parts.k_norm),
        heads=parts.heads, scale=parts.scale, rope=_rope(parts.rope, parts.heads.size, ropes),
    )  # fmt: skip


def _norm(module: Any, architecture: Architecture) -> Norm:
    return Norm(np.array(module.weight, dtype=np.float32) + np.float32(architecture.norm_offset), float(module.eps))


def _linear(named: Named) -> Linear:
    import mlx.nn as nn
    from mlx_lm.tuner.lora import LoRALinear

    path, module = named.name, named.module
    lora = module if isinstance(module, LoRALinear) else None
    plain = module.linear if lora is not None else module
    if type(plain) is not nn.Linear:
        raise UserError(f"the CPU engine does not compute the {type(plain).__name__} at {path}")
    bias = np.array(plain.bias, dtype=np.float32) if "bias" in plain else None
    return Linear(path, view(plain, path), bias, lora)


def _rope(named: Named, size: int, ropes: list[Rope]) -> int:
    """The place in `ropes` of this module, which is put there unless one that turns alike is there already."""
    check_rope("CPU", named, size)
    module = named.module
    rope = Rope(module, size, bool(module.traditional))
    probe = rope.tables(3)
    for index, known in enumerate(ropes):
        alike = known.traditional == rope.traditional and all(map(np.array_equal, known.tables(3), probe))
        if alike:
            return index
    ropes.append(rope)
    return len(ropes) - 1
