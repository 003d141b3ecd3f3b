"""What Ollama is told beside the weights: Modelfiles, and what has changed in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generators.stages.reading import (
    Slice,
    chat_format_of,
    chat_format_slice,
    deployed_as,
    joined_slices,
    only,
    ordered,
    persona_file,
    recipe_file,
    spoken,
)

if TYPE_CHECKING:
    from generators.paths import Paths
    from generators.specs.project import Project


def modelfile_slice(project: Project, paths: Paths, name: str) -> Slice:
    recipe = project.recipes[name]
    base = recipe["base"]
    written = {**only(recipe, "base", "personas"), "export": {"quantisations": recipe["export"]["quantisations"][:1]}}
    licence = {"licence": only(project.models[base]["licence"], "name", "url")}
    return joined_slices(
        {recipe_file(name): written, f"specs/models/{base}.yaml": licence},
        chat_format_slice(project, base, "stop"),
        *(spoken(project, paths, persona, "parameters", "messages") for persona in recipe["personas"]),
        *({persona_file(persona): ordered(project.personas[persona], "parameters")} for persona in recipe["personas"]),
    )


def modelfiles(project: Project, paths: Paths, name: str) -> None:
    from generators.files import write_text

    recipe = project.recipes[name]
    for persona in recipe["personas"]:
        write_text(paths.modelfile(name, persona), modelfile_text(project, paths, name, persona))
    for path in paths.modelfile(name, "any").parent.glob("*.Modelfile"):
        if path.stem not in recipe["personas"]:
            path.unlink()


def modelfile_text(project: Project, paths: Paths, name: str, persona: str) -> str:
    """The Modelfile of one persona of a recipe, from the specs as they are."""
    import os

    from generators.chat_format import go_template
    from generators.modelfile import render_modelfile

    recipe = project.recipes[name]
    chat_format, licence = chat_format_of(project, recipe), project.models[recipe["base"]]["licence"]
    gguf_path = os.path.relpath(paths.recipe(name).gguf(recipe["export"]["quantisations"][0]), paths.modelfile(name, persona).parent)
    return render_modelfile(project.personas[persona], chat_format, licence, gguf_path, go_template(chat_format), paths.templates)


def diff(project: Project, paths: Paths, recipe: str, persona: str, against: str, as_json: bool) -> None:
    """Exits with code 1 where a Modelfile differs. persona, against: empty for all personas, against what was deployed or committed."""
    from generators import diff as diffing
    from generators.errors import EXIT_FAILED, chosen
    from generators.files import to_json

    recipes = [chosen(project.recipes, recipe, "recipe")] if recipe else list(project.recipes)
    found = [
        _compared(project, paths, name, each, against)
        for name in recipes
        for each in ([chosen(project.personas, persona, "persona")] if persona else project.recipes[name]["personas"])
    ]
    if as_json:
        diffing.write_plain(to_json(diffing.as_json(found), indent=2))
    else:
        diffing.show(found)
    if any(comparison.differs for comparison in found):
        raise SystemExit(EXIT_FAILED)


def _compared(project: Project, paths: Paths, name: str, persona: str, against: str) -> Any:
    from generators import diff as diffing
    from generators.errors import chosen

    recipe = project.recipes[name]
    deployed = deployed_as(recipe, persona)
    other = None
    if against:
        chosen(project.personas, against, "persona")
        before: tuple[str, str] | None = (f"{name}/{against}.Modelfile", modelfile_text(project, paths, name, against))
        other = origin_of(project, paths, name, against)
    else:
        kept = paths.modelfile(name, persona)
        before = diffing.last_deployed(paths.deployments, deployed) or diffing.committed(paths.root, kept)
    where, text = before or ("nothing", None)
    now, origin = modelfile_text(project, paths, name, persona), origin_of(project, paths, name, persona)
    return diffing.compare(name, persona, where, text, now, origin, other)


def origin_of(project: Project, paths: Paths, name: str, persona: str) -> Any:
    from generators.diff import Origin
    from generators.modelfile import persona_places
    from generators.specs import yaml_source

    documents = {each: yaml_source.read(paths.root / persona_file(each), persona_file(each)) for each in project.personas}
    base = project.recipes[name]["base"]
    chat_format = f"specs/chat_formats/{project.models[base]['chat_format']}.yaml"

    def at(file: str, *steps: str) -> str:
        """`file:line`, of what it is in where the value itself is a default."""
        return f"{file}:{yaml_source.read(paths.root / file, file).problem(steps, '', at_key=True).line}"

    others = {
        "FROM": (at(recipe_file(name), "export", "quantisations"),),
        "TEMPLATE": tuple(dict.fromkeys(at(chat_format, field) for field in ("system", "system_separator", "turns"))),
        "stops": (at(chat_format, "stop"),),
        "LICENSE": (at(f"specs/models/{base}.yaml", "licence"),),
    }
    return Origin(project.personas[persona], persona_places(persona, documents), others)
