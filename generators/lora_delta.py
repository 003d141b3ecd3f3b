"""An adapter of mlx_lm as what it does to the base's tensors: W + scale * (A @ B)ᵀ, or DoRA's rows of that brought to a learned length.

Format: `adapters.safetensors` with `<module>.lora_a`, `<module>.lora_b` and for DoRA `<module>.m`, beside `adapter_config.json`
(`fine_tune_type`, `lora_parameters`); the arithmetic is that of `fuse` in mlx_lm/tuner/lora.py and dora.py, in float32 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.errors import UserError
from generators.files import read_json

if TYPE_CHECKING:
    import numpy as np

    from generators.safetensors_stream import SafetensorsFile


@dataclass(frozen=True)
class Delta:
    """What is added to one weight of shape (out, in). left: (out, r), right: (r, in), scale inside. magnitude: (out,), DoRA only:
    the length that each row of the sum is brought to. All float32."""

    left: np.ndarray
    right: np.ndarray
    magnitude: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    def apply(self, rows: np.ndarray, start: int) -> np.ndarray:
        """rows: (n, in) float32, the weight's rows from `start`. Returns the same rows of the fused weight."""
        import numpy as np

        stop = start + len(rows)
        fused = rows + self.left[start:stop] @ self.right
        if self.magnitude is not None:
            fused *= (self.magnitude[start:stop] / np.linalg.norm(fused, axis=1))[:, None]
        return fused

    def reordered(self, order: np.ndarray | None) -> Delta:
        """For a weight whose row i is row order[i] of the one the adapter was trained on."""
        if order is None:
            return self
        return replace(self, left=self.left[order], magnitude=None if self.magnitude is None else self.magnitude[order])


def load_deltas(adapter: Path) -> dict[str, Delta]:
    """Deltas by the Hugging Face name of the weight. Raises UserError when the adapter is missing, incomplete or of another type."""
    from generators.safetensors_stream import SafetensorsFile

    config = _read_config(adapter)
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise UserError(f"{adapter}: an adapter of type {kind!r} cannot be fused; supported: lora, dora")
    try:
        scale = float(config["lora_parameters"]["scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{adapter / 'adapter_config.json'}: lora_parameters.scale is missing") from error
    with SafetensorsFile(adapter / "adapters.safetensors") as weights:
        modules = {name.rpartition(".")[0] for name in weights.tensors}
        unknown = [name for name in weights.tensors if name.rpartition(".")[2] not in ("lora_a", "lora_b", "m")]
        if unknown or not modules:
            raise UserError(f"{weights.path}: {f'{min(unknown)} is no adapter weight' if unknown else 'there is nothing in it'}")
        return {f"{module}.weight": _load_delta(weights, module, scale, kind == "dora") for module in sorted(modules)}


def check_deltas(deltas: dict[str, Delta], shapes: dict[str, tuple[int, ...]], adapter: Path) -> None:
    """Raises UserError unless each delta fits a weight in `shapes` (by Hugging Face name)."""
    for name, delta in deltas.items():
        if name not in shapes:
            raise UserError(f"{adapter}: the adapter changes {name}, which the base does not have; was it trained on another base?")
        if delta.shape != shapes[name]:
            raise UserError(f"{adapter}: the adapter's {name} is {delta.shape}, the base's {shapes[name]}; was it trained on another base?")


def _read_config(adapter: Path) -> dict[str, Any]:
    try:
        config = read_json(adapter / "adapter_config.json")
    except OSError as error:
        raise UserError(f"there is no adapter in {adapter}; run: doit train") from error
    except ValueError as error:
        raise UserError(f"{adapter / 'adapter_config.json'}: cannot be read ({error})") from error
    return config if isinstance(config, dict) else {}


def _load_delta(weights: SafetensorsFile, module: str, scale: float, dora: bool) -> Delta:
    import numpy as np

    parts: dict[str, np.ndarray] = {}
    for part in ("lora_a", "lora_b", *(("m",) if dora else ())):
        name = f"{module}.{part}"
        if name not in weights.tensors:
            raise UserError(f"{weights.path}: {name} is missing")
        parts[part] = weights.rows(name).reshape(weights.tensors[name].shape)
        if not np.isfinite(parts[part]).all():
            raise UserError(f"{weights.path}: {name} holds NaN or infinite values; train again with a lower learning rate")
    a, b = parts["lora_a"], parts["lora_b"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise UserError(f"{weights.path}: {module}: lora_a {a.shape} and lora_b {b.shape} do not belong together")
    magnitude = parts.get("m")
    if module.endswith("embed_tokens"):  # an embedding's A has a row a token, and its rows are not transposed
        return Delta(np.float32(scale) * a, b, magnitude)
    return Delta(np.ascontiguousarray(np.float32(scale) * b.T), np.ascontiguousarray(a.T), magnitude)
