"""Specs: what loads, what is refused with which words, what editors and the reference page are told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from generators.errors import SpecErrors
from generators.specs import json_schema, reference, validate, yaml_source
from generators.specs.project import Project, load
from generators.specs.schema import FILES, OLLAMA_PARAMETERS, QUANTISATIONS, SOURCES
from generators.specs.yaml_source import Document, parse

REPOSITORY = Path(__file__).parents[1]
SPECS = Path(__file__).parent / "specs"
INVALID = sorted(path.name for path in (SPECS / "invalid").iterdir())


def make(root: Path, *overlays: Path) -> Path:
    """The smallest project that loads, with the repository's templates but those of reports, changed by the overlays."""
    shutil.copytree(REPOSITORY / "templates", root / "templates", ignore=shutil.ignore_patterns("reports"))
    shutil.copytree(SPECS / "minimal", root, dirs_exist_ok=True)
    for overlay in overlays:
        for absent in (overlay / "absent.txt").read_text().split() if (overlay / "absent.txt").exists() else ():
            shutil.rmtree(root / absent) if (root / absent).is_dir() else (root / absent).unlink()
        shutil.copytree(overlay, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("expected.txt", "absent.txt"))
    (root / "build").mkdir()
    return root


def change(root: Path, file: str, old: str, new: str) -> None:
    path = root / file
    assert old in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


def problems(root: Path) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        load(root)
    return str(caught.value).split("\n")


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    return make(tmp_path)


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every field that a spec may have, and templates of its own."""
    root = tmp_path_factory.mktemp("complete")
    shutil.copytree(REPOSITORY / "templates", root / "templates")
    shutil.copytree(SPECS / "complete", root, dirs_exist_ok=True)
    return root


# --- what loads -------------------------------------------------------------------------------------------------------------------


def test_the_shipped_specs_load() -> None:
    project = load(REPOSITORY, keep=False)
    assert project.project["default_recipe"] in project.recipes
    assert sum(len(category["examples"]) for category in project.categories.values()) >= 400


def test_the_smallest_project_loads_with_every_default_filled_in(minimal: Path) -> None:
    project = load(minimal)
    recipe = project.recipes["tiny"]
    assert recipe["lora"]["rank"] == 16 and recipe["training"]["learning_rate"] == 1e-4 and recipe["training"]["max_steps"] is None
    assert project.tiers["classifier"]["thresholds"] == {"medium": 2, "high": 5}
    assert project.personas["deniz"]["template"] == "persona/system.j2"
    assert project.example_lines["turkish/greetings"][:2] == [5, 7]


def test_the_complete_project_loads(complete: Path) -> None:
    project = load(complete, keep=False)
    assert project.recipes["small"]["training"]["learning_rate"] == 1e-4  # written "1e-4"
    assert project.tiers["tiers"]["medium"]["description"] == project.tiers["tiers"]["low"]["description"]  # merged
    assert project.clients["terminal"]["configuration"]["keys"]["TIMEOUT"] == "60"
    assert project.case_lines["turkish"] == [11, 21]


def test_a_persona_takes_over_what_it_does_not_name(complete: Path) -> None:
    personas = load(complete, keep=False).personas
    assert personas["party"]["brevity"] == "Tek kelime yeter."
    assert personas["party"]["style"] == ["Kısa kes.", "Argo serbest."]
    assert [principle["name"] for principle in personas["casual"]["principles"]] == ["source", "play"]
    assert [message["user"] for message in personas["casual"]["messages"]] == ["selam", "nbr"]
    assert personas["casual"]["parameters"] == personas["deniz"]["parameters"] | {"temperature": 0.8}


def test_the_complete_project_holds_every_field(complete: Path) -> None:
    written: dict[str, set[str]] = {kind: set() for kind in FILES}
    for path in (complete / "specs").rglob("*.yaml"):
        kind = next(kind for kind, known in FILES.items() if path.relative_to(complete / "specs").match(known.pattern))
        written[kind] |= {_dotted(steps) for steps in yaml_source.read(path, path.name).places}
    for kind in FILES:
        missing = {way for way, _ in reference.fields(kind) if not any(_like(way, seen) for seen in written[kind])}
        assert {way for way in missing if not _elsewhere(way, written[kind])} == set(), kind


def _dotted(steps: tuple[Any, ...]) -> str:
    return "".join("[]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _like(way: str, seen: str) -> bool:
    return re.fullmatch(re.escape(way).replace(r"\*", r"[^.\[\]]+"), seen) is not None


def _elsewhere(way: str, written: set[str]) -> bool:
    """Checks are the same in a suite's defaults and in its cases."""
    return way.startswith(("defaults[].", "cases[].checks[].")) and any(
        _like(prefix + way.split("[].")[-1], seen) for prefix in ("defaults[].", "cases[].checks[].") for seen in written
    )


