"""The persona as a system prompt, and the Modelfile that carries it into Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.templates import environment

Persona = dict[str, Any]


def system_prompt(persona: Persona, templates: Path) -> str:
    """The persona's SYSTEM text, rendered by its template."""
    return environment(templates).get_template(persona["template"]).render(persona=persona).strip()
