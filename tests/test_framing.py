"""Frames: each sample in the recipe's mix of frames, by its own id alone, in forms that the client and the directive ask for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from generators import clients
from generators.clients import parse_answer, stops
from generators.files import read_jsonl
from generators.framing import Frames, directive_system, frame, write_frames

SPECS = Path(__file__).parents[1] / "specs"
CLIENT: dict[str, Any] = YAML(typ="safe").load(SPECS / "clients" / "jessy-cli.yaml")
TIERS = {"directive": "Say how many iterations.\n", "marker": "<iterations>{{ iterations }}</iterations>"}
MIX = {"persona": 0.4, "none": 0.2, "jessy-cli": 0.3, "directive": 0.1}


def frames(mix: dict[str, float] | None = None, seed: int = 7, per_sample: int = 3) -> Frames:
    return Frames(mix or MIX, per_sample, seed, "Sen JESSY'sin.", {"jessy-cli": CLIENT}, TIERS)


def sample(name: str = "a", tier: str = "low", turns: int = 1, **metadata: Any) -> dict[str, Any]:
    said = [{"role": role, "content": f"{role} {turn}"} for turn in range(turns) for role in ("user", "assistant")]
    return {"messages": said, "metadata": {"id": name, "tier": tier, "iterations": 2, "layers": ["C04"], **metadata}}


def only(framing: str) -> Frames:
    return frames({framing: 1.0})


def test_the_persona_frame_has_the_personas_system() -> None:
    made = frame(sample(), only("persona"), 0)
    assert made["messages"] == [{"role": "system", "content": "Sen JESSY'sin."}, *sample()["messages"]]
    assert made["metadata"] == {**sample()["metadata"], "framing": "persona", "frame": 0}


def test_no_frame_leaves_the_sample_as_it_is() -> None:
    assert frame(sample(), only("none"), 0)["messages"] == sample()["messages"]


def test_the_directive_frame_begins_with_the_marker() -> None:
    made = frame(sample(), only("directive"), 0)
    assert made["messages"][0]["content"] == directive_system("Sen JESSY'sin.", TIERS) == "Sen JESSY'sin.\n\nSay how many iterations."
    assert made["messages"][-1]["content"] == "<iterations>2</iterations>\nassistant 0"


@pytest.mark.parametrize(("tier", "stages"), [("low", 1), ("medium", 1)])
def test_an_answer_in_the_clients_frame_is_one_that_it_can_read_and_stops_at(tier: str, stages: int) -> None:
    made = frame(sample(tier=tier), only("jessy-cli"), 0)
    seen = parse_answer(CLIENT, made["messages"][-1]["content"])
    low, high = CLIENT["confidence"][tier]
    assert seen.text == "assistant 0" and low <= seen.confidence <= high and seen.layers == ("C04",)
    assert made["metadata"]["stage"] == stages - 1 and stops(CLIENT, [seen])
    assert made["messages"][0]["content"] in [text.strip() for text in CLIENT["systems"]]
    assert '"user 0"' in made["messages"][1]["content"]


def test_a_thoughtful_sample_is_shown_at_every_stage_of_its_chain() -> None:
    thoughts = [{"text": "ilk bakış", "confidence": 0.55, "layers": ["C06"]}]
    made = [frame(sample(f"s{number}", "high", thoughts=thoughts, confidence=0.8), only("jessy-cli"), 0) for number in range(40)]
    by_stage = {row["metadata"]["stage"]: row for row in made}
    assert set(by_stage) == {0, 1}
    first = parse_answer(CLIENT, by_stage[0]["messages"][-1]["content"])
    assert (first.text, first.confidence, stops(CLIENT, [first])) == ("ilk bakış", 0.55, False)
    assert "ilk bakış" in by_stage[1]["messages"][1]["content"]
    assert parse_answer(CLIENT, by_stage[1]["messages"][-1]["content"]).confidence == 0.8


def test_conversations_keep_to_the_frames_that_can_hold_them() -> None:
    framings = {frame(sample(f"s{number}", turns=2), frames(), 0)["metadata"]["framing"] for number in range(60)}
    assert framings == {"persona", "none"}
    assert frame(sample(turns=2), only("jessy-cli"), 0)["metadata"]["framing"] == "persona"


def test_the_mix_is_met() -> None:
    found = Counter(frame(sample(f"s{number}"), frames(), turn)["metadata"]["framing"] for number in range(300) for turn in range(3))
    assert {name: count / 900 for name, count in found.items()} == pytest.approx(MIX, abs=0.05)


def test_the_frames_of_a_sample_differ_from_one_another() -> None:
    kinds = [len({frame(sample(f"s{number}"), frames(), turn)["metadata"]["framing"] for turn in range(3)}) for number in range(60)]
    assert sum(kinds) / 60 > 2.2


def test_a_samples_frames_depend_on_its_id_and_the_seed_alone(tmp_path: Path) -> None:
    few, many = [sample("b")], [sample(name) for name in "abcd"]
    for folder, rows in (("few", few), ("many", many)):
        (tmp_path / folder).mkdir()
        for split in ("train", "valid"):
            (tmp_path / folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        counts = write_frames(tmp_path / folder, frames(), tmp_path / folder / "frames")
        assert counts == {"train": 3 * len(rows), "valid": len(rows)}
    alone = list(read_jsonl(tmp_path / "few" / "frames" / "train.jsonl"))
    among = [row for row in read_jsonl(tmp_path / "many" / "frames" / "train.jsonl") if row["metadata"]["id"] == "b"]
    assert alone == among
    assert [row["metadata"]["frame"] for row in alone] == [0, 1, 2]
    assert frame(sample("b"), frames(seed=7), 0) == frame(sample("b"), frames(seed=7), 0)


def test_another_seed_draws_other_frames() -> None:
    drawn = [[frame(sample(f"s{number}"), frames(seed=seed), 0)["metadata"]["framing"] for number in range(50)] for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_white_space_around_content_is_gone() -> None:
    loose = sample()
    loose["messages"] = [{"role": "user", "content": " a\n"}, {"role": "assistant", "content": "b\n\n"}]
    assert [message["content"] for message in frame(loose, only("none"), 0)["messages"]] == ["a", "b"]


def test_the_wording_in_the_metadata_tells_equal_prompts_apart() -> None:
    seen: dict[int, set[str]] = {}
    for number in range(60):
        made = frame(sample(f"s{number}"), only("jessy-cli"), 0)
        seen.setdefault(made["metadata"]["wording"], set()).add(made["messages"][0]["content"] + made["messages"][1]["content"])
    assert all(len(prompts) == 1 for prompts in seen.values())
    assert clients.system(CLIENT, 0) in {prompt.split(made["messages"][1]["content"])[0] for prompt in set().union(*seen.values())}
