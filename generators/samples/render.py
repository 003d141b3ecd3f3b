"""One category to its samples: plain text of user and persona with metadata; frames come later, by recipe.

A sample is `{"messages": [...], "metadata": {...}}`. Its id comes from its own messages, so that adding an example moves no other.

A template that writes the turns as they are (the default one) is not run at all: what it writes is known. Its samples are joined from
pieces of JSON made once an example, at about the speed of writing them. Whatever may change the text as a whole (a template of the
project's own, a respelt user, letters that combine) goes the long way, with the same result.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import Any

from generators.errors import Problem, SpecErrors, UserError
from generators.files import atomic_path, to_json
from generators.samples.expand import Example, expand, prepare_example
from generators.samples.spelling import respell
from generators.samples.texts import Piece, Text
from generators.templates import environment

Sample = dict[str, Any]
Context = dict[str, Any]
_LINES_A_WRITE = 1024
_ROLES = ('{"role": "user", "content": ', '{"role": "assistant", "content": ')


def write_samples(category: dict[str, Any], context: Context, templates: Path, target: Path) -> int:
    """Render every sample of `category` into `target`, streamed. context: see `render_samples`. Returns their number."""
    lines, count = _lines(category, context, templates), 0
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        while batch := list(islice(lines, _LINES_A_WRITE)):
            out.write("".join(batch))
            count += len(batch)
    return count


def render_samples(
    category: dict[str, Any], context: Context, templates: Path, tables: dict[str, Sequence[str]] | None = None
) -> Iterator[Sample]:
    """context: name (`group/category`), file, lines (of each example), persona, tiers, seed. tables: what is known of the category's
    expressions (see `texts.prepare`), for a caller that renders its examples one by one.

    Raises SpecErrors, naming the example or the template's line, when a text or the template cannot be rendered, and UserError when
    `count` is above what the category can yield.
    """
    return map(json.loads, _lines(category, context, templates, tables))


def _lines(category: dict[str, Any], context: Context, templates: Path, tables: dict[str, Sequence[str]] | None = None) -> Iterator[str]:
    """The samples as lines of JSON, each as `to_json` would write it."""
    tables = {} if tables is None else tables
    prepared = [_Prepared(index, category, context, tables) for index in range(len(category["examples"]))]
    says = None if _writes_turns_only(templates, category["template"]) else _from_template(category, context, templates)
    for index, positions, spelling in expand(category, [ready.example for ready in prepared], context["seed"]):
        ready = prepared[index]
        if says is None and ready.pieces and not spelling:
            messages = "".join([values[positions[slot]] for slot, values in ready.pieces])
        else:
            texts = ready.texts(positions, spelling)
            messages = ready.messages(says(ready, texts, positions) if says else texts)
        digest = hashlib.blake2b(messages.encode(), digest_size=8).hexdigest()
        rest = ready.rest or ready.filled_rest(positions)
        yield f'{{"messages": [{messages}], "metadata": {{"id": "{ready.name}/{digest}", {rest}}}\n'


class _Prepared:
    """What is the same for every sample of one example. name: the category's, as it stands in JSON. rest: the metadata behind the id, as
    JSON, unless it varies. pieces: of the messages as JSON, unless they have to be put together as a whole."""

    def __init__(self, index: int, category: dict[str, Any], context: Context, tables: dict[str, Sequence[str]]):
        self.index, self.spec = index, category["examples"][index]
        self.file, self.line = context["file"], context["lines"][index]
        try:
            self.example: Example = prepare_example(self.spec, category, tables)
        except UserError as error:
            raise self.problem(str(error)) from error
        self._check_letters(context)
        self.name = quoted(context["name"])[1:-1]
        self.language = self.spec.get("language", category["language"])
        self._fixed = self._metadata(category, context)
        self.rest = "" if any(text.varies for text in self.example.other) else _inside(self._fixed)
        self.pieces = _message_pieces(self.example.said)

    def problem(self, message: str) -> SpecErrors:
        return SpecErrors([Problem(self.file, self.line, 1, f"examples[{self.index}]: {message}")])

    def _check_letters(self, context: Context) -> None:
        """YAML can spell half of a character ("\\ud83d"), which no file can hold."""
        for text in self.example.key:
            if "\ud800" <= text <= "\udfff":
                raise self.problem(f"holds half of a character (U+{ord(text):04X})")

    def _metadata(self, category: dict[str, Any], context: Context) -> dict[str, Any]:
        """All but the id."""
        group, name = context["name"].split("/")
        tier = self.spec.get("tier", category["tier"])
        metadata = {
            "group": group,
            "category": name,
            "tier": tier,
            "iterations": self.spec.get("iterations", category["iterations"]),
            "language": self.language,
            "persona": context["persona"],
            "response_budget_s": context["tiers"][tier]["response_budget_s"],
            "source": f"{self.file}:{self.line}",
            "template": category["template"],
            "layers": self.spec.get("layers", category["layers"]),
        }
        return metadata | {key: self.spec[key] for key in ("confidence", "thoughts", "mood") if key in self.spec}

    def texts(self, positions: Sequence[int], spelling: str) -> list[str]:
        """What user and persona say in turn, slots filled, the user's spelling varied. In NFC."""
        texts = self._fill(self.example.said, positions)
        if spelling:
            texts[::2] = [respell(text, spelling, self.language) for text in texts[::2]]
        return texts

    def _fill(self, texts: Sequence[Text], positions: Sequence[int]) -> list[str]:
        try:
            return [unicodedata.normalize("NFC", text.fill(positions)) for text in texts]
        except Exception as error:  # whatever an expression of the user's raises
            raise self.problem(f"cannot be filled: {error}") from error

    def messages(self, texts: Sequence[str]) -> str:
        """As JSON, without the brackets. texts: of user and persona in turn, in NFC."""
        if not all(map(str.strip, texts)):
            raise self.problem("a text is empty once it is rendered")
        return ", ".join([f"{_ROLES[number % 2]}{quoted(text)}}}" for number, text in enumerate(texts)])

    def filled_rest(self, positions: Sequence[int]) -> str:
        """The metadata behind the id where mood and thoughts have slots of their own."""
        mood, *thoughts = self._fill(self.example.other, positions)
        filled = self._fixed | ({"mood": mood} if mood else {})
        if thoughts:
            filled["thoughts"] = [seen | {"text": text} for seen, text in zip(self._fixed["thoughts"], thoughts, strict=True)]
        return _inside(filled)


