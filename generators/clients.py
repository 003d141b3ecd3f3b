"""How a client frames a query, reads an answer and decides to stop: what `specs/clients/*.yaml` declares, carried out.

The protocol is jessy-cli's: each query goes through stages; every answer carries CONFIDENCE, LAYERS and CONTENT; the client stops
when it is sure enough. The same functions frame the training samples and drive the evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from generators.templates import render_text

Client = dict[str, Any]


class Unparsable(Exception):
    """The client would answer with an error. `str(error)` says why."""


@dataclass(frozen=True)
class Observation:
    """One stage's answer as the client read it."""

    text: str
    confidence: float
    layers: tuple[str, ...] = ()


@dataclass
class ChainResult:
    """observations: of the stages that were run. error: why the client gave up, or empty."""

    observations: list[Observation] = field(default_factory=list)
    error: str = ""

    @property
    def stages(self) -> int:
        return len(self.observations)

    @property
    def answer(self) -> str:
        return self.observations[-1].text if self.observations else ""


def system(client: Client, wording: int = 0) -> str:
    """The client's own system prompt."""
    return client["systems"][wording % len(client["systems"])].strip()


def stage_prompt(client: Client, stage: int, query: str, observations: list[Observation], wording: int = 0) -> str:
    """What is asked at `stage` (from 0), with the earlier observations listed."""
    declared = client["stages"][stage]
    listed = client.get("separator", "\n").join(
        render_text(
            client["observation"],
            stage=client["stages"][index]["name"],
            confidence=f"{seen.confidence:.2f}",
            layers=",".join(seen.layers),
            text=seen.text,
        ).strip()
        for index, seen in enumerate(observations)
    )
    prompts = declared["prompts"]
    return render_text(prompts[wording % len(prompts)], query=query, stage=declared["name"], observations=listed).strip()


def render_answer(client: Client, seen: Observation) -> str:
    """An answer in the form that the client parses."""
    return render_text(client["answer"], confidence=f"{seen.confidence:.2f}", layers=",".join(seen.layers), text=seen.text).strip()


_FIELD = re.compile(r"^\s*(CONFIDENCE|LAYERS|CONTENT)\s*:\s*(.*)$")
_LAYER = re.compile(r"^(?:[CD]\d+|\d+)$")


def parse_answer(client: Client, text: str) -> Observation:
    """Read line by line, as the client does: without CONTENT the whole reply is the answer, without CONFIDENCE it is 0.5.

    Raises Unparsable for a layer that is neither `C` or `D` and a number nor a bare number.
    """
    confidence, layers, content, in_content = 0.5, [], [], False
    for line in text.splitlines():
        found = None if in_content else _FIELD.match(line)
        if in_content:
            content.append(line)
        elif found and found[1] == "CONTENT":
            in_content = True
            content.append(found[2])
        elif found and found[1] == "CONFIDENCE":
            confidence = _confidence(found[2])
        elif found:
            layers = [_layer(part.strip()) for part in found[2].split(",") if part.strip()]
    answer = "\n".join(content).strip() if in_content else text.strip()
    return Observation(answer, confidence, tuple(layers))


def _confidence(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text.strip())))
    except ValueError:
        return 0.5


def _layer(text: str) -> str:
    if not _LAYER.match(text):
        raise Unparsable(f"layer {text!r} is neither C or D and a number nor a number")
    return text


def stops(client: Client, observations: list[Observation]) -> bool:
    """Whether the client ends after the last of `observations`, though stages are left."""
    last, rule = observations[-1], client["stop"]
    if last.confidence > rule["alone"]:
        return True
    if last.confidence > rule["few_layers"]["confidence"] and len(last.layers) < rule["few_layers"]["below"]:
        return True
    if len(observations) < 2:
        return False
    before, agreement = observations[-2], rule["agreement"]
    sure = min(last.confidence, before.confidence) >= agreement["confidence"]
    return sure and overlap(last.layers, before.layers) > agreement["overlap"]


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """Intersection over union; 0 for two empty sets."""
    union = set(one) | set(other)
    return len(set(one) & set(other)) / len(union) if union else 0.0


def run_chain(client: Client, query: str, ask: Callable[[str, str], str]) -> ChainResult:
    """The client's whole loop. ask: (system, prompt) -> reply."""
    result = ChainResult()
    for stage in range(len(client["stages"])):
        reply = ask(system(client), stage_prompt(client, stage, query, result.observations))
        try:
            result.observations.append(parse_answer(client, reply))
        except Unparsable as error:
            result.error = str(error)
            return result
        if stops(client, result.observations):
            break
    return result
