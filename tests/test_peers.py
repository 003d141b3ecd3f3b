"""Several processes train one adapter: the same curve as one, and a clear end with a checkpoint when one of them dies.

The processes are real, started by mlx.launch on this machine and joined by MLX's ring over TCP on loopback.
"""

from __future__ import annotations

import json
import random
import re
import socket
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tiny_models import write_hf
from training_jobs import LORA, SETTINGS, Silent, random_rows

from generators.device import load_mlx
from generators.errors import UserError
from generators.paths import RecipePaths
from generators.train import data, launch, member, train
from generators.train.peers import ALONE, Peers

mx = load_mlx()
TOGETHER = ["127.0.0.1", "127.0.0.1"]
WORDS = "naber kanka hava çay öğleden sonra bugün rust ownership borrow compile valla iyidir teşekkürler".split()


# --- shares and sums


@dataclass
class PlaceWithoutPeers:
    """Stands for a group of mx.distributed in what needs no communication."""

    place: int
    places: int

    def rank(self) -> int:
        return self.place

    def size(self) -> int:
        return self.places


@settings(deadline=None)
@given(rows=st.integers(1, 9), processes=st.integers(1, 5), seed=st.integers(0, 20))
def test_every_row_of_a_batch_is_the_share_of_one_process(rows: int, processes: int, seed: int) -> None:
    batch = data.group_rows(random_rows(rows, 40, seed))
    shares = [Peers(PlaceWithoutPeers(rank, processes)).share_of(batch) for rank in range(processes)]
    taken = [[row.id for group in share for row in group.rows] for share in shares]
    assert sorted(id for ids in taken for id in ids) == sorted(row.id for group in batch for row in group.rows)
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_a_process_alone_has_all_of_it_and_sums_nothing() -> None:
    batch, gradients = data.group_rows(random_rows(3, 40)), {"a": mx.ones(2)}
    assert ALONE.first and ALONE.share_of(batch) is batch
    assert ALONE.sums([1.5], gradients, gradients) == ([1.5], gradients)
    assert ALONE.told("text") == "text" and ALONE.copies(gradients) is gradients


# --- which machines


@pytest.mark.parametrize(("hosts", "several"), [([], False), (["a"], False), (["a", "b"], True), (["cluster.json"], True)])
def test_one_machine_is_no_group(hosts: list[str], several: bool) -> None:
    assert launch.on_several(hosts) is several


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        (["127.0.0.1", "no-such-machine.invalid"], "training.hosts: no machine 'no-such-machine.invalid' is known here"),
        (["127.0.0.1", "192.0.2.7"], "127.0.0.1 is this machine's address for itself, where the others cannot reach it; write its address"),
        (["missing.json"], "missing.json is no list of machines.*mlx.distributed_config writes one"),
    ],
)
def test_machines_that_cannot_be_a_group_are_refused_before_anything_starts(hosts: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        launch.run({}, hosts, None, tmp_path, Silent())
    assert not list(tmp_path.iterdir())


def test_the_first_machine_needs_no_ssh_and_a_file_of_machines_is_taken_as_it_is(tmp_path: Path) -> None:
    written = {"backend": "jaccl", "envs": ["A=1"], "hosts": [{"ssh": "one", "ips": ["192.0.2.1"], "rdma": [None, "en2"]},
               {"ssh": "two", "ips": [], "rdma": ["en2", None]}]}  # fmt: skip
    (tmp_path / "hosts.json").write_text(json.dumps(written))
    found = launch._with_this_one_first(launch._machines([str(tmp_path / "hosts.json")]))
    assert [host["ssh"] for host in found["hosts"]] == ["127.0.0.1", "two"]
    assert (found["backend"], found["envs"], found["hosts"][1]) == ("jaccl", ["A=1"], written["hosts"][1])


@dataclass
class TellingWithoutPeers:
    """Stands for a group on machines that are not alike: what each says is made up."""

    said: list[dict[str, str]]

    def gather(self, text: str) -> list[str]:
        return [text, *map(json.dumps, self.said)]


@pytest.mark.parametrize(
    ("problem", "other", "told"),
    [
        ("", {"host": "two", "problem": "the model in x cannot be loaded"}, "on two: the model in x cannot be loaded"),
        ("no samples", {"host": "two", "problem": ""}, "on .*: no samples"),
        ("", {"host": "two", "problem": "", "version of MLX": "0.1, 0.2"}, "two has another version of MLX than .*; make them alike"),
    ],
)
def test_machines_that_would_not_train_the_same_do_not_begin(problem: str, other: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        member._agree(TellingWithoutPeers([other]), problem, tmp_path)


def test_machines_that_are_alike_begin(tmp_path: Path) -> None:
    alike = member._what_must_be_alike(tmp_path)
    member._agree(TellingWithoutPeers([{"host": "two", "problem": "", **alike}]), "", tmp_path)
    assert len(set(alike.values())) == 3


# --- two processes

STEPS = 160  # so many that a busy machine has time to kill a process meanwhile; 4 an epoch


def _frames(folder: Path) -> Path:
    chance = random.Random(0)

    def row(index: int) -> dict[str, Any]:
        said = [" ".join(chance.choices(WORDS, k=chance.randint(2, 12))) for _ in range(2)]
        messages = [{"role": role, "content": content} for role, content in zip(("user", "assistant"), said, strict=True)]
        return {"messages": messages, "metadata": {"id": f"row/{index}", "source": f"x.yaml:{index}", "framing": "none", "frame": 0}}

    folder.mkdir()
    for split, count in (("train", 13), ("valid", 5)):  # the last batch of 1 is the share of one process only
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row(index)) + "\n" for index in range(count)))
    return folder


