"""Promises of the preflight: the whole chain on a random model, in a folder of its own, and no run that this machine has no room for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ARCHITECTURES, write_hf

from generators import preflight
from generators.errors import UserError
from generators.paths import Paths
from generators.preflight import Needs, Room, check_room
from generators.specs.project import load
from generators.stages import planning, training

ROOT = Path(__file__).parents[1]
RECIPE, BASE = "jessy-mini", "gemma-3-270m"
GB = 1_000_000_000


@cache
def project() -> Any:
    return load(ROOT, keep=False, captured=False)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with nothing but templates and the recipe's base, with a small vocabulary in place of the real one."""
    root = tmp_path_factory.mktemp("project")
    (root / "templates").symlink_to(ROOT / "templates")
    base = write_hf(root / "build" / "models" / BASE, "gemma3", hidden_size=320)
    (base / "source.json").write_text("{}")
    return root


def everything_in(folder: Path) -> dict[str, tuple[int, int]]:
    found = [(path.relative_to(folder).as_posix(), path.stat()) for path in sorted(folder.rglob("*"))]
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found}


# --- the chain --------------------------------------------------------------------------------------------------------------------


def test_the_chain_goes_from_render_to_an_answer_and_changes_nothing(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(imported)
    planning.preflight(project(), Paths(imported), RECIPE)
    assert everything_in(imported) == before
    room, works = capsys.readouterr().out.splitlines()[-2:]
    assert "the real run: about" in room and "on disk" in room
    assert "the chain works on a random model of 2 layers" in works
    assert all(f"{stage} " in works for stage in ("random model", "training", "fusing", "Q8_0"))


def test_a_base_that_is_not_imported_is_one_line_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^preflight takes the tokenizer of gemma-2b, which is not imported yet; run: doit base:gemma-2b$"):
        planning.preflight(project(), Paths(tmp_path), "jessy-v2")
    assert list(tmp_path.iterdir()) == []


def a_job(imported: Path, folder: Path) -> preflight.Job:
    recipe = project().recipes[RECIPE]
    chat_format = project().chat_formats["gemma-base"]
    frames = folder / "frames"
    frames.mkdir()
    row = {
        "messages": [{"role": "user", "content": "naber kanka"}, {"role": "assistant", "content": "İyidir valla."}],
        "metadata": {"id": "x", "source": "specs/x.yaml:1", "framing": "none", "frame": 0},
    }
    for split in ("train", "valid"):
        (frames / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    return preflight.Job(RECIPE, str(folder), str(imported / "build" / "models" / BASE), recipe, chat_format, 512, 1, {})


def test_a_failure_names_the_stage_and_the_cause(imported: Path, tmp_path: Path) -> None:
    job = a_job(imported, tmp_path)
    job = replace(job, chat_format={**job.chat_format, "end_of_turn": "<|end|>"})
    with pytest.raises(UserError, match=r"^preflight of jessy-mini failed in training: .*no token '<\|end\|>'"):
        preflight.run(job, lambda line: None)


def test_a_process_that_breaks_down_is_told_by_its_last_words(imported: Path, tmp_path: Path) -> None:
    job = replace(a_job(imported, tmp_path), base=str(tmp_path / "gone"))
    with pytest.raises(UserError, match="^preflight of jessy-mini ended with code 1: FileNotFoundError"):
        preflight.run(job, lambda line: None)


# --- the random model -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_random_model_is_of_the_bases_architecture_and_speaks_its_vocabulary(architecture: str, tmp_path: Path) -> None:
    from generators.device import load_mlx
    from generators.train import load_model

    mx = load_mlx()
    base = write_hf(tmp_path / "base", architecture, num_hidden_layers=6)
    (base / "source.json").write_text("{}")
    preflight.write_random_model(base, tmp_path / "small", seed=1)
    model = load_model(tmp_path / "small")
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "small"))
    assert (len(model.layers), ours["model_type"], ours["vocab_size"]) == (2, theirs["model_type"], theirs["vocab_size"])
    logits = model(mx.array([[2, 5, 7, 11]]))[0, -1].astype(mx.float32)
    assert mx.isfinite(logits).all().item() and 0.1 < mx.std(logits).item() < 10


