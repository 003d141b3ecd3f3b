"""The report's section on the personas of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.errors import UserError
from generators.report.variants import variants

JESSY = '''FROM model.gguf
SYSTEM """Sen JESSY'sin. Kısa konuş.

Önce tutumunu söyle."""
PARAMETER temperature 0.7
PARAMETER num_ctx 4096
'''
CASUAL = JESSY.replace("Kısa konuş.", "Kanka havasında konuş.").replace("0.7", "0.9")
NAMES = {"jessy": "jessy-mini", "casual": "jessy-mini-casual", "technical": "jessy-mini-technical"}


def written(folder: Path, **texts: str) -> dict[str, Path]:
    for name, text in texts.items():
        (folder / f"{name}.Modelfile").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.Modelfile" for name in NAMES}


def test_the_first_is_told_whole_and_the_others_by_what_they_change(tmp_path: Path) -> None:
    assert variants(written(tmp_path, jessy=JESSY, casual=CASUAL), NAMES) == [
        {
            "variant": "jessy",
            "in Ollama": "jessy-mini",
            "parameters": "temperature 0.7, num_ctx 4096",
            "says besides": "",
            "leaves out": "",
        },
        {
            "variant": "casual",
            "in Ollama": "jessy-mini-casual",
            "parameters": "temperature 0.9",
            "says besides": "Kanka havasında konuş.",
            "leaves out": "Kısa konuş.",
        },
    ]


def test_a_parameter_that_a_variant_has_not_is_named(tmp_path: Path) -> None:
    found = variants(written(tmp_path, jessy=JESSY, casual=JESSY.replace("PARAMETER num_ctx 4096\n", "")), NAMES)
    assert found[1]["parameters"] == "no num_ctx"


def test_a_variant_that_changes_nothing_says_so(tmp_path: Path) -> None:
    assert variants(written(tmp_path, jessy=JESSY, casual=JESSY), NAMES)[1]["parameters"] == "the same"


def test_one_persona_alone_has_no_section(tmp_path: Path) -> None:
    assert variants(written(tmp_path, jessy=JESSY), NAMES) == []


def test_a_long_change_is_cut_at_a_word(tmp_path: Path) -> None:
    longer = JESSY.replace("Kısa konuş.", "Uzun uzun " * 40 + "konuş.")
    said = variants(written(tmp_path, jessy=JESSY, casual=longer), NAMES)[1]["says besides"]
    assert len(said) <= 160 and said.endswith("uzun…") or said.endswith("Uzun…")


def test_a_modelfile_that_ollama_would_refuse_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="casual.Modelfile"):
        variants(written(tmp_path, jessy=JESSY, casual="PARAMETER temperatur 1\n"), NAMES)