# --- what is refused --------------------------------------------------------------------------------------------------------------


def test_there_are_at_least_sixty_kinds_of_mistakes() -> None:
    assert len(INVALID) >= 60


@pytest.mark.parametrize("name", INVALID)
def test_a_mistake_is_told_in_these_words(name: str, tmp_path: Path) -> None:
    if name == "file-names-collide" and _ignores_case(tmp_path):
        pytest.skip("on this file system the two names are one file")
    root = make(tmp_path / "project", SPECS / "invalid" / name)
    assert "\n".join(problems(root)) + "\n" == (SPECS / "invalid" / name / "expected.txt").read_text(encoding="utf-8")
    assert list((root / "build").iterdir()) == []


def _ignores_case(folder: Path) -> bool:
    (folder / "probe").touch()
    return (folder / "PROBE").exists()


def test_every_message_has_a_place_and_stands_in_one_line() -> None:
    for name in INVALID:
        for line in (SPECS / "invalid" / name / "expected.txt").read_text(encoding="utf-8").splitlines():
            assert re.match(r"(specs|templates)(/[^:]*)?(:[1-9][0-9]*:[1-9][0-9]*)?: \S", line), line
            assert len(line) < 420, line


def test_one_mistake_does_not_hide_another_in_another_file(minimal: Path) -> None:
    change(minimal, "specs/tiers.yaml", "[1, 2]", "[1, two]")
    change(minimal, "specs/recipes/tiny.yaml", "base: starter", "base: startr")
    change(minimal, "specs/models/starter.yaml", "chat_format: gemma", "chat_format: gema")
    files = [line.split(":")[0] for line in problems(minimal)]
    assert files == ["specs/models/starter.yaml", "specs/recipes/tiny.yaml", "specs/tiers.yaml"]


def test_a_file_with_a_mistake_is_still_there_for_those_that_name_it(minimal: Path) -> None:
    change(minimal, "specs/personas/deniz.yaml", "brevity: Kısa konuş.", "brevity: [Kısa konuş.")
    assert [line.split(":")[0] for line in problems(minimal)] == ["specs/personas/deniz.yaml"]


@pytest.mark.parametrize("written", ['"1e-4"', "1e-4", "0.0001", "'1E-4'", "+1e-4", "0.000_1"])
def test_a_number_may_be_written_as_text(minimal: Path, written: str) -> None:
    (minimal / "specs/recipes/tiny.yaml").open("a").write(f"  learning_rate: {written}\n")
    assert load(minimal).recipes["tiny"]["training"]["learning_rate"] == 1e-4


@pytest.mark.parametrize("written", ['"nan"', '"inf"', '"1e999"', '"1e"', '"٣"', '"0x10"', '""'])
def test_what_is_no_number_is_refused_in_quotes_as_well(minimal: Path, written: str) -> None:
    (minimal / "specs/recipes/tiny.yaml").open("a").write(f"  learning_rate: {written}\n")
    assert "training.learning_rate" in problems(minimal)[0]


