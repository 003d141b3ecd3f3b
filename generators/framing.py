"""Samples into the frames that they are trained in: the persona's SYSTEM, none, the iteration directive, or a client's whole prompt.

Which frames a sample gets is drawn from the recipe's mix by the sample's id alone: adding a sample changes no other's frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

from generators import clients
from generators.clients import Observation
from generators.files import read_jsonl, write_jsonl
from generators.templates import render_text

Row = dict[str, Any]
_GOLDEN = 0.6180339887498949  # successive draws of one sample land far apart on the unit circle


@dataclass(frozen=True)
class Frames:
    """What framing needs. mix: framing to share. system: the persona's. clients: by name. tiers: the whole tiers file."""

    mix: dict[str, float]
    per_sample: int
    seed: int
    system: str
    clients: dict[str, dict[str, Any]]
    tiers: dict[str, Any]


def write_frames(dataset: Path, frames: Frames, target: Path) -> dict[str, int]:
    """`dataset`/{train,valid}.jsonl to `target`/{train,valid}.jsonl. Returns the rows of each.

    Train has `per_sample` rows a sample, numbered in `metadata.frame`; valid has one row a sample.
    """
    return {
        "train": write_jsonl(target / "train.jsonl", _rows(read_jsonl(dataset / "train.jsonl"), frames, frames.per_sample)),
        "valid": write_jsonl(target / "valid.jsonl", _rows(read_jsonl(dataset / "valid.jsonl"), frames, 1)),
    }


def _rows(samples: Iterator[Row], frames: Frames, per_sample: int) -> Iterator[Row]:
    for sample in samples:
        for number in range(per_sample):
            yield frame(sample, frames, number)


def frame(sample: Row, frames: Frames, number: int) -> Row:
    """The sample in its frame `number`: messages with the system text and the asked form, metadata with what was chosen."""
    start = _unit(frames.seed, sample["metadata"]["id"], "framing")
    chosen = _draw(_mix_for(sample, frames), (start + number * _GOLDEN) % 1)
    extra: dict[str, Any] = {}
    if chosen == "persona":
        messages = [{"role": "system", "content": frames.system}, *sample["messages"]]
    elif chosen == "none":
        messages = sample["messages"]
    elif chosen == "directive":
        messages = _with_directive(sample, frames)
    else:
        messages, extra = _in_client(sample, frames, chosen, number)
    # Ollama's templates cannot trim: what is trained on has no white space around it that an engine would have to take away
    messages = [{"role": message["role"], "content": message["content"].strip()} for message in messages]
    return {"messages": messages, "metadata": {**sample["metadata"], "framing": chosen, "frame": number, **extra}}


def _mix_for(sample: Row, frames: Frames) -> dict[str, float]:
    """A client and the directive ask one question at a time; conversations keep to the persona's frame and none."""
    if len(sample["messages"]) == 2:
        return frames.mix
    plain = {name: share for name, share in frames.mix.items() if name in ("persona", "none")}
    return plain or {"persona": 1.0}


def _draw(mix: dict[str, float], position: float) -> str:
    """The name whose slice of the unit interval holds `position`."""
    total, edge = sum(mix.values()), 0.0
    for name, share in mix.items():
        edge += share / total
        if position < edge:
            return name
    return next(reversed(mix))


def _with_directive(sample: Row, frames: Frames) -> list[dict[str, str]]:
    user, answer = sample["messages"]
    marker = render_text(frames.tiers["marker"], iterations=sample["metadata"]["iterations"])
    system = directive_system(frames.system, frames.tiers)
    return [{"role": "system", "content": system}, user, {"role": "assistant", "content": marker + "\n" + answer["content"]}]


def directive_system(system: str, tiers: dict[str, Any]) -> str:
    """The system prompt of a client that asks for the iterations."""
    return f"{system}\n\n{tiers['directive'].strip()}"


def _in_client(sample: Row, frames: Frames, name: str, number: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """One stage of the client's chain: the stage is what the earlier observations and the answer leave room for."""
    client, metadata = frames.clients[name], sample["metadata"]
    chain = _chain(sample, client, frames.seed)
    drawn = _unit(frames.seed, metadata["id"], f"client:{number}")
    stage = int(drawn * len(chain))
    wording = int(_unit(frames.seed, metadata["id"], f"wording:{number}") * 1_000_003)
    query = sample["messages"][0]["content"]
    messages = [
        {"role": "system", "content": clients.system(client, wording)},
        {"role": "user", "content": clients.stage_prompt(client, stage, query, chain[:stage], wording)},
        {"role": "assistant", "content": clients.render_answer(client, chain[stage])},
    ]
    return messages, {"stage": stage, "wording": wording % _wordings(client, stage)}


def _wordings(client: dict[str, Any], stage: int) -> int:
    """How many different prompts the client's wordings give at a stage: rows with the same one begin alike."""
    return lcm(len(client["systems"]), len(client["stages"][stage]["prompts"]))


def _chain(sample: Row, client: dict[str, Any], seed: int) -> list[Observation]:
    """The observations that lead to the answer, the answer last, no longer than the client has stages."""
    metadata = sample["metadata"]
    low, high = client["confidence"][metadata["tier"]]
    confidence = metadata.get("confidence")
    if confidence is None:
        confidence = round(low + (high - low) * _unit(seed, metadata["id"], "confidence"), 2)
    answer = Observation(sample["messages"][-1]["content"], confidence, tuple(metadata["layers"]))
    thoughts = [Observation(seen["text"], seen["confidence"], tuple(seen["layers"])) for seen in metadata.get("thoughts", [])]
    return [*thoughts[: len(client["stages"]) - 1], answer]


def _unit(seed: int, name: str, purpose: str) -> float:
    """A number in [0, 1) from a seed, a name and a purpose; the same on every machine."""
    digest = hashlib.blake2b(f"{seed}\0{name}\0{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
