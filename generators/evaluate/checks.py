"""What an answer must pass, as suites declare it. Every check says which dimension it judges and why it failed.

Accuracy: `any`, `all`, `none` (patterns, see generators.patterns), `carries` (a fact of an earlier turn), `similar_to`, `code_compiles`.
Appropriateness: `words`, `sentences`, `no_list`, `no_generic`, `no_repetition`, `no_echo`, and, on every answer without being declared:
that there is one, its language, that it ended by itself, does not recite its instructions, and shows neither control tokens nor markers.
Persona: `opinion`, `principle`. Iterations: the number a client needed, or the model named, beside the tier's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from generators import patterns
from generators.errors import did_you_mean, one_of
from generators.evaluate import compiles
from generators.evaluate.repetition import recited, repeated, sentences
from generators.evaluate.similarity import chrf
from generators.language import detect
from generators.turkish import fold, words

DIMENSIONS = ("accuracy", "appropriateness", "persona", "iterations")
# A case's own limit takes the place of the suite's; patterns add up.
_REPLACES = ("words", "sentences", "opinion", "principle", "no_list", "no_generic", "no_repetition", "no_echo", "no_marker")


@dataclass(frozen=True)
class Verdict:
    """passed: None where it could not be judged here (the reason says what is missing); such a verdict counts for nothing."""

    check: str
    dimension: str
    passed: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Setting:
    """What checks know beside the answer. query: the user's last words. ended: how the answer ended (`stop`, or what cut it off).
    instructions: what the model was told beside the conversation."""

    query: str
    language: str
    persona: dict[str, Any] = field(default_factory=dict)
    forbidden: tuple[str, ...] = ()
    control_tokens: tuple[str, ...] = ()
    ended: str = "stop"
    instructions: str = ""


def declared(suite: dict[str, Any], case: dict[str, Any]) -> list[tuple[str, Any]]:
    """(check, wanted) of a case: the suite's defaults, then its own. A limit of the case replaces the suite's; false takes a check back."""
    own = [item for check in case.get("checks", []) for item in check.items()]
    replaced = {name for name, _ in own if name in _REPLACES}
    everywhere = [item for check in suite.get("defaults", []) for item in check.items() if item[0] not in replaced]
    return [(name, wanted) for name, wanted in [*everywhere, *own] if wanted is not False]


def judge(answer: str, checks: Iterable[tuple[str, Any]], setting: Setting) -> list[Verdict]:
    """Every check on one answer, the undeclared ones first."""
    found = _always(answer, setting)
    for name, wanted in checks:
        dimension, function = CHECKS[name]
        reason = function(answer, wanted, setting)
        if isinstance(reason, _Unjudged):
            found.append(Verdict(name, dimension, None, str(reason)))
        else:
            found.append(Verdict(name, dimension, not reason, reason))
    return found


def dimension_passed(verdicts: Iterable[Verdict], dimension: str) -> bool | None:
    """Whether all checks of a dimension passed; None when there is none."""
    judged = [verdict.passed for verdict in verdicts if verdict.dimension == dimension and verdict.passed is not None]
    return all(judged) if judged else None


def problems_of_check(check: Any) -> list[str]:
    """What is wrong with one entry of a suite's `checks` or `defaults`, a line each."""
    if not isinstance(check, dict) or not check:
        return [f"{check!r} is not a check; one looks like `any: [ankara]`"]
    found = []
    for name, wanted in check.items():
        if name not in CHECKS:
            found.append(f"unknown check {name!r}; there are {one_of(CHECKS)}{did_you_mean(name, CHECKS)}")
        elif message := _problem_of_value(name, wanted):
            found.append(f"{name}: {message}")
    return found


def _problem_of_value(name: str, wanted: Any) -> str | None:
    if name in ("any", "all", "none", "carries"):
        found = [message for pattern in _listed(wanted) if (message := _problem_of_pattern(pattern))]
        return "; ".join(found) or (None if _listed(wanted) else "is empty")
    if name in ("words", "sentences"):
        return None if _is_range(wanted) else "takes `{min: N, max: N}` or one of the two"
    if name == "opinion":
        return None if wanted in ("required", "absent") else f"{wanted!r} is not one of required, absent"
    if name == "similar_to":
        usable = isinstance(wanted, dict) and wanted.get("references") and _is_share(wanted.get("chrf"))
        return None if usable else "takes `{references: [...], chrf: 0.4}`"
    if name == "code_compiles":
        return None if wanted in compiles.LANGUAGES else f"{wanted!r} is not one of {one_of(compiles.LANGUAGES)}"
    return None if isinstance(wanted, bool) else f"{wanted!r} is neither true nor false"


