"""One category to its samples: plain text of user and persona with metadata; frames come later, by recipe.

A sample is `{"messages": [...], "metadata": {...}}`. Its id comes from its own text, so that adding an example moves no other.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any, Iterator

from generators.errors import Problem, SpecErrors
from generators.files import write_jsonl
from generators.samples.expand import expand, slots_of
from generators.templates import environment, render_text

Sample = dict[str, Any]


def write_samples(category: dict[str, Any], context: dict[str, Any], templates: Path, target: Path) -> int:
    """Render every sample of `category` into `target`, streamed. context: see `render_samples`. Returns their number."""
    return write_jsonl(target, render_samples(category, context, templates))


def render_samples(category: dict[str, Any], context: dict[str, Any], templates: Path) -> Iterator[Sample]:
    """context: name (`group/category`), file, lines (of each example), persona, tiers, seed.

    Raises SpecErrors, naming the template's line and the example, when a template cannot be rendered.
    """
    template = environment(templates).get_template(category["template"])
    prepared = [_Prepared(index, example, category, context) for index, example in enumerate(category["examples"])]
    for index, slots in expand(category, context["seed"]):
        ready = prepared[index]
        try:
            turns = ready.turns(slots)
            text = template.render(turns=turns, example=ready.example, category=category, slots=slots, persona={"name": context["persona"]})
        except Exception as error:  # whatever a template of the user's raises
            raise _template_problem(error, category["template"], context, index) from error
        messages = _messages(text, category["template"], context, index)
        yield {"messages": messages, "metadata": ready.metadata(messages)}


class _Prepared:
    """What is the same for every sample of one example."""

    def __init__(self, index: int, example: dict[str, Any], category: dict[str, Any], context: dict[str, Any]):
        self.example = example
        self.has_slots = bool(slots_of(example, category["slots"]))
        self._turns = example.get("turns") or [{"user": example["user"], "jessy": example["jessy"]}]
        group, name = context["name"].split("/")
        tier = example.get("tier", category["tier"])
        self._head = {"group": group, "category": name, "tier": tier, "iterations": example.get("iterations", category["iterations"])}
        self._tail = {
            "language": example.get("language", category["language"]),
            "persona": context["persona"],
            "response_budget_s": context["tiers"][tier]["response_budget_s"],
            "source": f"{context['file']}:{context['lines'][index]}",
            "template": category["template"],
            "layers": example.get("layers", category["layers"]),
        }
        self._tail |= {key: example[key] for key in ("confidence", "thoughts", "mood") if key in example}
        self._prefix = f"{context['name']}/"

    def turns(self, slots: dict[str, str]) -> list[dict[str, str]]:
        if not self.has_slots:
            return self._turns
        return [{who: render_text(said, slots=slots) for who, said in turn.items()} for turn in self._turns]

    def metadata(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        said = "\0".join(message["content"] for message in messages)
        digest = hashlib.blake2b(said.encode("utf-8"), digest_size=5).hexdigest()
        return {"id": self._prefix + digest, **self._head, **self._tail}


def _messages(text: str, template: str, context: dict[str, Any], index: int) -> list[dict[str, str]]:
    try:
        messages = json.loads(unicodedata.normalize("NFC", text))
        well_formed = [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2) and messages
    except (ValueError, TypeError, KeyError) as error:
        raise _template_problem(error, template, context, index) from error
    if not well_formed:
        raise _template_problem(ValueError("the messages are not user and assistant in turn"), template, context, index)
    return messages


def _template_problem(error: Exception, template: str, context: dict[str, Any], index: int) -> SpecErrors:
    """The line in the template, from the traceback that Jinja rewrites, and the example that was being rendered."""
    line, frame = 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.endswith(template):
            line = frame.tb_lineno
        frame = frame.tb_next
    where = f"{context['file']}:{context['lines'][index]}"
    message = getattr(error, "message", None) or str(error)
    return SpecErrors([Problem(f"templates/{template}", line, 1, f"{message} (rendering the example at {where})")])