def test_an_empty_value_is_never_a_default(minimal: Path) -> None:
    (minimal / "specs/recipes/tiny.yaml").open("a").write("lora:\n")
    assert problems(minimal) == ["specs/recipes/tiny.yaml:8:6: lora: nothing is given; write a mapping or take the key out"]


def test_null_is_kept_where_it_means_something(minimal: Path) -> None:
    (minimal / "specs/recipes/tiny.yaml").open("a").write("  max_steps: null\n")
    assert load(minimal).recipes["tiny"]["training"]["max_steps"] is None


# --- through doit -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A copy of the shipped project with something built in it."""
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("specs", "templates"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    (tmp_path / "generators").symlink_to(REPOSITORY / "generators")
    (tmp_path / "build").mkdir()
    assert doit(tmp_path, "list").returncode == 0
    return tmp_path


def doit(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-m", "doit", *arguments], cwd=root, env=environment, capture_output=True, text=True, timeout=60)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Of every file: when it was written, and what it holds."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if text in line)


@pytest.mark.parametrize("arguments", [(), ("list",), ("samples",)])
def test_doit_tells_all_mistakes_with_exit_code_3_and_touches_nothing(built: Path, arguments: tuple[str, ...]) -> None:
    change(built, "specs/recipes/jessy-mini.yaml", "batch_size: 8", "batchsize: 8")
    change(built, "specs/categories/turkish/slang.yaml", "tier: low", "tier: lo")
    before = contents(built / "build")
    done = doit(built, *arguments)
    line = line_of(built / "specs/recipes/jessy-mini.yaml", "batchsize")
    slang = line_of(built / "specs/categories/turkish/slang.yaml", "tier: lo")
    assert done.returncode == 3
    assert (done.stdout + done.stderr).splitlines() == [
        "ERROR: 2 problems in the specs; nothing was built.",
        f"specs/categories/turkish/slang.yaml:{slang}:7: tier: 'lo' is not one of low, medium, high; did you mean 'low'?",
        f"specs/recipes/jessy-mini.yaml:{line}:3: training.batchsize: unknown key; did you mean 'batch_size'?",
    ]
    assert contents(built / "build") == before


def test_doit_builds_nothing_with_a_template_that_uses_an_unknown_name(built: Path) -> None:
    (built / "templates/samples/chat.j2").write_text("{{ turn | messages_json }}\n")
    before = contents(built / "build")
    done = doit(built, "samples")
    assert done.returncode == 3 and "templates/samples/chat.j2:1:1: 'turn' is undefined" in done.stderr and "Traceback" not in done.stderr
    assert contents(built / "build") == before


# --- files that are none ----------------------------------------------------------------------------------------------------------


def test_a_link_that_leads_round_in_a_circle(minimal: Path) -> None:
    (minimal / "specs/personas/loop.yaml").symlink_to("loop.yaml")
    (minimal / "specs/personas/dangling.yaml").symlink_to("nowhere.yaml")
    assert problems(minimal) == [
        "specs/personas/dangling.yaml: cannot be read: No such file or directory",
        "specs/personas/loop.yaml: cannot be read: Too many levels of symbolic links",
    ]


def test_folders_that_lead_back_up_come_to_an_end(minimal: Path) -> None:
    (minimal / "specs/categories/turkish/up").symlink_to("../../..", target_is_directory=True)
    (minimal / "specs/self").symlink_to("self")
    (minimal / "templates/again").symlink_to(".", target_is_directory=True)
    assert load(minimal).personas.keys() == {"deniz"}
    shutil.copy(minimal / "specs/personas/deniz.yaml", minimal / "specs/recipes/up.yaml")
    (minimal / "specs/recipes/loop").symlink_to(".", target_is_directory=True)
    assert any("specs/recipes/loop/up.yaml: nothing reads this file" in line for line in problems(minimal))


def test_a_pipe_in_place_of_a_file_does_not_block(minimal: Path) -> None:
    os.mkfifo(minimal / "specs/personas/pipe.yaml")
    assert problems(minimal) == ["specs/personas/pipe.yaml: is not a regular file"]


def test_a_file_that_may_not_be_read(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name in ("deniz.yaml", "system.j2"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert problems(minimal) == [
        "specs/personas/deniz.yaml: cannot be read: Permission denied",
        "templates/persona/system.j2: cannot be read: Permission denied",
    ]


def test_a_file_of_an_absurd_size(minimal: Path) -> None:
    with (minimal / "specs/personas/deniz.yaml").open("ab") as file:
        file.truncate(2**31)
    assert problems(minimal) == ["specs/personas/deniz.yaml: is 2147 MB large; a spec may take 16 MB, so split it up"]


def test_hidden_files_and_notes_are_nobodys_specs(minimal: Path) -> None:
    (minimal / "specs/personas/.#deniz.yaml").symlink_to("someone@machine.123")
    (minimal / "specs/personas/.deniz.yaml.swp").write_bytes(b"\xff")
    (minimal / "specs/README.md").write_text("# Notes\n")
    (minimal / "specs/personas/deniz.yaml~").write_text("old: [")
    load(minimal)


def test_a_project_without_specs(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["specs: is missing; a project keeps its specs in this folder beside dodo.py"]
    (tmp_path / "specs").write_text("")
    assert problems(tmp_path)[0] == "specs: is a file; a folder is expected here"


def test_a_folder_in_place_of_a_template(minimal: Path) -> None:
    (minimal / "templates/samples/chat.j2").unlink()
    (minimal / "templates/samples/chat.j2").mkdir()
    assert problems(minimal) == ["templates/samples/chat.j2: is a directory; a file is expected here"]


# --- the cache --------------------------------------------------------------------------------------------------------------------


def cached(root: Path) -> Path:
    return root / "build" / ".cache" / "specs.pickle"


def test_what_was_read_is_not_read_again(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(minimal)
    monkeypatch.setattr(yaml_source, "parse", lambda *_: pytest.fail("a file is parsed"))
    assert load(minimal) == first


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:200],
    "changed": lambda data: data[:150] + b"\0" + data[151:],
    "empty": lambda data: b"",
    "other": lambda data: b"x" * 5000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_not_believed(minimal: Path, damage: Callable[[bytes], bytes]) -> None:
    first = load(minimal)
    cached(minimal).write_bytes(damage(cached(minimal).read_bytes()))
    assert load(minimal) == first


def test_nothing_is_cached_when_the_caller_keeps_nothing(minimal: Path) -> None:
    load(minimal, keep=False)
    assert list((minimal / "build").iterdir()) == []


def test_a_build_folder_that_cannot_be_written_does_not_matter(minimal: Path) -> None:
    (minimal / "build").rmdir()
    (minimal / "build").write_text("in the way")
    assert isinstance(load(minimal), Project)


def test_a_template_that_breaks_is_found_though_no_spec_changed(minimal: Path) -> None:
    load(minimal)
    (minimal / "templates/persona/system.j2").write_text("{{ persona.identiy }}\n")
    said = "there is no 'identiy' here; did you mean 'identity'? (rendering the system prompt of the persona deniz)"
    assert problems(minimal) == [f"templates/persona/system.j2:1:1: {said}"]


def test_a_cache_that_holds_needs_neither_yaml_nor_cerberus(minimal: Path) -> None:
    load(minimal)
    script = (
        "import sys; from pathlib import Path; from generators.specs.project import load; load(Path(sys.argv[1])); "
        "print([name for name in ('ruamel.yaml', 'cerberus', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(minimal)], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- YAML -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("2025-12-07", "2025-12-07"),
        ("12", 12),
        ("-3", -3),
        ("+7", 7),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("6.", 6.0),
        ("12:30", "12:30"),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("- 1", [1]),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("-", [None]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    document = parse(f"key: {text}\n" if not text.startswith("-") or text == "-3" else f"key:\n  {text}\n", "x.yaml")
    assert document.problems == [] and document.value == {"key": value} and type(document.value["key"]) is type(value)


def test_shipped_files_read_as_ruamel_reads_them() -> None:
    from ruamel.yaml import YAML

    for path in sorted((REPOSITORY / "specs").rglob("*.yaml")):
        assert yaml_source.read(path, path.name).value == YAML(typ="safe").load(path), path


def test_the_pure_parser_gives_the_same(monkeypatch: pytest.MonkeyPatch, complete: Path) -> None:
    paths = sorted((complete / "specs").rglob("*.yaml"))
    fast = [yaml_source.read(path, path.name) for path in paths]
    monkeypatch.setitem(sys.modules, "_ruamel_yaml", None)
    slow = [yaml_source.read(path, path.name) for path in paths]
    assert [(document.value, document.places, document.key_places) for document in slow] == [
        (document.value, document.places, document.key_places) for document in fast
    ]


def test_keys_are_text_as_they_are_written() -> None:
    assert parse("on: 1\n2: 2\nnull: 3\n1e3: 4\n", "x.yaml").value == {"on": 1, "2": 2, "null": 3, "1e3": 4}


def test_every_value_and_key_knows_its_place() -> None:
    document = parse("a:\n  b: [1, {c: x}]\nd: |\n  text\n", "x.yaml")
    assert document.places[("a", "b", 1, "c")] == (2, 14) == document.place(("a", "b", 1, "c"))
    assert document.key_places[("a", "b", 1, "c")] == (2, 11) and document.places[("d",)] == (3, 4)
    assert document.place(("a", "x")) is None and document.problem(("a", "x", 3), "no").column == 3


def test_an_alias_stands_where_it_is_written_and_the_message_says_who_uses_it() -> None:
    document = parse("one: &one {a: 1}\ntwo: *one\nthree:\n  <<: *one\n  b: 2\n", "x.yaml")
    assert document.value == {"one": {"a": 1}, "two": {"a": 1}, "three": {"a": 1, "b": 2}}
    assert str(document.problem(("two", "a"), "wrong")) == "x.yaml:1:15: wrong (used by the alias in line 2)"
    assert str(document.problem(("three", "a"), "wrong")) == "x.yaml:1:15: wrong (used by the alias in line 4)"
    assert str(document.problem(("one", "a"), "wrong")) == "x.yaml:1:15: wrong"


def test_the_first_of_several_merged_mappings_wins_and_own_keys_win_over_all() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc:\n  z: 3\n  <<: [*a, *b]\n"
    assert parse(text, "x.yaml").value["c"] == {"x": 1, "y": 1, "z": 3}


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 50_000, "{a: " * 50_000, "? " * 50_000, "a: " + "[" * 40 + "]" * 40])
def test_absurd_nesting_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    assert any("nests deeper" in problem.message or "not valid" in problem.message for problem in parse(text, "x.yaml").problems)
    assert time.process_time() - started < 2


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)]
    started = time.process_time()
    document = parse("\n".join(lines), "x.yaml")
    assert "250,000 values" in document.problems[0].message and time.process_time() - started < 2


def test_merge_keys_that_multiply_are_refused_at_once() -> None:
    lines = ["a: &a {" + ", ".join(f"k{i}: [x, x, x, x]" for i in range(200)) + "}"] + [f"m{i}: {{<<: *a}}" for i in range(2000)]
    assert "250,000 values" in parse("\n".join(lines), "x.yaml").problems[0].message


# --- schemas ----------------------------------------------------------------------------------------------------------------------


def every_rule_set(fields: dict[str, Any], way: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, rules in fields.items():
        yield from _rule_sets(rules, f"{way}.{name}".lstrip("."))


def _rule_sets(rules: dict[str, Any], way: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield way, rules
    for inner in ("keysrules", "valuesrules"):
        if inner in rules:
            yield from _rule_sets(rules[inner], f"{way}.*")
    if "schema" in rules and rules["type"] == "list":
        yield from _rule_sets(rules["schema"], f"{way}[]")
    elif "schema" in rules:
        yield from every_rule_set(rules["schema"], way)


@pytest.mark.parametrize("kind", FILES)
def test_a_schema_is_one_that_cerberus_takes(kind: str) -> None:
    import copy

    validate._SpecValidator(copy.deepcopy(FILES[kind].schema))


@pytest.mark.parametrize("kind", FILES)
def test_every_field_has_help(kind: str) -> None:
    for way, rules in every_rule_set(FILES[kind].schema):
        said = rules.get("meta", {}).get("help", "")
        assert len(said) > 3 and said[0] == said[0].upper() and said.endswith("."), way
        if "regex" in rules:
            assert rules["meta"].get("form"), way


@pytest.mark.parametrize("kind", FILES)
def test_the_quick_check_knows_every_rule_of_the_schemas(kind: str) -> None:
    for way, rules in every_rule_set(FILES[kind].schema):
        assert rules.keys() <= validate.RULES, way


def test_checks_have_the_names_that_the_evaluation_knows() -> None:
    from generators.evaluate.checks import CHECKS

    assert FILES["suite"].schema["defaults"]["schema"]["schema"].keys() == CHECKS.keys()


def test_lists_of_names_agree_with_the_stages_that_use_them() -> None:
    from generators import base_sources, modelfile_reader, quantise

    assert QUANTISATIONS == quantise.QUANTISATIONS
    assert set(SOURCES) == set(base_sources._LOOK)
    assert not set(OLLAMA_PARAMETERS) & set(modelfile_reader.IGNORED_PARAMETERS)


# --- editors and the reference page -----------------------------------------------------------------------------------------------


def spec_files(root: Path) -> list[tuple[str, Path]]:
    return [(kind, path) for kind, known in FILES.items() for path in sorted((root / "specs").glob(known.pattern))]


@pytest.fixture(scope="session")
def validators() -> dict[str, Any]:
    import jsonschema
    for kind in FILES:
        jsonschema.Draft7Validator.check_schema(json_schema.json_schema(kind))
    return {kind: jsonschema.Draft7Validator(json_schema.json_schema(kind)) for kind in FILES}


def test_shipped_and_complete_specs_keep_the_json_schemas(validators: dict[str, Any], complete: Path) -> None:
    for root in (REPOSITORY, SPECS / "minimal", complete):
        for kind, path in spec_files(root):
            document = yaml_source.read(path, path.name)
            value, _ = validate.checked(document.value, document, kind, partial="extends" in document.value)  # numbers and defaults read
            assert [error.message for error in validators[kind].iter_errors(value)] == [], path


OF_ONE_FIELD = [name for name in INVALID if name.startswith(("key-", "value-", "suite-check-type", "suite-unknown", "slot-bad"))]


# Python's `$` matches before a line break at the end, that of an editor does not.
@pytest.mark.parametrize("name", [name for name in OF_ONE_FIELD if name != "value-pattern-trailing-newline"])
def test_the_json_schemas_refuse_what_the_specs_refuse(name: str, validators: dict[str, Any]) -> None:
    documents = [(kind, yaml_source.read(path, path.name)) for kind, path in spec_files(SPECS / "invalid" / name)]
    assert any(list(validators[kind].iter_errors(document.value)) or document.problems for kind, document in documents)


def test_defaults_in_the_json_schemas_keep_them(validators: dict[str, Any]) -> None:
    for kind in FILES:
        for way, rules in _json_fields(json_schema.json_schema(kind)):
            if "default" in rules:
                assert not list(type(validators[kind])(rules).iter_errors(rules["default"])), (kind, way)


def test_a_persona_that_extends_another_may_leave_out_what_is_required(validators: dict[str, Any]) -> None:
    assert not list(validators["persona"].iter_errors({"extends": "jessy"}))
    assert list(validators["persona"].iter_errors({"display_name": "Deniz"}))


def test_the_json_schemas_in_the_repository_are_current() -> None:
    folder = REPOSITORY / json_schema.FOLDER
    assert {path.name for path in folder.iterdir()} == {f"{kind}.json" for kind in FILES}
    for kind in FILES:
        assert json.loads((folder / f"{kind}.json").read_text(encoding="utf-8")) == json_schema.json_schema(kind), "run: doit schemas"


def test_the_reference_page_in_the_repository_is_current() -> None:
    assert (REPOSITORY / "docs/specs.md").read_text(encoding="utf-8") == reference.reference(), "run: doit schemas"


def test_writing_them_again_changes_nothing(tmp_path: Path) -> None:
    paths = json_schema.write_schemas(tmp_path)
    reference.write_reference(tmp_path / "specs.md")
    before = contents(tmp_path)
    assert json_schema.write_schemas(tmp_path) == paths
    reference.write_reference(tmp_path / "specs.md")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", FILES)
def test_every_field_is_on_the_reference_page_with_its_help(kind: str) -> None:
    page = reference.reference()
    section = page.split(f"`specs/{FILES[kind].pattern}`\n", 1)[1].split("\n## ", 1)[0]
    for way, rules in reference.fields(kind):
        row = next(line for line in section.split("\n") if line.startswith(f"| `{way}` |"))
        assert rules["meta"]["help"].replace("|", "\\|") in row
        assert ("required" in row.split(" | ")[2]) == bool(rules.get("required")), way


@pytest.mark.parametrize("kind", FILES)
def test_reference_page_json_schema_and_cerberus_know_the_same_fields(kind: str) -> None:
    in_page = {way for way, _ in reference.fields(kind)}
    in_schema = {way.lstrip(".") for way, _ in _json_fields(json_schema.json_schema(kind))}
    in_cerberus = {way for way, rules in every_rule_set(FILES[kind].schema) if not way.endswith("[]")}
    assert in_page == in_schema == in_cerberus


def _json_fields(schema: dict[str, Any], way: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    inside = dict(schema.get("properties", {}))
    if isinstance(schema.get("additionalProperties"), dict):
        inside["*"] = schema["additionalProperties"]
    for name, inner in inside.items():
        yield f"{way}.{name}", inner
        yield from _json_fields(inner, f"{way}.{name}")
    if "items" in schema:
        yield from _json_fields(schema["items"], f"{way}[]")


def test_every_shipped_spec_names_its_json_schema_in_its_first_line() -> None:
    for _, path in spec_files(REPOSITORY):
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        assert first == json_schema.language_server_line(path.relative_to(REPOSITORY).as_posix())
        assert (path.parent / first.split("=", 1)[1]).resolve().is_file()


def test_a_path_where_no_spec_is_kept_has_no_json_schema() -> None:
    with pytest.raises(ValueError, match="is no spec file"):
        json_schema.language_server_line("specs/categories/greetings.yaml")


def test_templates_on_the_reference_page_are_given_what_it_says() -> None:
    """The names in the page are those that a template can use, and it can use no other."""
    from jinja2 import UndefinedError

    from generators.templates import render_text

    for what, _, names in reference._TEMPLATES:
        assert len(names) == len(set(names)) and what
        with pytest.raises(UndefinedError):
            render_text("{{ nobody_gives_this }}", **dict.fromkeys(names, "x"))


# --- Document as others use it ----------------------------------------------------------------------------------------------------


def test_a_document_without_a_value_points_to_its_file() -> None:
    document = Document("x.yaml")
    assert str(document.problem(("a",), "wrong")) == "x.yaml:1:1: wrong" and document.places == {}
