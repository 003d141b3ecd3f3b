"""One category to its samples: plain text of user and persona with metadata; frames come later, by recipe.

A sample is `{"messages": [...], "metadata": {...}}`. Its id comes from its own text, so that adding an example moves no other.
A template that writes the turns as they are (the default one) is not run at all: its output is known. That, and metadata
serialised once an example, lets a category of any size be rendered at the speed of writing it, in memory that does not grow.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from itertools import islice
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from generators.errors import Problem, SpecErrors, UserError
from generators.files import atomic_path, to_json
from generators.samples.expand import Draw, Example, expand, prepare_example
from generators.samples.spelling import respell
from generators.templates import environment

Sample = dict[str, Any]
Context = dict[str, Any]
_LINES_A_WRITE = 2048
_ROLES = ('{"role": "user", "content": ', '{"role": "assistant", "content": ')


def write_samples(category: dict[str, Any], context: Context, templates: Path, target: Path) -> int:
    """Render every sample of `category` into `target`, streamed. context: see `render_samples`. Returns their number."""
    lines, count = _lines(category, context, templates), 0
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        while batch := list(islice(lines, _LINES_A_WRITE)):
            batch.append("")
            out.write("\n".join(batch))
            count += len(batch) - 1
    return count


def render_samples(category: dict[str, Any], context: Context, templates: Path) -> Iterator[Sample]:
    """context: name (`group/category`), file, lines (of each example), persona, tiers, seed.

    Raises SpecErrors, naming the example or the template's line, when a text or the template cannot be rendered, and UserError when
    `count` is above what the category can yield.
    """
    return map(json.loads, _lines(category, context, templates))


def _lines(category: dict[str, Any], context: Context, templates: Path) -> Iterator[str]:
    """The samples as lines of JSON, each as `to_json` would write it."""
    prepared = [_Prepared(index, category, context) for index in range(len(category["examples"]))]
    said = _says_turns if _writes_turns_only(templates, category["template"]) else _from_template(category, context, templates)
    for draw in expand(category, [ready.example for ready in prepared], context["seed"]):
        ready = prepared[draw.example]
        yield ready.line(said(ready, ready.texts(draw), draw), draw)


class _Prepared:
    """What is the same for every sample of one example."""

    def __init__(self, index: int, category: dict[str, Any], context: Context):
        self.index, self.spec, self.slots = index, category["examples"][index], category["slots"]
        self.where = f"{context['file']}:{context['lines'][index]}"
        self._problem = lambda message: SpecErrors([Problem(context["file"], context["lines"][index], 1, message)])
        try:
            self.example: Example = prepare_example(self.spec, category)
        except UserError as error:
            raise self._problem(f"examples[{index}]: {error}") from error
        self._language = self.spec.get("language", category["language"])
        self._name = context["name"]
        self._fixed = self._metadata(category, context)
        self._rest = "" if self._varies else to_json(self._fixed)[1:]

    @property
    def _varies(self) -> bool:
        return any(text.names for text in self.example.other)

    def _metadata(self, category: dict[str, Any], context: Context) -> dict[str, Any]:
        """All but the id."""
        group, name = self._name.split("/")
        tier = self.spec.get("tier", category["tier"])
        metadata = {
            "group": group,
            "category": name,
            "tier": tier,
            "iterations": self.spec.get("iterations", category["iterations"]),
            "language": self._language,
            "persona": context["persona"],
            "response_budget_s": context["tiers"][tier]["response_budget_s"],
            "source": self.where,
            "template": category["template"],
            "layers": self.spec.get("layers", category["layers"]),
        }
        return metadata | {key: self.spec[key] for key in ("confidence", "thoughts", "mood") if key in self.spec}

    def texts(self, draw: Draw) -> list[str]:
        """What user and persona say in turn, slots filled, the user's spelling varied. In NFC."""
        positions = dict(zip(self.example.names, draw.positions))
        try:
            texts = [text.fill(positions, self.slots) for text in self.example.said]
        except Exception as error:  # whatever an expression of the user's raises
            raise self._problem(f"examples[{self.index}]: cannot be filled: {error}") from error
        if draw.spelling:
            texts[::2] = [respell(text, draw.spelling, self._language) for text in texts[::2]]
        return [unicodedata.normalize("NFC", text) for text in texts]

    def line(self, texts: Sequence[str], draw: Draw) -> str:
        """The sample as JSON. texts: of user and persona in turn, in NFC."""
        said = "\0".join(texts)
        try:
            digest = hashlib.blake2b(said.encode("utf-8"), digest_size=8).hexdigest()
        except UnicodeEncodeError as error:
            raise self._problem(f"examples[{self.index}]: holds half of a character (U+{ord(said[error.start]):04X})") from error
        if not all(map(str.strip, texts)):
            raise self._problem(f"examples[{self.index}]: a text is empty once it is rendered")
        messages = "}, ".join([_ROLES[number % 2] + quoted(text) for number, text in enumerate(texts)])
        rest = self._rest or to_json(self._filled(draw))[1:]
        return f'{{"messages": [{messages}}}], "metadata": {{"id": {quoted(f"{self._name}/{digest}")}, {rest}}}'

    def _filled(self, draw: Draw) -> dict[str, Any]:
        """The metadata where mood and thoughts have slots of their own."""
        positions = dict(zip(self.example.names, draw.positions))
        mood, *thoughts = [unicodedata.normalize("NFC", text.fill(positions, self.slots)) for text in self.example.other]
        filled = dict(self._fixed)
        if mood:
            filled["mood"] = mood
        if thoughts:
            filled["thoughts"] = [seen | {"text": text} for seen, text in zip(self._fixed["thoughts"], thoughts, strict=True)]
        return filled


