"""The report: what it shows of what is there, that it needs nothing from outside, and that it works in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest

from generators.clients import Observation
from generators.errors import UserError
from generators.evaluate import summarise
from generators.evaluate.asking import Answer, Frames
from generators.evaluate.cases import queries
from generators.evaluate.engines import Generation
from generators.evaluate.rows import row
from generators.files import write_json, write_jsonl
from generators.report import write_report
from generators.report.tables import table
from generators.report.view import bar, parts, seconds

CLIENT = {
    "systems": ["Be brief."],
    "observation": "{{ text }}",
    "stages": [{"name": name, "prompts": ["Say it: {{ query }} {{ observations }}"]} for name in ("explore", "refine")],
}
TIERS = {"tiers": {"low": {"iterations": [1, 2]}, "medium": {"iterations": [3, 5]}, "high": {"iterations": [6, 9]}}, "directive": "N?"}
SUITES: dict[str, Any] = {
    "turkish": {
        "cases": [
            {
                "id": "ask",
                "query": "sana bisi sorucam",
                "language": "tr",
                "tier": "low",
                "checks": [{"words": {"max": 6}}, {"any": ["sor"]}],
            },
            {"id": "thanks", "query": "Teşekkür ederim", "language": "tr", "tier": "low", "checks": [{"none": ["size"]}]},
        ]
    },
    "iterations": {"cases": [{"id": "free-will", "query": "özgür irade var mı", "language": "tr", "tier": "high"}]},
}
ANSWERS = {
    "ask": ("Elbette! Size nasıl yardımcı olabilirim acaba, lütfen söyleyin.", "Sor kanka, dinliyorum."),
    "thanks": ("Ne demek, her zaman.", "Rica ederim, size kolay gelsin."),
    "free-will": ("Bu bir <script>alert(1)</script> sorusu.", "Bence kısmen var.\n```rust\nfn main() {}\n```\nBöyle."),
}
RECIPE: dict[str, Any] = {
    "description": "A small voice.", "lora": {"rank": 16, "alpha": 32},
    "gates": {"enforce": False, "turkish": 0.9, "iteration_efficiency": 0.8, "simple_query_s": 5},
    "evaluation": {"framings": ["persona", "cli"]},
}  # fmt: skip
LICENCE = {"licence": {"name": "Open Terms", "url": "https://example.org/terms", "notice": "Use it well."}}
DATASET = {
    "samples": 400, "train": 360, "valid": 40, "multi_turn": 12, "moods": {"sad": 3}, "near_duplicates": [],
    "classifier": {"agreement": 0.87},
    "groups": {"turkish": {"samples": 200, "share": 0.5, "declared": 0.5}, "other": {"samples": 200, "share": 0.5, "declared": None}},
    "tiers": {"low": {"samples": 300, "share": 0.75}, "medium": {"samples": 100, "share": 0.25}}, "languages": {"tr": 300, "en": 100},
    "categories": {"turkish/slang": {"samples": 200, "tiers": {"low": 1, "medium": 2, "high": 3},
                                     "words": {"min": 1, "median": 5, "max": 9},
                                     "commonest_opening": {"opening": "sor kanka", "answers": 3, "share": 0.02}}},
}  # fmt: skip

needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")


def rows(side: int) -> list[dict[str, Any]]:
    """Judged as the evaluation judges them: the base's answers for 0, the tuned model's for 1."""
    frames, made = Frames("Sen.", {"cli": CLIENT}, TIERS), []
    for asked in queries(SUITES, ["persona", "cli"]):
        text = ANSWERS[asked.case][side]
        reply = Generation(text, 12, 40, (83.0, 1.4)[side] / 2, 0.2, ("length", "stop")[side])
        stages = 2 if side == 0 or asked.tier == "high" else 1
        observations = [Observation(text, 0.97)] * stages if asked.in_client else []
        answer = Answer(text, [reply] * (stages if asked.in_client else 1), observations, alone=asked.tier == "low")
        seen = row(asked, answer, {}, ("size nasıl",), ("<end>",), frames)
        if side == 1 and not seen["passed"]:
            near = {
                "source": "specs/categories/turkish/greetings.yaml:41",
                "category": "turkish/greetings",
                "user": "sağ ol",
                "answer": "Ne demek.",
            }
            seen["trace"] = {"nearest": [near | {"similarity": 0.5}], "categories": ["turkish/greetings"]}
        made.append(seen)
    return made


@pytest.fixture(scope="module")
def recipe_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    base, tuned = rows(0), rows(1)
    scores = summarise(base, tuned, RECIPE, "mini", seed=1)
    engine = {"name": "llama.cpp mini.gguf", "digest": "a" * 64, "load_seconds": 0.8, "slots": 4}
    scores |= {"engines": {"base": engine, "tuned": engine}, "half": None, "sampling": {"temperature": 0.0, "seed": 1}}
    scores |= {"machine": {"system": "Linux", "cores": 2, "python": "3.11"}}
    scores["previous"] = {
        "gates": [{"name": "turkish", "below": False, "wanted": 0.9, "over": "", "before": 0.25, "now": 0.5}],
        "gained": ["turkish/ask (persona)"], "lost": [],
    }  # fmt: skip
    write_json(folder / "evaluation" / "scores.json", scores)
    write_jsonl(folder / "evaluation" / "base.jsonl", base)
    write_jsonl(folder / "evaluation" / "tuned.jsonl", tuned)
    metrics = [
        {"step": step, "loss": 3 / step, "learning_rate": 1e-4, "memory_bytes": 2e9, "elapsed_s": step} for step in range(10, 60, 10)
    ]
    metrics += [{"step": step, "validation_loss": loss} for step, loss in ((0, 3.1), (25, 1.25), (50, 1.5))]
    write_jsonl(folder / "metrics.jsonl", metrics)
    write_json(folder / "training.json", {"steps": 50, "planned_steps": 60, "stop_reason": "patience", "seconds": 90.0})
    quantisations = [{"quantisation": name, "size": 292e6, "bits_per_weight": 8.5, "first_answer": "Selam!"} for name in ("Q8_0", "Q4_K_M")]
    write_json(folder / "export.json", {"quantisations": quantisations})
    write_json(folder / "ledger.json", {"stages": [{"stage": "base", "persona": 0.1}, {"stage": "Q8_0", "persona": 0.9}]})
    write_json(folder / "dataset.json", DATASET)
    write_report(folder, {"name": "mini", "recipe": RECIPE, "base": LICENCE, "dataset_report": folder / "dataset.json"})
    return folder


@pytest.fixture(scope="module")
def html(recipe_dir: Path) -> str:
    return (recipe_dir / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(recipe_dir: Path) -> str:
    return (recipe_dir / "report.md").read_text(encoding="utf-8")


# --- what is shown ---------------------------------------------------------------------------------------------------------------------


def test_the_showcase_comes_first_with_its_seconds_before_and_after(html: str, markdown: str) -> None:
    assert html.index('id="showcase"') < html.index('id="gates"')
    assert re.findall(r'<div class="time">([^<]*)', html) == ["1 min 23 s", "0.70 s"]
    assert "| before | 1 min 23 s | 2 stages, 24 tokens and cut off there |" in markdown


def test_gates_say_what_was_wanted_and_whether_it_was_reached(markdown: str) -> None:
    assert "**2 of 3 gates passed**" in markdown
    assert "| Turkish | 50.0 % | at least 90 % | missed |" in markdown
    assert "| Simple queries | 0.70 s | below 5 s | passed |" in markdown


def test_a_failed_case_names_check_answer_and_lines_to_edit(html: str, markdown: str) -> None:
    assert "specs/categories/turkish/greetings.yaml:41" in html
    assert re.search(r"\| turkish/thanks \| Teşekkür ederim \|.*none: 'size' is in it \| turkish/greetings", markdown)


@pytest.mark.parametrize(
    "section", ["suites", "iterations", "times", "training", "dataset", "quantisations", "ledger", "answers", "changes", "made-with"]
)
def test_every_section_with_figures_is_there(html: str, section: str) -> None:
    assert f'id="{section}"' in html


def test_the_best_step_is_marked_in_the_curve(html: str) -> None:
    assert "best 1.250, step 25" in html


def test_what_an_answer_says_is_text_and_never_runs(html: str) -> None:
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    loads = re.findall(r"""(?:src|href|xlink:href)\s*=\s*["']([^"'#][^"']*)""", html) + re.findall(r"url\(\s*['\"]?([^#'\")]+)", html)
    assert set(loads) == {"data:,", "https://example.org/terms"}
    assert "@import" not in html


def test_the_same_figures_give_the_same_bytes(recipe_dir: Path, html: str) -> None:
    write_report(recipe_dir, {"name": "mini", "recipe": RECIPE, "base": LICENCE, "dataset_report": recipe_dir / "dataset.json"})
    assert (recipe_dir / "report.html").read_text(encoding="utf-8") == html


def test_colours_come_from_the_page_so_that_dark_is_dark(html: str) -> None:
    assert "prefers-color-scheme: dark" in html and "@media print" in html
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--tuned)" in drawn
    assert not re.findall(r"(?:fill|stroke): #", drawn)


def test_a_report_of_nothing_has_no_empty_sections(tmp_path: Path) -> None:
    write_report(tmp_path, {"name": "bare"})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<section" not in text and "<h1>bare</h1>" in text
    assert (tmp_path / "report.md").read_text(encoding="utf-8").strip() == "# bare"


def test_a_report_before_the_evaluation_shows_the_training(recipe_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes((recipe_dir / "metrics.jsonl").read_bytes())
    write_report(tmp_path, {"name": "half-way"})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="([\w-]+)"', text) == ["training"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(UserError, match=r"export\.json is damaged .* delete it and run doit again"):
        write_report(tmp_path, {"name": "broken"})


def test_markdown_tables_hold_together_whatever_an_answer_says(markdown: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block


def test_an_answer_is_cut_into_text_and_code() -> None:
    assert parts("Bak:\n```rust\nfn f() {}\n```\nBitti.") == [("text", "Bak:"), ("code", "fn f() {}"), ("text", "Bitti.")]
    assert parts("```\nno end") == [("code", "no end")]


def test_times_are_told_as_a_person_feels_them() -> None:
    assert [seconds(value) for value in (None, 0.372, 9.5, 83.2)] == ["–", "0.37 s", "9.50 s", "1 min 23 s"]


def test_a_bar_without_figures_is_none() -> None:
    assert bar({"value": None, "low": None, "high": None, "n": 0}) is None


@pytest.mark.parametrize(
    ("figures", "columns", "lines"),
    [
        ([{"a": 1, "b": 0.5}, {"a": 2, "c": [1]}], ["a", "b"], [["1", "0.5"], ["2", "–"]]),
        ({"stages": [{"stage_name": "base", "kept": True}]}, ["stage name", "kept"], [["base", "yes"]]),
        ({"casual": {"x": 1}}, ["name", "x"], [["casual", "1"]]),
        ({"cases": 9, "equal": True}, ["what", "value"], [["cases", "9"], ["equal", "yes"]]),
    ],
)
def test_a_table_is_made_of_what_is_there(figures: Any, columns: list[str], lines: list[list[str]]) -> None:
    found = table(figures)
    assert found is not None
    assert (found["columns"], found["lines"]) == (columns, lines)


@pytest.mark.parametrize("figures", [None, [], {}, "text"])
def test_no_table_is_made_of_nothing(figures: Any) -> None:
    assert table(figures) is None


# --- in a browser ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(recipe_dir: Path) -> Iterator[browser.Page]:
    with browser.opened(recipe_dir / "report.html") as opened:
        yield opened


def shown(page: browser.Page, **chosen: str) -> list[str]:
    """The cases that are left when the tools are set so."""
    settings = {"search": "", "suite": "", "framing": "", "result": ""} | chosen
    for name, value in settings.items():
        kind = "input" if name == "search" else "change"
        page.run(
            f"(() => {{ const tool = document.querySelector('#tools [name={name}]');"
            f" tool.value = {value!r}; tool.dispatchEvent(new Event('{kind}')); }})()"
        )
    found = page.run(
        "[...document.querySelectorAll('.case')].filter(c => c.offsetParent).map(c => c.querySelector('.meta span').textContent)"
    )
    return list(found)


@needs_browser
def test_the_console_has_nothing_to_complain_about(page: browser.Page) -> None:
    shown(page)
    assert page.errors == []


@needs_browser
def test_at_first_the_judged_framing_is_chosen(page: browser.Page) -> None:
    assert page.run("document.querySelector('#tools [name=framing] option[selected]').value") == "persona"


@needs_browser
@pytest.mark.parametrize(
    ("chosen", "cases"),
    [
        ({"framing": "persona"}, ["turkish/ask", "turkish/thanks", "iterations/free-will"]),
        ({"framing": "persona", "suite": "iterations"}, ["iterations/free-will"]),
        ({"framing": "persona", "result": "failed"}, ["turkish/thanks"]),
        ({"framing": "persona", "result": "won"}, ["turkish/ask", "iterations/free-will"]),
        ({"framing": "persona", "search": "TESEKKUR"}, ["turkish/thanks"]),
        ({"framing": "persona", "search": "kanka dinliyorum"}, ["turkish/ask"]),
        ({"search": "no such words"}, []),
    ],
)
def test_the_filter_leaves_what_was_asked_for(page: browser.Page, chosen: dict[str, str], cases: list[str]) -> None:
    assert shown(page, **chosen) == cases
    assert page.run("document.getElementById('empty').hidden") is bool(cases)


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_fits_its_screen(recipe_dir: Path, tmp_path: Path, width: int, dark: bool) -> None:
    with browser.opened(recipe_dir / "report.html", width=width, dark=dark) as opened:
        assert opened.run("document.documentElement.scrollWidth") == width
        plots = "[...document.querySelectorAll('.plot')].filter(p => p.offsetParent).map(p => p.classList.contains('narrow'))"
        assert set(opened.run(plots)) == {width < 700}
        background = opened.run("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(21, 23, 26)") is dark
        opened.screenshot(tmp_path / "report.png")
        assert opened.errors == []
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
