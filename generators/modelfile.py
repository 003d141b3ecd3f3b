"""The persona as a system prompt, and the Modelfile that carries it into Ollama.

Ollama's Modelfile has no escapes: a value is plain, `"..."` or triple-quoted, a quoted value ends at the first line that ends
with its closing quotes, and characters that are not printable are dropped. What cannot be written is an error, not a broken file.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from generators.errors import UserError
from generators.templates import environment

Spec = dict[str, Any]


class NotWritable(UserError):
    """A value that a Modelfile cannot carry."""


def system_prompt(persona: Spec, templates: Path) -> str:
    """The persona's SYSTEM text, rendered by its template."""
    return environment(templates).get_template(persona["template"]).render(persona=persona).strip()


def render_modelfile(persona: Spec, chat_format: Spec, licence: Spec, gguf: str, go_template: str, templates: Path) -> str:
    """The Modelfile's text. gguf: path as FROM names it. Raises NotWritable for text that Ollama would read back differently."""
    return (
        environment(templates)
        .get_template("Modelfile.j2")
        .render(
            gguf=gguf,
            template=go_template,
            system=system_prompt(persona, templates),
            parameters=[(name, _plain(value)) for name, value in persona["parameters"].items()],
            stops=chat_format["stop"],
            messages=persona["messages"],
            licence=f"{licence['name']}\n{licence['url']}",
        )
        .strip()
        + "\n"
    )


def quoted(text: str) -> str:
    """A value as Ollama's parser reads it back: in double quotes on one line, in triple quotes on several.

    Source of the rules: ollama, parser/parser.go. Raises NotWritable.
    """
    dropped = sorted({character for character in text if not _is_printable(character)})
    if dropped:
        names = ", ".join(f"U+{ord(character):04X} ({unicodedata.name(character, 'unnamed')})" for character in dropped)
        raise NotWritable(f"Ollama's Modelfile parser drops {names} without a word; take it out of {_excerpt(text)}")
    if "\n" not in text and '"' not in text:
        return f'"{text}"'
    for line in text.split("\n")[:-1]:
        if line.endswith('"""'):
            raise NotWritable(f'a line ends in """, which would end the value early: {_excerpt(line)}')
    if text.startswith('"') or text.endswith('"'):
        raise NotWritable(f"a value that holds several lines or quotes cannot itself begin or end with a quote: {_excerpt(text)}")
    return f'"""{text}"""'


def _is_printable(character: str) -> bool:
    """Go's unicode.IsPrint, with the line breaks and tabs that the parser keeps."""
    return character in "\n\t " or unicodedata.category(character)[0] in "LMNPS"


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
