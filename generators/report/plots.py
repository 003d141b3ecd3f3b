"""Curves and strips as inline SVG that takes its colours and its font from the page, so that light and dark both fit.

matplotlib draws in placeholder colours; they are then replaced by the page's CSS variables. Each plot comes twice, wide and narrow,
and the style sheet shows the one that fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

Points = Sequence[tuple[float, float]]

# placeholder -> what the page calls it
_INK = "#010101"
_FAINT = "#020202"
_BASE = "#030303"
_TUNED = "#040404"
_MISS = "#050505"
_COLOURS = {_INK: "var(--muted)", _FAINT: "var(--line)", _BASE: "var(--base)", _TUNED: "var(--tuned)", _MISS: "var(--miss)"}
_WIDE, _NARROW = 10.4, 4.6  # inches at 72 dots: as wide as the page's column, and as a phone


def both_widths(draw: Callable[[Any, float], None], height: float, label: str, rows: int = 1) -> str:
    """draw: (figure, width in inches). height: inches of the wide plot; the narrow one may take more for each row below the first."""
    wide = _svg(draw, _WIDE, height, label)
    narrow = _svg(draw, _NARROW, max(2.4, height * 0.8) * rows, label)
    return f'<div class="plot wide">{wide}</div><div class="plot narrow">{narrow}</div>'


def losses(train: Points, validation: Points, best: tuple[float, float] | None) -> str:
    """Training and validation loss by step, the best validation marked."""

    def draw(figure: Any, width: float) -> None:
        axes = figure.add_subplot()
        if train:
            axes.plot(*zip(*train, strict=True), color=_BASE, linewidth=1.3, label="training")
        if validation:
            axes.plot(*zip(*validation, strict=True), color=_TUNED, linewidth=1.8, marker="o", markersize=3, label="validation")
        if best:
            axes.axvline(best[0], color=_TUNED, linewidth=0.8, linestyle=(0, (3, 3)))
            axes.plot([best[0]], [best[1]], marker="o", markersize=8, color=_TUNED, markerfacecolor="none", markeredgewidth=1.5)
            right = best[0] > 0.7 * max([point[0] for point in [*train, *validation]] or [1])
            axes.annotate(
                f"best {best[1]:.3f}, step {best[0]:g}",
                best,
                textcoords="offset points",
                xytext=(-10 if right else 10, 12),
                ha="right" if right else "left",
                color=_TUNED,
                fontsize=9,
            )
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend(frameon=False, labelcolor=_INK, fontsize=9, loc="upper right")
        _quiet(axes)

    return both_widths(draw, 3.4, "Training and validation loss by step")


def small_multiples(series: Sequence[tuple[str, Points]], label: str) -> str:
    """One small plot a series, side by side; below one another on a phone, two a row."""

    def draw(figure: Any, width: float) -> None:
        columns = len(series) if width > 7 else min(2, len(series))
        rows = -(-len(series) // columns)
        for index, (title, points) in enumerate(series):
            axes = figure.add_subplot(rows, columns, index + 1)
            axes.plot(*zip(*points, strict=True), color=_TUNED, linewidth=1.3)
            axes.set_title(title, fontsize=9, color=_INK, loc="left")
            axes.locator_params(axis="x", nbins=4)
            axes.locator_params(axis="y", nbins=4)
            axes.set_ylim(0, (max(value for _, value in points) or 1) * 1.1)  # from 0, or noise looks like change
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            _quiet(axes)

    return both_widths(draw, 1.9, label, rows=1 if len(series) < 3 else 2)


def strip(groups: Sequence[tuple[str, str, Sequence[float]]], limit: float | None, label: str) -> str:
    """groups: (name, `base` or `tuned`, seconds). Each measurement is a dot on a logarithmic axis, the median a bar; limit: a line."""

    def draw(figure: Any, width: float) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes = figure.add_subplot()
        for row, (_, side, seconds) in enumerate(groups):
            colour = _TUNED if side == "tuned" else _BASE
            spread = [row + ((index * 0.618) % 1 - 0.5) * 0.32 for index in range(len(seconds))]
            axes.plot(seconds, spread, linestyle="none", marker="o", markersize=5, color=colour, alpha=0.65, markeredgewidth=0)
            middle = sorted(seconds)[len(seconds) // 2]
            axes.plot([middle, middle], [row - 0.3, row + 0.3], color=colour, linewidth=2)
        if limit:
            axes.axvline(limit, color=_MISS, linewidth=1, linestyle=(0, (3, 3)))
            where = {"textcoords": "offset points", "xytext": (4, 0), "va": "top", "annotation_clip": False}
            axes.annotate(f"limit {limit:g} s", (limit, -0.5), color=_MISS, fontsize=9, **where)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(groups)), [name for name, _, _ in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlabel("seconds until the whole answer is there")
        _quiet(axes)
        axes.grid(False, axis="y")

    return both_widths(draw, 0.9 + 0.5 * len(groups), label)


def _quiet(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.tick_params(colors=_INK, which="both", labelsize=9, length=0)
    axes.grid(True, color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
        label.set_size(9)


def _svg(draw: Callable[[Any, float], None], width: float, height: float, label: str) -> str:
    """The same bytes for the same figures: no date, ids from a fixed salt."""
    from io import StringIO

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{label} {width}", "font.family": "sans-serif"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, width)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _at_home(text.getvalue(), label)


def _at_home(svg: str, label: str) -> str:
    """Without prolog and metadata, in the page's colours and font, with a name for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: (?:normal |italic |bold )*([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, name in _COLOURS.items():
        svg = svg.replace(colour, name)
    svg = re.sub(r'(?<=[ ;"])(fill|stroke): #000000', r"\1: currentColor", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()
