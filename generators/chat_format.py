"""How messages become text, defined once a chat format and written four ways: fragments, text, a Jinja chat template, a Go TEMPLATE.

A conversation is a list of `{"role": "system" | "user" | "assistant", "content": str}`; the system message, if any, comes first and
then user and assistant take turns. Content is trimmed at both ends. Nothing here writes the BOS token: whoever tokenises adds it
(`begin_of_sequence`), as llama.cpp and Ollama do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]
Format = dict[str, Any]
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}  # alike in Jinja and Go


@dataclass(frozen=True)
class Fragment:
    """A run of text. control: written by the format (control tokens in it count). target: said by the assistant, so trained on."""

    text: str
    control: bool
    target: bool = False


def fragments(chat_format: Format, messages: list[Message], add_generation_prompt: bool = True) -> Iterator[Fragment]:
    """The conversation in order. An assistant's content and the end of turn after it are targets; the rest of the suffix is not.

    Raises ValueError for roles that are not in turn.
    """
    system, turns = _split_system(messages)
    affixes, end_of_turn = chat_format["turns"], chat_format["end_of_turn"]
    if system and chat_format["system"] == "own_turn":
        yield Fragment(affixes["system"]["prefix"], control=True)
        yield Fragment(system, control=False)
        yield Fragment(affixes["system"]["suffix"], control=True)
    for index, message in enumerate(turns):
        prefix, suffix, content = affixes[message["role"]]["prefix"], affixes[message["role"]]["suffix"], message["content"].strip()
        yield Fragment(prefix, control=True)
        if index == 0 and system and chat_format["system"] == "first_user_turn":
            yield Fragment(system + chat_format["system_separator"], control=False)
        if message["role"] == "assistant":
            yield Fragment(content, control=False, target=True)
            yield Fragment(end_of_turn, control=True, target=True)
            suffix = suffix.removeprefix(end_of_turn)
        else:
            yield Fragment(content, control=False)
        yield Fragment(suffix, control=True)
    if add_generation_prompt:
        yield Fragment(affixes["assistant"]["prefix"], control=True)


def render(chat_format: Format, messages: list[Message], add_generation_prompt: bool = True) -> str:
    """The whole text, without BOS."""
    return "".join(fragment.text for fragment in fragments(chat_format, messages, add_generation_prompt))


def _split_system(messages: list[Message]) -> tuple[str, list[Message]]:
    if not messages:
        raise ValueError("a conversation has at least one message")
    system, turns = ("", messages)
    if messages[0]["role"] == "system":
        system, turns = messages[0]["content"].strip(), messages[1:]
    for index, message in enumerate(turns):
        wanted = "user" if index % 2 == 0 else "assistant"
        if message["role"] != wanted:
            found = f"message {index + 1} has the role {message['role']!r}"
            raise ValueError(f"{found}; user and assistant take turns, so {wanted!r} is expected")
    return system, turns


def jinja_template(chat_format: Format) -> str:
    """The chat template for `tokenizer_config.json` and the GGUF: BOS where the format wants it, then what `render` gives.

    It uses only what llama.cpp's Jinja and transformers have in common. Roles that are not in turn raise, as `fragments` does.
    """
    affixes = chat_format["turns"]
    lines = []
    if chat_format["begin_of_sequence"]:
        lines.append("{{ bos_token }}")
    lines.append("{%- if messages[0]['role'] == 'system' -%}")
    lines.append("{%- set system = messages[0]['content'] | trim -%}{%- set turns = messages[1:] -%}")
    lines.append("{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}")
    if chat_format["system"] == "own_turn":
        wrapped = f"{_quoted(affixes['system']['prefix'])} + system + {_quoted(affixes['system']['suffix'])}"
        lines.append("{%- if system -%}{{ " + wrapped + " }}{%- endif -%}")
        head = "''"
    else:
        head = f"(system + {_quoted(chat_format['system_separator'])} if system and loop.first else '')"
    lines.append("{%- for message in turns -%}")
    lines.append("{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}")
    lines.append("{{ raise_exception('user and assistant take turns') }}{%- endif -%}")
    user, assistant = affixes["user"], affixes["assistant"]
    lines.append("{%- if message['role'] == 'user' -%}")
    lines.append("{{ " + f"{_quoted(user['prefix'])} + {head} + (message['content'] | trim) + {_quoted(user['suffix'])}" + " }}")
    lines.append("{%- else -%}")
    lines.append("{{ " + f"{_quoted(assistant['prefix'])} + (message['content'] | trim) + {_quoted(assistant['suffix'])}" + " }}")
    lines.append("{%- endif -%}{%- endfor -%}")
    lines.append("{%- if add_generation_prompt -%}{{ " + _quoted(assistant["prefix"]) + " }}{%- endif -%}")
    return "".join(lines)


def _quoted(text: str) -> str:
    """A Jinja string literal. Line breaks are spelled out: Jinja would read a bare carriage return as a line feed."""
    return "'" + re.sub(r"[\\'\n\r\t]", lambda hit: _ESCAPES.get(hit[0], "\\" + hit[0]), text) + "'"


def go_template(chat_format: Format) -> str:
    """Ollama's TEMPLATE: Go text/template over `.Messages` (with `.System` taken from the system message, where there is one).

    It writes no BOS (Ollama adds it), and leaves the last assistant turn open when the conversation ends with one, as Ollama's own
    templates do.
    """
    affixes = chat_format["turns"]
    user, assistant = affixes["user"], affixes["assistant"]
    parts = []
    if chat_format["system"] == "own_turn":
        system = affixes["system"]
        parts.append("{{- if .System }}" + _go(system["prefix"]) + "{{ .System }}" + _go(system["suffix"]) + "{{ end }}")
        head = ""
    else:
        opening = '{{ if and $.System (eq $first "") }}{{ $.System }}' + _go(chat_format["system_separator"]) + "{{ end }}"
        head = opening + '{{ $first = "no" }}'
        parts.append('{{- $first := "" }}')
    parts.append("{{- range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}")
    parts.append('{{- if eq .Role "user" }}' + _go(user["prefix"]) + head + "{{ .Content }}" + _go(user["suffix"]))
    parts.append("{{- if $last }}" + _go(assistant["prefix"]) + "{{ end }}")
    parts.append('{{- else if eq .Role "assistant" }}' + _go(assistant["prefix"]) + "{{ .Content }}")
    parts.append("{{- if not $last }}" + _go(assistant["suffix"]) + "{{ end }}{{ end }}{{- end }}")
    return "".join(parts)


def _go(text: str) -> str:
    """Text as a Go string constant in an action, so that no white space around it is ever lost, nor a character that the Modelfile's
    parser would drop."""
    return '{{ "' + "".join(map(_go_character, text)) + '" }}'


def _go_character(character: str) -> str:
    from generators.modelfile_reader import is_printable

    if character in _ESCAPES or character in '"\\':
        return _ESCAPES.get(character, "\\" + character)
    code = ord(character)
    return character if is_printable(character) else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
