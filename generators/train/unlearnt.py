"""Tokens that a base was never shown. Their rows in the output head are copies of one another, so none of them can ever be much more
likely than the thousands that share its row, whatever an adapter does to the hidden states: an answer that should end with one never ends.
"""

from __future__ import annotations

from typing import Any

_ALIKE = 0.98  # cosine; of Gemma 3 270M, 6,000 unused tokens are at 0.99 from <end_of_turn>, and none but itself is above 0.7 from <eos>
_MOST = 100  # so many rows may be alike: spellings of one word are
_ROWS = 32768  # of the head at a time, so that no copy of all of it is made


def twins(model: Any, token: int) -> int:
    """How many other tokens have the row of `token`, or nearly, in the output head of an MLX model. 0 for a quantised head."""
    from generators.device import load_mlx

    mx = load_mlx()
    head = model.lm_head if "lm_head" in model else model.model.embed_tokens
    if "scales" in head:
        return 0
    weight = head.weight
    wanted = weight[token].astype(mx.float32)
    wanted = wanted / mx.linalg.norm(wanted)
    count = 0
    for start in range(0, len(weight), _ROWS):
        rows = weight[start : start + _ROWS].astype(mx.float32)
        count += int(mx.sum(rows @ wanted > _ALIKE * mx.linalg.norm(rows, axis=1)).item())
    return count - 1


def warning(model: Any, name: str, token: int, spelled: str) -> str | None:
    """What to tell the user about the token that ends an answer, if anything."""
    alike = twins(model, token)
    if alike <= _MOST:
        return None
    return (
        f"WARNING: {name} was never shown {spelled}: {alike:,} other tokens have the same row in its output head, so answers will hardly "
        "ever end. Give its model spec a chat format whose end_of_turn the base knows, such as <eos>"
    )