def _inside(metadata: dict[str, Any]) -> str:
    """JSON in NFC, without the opening brace."""
    return unicodedata.normalize("NFC", to_json(metadata))[1:]


def _message_pieces(said: Sequence[Text]) -> list[Piece]:
    """The messages as pieces of JSON, neighbours that never vary joined; none where a text cannot be put together from pieces."""
    if not all(map(_joins_to_nfc, said)):
        return []
    pieces: list[Piece] = []
    for number, text in enumerate(said):
        head = (", " if number else "") + _ROLES[number % 2] + '"'
        content = [(slot, [quoted(value)[1:-1] for value in values]) for slot, values in text.pieces]
        for slot, values in ((-1, [head]), *content, (-1, ['"}'])):
            if slot < 0 and pieces and pieces[-1][0] < 0:
                pieces[-1] = (-1, (pieces[-1][1][0] + values[0],))
            else:
                pieces.append((slot, values))
    return pieces


def _joins_to_nfc(text: Text) -> bool:
    """Whether the pieces, joined, are in NFC and never blank: each is in NFC, and begins with a letter that combines with none before it
    (all below U+0300)."""
    values = [value for _, values in text.pieces for value in values]
    letters = all(unicodedata.is_normalized("NFC", value) and (not value or value[0] < "\u0300") for value in values)
    return letters and bool(text.literal.replace("\0", "").strip())


Says = Callable[[_Prepared, list[str], Sequence[int]], Sequence[str]]


def _writes_turns_only(templates: Path, name: str) -> bool:
    """Whether the template is `{{ turns | messages_json }}` and nothing else, as the default one is."""
    from jinja2 import nodes

    env = environment(templates)
    source, _, _ = env.loader.get_source(env, name)  # type: ignore[union-attr]
    written = [node for part in env.parse(source, name).body for node in getattr(part, "nodes", [part])]
    written = [node for node in written if not (isinstance(node, nodes.TemplateData) and not node.data.strip())]
    return written == [nodes.Filter(nodes.Name("turns", "load"), "messages_json", [], [], None, None)]


def _from_template(category: dict[str, Any], context: Context, templates: Path) -> Says:
    """A template of the project's own: it is given the turns and writes the JSON of the messages."""
    name, slots = category["template"], category["slots"]
    template = environment(templates).get_template(name)
    persona = {"name": context["persona"]}

    def says(ready: _Prepared, texts: list[str], positions: Sequence[int]) -> Sequence[str]:
        filled = {slot: slots[slot][position] for slot, position in zip(ready.example.names, positions, strict=False)}
        turns = [{"user": user, "jessy": answer} for user, answer in zip(texts[::2], texts[1::2], strict=True)]
        try:
            text = template.render(turns=turns, example=ready.spec, category=category, slots=filled, persona=persona)
            return _contents(json.loads(unicodedata.normalize("NFC", text)))
        except Exception as error:  # whatever a template of the user's raises, and whatever it writes instead of messages
            raise _template_problem(error, name, f"{ready.file}:{ready.line}") from error

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
