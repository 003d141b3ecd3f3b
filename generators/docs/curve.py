"""The loss curve as an SVG of plain lines and text: the same bytes from the same figures, whatever library draws elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Points = Sequence[Sequence[float]]  # (step, loss)

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 40
_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #57606a }
.axis { stroke: #8c959f; stroke-opacity: .35 }
.training { stroke: #8c959f; stroke-width: 1.5; fill: none }
.validation { stroke: #0969da; stroke-width: 2.2; fill: none }
circle { fill: #0969da }
@media (prefers-color-scheme: dark) { text { fill: #8d96a0 } .validation { stroke: #4493f8 } circle { fill: #4493f8 } }"""


def loss_curve(training: Points, validation: Points) -> str:
    """Training and validation loss by step. Each has one point at least."""
    everything = [*training, *validation]
    right, steps = max(point[0] for point in everything), _ticks(0, max(point[0] for point in everything), 7)
    losses = _ticks(min(point[1] for point in everything), max(point[1] for point in everything), 5)
    low, high = losses[0], losses[-1]

    def at(point: Sequence[float]) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * point[0] / right
        y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - point[1]) / (high - low)
        return round(x, 1), round(y, 1)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Loss by step">',
        f"<style>{_STYLE}</style>",
    ]
    for loss in losses:
        _, y = at((0, loss))
        lines.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{loss:g}</text>')
    for step in (step for step in steps if step <= right):
        x, _ = at((step, low))
        lines.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{step:g}</text>')
    lines.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">step</text>')
    lines += [_line("training", map(at, training)), _line("validation", map(at, validation))]
    lines += [f'<circle cx="{x}" cy="{y}" r="3"/>' for x, y in map(at, validation)]
    for name, row in (("training", 0), ("validation", 1)):
        y = _TOP + 8 + 18 * row
        lines.append(f'<line class="{name}" x1="{_WIDTH - 120}" x2="{_WIDTH - 96}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{_WIDTH - 90}" y="{y + 4}">{name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _line(name: str, points: Iterator[tuple[float, float]]) -> str:
    return f'<polyline class="{name}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers that hold `low` and `high` between them, no more than `most` and a few."""
    span = (high - low) or 1.0
    rough = span / most
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]
