"""How fast samples are rendered: 200 categories, a million samples, beside plain Jinja. Run: python tests/benchmarks/samples.py

Each contender runs in a process of its own, on one core. `direct` is what `doit samples` does; `jinja` renders the texts and the sample
template of every sample with compiled Jinja templates and serialises the row, as one would without knowing what the template writes.
`doit -n 1` and `doit -n 2` render the same in a project of 200 category files. Speeds are samples a second of processor time and of wall
time; memory is the peak of the process above what it had after its imports.
Writes build/benchmarks/samples.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

CATEGORIES, IN_EACH = 200, 5000
CATEGORIES_OF_JINJA = 4  # its speed does not depend on their number
CITIES = ["Ankara", "İzmir", "Muş", "Sinop", "Van", "Ağrı", "Kars", "Ordu", "Bursa", "Edirne", "Muğla", "Iğdır"]
ADDRESSES = ["kanka", "abi", "hocam", "dostum", "ustam"]
DAYS = ["pazartesi", "salı", "çarşamba", "perşembe", "cuma", "cumartesi", "pazar"]
TIERS = {"low": {"iterations": [1, 2], "response_budget_s": 5}}


def category(number: int, count: int) -> dict[str, Any]:
    """Ten examples with four slots and Turkish suffixes, about as long as those of the corpus."""
    examples = [
        {
            "user": "{{ slots.city | tr_locative }} {{ slots.day }} günü"
            f" {number + example} kişilik yer var mı "
            "{{ slots.who }}?",
            "jessy": (
                "{{ slots.city | tr_dative }} {{ slots.day }} günü gidiyorsan acele et {{ slots.who }}, {{ slots.hour }} gibi kalabalık "
                f'basıyor. Bence {number * 3 + example} kişilik yeri bugünden ayırt, sonra "keşke" deme.'
            ),
        }
        for example in range(10)
    ]
    hours = [f"{hour}.{minute:02}" for hour in range(8, 24) for minute in range(0, 60, 2)]
    slots = {"city": CITIES, "day": DAYS, "who": ADDRESSES, "hour": hours}
    return {
        "description": "Rendered for the benchmark.",
        "language": "tr",
        "tier": "low",
        "iterations": 1,
        "layers": ["C04"],
        "slots": slots,
        "template": "samples/chat.j2",
        "quality": {"words": {"min": 1, "max": 60}},
        "examples": examples,
        "count": count,
    }


def context(number: int) -> dict[str, Any]:
    name = f"turkish/generated{number:03}"
    lines = list(range(10, 110, 10))
    return {"name": name, "file": f"specs/categories/{name}.yaml", "lines": lines, "persona": "jessy", "tiers": TIERS, "seed": 1}


def direct(categories: int, in_each: int, folder: Path) -> None:
    from generators.samples.render import write_samples

    for number in range(categories):
        write_samples(category(number, in_each), context(number), ROOT / "templates", folder / f"{number}.jsonl")


def jinja(categories: int, in_each: int, folder: Path) -> None:
    from generators.files import write_jsonl

    for number in range(categories):
        write_jsonl(folder / f"{number}.jsonl", _jinja_rows(category(number, in_each), context(number)))


def _jinja_rows(spec: dict[str, Any], of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    import hashlib

    from generators.samples.expand import expand, prepare_example
    from generators.templates import environment

    template = environment(ROOT / "templates").get_template(spec["template"])
    compiled = [tuple(environment(None).from_string(example[who]) for who in ("user", "jessy")) for example in spec["examples"]]
    prepared = [prepare_example(example, spec) for example in spec["examples"]]
    for index, positions, _ in expand(spec, prepared, of["seed"]):
        slots = {name: spec["slots"][name][position] for name, position in zip(prepared[index].names, positions, strict=False)}
        user, jessy = (text.render(slots=slots) for text in compiled[index])
        messages = json.loads(template.render(turns=[{"user": user, "jessy": jessy}]))
        digest = hashlib.blake2b(json.dumps(messages, ensure_ascii=False)[1:-1].encode(), digest_size=8).hexdigest()
        group, name = of["name"].split("/")
        yield {
            "messages": messages,
            "metadata": {
                "id": f"{of['name']}/{digest}",
                "group": group,
                "category": name,
                "tier": spec["tier"],
                "iterations": spec["iterations"],
                "language": spec["language"],
                "persona": of["persona"],
                "response_budget_s": TIERS[spec["tier"]]["response_budget_s"],
                "source": f"{of['file']}:{of['lines'][index]}",
                "template": spec["template"],
                "layers": spec["layers"],
            },
        }


def measure(contender: str, categories: int, in_each: int, folder: Path) -> dict[str, float]:
    """In this process: seconds and the growth of its peak memory."""
    from generators.samples import render  # noqa: F401  what every run imports
    from generators.templates import environment

    environment(ROOT / "templates").get_template("samples/chat.j2")
    before = _peak()
    started, processor = time.perf_counter(), time.process_time()
    {"direct": direct, "jinja": jinja}[contender](categories, in_each, folder)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    samples = categories * in_each
    return {
        "samples": samples,
        "categories": categories,
        "seconds": round(seconds, 3),
        "processor_seconds": round(processor, 3),
        "samples_per_second": round(samples / seconds),
        "samples_per_processor_second": round(samples / processor),
        "peak_memory_growth_mb": round((_peak() - before) / 1e6, 1),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
    }


def _peak() -> int:
    """Bytes; getrusage counts kilobytes on Linux and bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_a_process(contender: str, categories: int, in_each: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--contender", contender, "--folder", folder]
        command += ["--categories", str(categories), "--in-each", str(in_each)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def through_doit(categories: int, in_each: int, processes: int) -> dict[str, float]:
    """`doit -n PROCESSES samples` in a project of so many category files, nothing rendered before; and `doit samples` again."""
    from ruamel.yaml import YAML

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "tests" / "specs" / "minimal" / "specs", root / "specs")
        shutil.copytree(ROOT / "templates", root / "templates")
        for name in ("dodo.py", "pyproject.toml"):
            shutil.copy(ROOT / name, root / name)
        (root / "build").mkdir()
        for number in range(categories):
            with (root / "specs" / "categories" / "turkish" / f"generated{number:03}.yaml").open("w", encoding="utf-8") as out:
                YAML(typ="safe").dump(category(number, in_each), out)
        doit = [sys.executable, "-m", "doit"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([*doit, "list"], cwd=root, env=environment, check=True, capture_output=True)  # reads and checks the specs
        os.sync()  # the one before has written hundreds of megabytes, which the disk is still busy with
        started = time.perf_counter()
        subprocess.run([*doit, "-n", str(processes), "samples"], cwd=root, env=environment, check=True, capture_output=True)
        seconds, again = time.perf_counter() - started, time.perf_counter()
        subprocess.run([*doit, "samples"], cwd=root, env=environment, check=True)
        samples = sum(1 for path in (root / "build" / "samples").rglob("*.jsonl") for _ in path.open("rb"))
        return {
            "samples": samples,
            "categories": categories,
            "seconds": round(seconds, 3),
            "samples_per_second": round(samples / seconds),
            "nothing_to_do_seconds": round(time.perf_counter() - again, 3),
        }


def same_bytes() -> bool:
    """Whether both contenders write the same."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        direct(3, 500, Path(one))
        jinja(3, 500, Path(other))
        return all(path.read_bytes() == (Path(other) / path.name).read_bytes() for path in Path(one).iterdir())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--contender", choices=["direct", "jinja"])
    arguments.add_argument("--categories", type=int, default=CATEGORIES)
    arguments.add_argument("--in-each", type=int, default=IN_EACH)
    arguments.add_argument("--folder", type=Path)
    asked = arguments.parse_args()
    if asked.contender:
        sys.stdout.write(json.dumps(measure(asked.contender, asked.categories, asked.in_each, asked.folder)))
        return
    figures = {
        "direct": in_a_process("direct", asked.categories, asked.in_each),
        "direct, a tenth of each": in_a_process("direct", asked.categories, asked.in_each // 10),
        "jinja": in_a_process("jinja", min(CATEGORIES_OF_JINJA, asked.categories), asked.in_each),
    }
    speed = {name: found["samples_per_processor_second"] for name, found in figures.items()}
    figures |= {f"doit -n {processes}": through_doit(asked.categories, asked.in_each, processes) for processes in (1, 2)}
    result = {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("jinja2",)}},
        "same_bytes": same_bytes(),
        "figures": figures,
        "ratios": {
            "direct_over_jinja_speed": round(speed["direct"] / speed["jinja"], 2),
            "peak_memory_of_ten_times_the_samples_mb": round(
                figures["direct"]["peak_memory_growth_mb"] - figures["direct, a tenth of each"]["peak_memory_growth_mb"], 1
            ),
            "two_processes_over_one": round(figures["doit -n 1"]["seconds"] / figures["doit -n 2"]["seconds"], 2),
        },
    }
    target = ROOT / "build" / "benchmarks" / "samples.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        names = [line.split(":", 1)[1].strip() for line in listing.read_text().splitlines() if line.startswith("model name")]
        return names[0] if names else platform.machine()
    tool = shutil.which("sysctl")
    if tool is None:
        return platform.machine()
    return subprocess.run([tool, "-n", "machdep.cpu.brand_string"], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