def _processes(rank: int) -> list[psutil.Process]:
    """Of the group that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "generators.train.member" in process.cmdline() and process.environ().get("MLX_RANK") == str(rank):
                found.append(process)
        except psutil.Error:
            continue  # it has just ended
    return found


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Runs:
    """The same training alone, and by two processes of which the second is killed after some steps and which then go on."""

    folder: Path
    lost: UserError
    checkpoints: list[str]
    left_running: int
    summaries: dict[str, dict[str, Any]]
    lines: list[str]

    @property
    def step_of_the_loss(self) -> int:
        found = re.search(r"the checkpoint of step (\d+) is written", str(self.lost))
        assert found, self.lost
        return int(found[1])

    def curve(self, name: str) -> list[tuple[int, float]]:
        lines = [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line.get("loss") or line["validation_loss"]) for line in lines]

    def adapter(self, name: str) -> dict[str, Any]:
        return dict(mx.load(str(self.folder / name / "adapter" / "adapters.safetensors")))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("peers")
    base, frames = write_hf(folder / "base", "gemma3"), _frames(folder / "frames")
    chat_format = YAML(typ="safe").load(Path(__file__).parents[1] / "specs" / "chat_formats" / "gemma.yaml")

    def run(name: str, hosts: list[str], watcher: Silent) -> dict[str, Any]:
        training = SETTINGS | {"epochs": STEPS // 4, "learning_rate": 1e-4, "log_every": 1, "checkpoint_every": 2, "hosts": hosts}
        training |= {"backend": "ring"}
        recipe = {"lora": LORA, "training": training, "framings": {"each_epoch": "one"}}
        return train(recipe, base, frames, chat_format, 512, 3, RecipePaths(folder / name), watcher)

    second: Future[psutil.Process] = Future()

    def look_for_the_second() -> None:
        """Before it trains: a tiny run is over in less time than a look at all processes takes."""
        deadline = time.monotonic() + 60
        while not second.done() and time.monotonic() < deadline:
            if found := _processes(1):
                second.set_result(found[0])
            time.sleep(0.01)

    def kill_the_second(step: int) -> None:
        with suppress(psutil.NoSuchProcess):  # it was killed at the step before
            second.result(timeout=60).kill()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", partial(launch.run, port=_free_port()))
        Thread(target=look_for_the_second, daemon=True).start()
        with pytest.raises(UserError) as lost:
            run("together", TOGETHER, Silent(kill_the_second))
        checkpoints = sorted(path.name for path in (folder / "together" / "checkpoints").glob("*"))
        left = len(_processes(0) + _processes(1))
        watcher = Silent()
        together = run("together", TOGETHER, watcher)
    return Runs(folder, lost.value, checkpoints, left, {"together": together, "alone": run("alone", [], Silent())}, watcher.lines)


def test_a_process_that_dies_ends_the_run_with_its_name_and_a_checkpoint(runs: Runs) -> None:
    said = str(runs.lost)
    step = runs.step_of_the_loss
    assert said.startswith("the process 1 on 127.0.0.1 exited with code -9: another machine of the group does not answer any more")
    assert said.endswith(f"the checkpoint of step {step} is written, and the next doit goes on from there")
    assert 1 <= step < STEPS and runs.checkpoints[-1] == f"step-{step:06d}"
    assert runs.left_running == 0


def test_the_next_run_says_what_it_launches_and_goes_on_from_there(runs: Runs) -> None:
    assert runs.lines[0] == (
        "training in 2 processes, on 127.0.0.1, 127.0.0.1, through mlx.launch with the transport ring; what is made is written here"
    )
    assert f"resuming at step {runs.step_of_the_loss} of {STEPS} (epoch {1 + runs.step_of_the_loss // 4})" in runs.lines
    assert any(line.endswith("; 2 processes together") for line in runs.lines)


def test_two_processes_have_the_loss_curve_of_one(runs: Runs) -> None:
    together, alone = runs.curve("together"), runs.curve("alone")
    assert [step for step, _ in together] == [step for step, _ in alone]
    assert len(together) == STEPS + 1 + STEPS // 3 + 1  # steps and validations
    for (step, one), (_, other) in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-5), step


def test_two_processes_make_the_adapter_of_one(runs: Runs) -> None:
    together, alone = runs.adapter("together"), runs.adapter("alone")
    assert set(together) == set(alone)
    for name, array in together.items():
        assert mx.allclose(array, alone[name], rtol=1e-3, atol=1e-5), name


def test_the_summary_counts_what_all_processes_did(runs: Runs) -> None:
    together, alone = runs.summaries["together"], runs.summaries["alone"]
    same = ("steps", "planned_steps", "epochs", "stop_reason", "best_step")
    assert {key: together[key] for key in same} == {key: alone[key] for key in same}
    written = json.loads((runs.folder / "together" / "training.json").read_text())
    assert written == together
