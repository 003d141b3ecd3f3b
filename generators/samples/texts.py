"""A text of an example, made ready to be filled thousands of times.

Text is text: only one that refers to the slots of its category is a template. What it says around them is kept as it is, and an
expression with one slot in it (`{{ slots.city | tr_dative }}`) is worked out once for every value of that slot, so that filling
joins strings. Anything more (a condition, two slots in one expression) is left to Jinja.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

from generators.errors import UserError, did_you_mean, one_of
from generators.templates import environment

if TYPE_CHECKING:
    from jinja2 import Template, nodes

Slots = Mapping[str, Sequence[str]]

_MAY_REFER = re.compile(r"\bslots\s*[.\[]")


@dataclass(frozen=True)
class Text:
    """names: the slots that it uses. pieces: (position in `names`, or -1 for what is always the same; text by value). Or a template."""

    names: tuple[str, ...]
    pieces: tuple[tuple[int, Sequence[str]], ...] = ()
    template: Template | None = None

    @property
    def literal(self) -> str:
        """What stands around the slots. Of a template for Jinja: nothing, since any of it may be conditional."""
        return "\0".join(values[0] for position, values in self.pieces if position < 0)

    def fill(self, positions: Mapping[str, int], slots: Slots) -> str:
        """The text where each slot takes the value at its position."""
        if self.template is not None:
            return self.template.render(slots={name: slots[name][position] for name, position in positions.items()})
        if not self.names:
            return self.pieces[0][1][0]
        chosen = [positions[name] for name in self.names]
        chosen.append(0)  # where a piece that is always the same, at position -1, finds its only text
        return "".join([values[chosen[position]] for position, values in self.pieces])


def prepare(text: str, slots: Slots) -> Text:
    """Raises UserError when the text refers to a slot that is not declared, or is not a template that can be read."""
    from jinja2 import TemplateError

    if not slots or not _MAY_REFER.search(text):
        return _always(text)
    try:
        tree = environment(None).parse(text)
        names = tuple(dict.fromkeys(_references(tree)))
        unknown = next((name for name in names if name not in slots), None)
        if unknown is not None:
            raise UserError(f"no slot {unknown!r}; there are {one_of(slots)}{did_you_mean(unknown, slots)}")
        if not names:
            return _always(text)
        return Text(names, tuple(_pieces(tree, names, slots))) if _is_simple(tree) else Text(names, template=environment(None).from_string(text))
    except TemplateError as error:
        raise UserError(f"not a template that can be filled: {error.message}") from error


def _always(text: str) -> Text:
    return Text((), ((-1, (text,)),))


def _references(node: nodes.Node) -> Iterator[str]:
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

    return all(
        isinstance(part, nodes.Output) and all(isinstance(node, nodes.TemplateData) or len(set(_references(node))) == 1 for node in part.nodes)
        for part in tree.body
    )


def _pieces(tree: nodes.Template, names: tuple[str, ...], slots: Slots) -> Iterator[tuple[int, Sequence[str]]]:
    from jinja2 import nodes

    for part in tree.body:
        for node in part.nodes:  # type: ignore[attr-defined]
            if isinstance(node, nodes.TemplateData):
                yield -1, (node.data,)
                continue
            name = next(_references(node))
            yield names.index(name), _table(node, name, slots[name])


def _table(expression: Any, name: str, values: Sequence[str]) -> list[str]:
    """The expression worked out for every value of its slot."""
    from jinja2 import nodes

    env = environment(None)
    alone = nodes.Template([nodes.Output([expression], lineno=1)], lineno=1).set_environment(env)
    template = env.from_string(alone)
    return [template.render(slots={name: value}) for value in values]
