"""MLX's engine against the plain way: each row alone and whole, all its logits, in float32, and MLX's own autograd."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, write_hf
from training_jobs import LORA, random_rows

from generators.device import current, load_mlx
from generators.train import data, load_model, lora, shapes
from generators.train.cross_entropy import Head
from generators.train.engine import choose_engine
from generators.train.forward import MlxEngine

mx = load_mlx()
pytestmark = pytest.mark.skipif(current().kind != "cpu", reason="a GPU computes in bfloat16, which is exact to three digits")
TOLERANCE = 1e-5
WINDOW = {"gemma2": {"sliding_window": 7}, "gemma3": {"sliding_window": 7}}  # shorter than the prefixes of random_rows
CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5}  # so low that they bite


@cache
def _folder(architecture: str, overrides: tuple[tuple[str, Any], ...]) -> Path:
    return write_hf(Path(mkdtemp()) / architecture, architecture, **dict(overrides))


def model_of(architecture: str, lora_block: dict[str, Any] = LORA, bits: int | None = None, **overrides: Any) -> Any:
    """A model whose adapter is not zero, so that every gradient is."""
    from mlx.utils import tree_map

    model = load_model(_folder(architecture, tuple((WINDOW.get(architecture, {}) | overrides).items())), bits)
    lora.attach(model, lora_block, 0)
    mx.random.seed(5)
    model.update(tree_map(lambda array: array + 0.05 * mx.random.normal(array.shape), model.trainable_parameters()))
    mx.eval(model.parameters())
    return model


def reference(model: Any, rows: list[data.Row]) -> tuple[float, dict[str, np.ndarray]]:
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    def total(model: Any) -> Any:
        loss = mx.array(0.0)
        for row in rows:
            logits = model(mx.array([row.ids[:-1]]))[0][mx.array(row.targets) - 1]
            wanted = mx.array([row.ids[position] for position in row.targets])
            loss = loss + nn.losses.cross_entropy(logits.astype(mx.float32), wanted, reduction="sum")
        return loss

    loss, gradients = nn.value_and_grad(model, total)(model)
    return loss.item(), {name: np.array(array) for name, array in tree_flatten(gradients)}


def engine_of(model: Any, row_length: int | None) -> MlxEngine:
    """row_length: as on a GPU, conversations cut into rows of so many tokens and padded; None: as on a CPU."""
    engine = MlxEngine(model)
    if row_length:
        engine._sizes = shapes.choose([data.group_rows(random_rows(12, model.args.vocab_size, seed=77))], most=1, lengths=(row_length,))
    return engine


def assert_exact(model: Any, rows: list[data.Row], row_lengths: tuple[int | None, ...] = (None, 8)) -> None:
    wanted_loss, wanted = reference(model, rows)
    batch = data.group_rows(rows)
    for row_length in row_lengths:
        engine = engine_of(model, row_length)
        assert row_length is None or shapes.smallest(engine._sizes, batch)
        loss, gradients = engine.loss_and_gradients(batch)
        assert loss == pytest.approx(wanted_loss, rel=TOLERANCE)
        assert engine.loss(batch) == pytest.approx(wanted_loss, rel=TOLERANCE)
        assert set(gradients) == set(wanted) == set(lora.parameters(model))
        for name, array in wanted.items():
            assert np.linalg.norm(np.array(gradients[name]) - array) <= TOLERANCE * np.linalg.norm(array), (name, row_length)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_equal_the_plain_way(architecture: str) -> None:
    """Three prefixes, ragged rows, targets in several runs, windows shorter than the prefixes."""
    model = model_of(architecture)
    assert_exact(model, random_rows(6, model.args.vocab_size, seed=1))


def test_every_batch_size_gives_the_same() -> None:
    model = model_of("gemma3")
    for size in range(1, 10):
        assert_exact(model, random_rows(size, model.args.vocab_size, seed=size, longest=12), row_lengths=((None, 8, 5)[size % 3],))


def test_caps_that_bite_give_the_same() -> None:
    model = model_of("gemma2", **CAPS)
    assert_exact(model, random_rows(4, model.args.vocab_size, seed=2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dora_gives_the_same(architecture: str) -> None:
    model = model_of(architecture, LORA | {"dora": True})
    assert_exact(model, random_rows(3, model.args.vocab_size, seed=3), row_lengths=(8,))


@pytest.mark.parametrize(("bits", "dora"), [(4, False), (8, False), (4, True)])
def test_a_base_in_few_bits_gives_the_same(bits: int, dora: bool) -> None:
    model = model_of("gemma3", LORA | {"dora": dora}, bits, intermediate_size=128)
    assert_exact(model, random_rows(3, model.args.vocab_size, seed=4), row_lengths=(8,))


@pytest.mark.parametrize("architecture", ("gemma3", "qwen2"))
def test_gradient_checkpointing_gives_the_same(architecture: str) -> None:
    model = model_of(architecture)
    lora.recompute_activations(model)
    assert_exact(model, random_rows(3, model.args.vocab_size, seed=5), row_lengths=(8,))


def test_gradient_checkpointing_of_one_model_leaves_the_next_as_it_is() -> None:
    first = model_of("gemma3")
    kind = type(first.layers[0])
    lora.recompute_activations(first)
    assert type(model_of("gemma3").layers[0]) is kind is not type(first.layers[0])


def test_gradient_checkpointing_leaves_the_cpu_its_engine() -> None:
    model = model_of("gemma3")
    before = choose_engine(model, LORA, {"base_bits": None})
    lora.recompute_activations(model)
    assert type(choose_engine(model, LORA, {"base_bits": None})) is type(before)


def test_padding_of_rows_and_targets_changes_nothing() -> None:
    model = model_of("gemma3")
    batch = data.group_rows(random_rows(3, model.args.vocab_size, seed=6))
    plain, padded = engine_of(model, 8), engine_of(model, 8)
    plain._sizes = [shapes.size_of(batch, 8)]
    assert padded._sizes[0].rows > plain._sizes[0].rows and padded._sizes[0].context >= plain._sizes[0].context
    assert padded.loss(batch) == pytest.approx(plain.loss(batch), rel=1e-6)


def test_the_logits_of_many_chunks_do_not_exist_at_once() -> None:
    """20 chunks: a dozen of arrays of one chunk's size are in flight, where without an order there would be two for each chunk."""
    import mlx.nn as nn

    vocabulary, width, chunk, chunks = 4_000, 8, 16, 20
    model = nn.Module()
    model.lm_head = nn.Linear(width, vocabulary, bias=False)
    head = Head(model)
    head.chunk = chunk
    hidden, targets, weights = mx.random.normal((chunk * chunks, width)), mx.zeros(chunk * chunks, mx.int32), mx.ones(chunk * chunks)
    mx.eval(head.weight, hidden, targets, weights)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(head.loss(hidden, targets, weights, with_gradient=True))
    assert (mx.get_peak_memory() - before) / (4 * chunk * vocabulary) < 15
