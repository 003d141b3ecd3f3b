"""Which tensor gets which ggml type, and the arithmetic that puts it there.

The mixing rules are llama.cpp's (`llama_tensor_get_type` in src/llama-quant.cpp); K-quants are made by ggml itself, through the shared
library of xllamacpp. Without it the types that the gguf package can make are still written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from generators import ggml
from generators.errors import UserError, did_you_mean, one_of

if TYPE_CHECKING:
    import numpy as np

QUANTISATIONS: tuple[str, ...] = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0")

# llama.cpp's `general.file_type` of each.
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q5_0": 8, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "BF16": 32}
# The type that most weights of a mixture get.
_DEFAULT_TYPES = {"Q4_K_M": "Q4_K", "Q5_K_M": "Q5_K"}
# What a type becomes when a row is no multiple of its 256 values; then, if 32 does not fit either, F16.
_NARROW = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_FLOAT16_MAX = 65504.0


def check_quantisation(name: str) -> None:
    """Raises UserError when `name` is none of QUANTISATIONS."""
    if name not in QUANTISATIONS:
        raise UserError(f"quantisation {name!r} is not one of {one_of(QUANTISATIONS)}{did_you_mean(name, QUANTISATIONS)}")


def tensor_type(name: str, shape: Sequence[int], quantisation: str, layers: int, tied: bool) -> str:
    """The ggml type of a tensor in a file of `quantisation`.

    name: as in a GGUF, `blk.3.attn_v.weight`. layers: blocks of the model. tied: whether the token embedding is the output as well.
    """
    if len(shape) < 2 or not name.endswith("weight") or name.endswith("_norm.weight"):
        return "F32"
    if quantisation in ("F16", "BF16"):
        return quantisation
    wanted = _DEFAULT_TYPES.get(quantisation, quantisation)
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        wanted = _output_type(shape[-1], wanted)
    elif quantisation in _DEFAULT_TYPES and (".attn_v." in name or ".ffn_down." in name):
        wanted = "Q6_K" if _takes_more_bits(int(name.split(".")[1]), layers) else wanted
    return _that_fits(shape[-1], wanted)


def _output_type(columns: int, wanted: str) -> str:
    """Logits suffer first: the output matrix gets six bits or more."""
    from generators.gguf_file import block_size

    return "Q8_0" if wanted == "Q8_0" or columns % block_size(wanted)[0] else "Q6_K"


def _takes_more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the blocks, and every third one between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _that_fits(columns: int, wanted: str) -> str:
    from generators.gguf_file import block_size

    for candidate in (wanted, _NARROW.get(wanted, wanted)):
        if columns % block_size(candidate)[0] == 0:
            return candidate
    return "F16"


def needs_ggml(type_name: str) -> bool:
    return type_name.endswith("_K")


def encode(rows: np.ndarray, type_name: str) -> np.ndarray:
    """rows: (rows, columns) float32. Returns (rows, bytes a row) uint8 in ggml type `type_name`.

    Raises UserError when a value is not finite, or too large for float16, or when the type needs ggml and it is not there. The
    message does not know which tensor it is about: the caller says.
    """
    import numpy as np

    largest = max(float(rows.max()), -float(rows.min()))  # NaN and infinities come through
    if not np.isfinite(largest):
        raise UserError("holds NaN or infinite values")
    if type_name == "F16" and largest > _FLOAT16_MAX:
        raise UserError(f"holds {largest:.3g}, which float16 cannot; use BF16 or a quantised type")
    if type_name == "F32":
        return np.ascontiguousarray(rows).view(np.uint8)
    if type_name == "F16":
        return rows.astype(np.float16).view(np.uint8)
    if type_name == "BF16":
        return _to_bfloat16(rows).view(np.uint8)
    return _quantise(np.ascontiguousarray(rows, np.float32), type_name)


def _to_bfloat16(rows: np.ndarray) -> np.ndarray:
    """The upper half of each float32, rounded to nearest, ties to even. Values are finite."""
    import numpy as np

    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _quantise(rows: np.ndarray, type_name: str) -> np.ndarray:
    import numpy as np
    from gguf import GGMLQuantizationType

    from generators.gguf_file import stored_size

    kind = GGMLQuantizationType[type_name]
    quantiser = ggml.quantiser()
    if quantiser is None:
        if needs_ggml(type_name):
            raise UserError(f"{type_name} is made by llama.cpp, which is not installed; run: pip install -e '.[embedded]'")
        from gguf.quants import quantize

        return quantize(rows, kind)
    size = stored_size(rows.shape, type_name)
    out = np.zeros((rows.shape[0], size // rows.shape[0]), np.uint8)
    written = quantiser(kind.value, rows.ctypes.data, out.ctypes.data, 0, rows.shape[0], rows.shape[1], None)
    if written != size:
        raise UserError(f"llama.cpp wrote {written} bytes of {type_name} where {size} were due")
    return out
