"""The report of a recipe: `report.html`, one file that needs no network, and `report.md` for a review.

`write_report` gathers what the stages left behind, whatever of it is there; a section whose figures are missing is not shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.files import write_text
from generators.report.material import gather
from generators.report.view import view

_TEMPLATES = Path(__file__).parents[2] / "templates"


def write_report(recipe_dir: Path, context: dict[str, Any], templates: Path = _TEMPLATES) -> None:
    """Write `recipe_dir`/report.html and report.md from the files in and below `recipe_dir`.

    context, all of it optional: `name`, `recipe` (its spec), `base` (the model's spec), `project` (its spec), `dataset_report` (path),
    `environment` ({what: value}), `variants` (rows, see `generators.report.variants`), `changes` (lines: what changed since the last
    build), `sides` (what base and tuned are called, where the report is of two others), `about` (what is told first: title, lead, lines,
    rows of a table, and a pill of text and good).
    """
    shown = view(gather(recipe_dir, context))
    write_text(recipe_dir / "report.html", _render(templates, "reports/report.html.j2", shown, escape=True))
    write_text(recipe_dir / "report.md", _render(templates, "reports/report.md.j2", shown, escape=False))


def _render(templates: Path, name: str, shown: dict[str, Any], escape: bool) -> str:
    """escape: answers and queries are text from outside, and HTML is not the place to trust them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    return env.get_template(name).render(**shown).rstrip() + "\n"
