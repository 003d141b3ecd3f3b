"""An example put before a person in their own editor, and read back."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from generators.errors import UserError, did_you_mean, one_of
from generators.feedback.insertion import as_yaml
from generators.specs import yaml_source
from generators.specs.schema import CATEGORY

Example = dict[str, Any]
_FIELDS = CATEGORY["examples"]["schema"]["schema"]
_HEAD = """\
# Save and leave: it is checked and shown again before anything is kept. Leave it as it is, or empty, and nothing changes.
# category is one of {categories}.
"""


def as_document(example: Example, category: str, categories: list[str]) -> str:
    """The text that is edited. The note of where it came from is not: it stays as it is."""
    shown = {"category": category, **{key: value for key, value in example.items() if key != "source"}}
    return _HEAD.format(categories=one_of(categories)) + as_yaml(shown)


def from_document(text: str, categories: list[str]) -> tuple[str, Example]:
    """(category, example without its source). Raises UserError with everything that is wrong with it."""
    document = yaml_source.parse(text, "the example")
    if document.problems:
        raise UserError("\n".join(map(str, document.problems)))
    if not isinstance(document.value, dict):
        raise UserError("the example is no mapping of category, user, jessy")
    example = dict(document.value)
    category = example.pop("category", None)
    if category not in categories:
        raise UserError(f"category: {category!r} is none{did_you_mean(category, categories)}")
    unknown = [key for key in example if key not in _FIELDS or key == "source"]
    if unknown:
        raise UserError(f"{unknown[0]}: no such field{did_you_mean(unknown[0], _FIELDS)}")
    return category, example


def edit(text: str) -> str:
    """The text as $VISUAL or $EDITOR leaves it. Raises UserError where there is no editor, or it fails."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            ended = subprocess.run([*shlex.split(command), str(path)], check=False)
        except (OSError, ValueError) as error:
            raise UserError(f"the editor {command!r} cannot be started; say in EDITOR which one is meant") from error
        if ended.returncode:
            raise UserError(f"the editor {command!r} ended with the exit code {ended.returncode}; nothing was taken over")
        return path.read_bytes().decode("utf-8", "replace")
