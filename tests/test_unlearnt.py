"""A token that the base was never shown is told before a training that could not end an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models

from generators.device import load_mlx
from generators.train import load_model, unlearnt

mx = load_mlx()
TOKEN = 7


@pytest.fixture()
def model(tmp_path: Path) -> Any:
    return load_model(tiny_models.write_hf(tmp_path / "model", "gemma3"))


def give_rows_of(model: Any, token: int, tokens: range) -> None:
    """Others get the row of `token`, longer or shorter, as unused tokens do."""
    weight = model.model.embed_tokens.weight
    scales = mx.linspace(0.5, 2.0, len(tokens))[:, None]
    weight[tokens.start : tokens.stop] = weight[token] * scales
    model.model.embed_tokens.weight = weight


def test_a_token_with_a_row_of_its_own_gives_no_warning(model: Any) -> None:
    assert unlearnt.twins(model, TOKEN) == 0
    assert unlearnt.warning(model, "tiny", TOKEN, "<eos>") is None


def test_rows_in_the_same_direction_are_counted_whatever_their_length(model: Any) -> None:
    give_rows_of(model, TOKEN, range(20, 30))
    assert unlearnt.twins(model, TOKEN) == 10


def test_a_token_that_shares_its_row_with_hundreds_is_told_with_the_remedy(model: Any) -> None:
    give_rows_of(model, TOKEN, range(20, 140))
    told = unlearnt.warning(model, "tiny", TOKEN, "<end_of_turn>")
    assert told is not None and told.startswith("WARNING: tiny was never shown <end_of_turn>: 120 other tokens")
    assert "chat format" in told
