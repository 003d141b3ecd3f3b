"""Samples to a dataset: read, judged, split, written; or judged wanting, with every reason, and nothing replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from generators import classify, language, needles, patterns, turkish
from generators.dataset import quality
from generators.dataset.entries import Entry, read, write
from generators.dataset.quality import DatasetErrors, Limits, Near, Violation
from generators.dataset.report import CategoryFigures, classifier_figures, corpus_figures, near_as_json, violations_as_json
from generators.dataset.split import Split, shuffled, split
from generators.errors import UserError
from generators.files import atomic_path, to_json, write_json
from generators.memory import Memory, Remember, source_of

Spec = dict[str, Any]
REJECTED = "report.rejected.json"


def build(
    sample_files: list[Path],
    project: Spec,
    categories: dict[str, Spec],
    suites: dict[str, Spec],
    case_lines: dict[str, list[int]],
    personas: dict[str, Spec],
    target: Path,
    report: Callable[[str], None],
    *,
    classifier: Spec | None = None,
    control_tokens: Collection[str] = (),
    memory: Path | None = None,
) -> Spec:
    """Write `target`/{train,valid}.jsonl and report.json, and return the report.

    project: of specs/project.yaml. categories: by `group/category`. suites, case_lines: the evaluation's, by name. classifier: the
    rules of specs/tiers.yaml; without them no agreement is reported. control_tokens: of every chat format. memory: the file in which
    verdicts on single samples are kept for the next run.
    Raises DatasetErrors with every violation; then `target` holds what it held before, and the report in report.rejected.json.
    """
    limits = limits_of(project, categories, personas, control_tokens)
    with Memory(memory, _basis(limits, classifier)) as remember:
        entries, figures, violations = _read(sample_files, limits, remember)
        agreement = classifier_figures(entries, classifier, remember) if classifier is not None else None
    if not entries:
        raise UserError("there are no samples; run: doit samples")
    report(f"{len(entries)} samples read")
    parts = split(entries, project["dataset"]["valid_share"], project["seed"])
    questions = quality.questions_of(entries)
    nears = quality.near_duplicates(entries, questions, limits)
    violations += _of_all(entries, figures, limits)
    violations += _of_pairs(entries, questions, nears, parts)
    violations += quality.evaluation_leaks(entries, quality.queries_of(suites, case_lines), limits)
    violations.sort(key=lambda found: (found.rule, found.sources))
    made = _report(entries, figures, nears, parts, project, violations)
    if agreement is not None:
        made["classifier"] = agreement
    if violations:
        write_json(target / REJECTED, made)
        raise DatasetErrors(violations)
    _write(entries, parts, sample_files, project["seed"], target)
    write_json(target / "report.json", made)
    (target / REJECTED).unlink(missing_ok=True)
    report(f"{len(parts.train)} train, {len(parts.valid)} valid")
    return made


def limits_of(project: Spec, categories: dict[str, Spec], personas: dict[str, Spec], control_tokens: Collection[str]) -> Limits:
    return Limits(
        quality=project["quality"],
        balance=project["dataset"]["balance"],
        tolerance=project["dataset"]["tolerance"],
        words={name: (spec["quality"]["words"]["min"], spec["quality"]["words"]["max"]) for name, spec in categories.items()},
        markers={name: spec["opinion_markers"] for name, spec in personas.items()},
        control_tokens=control_tokens,
    )


def _basis(limits: Limits, classifier: Spec | None) -> str:
    """What verdicts on single samples depend on besides the sample."""
    rules = [*vars(limits).values(), classifier]
    judges = source_of((quality, classify, language, needles, patterns, turkish))
    return to_json([sorted(rule) if isinstance(rule, set | frozenset) else rule for rule in rules]) + judges + version("py3langid")


def _read(
    sample_files: Sequence[Path], limits: Limits, remember: Remember
) -> tuple[list[Entry], dict[str, CategoryFigures], list[Violation]]:
    """Every sample as an entry, the figures of each category, and what single samples break (once a rule and example)."""
    entries: list[Entry] = []
    figures: dict[str, CategoryFigures] = {}
    violations: dict[tuple[str, tuple[str, ...]], Violation] = {}
    for entry, row in read(sample_files):
        entries.append(entry)
        figures.setdefault(entry.category, CategoryFigures()).add(entry)
        judged: Callable[[], list[Violation]] = partial(list, quality.of_sample(entry, row["metadata"], limits))
        for rule, message, sources in remember(to_json(row), judged):
            violations.setdefault((rule, tuple(sources)), Violation(rule, message, tuple(sources)))
    return entries, figures, list(violations.values())


def _of_all(entries: Sequence[Entry], figures: Mapping[str, CategoryFigures], limits: Limits) -> Iterator[Violation]:
    yield from quality.balance(entries, limits)
    yield from quality.tier_shares(entries, limits)
    for name, category in figures.items():
        yield from quality.same_openings(name, category.openings, limits)


def _of_pairs(entries: Sequence[Entry], questions: Sequence[quality.Question], nears: Sequence[Near], parts: Split) -> Iterator[Violation]:
    yield from quality.duplicates(entries, questions)
    yield from quality.near_violations(nears, entries)
    yield from quality.leaks(nears, entries, questions, frozenset(parts.valid))


def _report(
    entries: Sequence[Entry],
    figures: Mapping[str, CategoryFigures],
    nears: Sequence[Near],
    parts: Split,
    project: Spec,
    violations: Sequence[Violation],
) -> Spec:
    made = {"train": len(parts.train), "valid": len(parts.valid), "seed": project["seed"]}
    made |= corpus_figures(figures, project["dataset"]["balance"])
    held_out = Counter(entries[index].category for index in parts.valid)
    for name, category in made["categories"].items():
        category["train"], category["valid"] = category["samples"] - held_out[name], held_out[name]
    made["near_duplicates"] = near_as_json(nears, entries)
    made["divided"] = parts.divided
    made["violations"] = violations_as_json(violations)
    return made


def _write(entries: Sequence[Entry], parts: Split, sample_files: Sequence[Path], seed: int, target: Path) -> None:
    """Both splits, then both renamed: no train of one build beside the valid of another."""
    with atomic_path(target / "train.jsonl") as train, atomic_path(target / "valid.jsonl") as valid:
        write(entries, shuffled(entries, parts.train, seed), sample_files, train)
        write(entries, shuffled(entries, parts.valid, seed), sample_files, valid)
