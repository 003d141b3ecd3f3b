"""The documents: docs/*.md from templates/docs/*.j2, the specs, the program's own source, and the snapshot of figures in docs/figures.json.

No figure stands in a template: each is taken from the snapshot, which says where it came from, and every page ends with the table of those
that it used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from generators.docs import figures
from generators.errors import UserError
from generators.files import read_json, write_text

FOLDER = Path("docs")
PAGES = ("guide", "rehber", "training", "evaluation", "troubleshooting", "mac", "cuda", "several-machines", "architecture")
CURVE = FOLDER / "images" / "loss.svg"


def write_docs(root: Path, project: Any, say: Callable[[str], None]) -> list[Path]:
    """Write every page and the loss curve under `root`. Raises UserError where there is no snapshot of figures."""
    written = []
    for path, text in rendered(root, project).items():
        write_text(root / path, text)
        written.append(root / path)
    say(f"{len(PAGES)} pages in {FOLDER}/, figures from {figures.FILE}")
    return written


def rendered(root: Path, project: Any) -> dict[Path, str]:
    """The text of every page, by its path below `root`."""
    from generators.docs import curve
    from generators.docs.pages import Snapshot, values_of

    if not (root / figures.FILE).is_file():
        raise UserError(f"{figures.FILE} does not exist; run: doit docs --figures, where the default recipe is built")
    kept = read_json(root / figures.FILE)
    found = {CURVE: curve.loss_curve(*(kept["sources"]["curve"]["figures"][split] for split in ("training", "validation")))}
    for page in PAGES:
        values = values_of(page, root, project, Snapshot(kept))
        found[FOLDER / f"{page}.md"] = _render(root / "templates", f"docs/{page}.md.j2", values)
    return found


def _render(templates: Path, name: str, values: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(loader=FileSystemLoader(templates), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.globals.update(values)  # for macros of other files as well
    return _without_gaps(env.get_template(name).render())


def _without_gaps(text: str) -> str:
    """At most one empty line in a row, outside of code."""
    lines: list[str] = []
    in_code = False
    for line in text.split("\n"):
        in_code = in_code != line.startswith("```")
        if line.strip() or in_code or (lines and lines[-1].strip()):
            lines.append(line.rstrip() if not in_code else line)
    return "\n".join(lines).strip("\n") + "\n"
