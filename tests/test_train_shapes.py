"""On a GPU every size of a batch is compiled, so a run has few of them, and they pad little."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_jobs import random_rows

from generators.files import read_jsonl, write_jsonl
from generators.paths import Paths
from generators.specs.project import load
from generators.stages import corpus
from generators.tokens import Tokenizer
from generators.train import data, shapes
from generators.train.forward import Packed, pack

ROOT = Path(__file__).parents[1]
RECIPE = "jessy-mini"


@pytest.fixture(scope="module")
def run(embedded_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[data.Batch]]:
    """The batches of the shipped corpus in the shipped recipe: the validation's, and those of each epoch."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "templates").symlink_to(ROOT / "templates")
    project, paths = load(ROOT), Paths(root)
    rows = []
    for category in project.categories:
        corpus.samples(project, paths, category)
        rows += read_jsonl(paths.samples(category))
    write_jsonl(paths.dataset / "train.jsonl", (row for index, row in enumerate(rows) if index % 10))
    write_jsonl(paths.dataset / "valid.jsonl", rows[::10])
    corpus.frames(project, paths, RECIPE)
    recipe, frames = project.recipes[RECIPE], paths.recipe(RECIPE).frames
    tokenizer = Tokenizer.load(embedded_base, project.chat_formats["gemma"])
    train, valid = (data.load_rows(frames / f"{split}.jsonl", tokenizer, 4096) for split in ("train", "valid"))
    each, size, seed = recipe["framings"]["each_epoch"], recipe["training"]["batch_size"], project.project["seed"]
    epochs = [
        data.epoch_batches(data.rows_of_epoch(train, epoch, each), size, seed, epoch) for epoch in range(recipe["training"]["epochs"])
    ]
    return [data.validation_batches(valid, size), *epochs]


def arrays_of(packed: Packed) -> tuple[tuple[int, ...], ...]:
    """What a compiled function is compiled for."""
    return tuple(array.shape for array in packed.arrays())


def test_the_corpus_is_trained_in_no_more_than_eight_sizes(run: list[list[data.Batch]]) -> None:
    sizes = shapes.choose((batch for batches in run for batch in batches), shapes.MOST["cuda"])
    compiled = [{arrays_of(pack(batch, shapes.smallest(sizes, batch))) for batch in batches} for batches in run]
    assert len(set().union(*compiled)) <= len(sizes) <= 8
    assert len({arrays_of(pack(batch)) for batches in run for batch in batches}) > 90  # what they would be without


@pytest.mark.parametrize(("device", "most"), [("cuda", 1.34), ("metal", 1.2)])
def test_the_padding_of_the_corpus_costs_little(device: str, most: float, run: list[list[data.Batch]]) -> None:
    batches = [batch for each in run for batch in each]
    sizes = shapes.choose(batches, shapes.MOST[device])
    chosen = [shapes.smallest(sizes, batch) for batch in batches]
    padded = sum(size.rows * size.length for size in chosen if size)
    tokens = sum(
        len(group.prefix) + sum(len(row.ids) - 1 - len(group.prefix) for row in group.rows) for batch in batches for group in batch
    )
    assert padded < most * tokens


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 25), batch_size=st.integers(1, 6), most=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_batch_fits_into_one_of_at_most_so_many_sizes(count: int, batch_size: int, most: int, seed: int) -> None:
    batches = data.epoch_batches(random_rows(count, 40, seed), batch_size, seed, 0)
    sizes = shapes.choose(batches, most, lengths=(4, 8))
    assert len(sizes) <= most and len({size.length for size in sizes}) == 1
    for batch in batches:
        size = shapes.smallest(sizes, batch)
        assert size is not None and size.holds(shapes.size_of(batch, size.length))
        packed = pack(batch, size)
        assert packed.tokens.shape == (size.rows, size.length) and packed.context.shape == (size.rows, size.context)
        assert len(packed.targets) == size.targets and packed.weights.sum().item() == data.target_count(batch)


def test_nothing_to_train_on_takes_no_size() -> None:
    assert shapes.choose([], 3) == []
    assert shapes.smallest([], data.group_rows(random_rows(2, 40))) is None
