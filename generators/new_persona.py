"""A second project: specs of a small persona with a voice of its own, and whatever else a folder needs that `doit` builds.

The specs, 40 examples among them, stand as files under templates/new_persona/, with `{{ name }}` where the name occurs, in paths `NAME`.
The base model, the templates and dodo.py are those of the project that makes it; the program is the one that is installed.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.files import atomic_directory, write_text
from generators.templates import render_text

SKELETON = "new_persona"  # under templates/
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40  # characters; a name goes into file names, tasks and a model's name in Ollama
_RESERVED = ("null", "true", "false", "name")  # words that YAML or the skeleton reads otherwise


def new_persona(name: str, into: Path, root: Path, base: str, model: dict[str, Any], report: Callable[[str], None]) -> None:
    """Make the project `name` in the folder `into`, whole or not at all.

    root: of the project that makes it. base, model: name and spec of the base that its default recipe trains.
    Raises UserError for a name that will not do, and for a folder that exists.
    """
    check_name(name)
    if into.exists() or into.is_symlink():
        raise UserError(f"{into} exists, and nothing is written over; name another folder with --into, or another name")
    if not (root / "templates" / SKELETON).is_dir():
        raise UserError(f"{root / 'templates' / SKELETON} is missing: the new project is made of the files in it")
    values = {"name": name, "display_name": display_name(name), "base": base}
    with atomic_directory(into) as folder:
        for path, text in _rendered(root / "templates" / SKELETON, values):
            write_text(folder / path, text)
        _copy_from(root, folder, base, model)
    examples = sum(path.read_text(encoding="utf-8").count("\n  - ") for path in into.glob("specs/categories/*/*.yaml"))
    report(f"{into}: a project for {values['display_name']} on {base}, with {examples} examples")
    for source in model["sources"]:
        for kind in ("gguf", "directory"):
            if kind in source and not Path(source[kind]).is_absolute():
                report(f"the base {base} may come from {source[kind]}, which is looked for in {into}")
    report(f"next: cd {into} && doit plan && doit; what to edit is told in {into / 'README.md'}")


def check_name(name: str) -> None:
    """Raises UserError for what cannot be a name of files, tasks and models, with one that can."""
    if not name:
        raise UserError("give it a name: doit new-persona --name nova")
    if _NAME.fullmatch(name) and len(name) <= _LONGEST and name not in _RESERVED:
        return
    rule = f"a name has lower-case letters a-z, digits and single '-' between them, begins with a letter and is no longer than {_LONGEST}"
    close = _like(name)
    raise UserError(f"{name!r} is no name for a persona's files and model; {rule}" + (f"; did you mean {close!r}?" if close else ""))


def _like(name: str) -> str:
    """The nearest name that would do, or an empty string."""
    plain = unicodedata.normalize("NFKD", name.replace("ı", "i").replace("İ", "i")).encode("ascii", "ignore").decode().lower()
    made = re.sub(r"[^a-z0-9]+", "-", plain)[:_LONGEST].strip("-")
    return made if _NAME.fullmatch(made) and made not in _RESERVED else ""


def display_name(name: str) -> str:
    """`sea-captain` is Sea Captain."""
    return " ".join(word.capitalize() for word in name.split("-"))


def _rendered(skeleton: Path, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Every file of the skeleton by its path in the new project. `gitignore` would be at work in this one, were it called by its name."""
    for path in sorted(skeleton.rglob("*")):
        if path.is_file():
            place = path.relative_to(skeleton).as_posix().replace("NAME", values["name"])
            named = re.sub(r"(^|/)gitignore$", r"\1.gitignore", place)
            yield named, render_text(path.read_text(encoding="utf-8"), **values) + "\n"


def _copy_from(root: Path, folder: Path, base: str, model: dict[str, Any]) -> None:
    """What is not the persona's: the table of contents, the templates, the base and how it is spoken to, the schemas for editors."""
    from generators.specs.json_schema import FOLDER, write_schemas

    shutil.copy(root / "dodo.py", folder / "dodo.py")
    shutil.copytree(root / "templates", folder / "templates")
    for spec in (f"models/{base}.yaml", f"chat_formats/{model['chat_format']}.yaml"):
        target = folder / "specs" / spec
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "specs" / spec, target)
    write_schemas(folder / FOLDER)