def _problem_of_pattern(pattern: Any) -> str | None:
    return patterns.problem(pattern) if isinstance(pattern, str) else f"{pattern!r} is not text; quote it"


def _is_range(value: Any) -> bool:
    known = isinstance(value, dict) and bool(value) and set(value) <= {"min", "max"}
    return known and all(isinstance(limit, int) for limit in value.values())


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


# --- checks on every answer -------------------------------------------------------------------------------------------------------

# What only the iteration directive and a client's protocol may write.
_MARKER = re.compile(r"</?[Ii]terations?\b[^>\n]*>?|^[ \t]*(?:CONFIDENCE|LAYERS|CONTENT)[ \t]*:", re.MULTILINE)
_CONTROL = re.compile(r"</?(?:start_of_turn|end_of_turn|bos|eos|pad|s|unused\d+)>|<\|[a-z_]+\|>|\[/?INST\]")
_OTHER_SCRIPTS = re.compile("[\u0370-\u05ff\u0600-\u06ff\u0900-\u0dff\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def _always(answer: str, setting: Setting) -> list[Verdict]:
    if not words(answer) and not any(sign.isprintable() and not sign.isspace() for sign in answer):
        return [Verdict("answered", dimension, False, "there is no answer") for dimension in ("accuracy", "appropriateness")]
    reasons = {
        "language": _language(answer, setting),
        "finished": "" if setting.ended == "stop" else f"it did not end by itself ({setting.ended})",
        "instructions": _instructions(answer, setting),
        "control_tokens": _control_tokens(answer, setting),
        "markers": _no_marker(answer, True, setting),
    }
    return [Verdict(name, "appropriateness", not reason, reason) for name, reason in reasons.items()]


def _language(answer: str, setting: Setting) -> str:
    """Short answers and mixtures that tell neither way pass either way."""
    foreign = len(_OTHER_SCRIPTS.findall(answer))
    letters = sum(sign.isalpha() for sign in answer)
    if letters and foreign > letters / 3:
        return "it is written in another script"
    found = detect(answer)
    return "" if found in (None, setting.language) else f"it speaks {_NAMES[found]}, {_NAMES[setting.language]} was asked for"


_NAMES = {"tr": "Turkish", "en": "English"}


def _instructions(answer: str, setting: Setting) -> str:
    found = recited(answer, setting.instructions)
    return f"it recites its instructions: '{found}'" if found else ""


def _control_tokens(answer: str, setting: Setting) -> str:
    found = next((token for token in setting.control_tokens if token in answer), None)
    if found is None and (seen := _CONTROL.search(answer)):
        found = seen[0]
    return f"it shows {found}" if found else ""


# --- declared checks: answer, what was wanted, setting -> why it failed, or nothing -----------------------------------------------


class _Unjudged(str):
    """A reason why a check could not be carried out here."""


def _any(answer: str, wanted: Any, setting: Setting) -> str:
    return "" if patterns.first_match(_listed(wanted), answer) else f"none of {_quoted(wanted)} is in it"


def _all(answer: str, wanted: Any, setting: Setting) -> str:
    missing = [pattern for pattern in _listed(wanted) if not patterns.matches(pattern, answer)]
    return f"{_quoted(missing)} not in it" if missing else ""


def _none(answer: str, wanted: Any, setting: Setting) -> str:
    found = patterns.first_match(_listed(wanted), answer)
    return f"{_quoted([found])} is in it" if found else ""


def _carries(answer: str, wanted: Any, setting: Setting) -> str:
    missing = [pattern for pattern in _listed(wanted) if not patterns.matches(pattern, answer)]
    return f"{_quoted(missing)} of an earlier turn is not in it" if missing else ""


def _words(answer: str, wanted: Any, setting: Setting) -> str:
    return _within(len(words(answer)), wanted, "words")


def _sentences(answer: str, wanted: Any, setting: Setting) -> str:
    return _within(len(sentences(answer)), wanted, "sentences")


def _within(count: int, limits: dict[str, int], what: str) -> str:
    if count < limits.get("min", 0):
        return f"{count} {what}, at least {limits['min']} were asked for"
    if count > limits.get("max", count):
        return f"{count} {what}, at most {limits['max']} were asked for"
    return ""


def _opinion(answer: str, wanted: Any, setting: Setting) -> str:
    markers = [marker for listed in setting.persona.get("opinion_markers", {}).values() for marker in listed]
    found = patterns.first_match(markers, answer)
    if wanted == "required":
        return "" if found else f"no mark of an opinion ({', '.join(markers)})"
    return f"a plain answer was asked for, and it says {found!r}" if found else ""


def _principle(answer: str, wanted: Any, setting: Setting) -> str:
    cues = [cue for principle in setting.persona.get("principles", []) for cue in principle.get("cues", [])]
    return "" if patterns.first_match(cues, answer) else "it leans on none of the persona's principles"


_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*•–]|\d{1,2}[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+\S.*|\*\*[^*\n]{1,60}:?\*\*:?)[ \t]*$", re.MULTILINE)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def list_or_heading(answer: str) -> str:
    """What makes `answer` a report instead of talk; nothing where it is none. A single item is no list; code is left out."""
    prose = _CODE.sub("", answer)
    if heading := _HEADING.search(prose):
        return f"it has a heading ({heading[0].strip()[:40]!r})"
    items = len(_LIST_ITEM.findall(prose))
    return f"it is a list ({items} items)" if items > 1 else ""


