"""What is in the dataset: figures by group and category, how varied the answers are, and how the classifier sees the questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generators.classify import Authored, compare, matrix
from generators.dataset.entries import Entry
from generators.dataset.quality import Near, Violation, opening
from generators.memory import Remember, nothing_remembered
from generators.specs.schema import TIERS
from generators.turkish import fold, words

if TYPE_CHECKING:
    from rich.console import Console

_QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "max": 1.0}


@dataclass
class CategoryFigures:
    """Gathered while the samples of one category stream by."""

    samples: int = 0
    multi_turn: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    moods: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    vocabulary: Counter[str] = field(default_factory=Counter)
    openings: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.samples += 1
        self.multi_turn += len(entry.users) > 1
        self.tiers[entry.tier] += 1
        self.languages[entry.language] += 1
        if entry.mood:
            self.moods[entry.mood] += 1
        for answer in entry.answers:
            said = [fold(word) for word in words(answer)]
            self.lengths[len(said)] += 1
            self.vocabulary.update(said)
            self.openings.setdefault(opening(answer), Counter())[entry.source] += 1

    def as_json(self) -> dict[str, Any]:
        commonest = max(self.openings, key=lambda text: len(self.openings[text]))
        begun, answers = len(self.openings[commonest]), sum(map(len, self.openings.values()))
        return {
            "samples": self.samples,
            "tiers": _by_tier(self.tiers),
            "languages": dict(self.languages.most_common()),
            "moods": dict(self.moods.most_common()),
            "multi_turn": self.multi_turn,
            "words": quantiles(self.lengths),
            "type_token_ratio": _ratio(len(self.vocabulary), sum(self.vocabulary.values())),
            "commonest_opening": {"opening": commonest, "answers": begun, "share": _ratio(begun, answers)},
        }


def quantiles(counts: Mapping[int, int]) -> dict[str, int]:
    """Of numbers with their counts: the smallest number that at least the share of all does not exceed."""
    total, seen, found = sum(counts.values()), 0, {}
    ranks = {name: max(1, -(-share * total // 1)) for name, share in _QUANTILES.items()}
    for number in sorted(counts):
        seen += counts[number]
        for name, rank in ranks.items():
            if name not in found and seen >= rank:
                found[name] = number
    return {name: found[name] for name in _QUANTILES if name in found}


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0


def _by_tier(counts: Mapping[str, int]) -> dict[str, int]:
    return {tier: counts.get(tier, 0) for tier in TIERS}


def corpus_figures(categories: Mapping[str, CategoryFigures], declared: Mapping[str, float]) -> dict[str, Any]:
    """The report's figures over all categories, by group and by category."""
    total = sum(figures.samples for figures in categories.values())
    groups: Counter[str] = Counter()
    tiers, languages, moods, vocabulary = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for name, figures in categories.items():
        groups[name.split("/")[0]] += figures.samples
        tiers += figures.tiers
        languages += figures.languages
        moods += figures.moods
        vocabulary += figures.vocabulary
    names = dict.fromkeys((*declared, *groups))
    return {
        "samples": total,
        "groups": {name: {"samples": groups[name], "share": _ratio(groups[name], total), "declared": declared.get(name)} for name in names},
        "tiers": {tier: {"samples": count, "share": _ratio(count, total)} for tier, count in _by_tier(tiers).items()},
        "languages": dict(languages.most_common()),
        "moods": dict(moods.most_common()),
        "multi_turn": sum(figures.multi_turn for figures in categories.values()),
        "type_token_ratio": _ratio(len(vocabulary), sum(vocabulary.values())),
        "categories": {name: figures.as_json() for name, figures in categories.items()},
    }


def classifier_figures(entries: Iterable[Entry], rules: Mapping[str, Any], remember: Remember = nothing_remembered) -> dict[str, Any]:
    """Authored against predicted tiers of the first user turns, one sample an example; see `compare`."""
    first: dict[str, Authored] = {}
    for entry in entries:
        first.setdefault(entry.source, Authored(entry.source, entry.users[0], entry.tier))
    return compare(first.values(), rules, remember)


def near_as_json(nears: Sequence[Near], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {"what": what, "similarity": round(similarity, 3), "sources": [entries[one].source, entries[other].source]}
        for what, one, other, similarity in nears
    ]


def violations_as_json(violations: Sequence[Violation]) -> list[dict[str, Any]]:
    return [{"rule": found.rule, "message": found.message, "sources": list(found.sources)} for found in violations]


# --- for the terminal -------------------------------------------------------------------------------------------------------------


def summary(report: Mapping[str, Any], width: int = 140) -> str:
    """The report as plain text of at most `width` columns."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    console = Console(file=text, width=width, color_system=None, force_terminal=False, highlight=False)
    parts: list[Callable[[Console, Mapping[str, Any]], None]] = [_print_categories, _print_shares, _print_classifier, _print_violations]
    for part in parts:
        part(console, report)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _print_categories(console: Console, report: Mapping[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("category")
    for heading in ("samples", "valid", "low", "medium", "high", "multi-turn", "moods", "words", "types/tokens", "commonest opening"):
        table.add_column(heading, justify="right" if heading != "commonest opening" else "left", no_wrap=True)
    for name, figures in report["categories"].items():
        length, first = figures["words"], figures["commonest_opening"]
        counts = (figures["samples"], figures["valid"], *figures["tiers"].values(), figures["multi_turn"], sum(figures["moods"].values()))
        spread = f"{length['min']}-{length['median']}-{length['max']}"
        table.add_row(name, *map(str, counts), spread, f"{figures['type_token_ratio']:.2f}", f"{first['opening']} {first['share']:.0%}")
    console.print(table)


def _print_shares(console: Console, report: Mapping[str, Any]) -> None:
    groups = ", ".join(f"{name} {group['share']:.1%}" for name, group in report["groups"].items())
    tiers = ", ".join(f"{name} {tier['share']:.1%}" for name, tier in report["tiers"].items())
    languages = ", ".join(f"{name} {count}" for name, count in report["languages"].items())
    near, moods = len(report["near_duplicates"]), sum(report["moods"].values())
    console.print(f"{report['samples']} samples: {report['train']} train, {report['valid']} valid; {groups}", soft_wrap=True)
    console.print(f"tiers: {tiers}; languages: {languages}; {report['multi_turn']} multi-turn, {moods} with a mood", soft_wrap=True)
    console.print(f"types/tokens of all answers {report['type_token_ratio']:.2f}; near duplicates: {near}", soft_wrap=True)
    for source in report["divided"]:
        console.print(f"{source}: too many expansions of one example to keep them in one split", soft_wrap=True)


def _print_classifier(console: Console, report: Mapping[str, Any]) -> None:
    found = report.get("classifier")
    if not found:
        return
    for line in matrix(found):
        console.print(line, soft_wrap=True)
    if count := len(found["disagreements"]):
        console.print(f"  {count} disagree: they stand in report.json under classifier, and doit classify lists them", soft_wrap=True)


def _print_violations(console: Console, report: Mapping[str, Any]) -> None:
    if not report["violations"]:
        console.print("every gate is passed")
        return
    counts = Counter(found["rule"] for found in report["violations"])
    console.print("violations: " + ", ".join(f"{rule} {count}" for rule, count in counts.most_common()), soft_wrap=True)