Says = Callable[[_Prepared, list[str], Draw], Sequence[str]]


def _writes_turns_only(templates: Path, name: str) -> bool:
    """Whether the template is `{{ turns | messages_json }}` and nothing else, as the default one is."""
    from jinja2 import nodes

    env = environment(templates)
    source, _, _ = env.loader.get_source(env, name)  # type: ignore[union-attr]
    written = [node for part in env.parse(source, name).body for node in getattr(part, "nodes", [part])]
    written = [node for node in written if not (isinstance(node, nodes.TemplateData) and not node.data.strip())]
    return written == [nodes.Filter(nodes.Name("turns", "load"), "messages_json", [], [], None, None)]


def _says_turns(ready: _Prepared, texts: list[str], draw: Draw) -> Sequence[str]:
    return texts


def _from_template(category: dict[str, Any], context: Context, templates: Path) -> Says:
    """A template of the project's own: it is given the turns and writes the JSON of the messages."""
    name = category["template"]
    template = environment(templates).get_template(name)
    persona = {"name": context["persona"]}

    def says(ready: _Prepared, texts: list[str], draw: Draw) -> Sequence[str]:
        slots = {slot: ready.slots[slot][position] for slot, position in zip(ready.example.names, draw.positions)}
        turns = [{"user": user, "jessy": answer} for user, answer in zip(texts[::2], texts[1::2])]
        try:
            text = template.render(turns=turns, example=ready.spec, category=category, slots=slots, persona=persona)
            return _contents(json.loads(unicodedata.normalize("NFC", text)))
        except Exception as error:  # whatever a template of the user's raises, and whatever it writes instead of messages
            raise _template_problem(error, name, ready.where) from error

    return says


def _contents(messages: Any) -> list[str]:
    """Raises ValueError, TypeError or KeyError for anything but messages of user and assistant in turn."""
    if not messages or [message["role"] for message in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise ValueError("the messages are not user and assistant in turn")
    if not all(isinstance(message["content"], str) for message in messages):
        raise ValueError("the content of a message is not text")
    return [message["content"] for message in messages]


def _template_problem(error: Exception, template: str, where: str) -> SpecErrors:
    """The line in the template, from the traceback that Jinja rewrites, and the example that was being rendered."""
    line, frame = 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.endswith(template):
            line = frame.tb_lineno
        frame = frame.tb_next
    message = getattr(error, "message", None) or str(error)
    return SpecErrors([Problem(f"templates/{template}", line, 1, f"{message} (rendering the example at {where})")])