def _no_list(answer: str, wanted: Any, setting: Setting) -> str:
    return list_or_heading(answer)


def _no_generic(answer: str, wanted: Any, setting: Setting) -> str:
    found = patterns.first_match(setting.forbidden, answer)
    return f"a phrase of any assistant: {found!r}" if found else ""


def _no_repetition(answer: str, wanted: Any, setting: Setting) -> str:
    found = repeated(answer)
    return f"it repeats {found!r}" if found else ""


def _no_echo(answer: str, wanted: Any, setting: Setting) -> str:
    """A greeting may well come back ("naber nasıl gidiyor"); from four words on, all of them in the same order are an echo."""
    asked, said = [fold(word) for word in words(setting.query)], [fold(word) for word in words(answer)]
    if len(asked) < 4:
        return "it only repeats the user's words" if len(asked) > 1 and asked == said else ""
    for start in range(len(said) - len(asked) + 1):
        if said[start : start + len(asked)] == asked:
            return "it repeats the user's words"
    return ""


def shown_marker(answer: str) -> str | None:
    """The first marker of an iteration form that a reader would see."""
    found = _MARKER.search(answer)
    return found[0].strip() if found else None


def _no_marker(answer: str, wanted: Any, setting: Setting) -> str:
    found = shown_marker(answer)
    return f"it shows the marker {found!r}" if found else ""


def _similar_to(answer: str, wanted: Any, setting: Setting) -> str:
    best = max(chrf(answer, reference) for reference in _listed(wanted["references"]))
    return "" if best >= wanted["chrf"] else f"chrF {best:.2f} to the nearest reference, {wanted['chrf']:.2f} was asked for"


def _code_compiles(answer: str, wanted: Any, setting: Setting) -> str:
    if not compiles.is_available(wanted):
        return _Unjudged(f"no compiler for {wanted} is installed here")
    return compiles.problem(answer, wanted) or ""


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _quoted(listed: Any) -> str:
    return ", ".join(f"'{pattern}'" for pattern in _listed(listed))


Check = Callable[[str, Any, Setting], str]
CHECKS: dict[str, tuple[str, Check]] = {
    "any": ("accuracy", _any),
    "all": ("accuracy", _all),
    "none": ("accuracy", _none),
    "carries": ("accuracy", _carries),
    "similar_to": ("accuracy", _similar_to),
    "code_compiles": ("accuracy", _code_compiles),
    "words": ("appropriateness", _words),
    "sentences": ("appropriateness", _sentences),
    "no_list": ("appropriateness", _no_list),
    "no_generic": ("appropriateness", _no_generic),
    "no_repetition": ("appropriateness", _no_repetition),
    "no_echo": ("appropriateness", _no_echo),
    "no_marker": ("appropriateness", _no_marker),
    "opinion": ("persona", _opinion),
    "principle": ("persona", _principle),
}
