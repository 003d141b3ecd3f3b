"""What one edit rebuilds, exactly. Each row edits one thing in a built copy of the project and names every task that must run: no fewer, no more.

`plan` is asked first each time, and must foretell what doit then does.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_project import RECIPE, ROOT, at, built_once, checked_once, doit

SLANG, LOW = "specs/categories/turkish/slang.yaml", "specs/categories/iteration/low.yaml"
PROJECT, TIERS, CLIENT = "specs/project.yaml", "specs/tiers.yaml", "specs/clients/jessy-cli.yaml"
MINI, V2, MODEL, GEMMA = (
    "specs/recipes/jessy-mini.yaml",
    "specs/recipes/jessy-v2.yaml",
    "specs/models/gemma-3-270m.yaml",
    "specs/chat_formats/gemma-base.yaml",
)
JESSY, CASUAL, SUITE = "specs/personas/jessy.yaml", "specs/personas/casual.yaml", "specs/evals/turkish.yaml"

Edit = Callable[[Path], None]
NOTHING: set[str] = set()
SLANG_ONLY = {"samples:turkish/slang"}
LOW_ONLY = {"samples:iteration/low"}
ALL_SAMPLES = {f"samples:{path.parent.name}/{path.stem}" for path in (ROOT / "specs" / "categories").glob("*/*.yaml")}
JUDGED = {"evaluate", "report"}
EXPORTED = {"gguf", "quantisations", "parity", *JUDGED}
SPOKEN = {"modelfile", "parity"}
TRAINED = {"train", "fuse", *EXPORTED}
DATA = {"dataset", "_frames"}


# --- edits ------------------------------------------------------------------------------------------------------------------------


def sub(file: str, pattern: str, replacement: str) -> Edit:
    """The first match of a regular expression; one that does not match is a mistake in this table."""

    def edit(root: Path) -> None:
        text = (root / file).read_text(encoding="utf-8")
        changed, found = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert found and changed != text, f"{file} has no {pattern}, or the edit changes nothing"
        (root / file).write_text(changed, encoding="utf-8")

    return edit


def setting(name: str, value: float) -> Edit:
    """One of the recipe's `training` block, there already or not."""

    def edit(root: Path) -> None:
        text = re.sub(rf"^  {name}: .*\n", "", (root / MINI).read_text(encoding="utf-8"), flags=re.MULTILINE)
        (root / MINI).write_text(text.replace("training:\n", f"training:\n  {name}: {value}\n", 1), encoding="utf-8")

    return edit


def append(file: str, text: str) -> Edit:
    def edit(root: Path) -> None:
        with (root / file).open("a", encoding="utf-8") as out:
            out.write(text)

    return edit


def move(old: str, new: str) -> Edit:
    return lambda root: (root / old).rename(root / new) and None


def remove(file: str) -> Edit:
    return lambda root: (root / file).unlink()


def both(*edits: Edit) -> Edit:
    """One thing that takes two files, such as a rename and the place where the name is used."""

    def edit(root: Path) -> None:
        for each in edits:
            each(root)

    return edit


def indent_examples(root: Path) -> None:
    """The list deeper by two, its entries' fields with it."""
    head, body = (root / SLANG).read_text(encoding="utf-8").split("\nexamples:\n")
    (root / SLANG).write_text(f"{head}\nexamples:\n" + re.sub(r"(?m)^(?=.)", "  ", body), encoding="utf-8")


def swap_examples(root: Path) -> None:
    head, body = (root / SLANG).read_text(encoding="utf-8").split("\nexamples:\n")
    entries = re.split(r"(?m)^(?=  - )", body)
    entries[1], entries[2] = entries[2], entries[1]
    (root / SLANG).write_text(f"{head}\nexamples:\n" + "".join(entries), encoding="utf-8")


