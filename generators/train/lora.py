"""Adapters on a model: which layers get one, how they are computed, how they are stored.

The layers are mlx-lm's own (their parameters, names and files are what `mlx_lm` loads); only the arithmetic is arranged better:
`addmm` adds the low-rank update in the same matrix product, with the scale folded in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.device import load_mlx
from generators.files import atomic_directory, write_json

mx = load_mlx()

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def attach(model: Any, lora: dict[str, Any], seed: int) -> None:
    """Freeze `model` and give it the adapters that the recipe's `lora` block declares. A starts uniform, seeded; B starts at zero."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model.freeze()
    mx.random.seed(seed)
    linear_to_lora_layers(model, len(model.layers) if lora["layers"] < 0 else lora["layers"], _mlx_parameters(lora), lora["dora"])
    if not lora["dora"]:
        _use_fused_arithmetic(model)


def _mlx_parameters(lora: dict[str, Any]) -> dict[str, Any]:
    return {"rank": lora["rank"], "scale": lora["alpha"] / lora["rank"], "dropout": lora["dropout"], "keys": _keys(lora["targets"])}


def _keys(targets: list[str]) -> list[str]:
    """`q_proj` is `self_attn.q_proj` inside a block, `up_proj` is `mlp.up_proj`."""
    return [f"{'self_attn' if target in _ATTENTION else 'mlp'}.{target}" for target in targets]


def _use_fused_arithmetic(model: Any) -> None:
    from mlx_lm.tuner.lora import LoRALinear

    class FusedLoRALinear(LoRALinear):
        def __call__(self, x: Any) -> Any:
            y = self.linear(x)
            low = self.dropout(x) @ self.lora_a
            return mx.addmm(y, low.astype(y.dtype), self.lora_b.astype(y.dtype), alpha=self.scale)

    for _, module in model.named_modules():
        if type(module) is LoRALinear:
            module.__class__ = FusedLoRALinear


def parameters(model: Any) -> dict[str, Any]:
    """Name to array of everything that is trained, sorted by name."""
    from mlx.utils import tree_flatten

    return dict(sorted(dict(tree_flatten(model.trainable_parameters())).items()))


def save(weights: dict[str, Any], lora: dict[str, Any], layers: int, base: str, target: Path) -> None:
    """A directory that `mlx_lm` loads as an adapter."""
    with atomic_directory(target) as folder:
        mx.save_safetensors(str(folder / "adapters.safetensors"), weights, metadata={"format": "mlx"})
        write_json(folder / "adapter_config.json", adapter_config(lora, layers, base))


def adapter_config(lora: dict[str, Any], layers: int, base: str) -> dict[str, Any]:
    return {
        "fine_tune_type": "dora" if lora["dora"] else "lora",
        "num_layers": layers if lora["layers"] < 0 else lora["layers"],
        "lora_parameters": _mlx_parameters(lora),
        "model": base,
    }
