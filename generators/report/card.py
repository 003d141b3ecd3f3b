"""The model card of a recipe, `README.md` beside its GGUFs: what the model is, of what it was made, how good it is, how to run it, its limits.

Every figure comes from a file that a stage left behind; a section whose file is missing says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.files import human_bytes, write_text
from generators.report import _TEMPLATES, _render
from generators.report.material import Material, gather
from generators.report.tables import _settings
from generators.report.view import _cell, _dataset, _framing, _gate, _training_facts, percent

Row = dict[str, Any]
# What decides how a model comes out; the rest of lock.json pins it more finely.
_TOLD_PACKAGES = ("mlx", "mlx-lm", "gguf", "xllamacpp")


def write_card(recipe_dir: Path, context: Row, templates: Path = _TEMPLATES) -> None:
    """Write `recipe_dir`/README.md from the files in and below `recipe_dir`.

    context: `name`, `recipe` (description, deploy, lora, training, framings), `base_name`, `base` (description, licence, sources),
    `end_of_turn` (text), `dataset_report` (path). Raises UserError when a file is there and cannot be read.
    """
    shown = card(gather(recipe_dir, context), recipe_dir / "frames" / "system.txt")
    write_text(recipe_dir / "README.md", _render(templates, "reports/card.md.j2", shown, escape=False))


def card(material: Material, system: Path) -> Row:
    """What the template shows. system: file of the system prompt that was trained under."""
    context, recipe, scores = material.context, material.context["recipe"], material.scores or {}
    files = [_file(context["name"], figures) for figures in (material.export or {}).get("quantisations", [])]
    judged = _framing(scores["framing"], scores) if scores else None
    gates = [_gate(gate) for gate in scores.get("gates", [])]
    return {
        "name": context["name"],
        "deployed": recipe["deploy"]["name"],
        "recipe": recipe,
        "base_name": context["base_name"],
        "base": context["base"],
        "repo": next((source["repo"] for source in context["base"]["sources"] if "repo" in source), None),
        "languages": list((material.dataset or {}).get("languages", {})),
        "data": _dataset(material.dataset),
        "training": _training(material.training),
        "settings": _all_settings(recipe),
        "gates": gates,
        "judged": judged,
        "half": scores.get("half"),
        "engine": scores.get("engines", {}).get("tuned", {}).get("name"),
        "machine": scores.get("machine"),
        "files": files,
        "system": system.read_text(encoding="utf-8").strip() if system.is_file() else "",
        "end_of_turn": context["end_of_turn"],
        "made_with": _made_with(material.lock),
        "limits": _limits(material, gates, judged, files),
        "cell": _cell,
    }


def _file(recipe: str, figures: Row) -> Row:
    return {
        "name": f"{recipe}-{figures['quantisation']}.gguf",
        "quantisation": figures["quantisation"],
        "size": human_bytes(figures["size"]),
        "bits": f"{figures['bits_per_weight']:.2f}",
        "sha256": figures["sha256"],
    }


def _training(training: Row | None) -> list[tuple[str, str]]:
    if not training:
        return []
    best = {"validation_loss": training["best_validation_loss"], "step": training["best_step"]}
    return _training_facts(training, [], best)


def _all_settings(recipe: Row) -> list[tuple[str, str]]:
    lora, mix = recipe["lora"], recipe["framings"]["mix"]
    return [
        ("LoRA", f"{_settings(lora)}, on {', '.join(lora['targets'])}"),
        ("Run", _settings(recipe["training"])),
        ("Framings", ", ".join(f"{percent(share)} {_framed(name)}" for name, share in mix.items())),
    ]


def _framed(name: str) -> str:
    own = {"persona": "under its own system prompt", "none": "with no system prompt", "directive": "asked to name its iterations"}
    return own.get(name, f"in the frame of {name}")


def _made_with(lock: Row | None) -> str:
    if not lock:
        return ""
    packages = [f"{name} {lock['packages'][name]}" for name in _TOLD_PACKAGES if name in lock["packages"]]
    machine = lock["platform"]
    return f"{', '.join(packages)}; {machine['system']} {machine['machine']}, Python {machine['python']}; seed {lock['seed']}"


def _limits(material: Material, gates: list[Row], judged: Row | None, files: list[Row]) -> list[str]:
    """What a person should know before they rely on it, out of the same figures."""
    found = [_size_limit(material.export), *_language_limits(material.dataset)]
    found += [f"{gate['name']}: {gate['got']}, and {gate['wanted']} was wanted." for gate in gates if gate["state"] == "missed"]
    found += [f"{gate['name']} was not measured ({gate['over']})." for gate in gates if gate["state"] == "unmeasured"]
    if judged:
        cases = judged["lines"][-1]["cases"]
        found.append(
            f"The scores are of {cases} cases that were written for this project, judged by rules: the intervals say how sure they are."
        )
    if len(files) > 1:
        others = ", ".join(file["quantisation"] for file in files[1:])
        found.append(f"Only {files[0]['quantisation']} was evaluated; {others} loaded and answered, no more was asked.")
    return [limit for limit in found if limit]


def _size_limit(export: Row | None) -> str:
    parameters = (export or {"quantisations": [{}]})["quantisations"][0].get("parameters")
    size = f"{parameters / 1e6:,.0f} million parameters are few" if parameters else "It is a small model"
    return f"{size}: it can be wrong about facts and numbers, and sound sure. Nothing that matters (health, law, money, safety) should rest on it."


def _language_limits(dataset: Row | None) -> list[str]:
    if not dataset:
        return []
    shares = {name: count / dataset["samples"] for name, count in dataset["languages"].items()}
    told = ", ".join(f"{name} {percent(share)}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))
    turns = (
        f"{dataset.get('multi_turn', 0)} of {dataset['samples']} samples have several turns: it may lose the thread of a long conversation."
    )
    return [f"It was trained on answers in these languages alone: {told}.", turns]
