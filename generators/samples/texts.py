"""A text of an example, made ready to be filled thousands of times.

Text is text: only one that refers to the slots of its category is a template. What it says around them is kept as it is, and an
expression with one slot in it (`{{ slots.city | tr_dative }}`) is worked out once for every value of that slot, so that filling
joins strings. Anything more (a condition, two slots in one expression) is left to Jinja.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generators.errors import UserError, did_you_mean, one_of
from generators.templates import environment

if TYPE_CHECKING:
    from jinja2 import Template, nodes

Slots = Mapping[str, Sequence[str]]
# Text by the value of a slot. The slot is its place among those of the example; -1 for text that is always the same, whose "value" is
# the 0 that every list of positions ends with.
Piece = tuple[int, Sequence[str]]

_MAY_REFER = re.compile(r"\bslots\s*[.\[]")


@dataclass(frozen=True)
class Text:
    """pieces: joined they are the text; none where Jinja has to write it. names: the slots of the whole example."""

    pieces: tuple[Piece, ...]
    names: tuple[str, ...] = ()
    slots: Slots | None = None
    template: Template | None = None

    @property
    def literal(self) -> str:
        """What stands around the slots; nothing where Jinja writes the text, since any of it may be conditional."""
        return "\0".join(values[0] for slot, values in self.pieces if slot < 0)

    @property
    def varies(self) -> bool:
        return self.template is not None or any(slot >= 0 for slot, _ in self.pieces)

    def fill(self, positions: Sequence[int]) -> str:
        """The text with the value that each slot of the example has at its position. positions: one a slot, then a 0."""
        if self.template is None:
            return "".join([values[positions[slot]] for slot, values in self.pieces])
        assert self.slots is not None
        values = {name: self.slots[name][position] for name, position in zip(self.names, positions, strict=False)}
        return self.template.render(slots=values)


@dataclass(frozen=True)
class Parsed:
    """A text as it is written, the slots that it uses, and its syntax tree if it uses any."""

    text: str
    names: frozenset[str] = frozenset()
    tree: nodes.Template | None = None


def parse(text: str, slots: Slots) -> Parsed:
    """Raises UserError when a slot is not declared, or the text refers to slots and is not a template that can be read."""
    from jinja2 import TemplateError

    if not slots or not _MAY_REFER.search(text):
        return Parsed(text)
    try:
        tree = environment(None).parse(text)
    except TemplateError as error:
        raise UserError(f"not a template that can be filled: {error.message}") from error
    names = frozenset(_names(tree))
    unknown = sorted(names.difference(slots))
    if unknown:
        raise UserError(f"no slot {unknown[0]!r}; there are {one_of(slots)}{did_you_mean(unknown[0], slots)}")
    return Parsed(text, names, tree if names else None)


def prepare(parsed: Parsed, slots: Slots, names: tuple[str, ...], tables: dict[str, Sequence[str]]) -> Text:
    """names: the slots that the example uses, the text's among them. tables: what is known of the category's expressions, to which it
    adds. Raises UserError when a value cannot be put in."""
    from jinja2 import TemplateError

    if parsed.tree is None:
        return Text(((-1, (parsed.text,)),))
    try:
        if _is_simple(parsed.tree):
            return Text(tuple(_pieces(parsed.tree, names, slots, tables)))
        return Text((), names, slots, environment(None).from_string(parsed.text))
    except (TemplateError, UserError, TypeError) as error:
        raise UserError(f"cannot be filled: {error}") from error


def _names(node: nodes.Node) -> Iterator[str]:
    """The names of `slots.NAME` and `slots["NAME"]` in `node`."""
    from jinja2 import nodes

    for found in [node, *node.find_all((nodes.Getattr, nodes.Getitem))]:
        if not isinstance(found, (nodes.Getattr, nodes.Getitem)):
            continue
        if isinstance(found.node, nodes.Name) and found.node.name == "slots":
            if isinstance(found, nodes.Getattr):
                yield found.attr
            elif isinstance(found.arg, nodes.Const):
                yield str(found.arg.value)


def _is_simple(tree: nodes.Template) -> bool:
    """Whether it is text and expressions with one slot each, and nothing else."""
    from jinja2 import nodes

    def one_slot(node: nodes.Node) -> bool:
        return isinstance(node, nodes.TemplateData) or len(set(_names(node))) == 1

    return all(isinstance(part, nodes.Output) and all(map(one_slot, part.nodes)) for part in tree.body)


def _pieces(tree: nodes.Template, names: tuple[str, ...], slots: Slots, tables: dict[str, Sequence[str]]) -> Iterator[Piece]:
    from jinja2 import nodes

    for part in tree.body:
        for node in part.nodes:  # type: ignore[attr-defined]
            if isinstance(node, nodes.TemplateData):
                yield -1, (node.data,)
                continue
            name, expression = next(_names(node)), repr(node)
            if expression not in tables:
                tables[expression] = _table(node, name, slots[name])
            yield names.index(name), tables[expression]


def _table(expression: Any, name: str, values: Sequence[str]) -> Sequence[str]:
    """The expression worked out for every value of its slot."""
    from jinja2 import nodes

    if isinstance(expression, (nodes.Getattr, nodes.Getitem)) and isinstance(expression.node, nodes.Name):
        return values  # the slot alone
    env = environment(None)
    alone = nodes.Template([nodes.Output([expression], lineno=1)], lineno=1)
    alone.set_environment(env)
    template = env.from_string(alone)
    return [template.render(slots={name: value}) for value in values]