def test_the_same_seed_gives_the_same_random_model(tmp_path: Path) -> None:
    base = write_hf(tmp_path / "base", "llama")
    (base / "source.json").write_text("{}")
    for name in ("one", "two"):
        preflight.write_random_model(base, tmp_path / name, seed=1)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("queries", "keys", "wanted"), [(8, 1, (4, 1)), (4, 1, (4, 1)), (14, 2, (4, 2)), (32, 8, (4, 2)), (16, 16, (2, 2)), (1, 1, (1, 1))]
)
def test_heads_share_keys_as_in_the_base(queries: int, keys: int, wanted: tuple[int, int]) -> None:
    config = {
        "model_type": "qwen2", "hidden_size": 64 * queries, "intermediate_size": 2048, "head_dim": 64,
        "num_hidden_layers": 24, "num_attention_heads": queries, "num_key_value_heads": keys,
    }  # fmt: skip
    small = preflight.small_config(config, "here")
    assert (small["num_attention_heads"], small["num_key_value_heads"]) == wanted
    assert small["head_dim"] * small["num_attention_heads"] == small["hidden_size"]


# --- room for the real run --------------------------------------------------------------------------------------------------------


def told(needs: Needs, room: Room) -> list[str]:
    lines: list[str] = []
    check_room(needs, room, lines.append)
    return lines


NEEDS = Needs(seconds=600, memory=15 * GB, weights=5 * GB, disk=7 * GB)


def test_a_run_that_fits_is_one_line() -> None:
    assert told(NEEDS, Room(32 * GB, 20 * GB, 100 * GB)) == [
        "the real run: about 10 min 0 s of training, 15.0 GB of memory (20.0 GB free of 32.0 GB), 7.0 GB on disk (100.0 GB free)"
    ]


def test_more_memory_than_is_free_is_a_warning() -> None:
    assert told(NEEDS, Room(16 * GB, 9 * GB, 100 * GB))[1].startswith("WARNING: that is more memory than is free")


def test_a_base_that_is_larger_than_the_memory_is_refused() -> None:
    with pytest.raises(UserError, match=r"the base alone takes 5.0 GB .* this machine has 4.0 GB; set training.base_bits"):
        told(NEEDS, Room(4 * GB, 3 * GB, 100 * GB))


def test_a_disk_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="the real run writes 7.0 GB and 6.0 GB are free"):
        told(NEEDS, Room(32 * GB, 20 * GB, 6 * GB))


def test_memory_that_the_system_does_not_tell_is_no_reason_to_refuse() -> None:
    assert "(not known here)" in told(NEEDS, Room(None, None, 100 * GB))[0]


def test_room_here_is_what_the_system_has(tmp_path: Path) -> None:
    room = preflight.room_here("cpu", tmp_path)
    assert room.memory and room.free_memory and 0 < room.free_memory <= room.memory
    assert abs(room.free_disk - shutil.disk_usage(tmp_path).free) < GB


# --- before a long run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "checkpoint", "wanted"),
    [("jessy-v2", False, ["preflight", "train"]), ("jessy-v2", True, ["train"]), ("jessy-mini", False, ["train"])],
)
def test_training_a_large_base_afresh_begins_with_a_preflight(
    recipe: str, checkpoint: bool, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(training, "preflight", lambda *_: ran.append("preflight"))
    monkeypatch.setattr("generators.train.train", lambda *_: ran.append("train"))
    if checkpoint:
        (Paths(tmp_path).recipe(recipe).checkpoints / "step-000100").mkdir(parents=True)
    training.train(project(), Paths(tmp_path), recipe)
    assert ran == wanted
