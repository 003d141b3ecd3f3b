"""Adapters on a model: which layers get one, how they are computed, how they are stored.

The layers are mlx-lm's own (their parameters, names and files are what `mlx_lm` loads); only the arithmetic is arranged better:
`addmm` adds the low-rank update in the same matrix product, with the scale folded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generators.device import load_mlx
from generators.errors import UserError
from generators.files import atomic_directory, read_json, write_json

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
            rows = x.reshape(-1, x.shape[-1])  # with more dimensions, a gradient of B is made for each row and then summed
            y = self.linear(rows)
            low = self.dropout(rows) @ self.lora_a.astype(x.dtype)  # as it is, the product would keep a copy of x in float32
            scaled = (self.scale * self.lora_b).astype(y.dtype)  # here, since `alpha` would pass over all of y's gradient
            return mx.addmm(y, low.astype(y.dtype), scaled).reshape(*x.shape[:-1], -1)

    for _, module in model.named_modules():
        if type(module) is LoRALinear:
            module.__class__ = FusedLoRALinear


def load(model: Any, lora: dict[str, Any], folder: Path) -> None:
    """Give the attached adapters the weights of the adapter in `folder`, to be trained on.

    Raises UserError where it cannot be read, and where it is of another form: layers, rank, scale and targets must be as `lora` declares.
    """
    try:
        found, weights = read_json(folder / "adapter_config.json"), list(mx.load(str(folder / "adapters.safetensors")).items())
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"the adapter in {folder} cannot be read ({error}); train from the base") from error
    wanted = adapter_config(lora, len(model.layers), "")
    forms = [{**config, **config["lora_parameters"]} for config in (wanted, found)]
    named = {"fine_tune_type": "dora", "num_layers": "layers", "rank": "rank", "scale": "alpha", "keys": "targets"}
    other = [setting for key, setting in named.items() if forms[0][key] != forms[1][key]]
    if other:
        raise UserError(f"the adapter in {folder} has another lora.{other[0]} than the recipe; train from the base, or set lora as it was")
    model.load_weights(weights, strict=False)
    mx.eval(model.parameters())


def recompute_activations(model: Any) -> None:
    """Each block of `model` keeps its input only, and the backward pass computes the rest of it again. Other models stay as they are."""
    from mlx_lm.tuner.trainer import grad_checkpoint

    made: dict[type, type] = {}
    for layer in model.layers:
        kind = type(layer)
        if kind not in made:  # mlx-lm changes the class, so it gets one of this model's own
            made[kind] = type(kind.__name__, (kind,), {})
        layer.__class__ = made[kind]
    for kind in made.values():
        grad_checkpoint(next(layer for layer in model.layers if type(layer) is kind))


def parameters(model: Any) -> dict[str, Any]:
    """Name to array of everything that is trained, sorted by name."""
    from mlx.utils import tree_flatten

    return dict(sorted(dict(tree_flatten(model.trainable_parameters())).items()))


class Trained:
    """What is trained of a model, without a walk over all of it at every step."""

    def __init__(self, model: Any):
        modules = dict(model.named_modules())
        self._owners = {name: (modules[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in parameters(model)}

    def arrays(self) -> dict[str, Any]:
        """As `parameters` has them."""
        return {name: module[part] for name, (module, part) in self._owners.items()}

    def put(self, arrays: Mapping[str, Any]) -> None:
        """arrays: of all names."""
        for name, (module, part) in self._owners.items():
            module[part] = arrays[name]


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
