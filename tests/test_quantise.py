"""Types by llama.cpp's rules, and bytes as ggml makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generators import ggml
from generators.errors import UserError
from generators.gguf_file import GgufFile, block_size, dequantise
from generators.quantise import QUANTISATIONS, check_quantisation, encode, tensor_type
from generators.specs import schema


def test_the_specs_allow_exactly_what_can_be_written() -> None:
    assert QUANTISATIONS == schema.QUANTISATIONS


def test_an_unknown_quantisation_is_refused_with_the_list() -> None:
    with pytest.raises(UserError, match="quantisation 'Q4_KM' is not one of F16, .*Q4_0; did you mean 'Q4_K_M'?"):
        check_quantisation("Q4_KM")


def test_q4_k_m_gives_every_tensor_the_type_that_llama_quantize_gave_it(embedded_base: Path) -> None:
    with GgufFile(embedded_base / "base.gguf") as gguf:
        theirs = {name: tensor.type for name, tensor in gguf.tensors.items()}
        ours = {name: tensor_type(name, tensor.shape, "Q4_K_M", layers=18, tied=True) for name, tensor in gguf.tensors.items()}
    assert ours == theirs


@pytest.mark.parametrize(
    ("quantisation", "name", "shape", "tied", "expected"),
    [
        ("Q8_0", "blk.0.attn_norm.weight", (256,), True, "F32"),
        ("Q8_0", "blk.0.attn_q.bias", (256,), True, "F32"),
        ("Q4_K_M", "rope_freqs.weight", (32,), True, "F32"),
        ("F16", "token_embd.weight", (1000, 256), True, "F16"),
        ("BF16", "blk.0.ffn_up.weight", (512, 256), True, "BF16"),
        ("Q8_0", "token_embd.weight", (1000, 256), True, "Q8_0"),
        ("Q4_0", "token_embd.weight", (1000, 256), True, "Q6_K"),
        ("Q4_0", "token_embd.weight", (1000, 256), False, "Q4_0"),
        ("Q4_0", "output.weight", (1000, 256), False, "Q6_K"),
        ("Q4_0", "output.weight", (1000, 96), False, "Q8_0"),
        ("Q4_K_M", "blk.0.attn_v.weight", (64, 256), True, "Q6_K"),
        ("Q4_K_M", "blk.2.attn_v.weight", (64, 256), True, "Q4_K"),
        ("Q4_K_M", "blk.4.attn_v.weight", (64, 256), True, "Q6_K"),
        ("Q4_K_M", "blk.15.ffn_down.weight", (64, 256), True, "Q6_K"),
        ("Q5_K_M", "blk.2.ffn_up.weight", (64, 256), True, "Q5_K"),
        ("Q5_K_M", "blk.2.ffn_up.weight", (64, 96), True, "Q5_1"),
        ("Q6_K", "blk.2.ffn_up.weight", (64, 96), True, "Q8_0"),
        ("Q4_K_M", "blk.2.ffn_up.weight", (64, 48), True, "F16"),
    ],
)
def test_types_follow_llama_cpps_rules(quantisation: str, name: str, shape: tuple[int, ...], tied: bool, expected: str) -> None:
    assert tensor_type(name, shape, quantisation, layers=16, tied=tied) == expected


_ROWS = np.random.default_rng(0).standard_normal((8, 512), dtype=np.float32)


@pytest.mark.parametrize(
    ("type_name", "error"),
    [("F32", 0), ("F16", 1e-3), ("BF16", 4e-3), ("Q8_0", 0.01), ("Q6_K", 0.03), ("Q5_1", 0.06), ("Q5_0", 0.08), ("Q5_K", 0.06),
     ("Q4_0", 0.15), ("Q4_K", 0.12)],
)  # fmt: skip
def test_encoded_rows_decode_to_about_the_same_values(type_name: str, error: float) -> None:
    data = encode(_ROWS, type_name)
    assert data.shape == (8, 512 // block_size(type_name)[0] * block_size(type_name)[1])
    assert np.sqrt(np.mean((dequantise(data, type_name) - _ROWS) ** 2)) <= error


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0", "Q5_0", "Q5_1"])
def test_without_llama_cpp_the_plain_types_have_the_same_bytes(type_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_ggml = encode(_ROWS, type_name)
    monkeypatch.setattr(ggml, "quantiser", lambda: None)
    assert np.array_equal(encode(_ROWS, type_name), with_ggml)


def test_without_llama_cpp_a_k_quant_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ggml, "quantiser", lambda: None)
    with pytest.raises(UserError, match="Q4_K is made by llama.cpp, which is not installed; run: pip install"):
        encode(_ROWS, "Q4_K")


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    bits = np.array([[0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001]], np.uint32)
    assert encode(bits.view(np.float32), "BF16").view(np.uint16).tolist() == [[0x3F80, 0x3F80, 0x3F82, 0x3F81]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type_name", ["F32", "Q8_0"])
def test_values_that_are_not_finite_are_refused(value: float, type_name: str) -> None:
    rows = _ROWS.copy()
    rows[3, 7] = value
    with pytest.raises(UserError, match="holds NaN or infinite values"):
        encode(rows, type_name)


def test_values_too_large_for_float16_are_refused() -> None:
    with pytest.raises(UserError, match="holds 7e.04, which float16 cannot"):
        encode(np.full((1, 32), -7e4, np.float32), "F16")


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_without_llama_cpp_values_decode_to_the_same(type_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(_ROWS, type_name)
    with_ggml = dequantise(data, type_name)
    monkeypatch.setattr(ggml, "dequantiser", lambda kind: None)
    assert np.array_equal(dequantise(data, type_name), with_ggml)


def test_ggml_is_found_in_the_installed_engine() -> None:
    assert ggml.quantiser() is not None and ggml.dequantiser("Q4_K") is not None