def new_category(root: Path) -> None:
    text = (root / SLANG).read_text(encoding="utf-8")
    text = re.sub(r"^(count|spelling):.*\n", "", text, flags=re.MULTILINE).split("examples:")[0]
    text += "examples:\n  - user: tavla oynamayı biliyon mu\n    jessy: Bilirim, kapıyı alan kazanır.\n"
    (root / "specs/categories/turkish/games.yaml").write_text(text, encoding="utf-8")


def new_suite(root: Path) -> None:
    text = "description: One more.\ncases:\n  - id: one\n    query: deniz mi dağ mı, hangisi daha güzel gelir sana\n    language: tr\n    tier: low\n"
    (root / "specs/evals/one.yaml").write_text(text, encoding="utf-8")


Rows = dict[str, tuple[Edit, set[str]]]

# The specs say the same as before.
UNSEEN: Rows = {
    "a comment": (sub(SLANG, r"\A", "# a comment\n\n"), NOTHING),
    "a comment in the recipe": (append(MINI, "# a comment\n"), NOTHING),
    "a comment at a line's end": (sub(JESSY, r"^display_name: JESSY", "display_name: JESSY   # a comment"), NOTHING),
    "re-indentation": (indent_examples, NOTHING),
    "the order of a mapping's keys": (sub(MINI, r"\{rank: 16, alpha: 32\}", "{alpha: 32, rank: 16}"), NOTHING),
    "block style for flow style": (sub(MINI, r"^lora: \{rank: 16, alpha: 32\}", "lora:\n  rank: 16\n  alpha: 32"), NOTHING),
    "a default written out": (sub(MINI, r"rank: 16,", "rank: 16, dropout: 0.0,"), NOTHING),
    "another recipe": (sub(V2, r"rank: 16", "rank: 8"), NOTHING),
    "a persona that no recipe names": (
        lambda root: (root / "specs/personas/sleepy.yaml").write_text("extends: jessy\nbrevity: Esne, sus.\n") and None,
        NOTHING,
    ),
    "a helper's source": (append("generators/files.py", "# a comment\n"), NOTHING),
}
# What no stage reads; the lock pins it all the same.
PINNED: Rows = {
    "a category's description": (sub(SLANG, r"^description: ", "description: Real "), NOTHING),
    "a suite's description": (sub(SUITE, r"^description: ", "description: Real "), NOTHING),
    "a persona's description": (sub(JESSY, r"^description: ", "description: Real "), NOTHING),
    "a chat format's description": (sub(GEMMA, r"Gemma's turns for", "The turns for"), NOTHING),
    "log_every": (setting("log_every", 7), NOTHING),
    "checkpoint_every": (setting("checkpoint_every", 7), NOTHING),
    "the memory budget": (setting("memory_budget_gb", 7), NOTHING),
    "a client's configuration key": (sub(CLIENT, r'LLM_TIMEOUT_SECS: "60"', 'LLM_TIMEOUT_SECS: "61"'), NOTHING),
    "a model's parameter count": (sub(MODEL, r"^parameters: \d+", "parameters: 268098177"), NOTHING),
    "the default recipe": (sub(PROJECT, r"^default_recipe: .*", "default_recipe: jessy-v2"), NOTHING),
}
# What stages read: they run, what follows from their new bytes runs, and the lock is written anew.
READ: Rows = {
    # Samples.
    "an example's text": (sub(SLANG, r"^    jessy: ", "    jessy: Kanka, "), SLANG_ONLY | DATA | TRAINED),
    "an example's mood": (sub(SLANG, r"^    jessy: (.*)", r"    jessy: \1\n    mood: happy"), SLANG_ONLY | DATA | {"report"}),
    "the order of examples": (swap_examples, SLANG_ONLY | DATA | {"report, if lines are told in it"}),
    "an example more": (
        sub(SLANG, r"\Z", "  - user: tavla oynamayı biliyon mu\n    jessy: Bilirim, kapıyı alan kazanır.\n"),
        SLANG_ONLY | DATA | TRAINED,
    ),
    "a category's count": (sub(SLANG, r"^count: 4", "count: 5"), SLANG_ONLY | DATA | TRAINED),
    "a spelling": (sub(SLANG, r"variants: \[lower, ascii, spoken\]", "share: 1.0, variants: [ascii, spoken]"), SLANG_ONLY | DATA | TRAINED),
    "a category's tier": (sub(SLANG, r"^tier: low\niterations: 1", "tier: medium\niterations: 3"), SLANG_ONLY | DATA | TRAINED),
    "a tier's budget": (sub(TIERS, r"response_budget_s: 45", "response_budget_s: 46"), {"samples of high"} | DATA),
    "the project's seed": (sub(PROJECT, r"^seed: \d+", "seed: 1"), ALL_SAMPLES | DATA | TRAINED),
    "the sample template, with the same outcome": (append("templates/samples/short.j2", "{# a comment #}\n"), LOW_ONLY),
    "the sample template": (sub("templates/samples/short.j2", r'replace\("!"', 'replace("."'), LOW_ONLY | DATA | TRAINED),
    "an included macro": (sub("templates/samples/macros.j2", r"%\}!", "%}!!"), LOW_ONLY | DATA | TRAINED),
    "a category added": (new_category, {"samples:turkish/games"} | DATA | TRAINED),
    "a category removed": (remove(SLANG), DATA | TRAINED),
    "a category renamed": (move(SLANG, "specs/categories/turkish/argot.yaml"), {"samples:turkish/argot"} | DATA | TRAINED),
    # The dataset.
    "word limits": (sub(SLANG, r"words: \{min: \d+", "words: {min: 1"), {"dataset"}),
    "a quality threshold": (sub(PROJECT, r"near_duplicate: 0.9", "near_duplicate: 0.95"), {"dataset"}),
    "the share of valid": (sub(PROJECT, r"valid_share: 0.1", "valid_share: 0.3"), DATA | TRAINED),
    "a classifier's points": (sub(TIERS, r"^  bias: 0", "  bias: 4"), {"dataset", "report"}),
    "a forbidden phrase": (sub(PROJECT, r"^  forbidden:", "  forbidden:\n    - kuzu kuzu"), {"dataset"} | JUDGED),
    # The persona.
    "the persona's identity": (sub(JESSY, r"esprili, sıcak", "sıcak, esprili"), {"_frames", "modelfile"} | TRAINED),
    "a persona's style line": (sub(JESSY, r"en fazla bir emoji", "emoji yok"), {"_frames", "modelfile"} | TRAINED),
    "a variant persona only": (sub(CASUAL, r"^brevity: ", "brevity: Hep "), SPOKEN),
    "a temperature": (sub(JESSY, r"temperature: 0.6", "temperature: 0.5"), {"modelfile"}),
    "the order of parameters": (sub(JESSY, r"  temperature: (.*)\n  top_p: (.*)\n", r"  top_p: \2\n  temperature: \1\n"), {"modelfile"}),
    "a MESSAGE example": (sub(JESSY, r"jessy: Sor kanka, dinliyorum\.", "jessy: Sor bakalım."), SPOKEN),
    "a principle's cue": (sub(JESSY, r"cues: \[", "cues: [kuzu kuzu, "), JUDGED),
    "an opinion marker": (sub(JESSY, r"tr: \[bence", "tr: [kanımca, bence"), {"dataset"} | JUDGED),
    "a persona renamed": (
        both(move(CASUAL, "specs/personas/relaxed.yaml"), sub(MINI, "casual", "relaxed"), sub(V2, "casual", "relaxed")),
        SPOKEN,
    ),
    "a persona removed": (sub(MINI, "casual, ", ""), SPOKEN),
    "the persona template": (
        sub("templates/persona/system.j2", r"persona\.brevity \| trim", "persona.brevity | upper"),
        {"_frames", "modelfile"} | TRAINED,
    ),
    "the persona template, with the same outcome": (append("templates/persona/system.j2", "{# a comment #}"), {"_frames"} | SPOKEN),
    "the Modelfile template": (sub("templates/Modelfile.j2", r"^SYSTEM ", "# who it is\nSYSTEM "), SPOKEN),
    # Frames and training.
    "the directive": (sub(TIERS, r"Cevabına, bu", "Önce bu"), {"_frames"} | TRAINED),
    "a client's wording": (sub(CLIENT, r"Take a position first", "Take a stand first"), {"_frames"} | TRAINED),
    "the mix of framings": (sub(MINI, r"persona: 0.4, none: 0.2", "persona: 0.2, none: 0.4"), {"_frames"} | TRAINED),
    "the rank": (sub(MINI, r"rank: 16", "rank: 8"), TRAINED),
    "the epochs": (setting("epochs", 4), TRAINED),
    "the learning rate": (setting("learning_rate", 2e-5), TRAINED),
    "a turn's prefix": (sub(GEMMA, r"<start_of_turn>user\\n", "<start_of_turn>user\\\\n\\\\n"), {"base", "modelfile"} | TRAINED),
    # Export and Modelfile.
    "a quantisation added": (sub(MINI, r"\[Q8_0\]", "[Q8_0, Q4_0]"), {"gguf", "quantisations", "report"}),
    "another quantisation first": (sub(MINI, r"\[Q8_0\]", "[Q4_0, Q8_0]"), {"modelfile"} | EXPORTED),
    "the name in Ollama": (sub(MINI, r"^  name: jessy-mini", "  name: jessy-tiny"), EXPORTED),
    "the recipe's description": (sub(MINI, r"^description: ", "description: Real "), EXPORTED),
    "a stop text": (sub(GEMMA, r"stop: \[<eos>, <end_of_turn>, <start_of_turn>\]", "stop: [<eos>, <end_of_turn>]"), SPOKEN | JUDGED),
    "a licence's notice": (sub(MODEL, r"^  notice: >-\n", "  notice: >-\n    Mind that\n"), {"report"}),
    # Evaluation and report.
    "a client's stop rule": (sub(CLIENT, r"alone: 0.95", "alone: 0.96"), JUDGED),
    "a tier's range": (sub(TIERS, r"iterations: \[6, 9\]", "iterations: [6, 10]"), JUDGED),
    "an evaluation query": (sub(SUITE, r"query: .*", "query: bi derdim var da anlatayım mı sana"), {"dataset"} | JUDGED),
    "a check": (sub(SUITE, r"words: \{max: \d+\}", "words: {max: 11}"), JUDGED),
    "a gate": (append(MINI, "gates:\n  turkish: 0.5\n"), JUDGED),
    "longer answers": (sub(MINI, r"max_tokens: \d+", "max_tokens: 99"), JUDGED),
    "a suite added": (new_suite, {"dataset"} | JUDGED),
    "a suite removed": (remove("specs/evals/multiturn.yaml"), {"dataset"} | JUDGED),
    "a suite renamed": (move("specs/evals/multiturn.yaml", "specs/evals/talks.yaml"), {"dataset"} | JUDGED),
    "a report template": (append("templates/reports/report.md.j2", "{# a comment #}\n"), {"report"}),
    "a file that a report template includes": (append("templates/reports/style.css.j2", "/* a comment */\n"), {"report"}),
}
# Stages run and write what they wrote before, so nothing follows.
SAME_BYTES: Rows = {
    # Generators: the stages that a module works for.
    "the sampler's source": (append("generators/samples/expand.py", "# a comment\n"), ALL_SAMPLES),
    "the dataset's source": (append("generators/dataset/split.py", "# a comment\n"), {"dataset"}),
    "the trainer's source": (append("generators/train/loop.py", "# a comment\n"), {"train"}),
    "a module of a part of the trainer": (append("generators/train/cpu/head.py", "# a comment\n"), {"train"}),
    "a module added to a stage": (append("generators/train/tricks.py", "# a comment\n"), {"train"}),
    "the chat formats' source": (
        append("generators/chat_format.py", "# a comment\n"),
        {"base", "train", "gguf", "quantisations", "modelfile", "parity", "evaluate"},
    ),
    # What was built.
    "a Modelfile deleted": (remove("build/modelfiles/jessy-mini/casual.Modelfile"), {"modelfile"}),
    "samples deleted": (remove("build/samples/turkish/slang.jsonl"), SLANG_ONLY),
    "the adapter deleted": (remove("build/recipes/jessy-mini/adapter/adapters.safetensors"), {"train"}),
    "the report deleted": (remove("build/recipes/jessy-mini/report.html"), {"report"}),
}
EDITS: Rows = {
    **UNSEEN,
    **SAME_BYTES,
    **{what: (edit, expected | {"_lock"}) for what, (edit, expected) in {**PINNED, **READ}.items()},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with checked_once():
        root = built_once(tmp_path_factory)
        assert doit(root, "run", f"report:{RECIPE}")[1] == [], "a build that was just made is up to date"
        yield root


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of its own, time stamps kept."""
    shutil.copytree(built, tmp_path / "project")
    return tmp_path / "project"


def tasks(names: set[str], root: Path) -> set[str]:
    """Names of this table to doit's: stages are those of the recipe or of its base."""
    whole: set[str] = set()
    for name in names:
        if name.endswith("if lines are told in it"):
            continue
        if name == "samples of high":
            whole |= {f"samples:{row}" for row in categories_with_tier(root, "high")}
        elif name == "base":
            whole.add("base:gemma-3-270m")
        elif name == "dataset" or ":" in name:
            whole.add(name)
        else:
            whole.add(f"{name}:{RECIPE}")
    return whole


def categories_with_tier(root: Path, tier: str) -> set[str]:
    from generators.specs.project import load

    categories = load(root, keep=False).categories
    return {
        name
        for name, category in categories.items()
        if any(example.get("tier", category["tier"]) == tier for example in category["examples"])
    }


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_rebuilds_what_it_reaches_and_nothing_else(what: str, project: Path) -> None:
    edit, expected = EDITS[what]
    edit(project)
    foretold = json.loads(doit(project, "plan", "--json", "--recipe", RECIPE)[2])
    code, ran, printed = doit(project, "run", f"report:{RECIPE}")
    assert code == 0, printed
    if "report, if lines are told in it" in expected:  # the report lists examples that the classifier takes for others, by line
        ran = [task for task in ran if task != f"report:{RECIPE}"]
        foretold["tasks"] = [task for task in foretold["tasks"] if task["task"] != f"report:{RECIPE}"]
    assert set(ran) == tasks(expected, project)
    planned = {task["task"] for task in foretold["tasks"]}
    assert planned - unsure(foretold) <= set(ran) <= planned, "plan foretold something else"


def unsure(foretold: dict) -> set[str]:
    """Tasks that plan lists because a costly stage may write other bytes."""
    return {task["task"] for task in foretold["tasks"] if all(" may write " in reason["text"] for reason in task["reasons"])}


def test_a_category_that_is_gone_leaves_no_samples_behind(project: Path) -> None:
    (project / SLANG).unlink()
    assert doit(project, "run", "dataset")[0] == 0
    assert not (project / "build/samples/turkish/slang.jsonl").exists()
    assert "turkish/slang" not in (project / "build/dataset/train.jsonl").read_text(encoding="utf-8")


def test_a_persona_that_is_gone_leaves_no_modelfile_behind(project: Path) -> None:
    sub(MINI, "casual, ", "")(project)
    assert doit(project, "run", f"modelfile:{RECIPE}")[0] == 0
    assert sorted(path.stem for path in (project / "build/modelfiles/jessy-mini").iterdir()) == ["jessy", "professional", "technical"]


def test_a_message_names_the_line_where_an_example_stands_now(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A comment above it was not worth a rendering; a later edit of the limits must still lead to the right line."""
    sub(SLANG, r"\A", "# one\n# two\n# three\n")(project)
    assert doit(project, "run", f"report:{RECIPE}")[1] == []
    sub(SLANG, r"words: \{min: \d+, max: \d+\}", "words: {min: 90, max: 91}")(project)
    line = next(number for number, text in enumerate((project / SLANG).read_text(encoding="utf-8").splitlines(), 1) if text.startswith("  - "))
    with pytest.raises(SystemExit) as ended:
        doit(project, "run", "dataset")
    assert ended.value.code == 3
    assert f"{SLANG}:{line}: words: the answer has" in capsys.readouterr().err


def test_building_again_after_a_failure_undone_does_nothing(project: Path) -> None:
    """The last good dataset stands while the specs are wrong, and is up to date when they are put right."""
    before, dataset = (project / SLANG).read_text(encoding="utf-8"), project / "build/dataset/train.jsonl"
    good = dataset.read_bytes()
    sub(SLANG, r"words: \{min: \d+, max: \d+\}", "words: {min: 90, max: 91}")(project)
    with pytest.raises(SystemExit):
        doit(project, "run", "dataset")
    assert dataset.read_bytes() == good
    (project / SLANG).write_text(before, encoding="utf-8")
    assert doit(project, "run", f"report:{RECIPE}")[1] == []


# --- the tables of dodo.py --------------------------------------------------------------------------------------------------------

# Modules that have no part in what a stage writes: how it is told, how files are written, what a machine is, what specs may hold.
NEUTRAL = {"device.py", "errors.py", "files.py", "llama_server.py", "measure.py", "ollama_address.py", "progress.py"}
NEUTRAL_FOR = {
    "samples": {"modelfile.py", "modelfile_reader.py"},  # a filter for Modelfiles, which no sample uses
    "_frames": {"modelfile_reader.py"},  # reads Modelfiles
    "base": {"ggml.py", "modelfile_reader.py"},  # K-quants, and what a Modelfile's TEMPLATE may hold
    "train": {"modelfile_reader.py"},
    "fuse": {"ggml.py"},
    "gguf": {"base.py", "base_sources.py", "modelfile_reader.py"},  # the name of the base's GGUF
    "evaluate": {"modelfile_reader.py"},
}
ENTRIES = {
    "samples": ["samples/render.py"], "dataset": ["dataset/__init__.py"], "base": ["base.py", "chat_format.py"],
    "_frames": ["framing.py", "modelfile.py"], "train": ["train/__init__.py"], "fuse": ["fuse.py"], "gguf": ["gguf.py", "chat_format.py"],
    "modelfile": ["modelfile.py", "chat_format.py"], "parity": ["parity.py"], "evaluate": ["evaluate/__init__.py"],
    "report": ["report/__init__.py"],
}


def imported(file: Path) -> set[Path]:
    """Modules of the package that a module imports anywhere, but for those that only type checkers read."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found: set[Path | None] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("generators"):
            for name in node.names:
                found.add(module_file(f"{node.module}.{name.name}") or module_file(str(node.module)))
    return {path for path in found if path is not None}


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() and name != "generators" else None


def used_by(stage: str) -> set[str]:
    """Names of all modules that a stage comes to import, but for neutral ones and what only those import."""
    neutral, package = NEUTRAL | NEUTRAL_FOR.get(stage, set()), ROOT / "generators"
    found: set[str] = set()
    waiting = list(ENTRIES[stage])
    while waiting:
        name = waiting.pop()
        if name not in found | neutral and not name.startswith("specs/"):
            found.add(name)
            waiting += [file.relative_to(package).as_posix() for file in imported(package / name)]
    return found


@pytest.mark.parametrize("stage", ENTRIES)
def test_a_stage_runs_again_when_a_module_that_it_uses_changes(stage: str, built: Path) -> None:
    from generators.tasks import stages_before

    with at(built):
        namespace = runpy.run_path("dodo.py")
        stages = stages_before(namespace, f"report:{RECIPE}")
    declared = next(each.files for each in stages if each.name.partition(":")[0] == stage)
    missing = {f"generators/{name}" for name in used_by(stage)} - set(declared)
    assert not missing, f"dodo.py: task_{stage} does not list {sorted(missing)} among its source"
