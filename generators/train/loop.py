"""The training run: steps, validations, early stopping, checkpoints, metrics; resumable at any point with the same result.

Everything random is a function of the seed and of the step or epoch, so nothing about randomness has to be stored. Where several processes
train together (`peers`), each computes its share of every batch, and all that is decided on is summed over them first.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from generators.device import current, load_mlx, slow_blas_warning
from generators.errors import Diverged, UserError
from generators.files import human_bytes, human_seconds
from generators.train import checkpoint as checkpoints
from generators.train import data, lora, optimise
from generators.train.accelerator import Meter
from generators.train.checkpoint import Checkpoint, State
from generators.train.data import Batch, Row
from generators.train.engine import Engine, choose_engine
from generators.train.peers import ALONE, PeerLost, Peers
from generators.train.vector import Vector

mx = load_mlx()


class Watcher(Protocol):
    """Who is told how the run goes. `metrics` has the fields of a line of metrics.jsonl."""

    def say(self, line: str) -> None: ...
    def step(self, step: int, steps: int, loss: float) -> None: ...
    def measured(self, metrics: dict[str, Any]) -> None: ...


class Interrupted(UserError):
    """The run was asked to stop; it has written a checkpoint. exit_code: 128 and the number of the signal, as shells have it."""

    def __init__(self, number: int, step: int):
        super().__init__(f"training was interrupted at step {step}; the checkpoint is written, and the next doit goes on from there")
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Job:
    """One run. settings: the recipe's `training` block. each_epoch: of its framings. stamp: hash of all that determines the result.
    peers: who trains together; only the first of them reads and writes files."""

    model: Any
    base: str
    lora: dict[str, Any]
    settings: dict[str, Any]
    each_epoch: str
    train: Sequence[Row]
    valid: Sequence[Row]
    seed: int
    stamp: str
    checkpoints: Path
    metrics: Path
    adapter: Path
    peers: Peers = ALONE


def run(job: Job, watcher: Watcher) -> dict[str, Any]:
    """Train `job.model` in place and write the best adapter. Returns the summary of the run.

    Raises Interrupted on SIGINT or SIGTERM, PeerLost when another process of the group is gone, and UserError when the loss is no longer a
    number.
    """
    trainer = _Trainer(job, watcher)
    with _signals() as asked_to_stop, _at_continue(trainer.note_pause):
        trainer.resume()
        try:
            trainer.train(asked_to_stop)
        except _Stop as stop:
            trainer.save_checkpoint()
            raise Interrupted(stop.number, trainer.state.step) from None
        except PeerLost as lost:
            if not trainer.peers.first:
                raise
            trainer.save_checkpoint()
            raise PeerLost(
                f"{lost}; the checkpoint of step {trainer.state.step} is written, and the next doit goes on from there"
            ) from lost
    return trainer.finish()


_RANKS_APART = 7_919  # seeds: what one process drops out says nothing about what another does


class _Stop(Exception):
    def __init__(self, number: int):
        self.number = number


def _as_mlx(arrays: dict[str, Any]) -> dict[str, Any]:
    """The CPU's engine gives numpy arrays."""
    return {name: array if isinstance(array, mx.array) else mx.array(array) for name, array in arrays.items()}


def _added(sums: dict[str, Any], gradients: dict[str, Any]) -> dict[str, Any]:
    """In float32; the first gradients are kept as they are, so that a step of one batch rounds and copies nothing."""
    if not sums:
        return gradients
    added = {name: sums[name].astype(mx.float32) + new.astype(mx.float32) for name, new in gradients.items()}
    mx.async_eval(added)  # or the gradients of all batches would wait for the update
    return added


class _Trainer:
    def __init__(self, job: Job, watcher: Watcher):
        self.job, self.watcher, self.settings, self.peers = job, watcher, job.settings, job.peers
        self.trained = lora.Trained(job.model)
        vector = Vector(self.trained.arrays()) if current().kind != "cpu" else None
        self.engine: Engine = choose_engine(job.model, job.lora, job.settings, vector, job.train, watcher.say)
        self.update = optimise.Update(job.settings, self.trained.arrays(), vector)
        self.state = State()
        self.best: dict[str, Any] = {}
        self.steps = data.plan_steps(job.train, job.settings, job.each_epoch, job.seed)
        self.engine.expect(self._all_batches())
        self.meter = Meter(current())
        self.since = _Since()
        self.undisturbed = False  # since the last line of metrics: no start, no pause
        self.warned: set[str] = set()

    def note_pause(self) -> None:
        """The process was stopped and goes on: what is measured over that time says nothing about the machine."""
        self.undisturbed = False

    def resume(self) -> None:
        if self.peers.first:
            self._resume_from_files()
        if not self.peers.alone:
            self._follow_the_first()
        self._say_what_runs()

    def _resume_from_files(self) -> None:
        found = checkpoints.load_latest(self.job.checkpoints, self.job.stamp, self.watcher.say)
        metrics = self.job.metrics
        metrics.parent.mkdir(parents=True, exist_ok=True)
        if found is None:
            metrics.write_text("")
            return
        self._restore(found)
        with metrics.open("ab") as lines:
            lines.truncate(self.state.metrics_bytes)
        self.watcher.say(f"resuming at step {self.state.step} of {self.steps} (epoch {self.state.epoch + 1})")

    def _restore(self, found: Checkpoint) -> None:
        self.state, self.best = found.state, found.best
        self._take(found.adapter, found.optimiser)

    def _follow_the_first(self) -> None:
        """The first process has what it was started with, or what it found in its checkpoints; now all have it."""
        self.state = State(**json.loads(self.peers.told(json.dumps(asdict(self.state)))))
        adapter = self.peers.copies(self.trained.arrays())
        self._take(adapter, self.peers.copies(self.update.state))

    def _take(self, adapter: dict[str, Any], optimiser: dict[str, Any]) -> None:
        self.trained.put(adapter)
        self.update.restore(optimiser)
        mx.eval(adapter)

    def _say_what_runs(self) -> None:
        device = current()
        trained = sum(array.size for array in self.trained.arrays().values())
        self.watcher.say(
            f"{len(self.job.train)} rows, {self.steps} steps of {self.settings['batch_size']}; {trained / 1e6:.1f} M parameters trained; "
            f"{device.kind} ({device.name}), BLAS: {device.blas}" + ("" if self.peers.alone else f"; {self.peers.count} processes together")
        )
        warning = slow_blas_warning(device)
        if warning:
            self.watcher.say(warning)

    def train(self, asked_to_stop: list[int]) -> None:
        started = time.perf_counter() - self.state.trained_seconds
        self.asked_to_stop = asked_to_stop
        if self._is_due():
            self._judge()
        self.meter.read()  # what loading took is no part of the first line's use and pace
        self.since = _Since()
        while not self.state.stop_reason:
            batches = self._epoch_batches()
            accumulation = self.settings["accumulation"]
            while self.state.batch < len(batches) and not self.state.stop_reason:
                here, next_ = self.state.batch, self.state.batch + accumulation
                following = batches[next_] if next_ < len(batches) and not self._validates_at(self.state.step + 1) else None
                self._step(batches[here:next_], following)
                self.state.batch += accumulation
                self.state.trained_seconds = time.perf_counter() - started
                self._after_step()
            if self.state.batch >= len(batches):
                self.state.epoch, self.state.batch = self.state.epoch + 1, 0

    def _epoch_batches(self) -> list[Batch]:
        return self._batches_of(self.state.epoch)

    def _batches_of(self, epoch: int) -> list[Batch]:
        rows = data.rows_of_epoch(self.job.train, epoch, self.job.each_epoch)
        return data.epoch_batches(rows, self.settings["batch_size"], self.job.seed, epoch)

    def _all_batches(self) -> Iterator[Batch]:
        """This process's shares of every batch that the run will see."""
        validation = data.validation_batches(self.job.valid, self.settings["batch_size"])
        for batches in (validation, *(self._batches_of(epoch) for epoch in range(self.settings["epochs"]))):
            yield from filter(None, map(self.peers.share_of, batches))

    def _step(self, batches: Sequence[Batch], following: Batch | None = None) -> None:
        """One optimiser update from the gradients of `batches`, weighted by their target tokens. following: the batch that comes right after
        them."""
        mx.random.seed(self.job.seed * 1_000_003 + self.state.step + _RANKS_APART * self.peers.rank)  # dropout
        sums: dict[str, Any] = {}
        loss: Any = 0.0  # an array where an engine leaves it to the end of the step to wait for the GPU
        tokens = 0
        for batch in batches:
            self._check_stop()
            tokens += data.target_count(batch)
            if share := self.peers.share_of(batch):
                batch_loss, gradients = self.engine.loss_and_gradients(share)
                sums = _added(sums, _as_mlx(gradients))
                loss += batch_loss
        loss, sums = self._over_peers(loss, sums, self.trained.arrays())
        rate = optimise.learning_rate(self.settings, self.state.step, self.steps)
        updated, norm = self.update(self.trained.arrays(), sums, tokens, rate)
        mx.async_eval(norm, updated)
        self.trained.put(updated)
        if following and self.peers.alone:
            self.engine.soon(following)
        norm, loss = norm.item(), float(loss)
        self._refuse_nonsense(loss / tokens, norm, batches)
        mx.eval(updated, self.update.arrays())
        samples = sum(len(group.rows) for batch in batches for group in batch)
        self.state.step += 1
        self.state.samples += samples
        self.state.target_tokens += tokens
        self.since.add(loss, tokens, samples, norm)
        self.watcher.step(self.state.step, self.steps, loss / tokens)

    def _over_peers(self, loss: float, sums: dict[str, Any], like: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Loss and gradients of all processes. One that was asked to stop tells the others on this way, so that all stop at the same step.

        like: the adapter's arrays, or nothing where there are no gradients.
        """
        if self.peers.alone:
            return loss, sums
        asked = self.asked_to_stop[0] if self.asked_to_stop else 0
        stopping = [asked if rank == self.peers.rank else 0 for rank in range(self.peers.count)]
        (loss, *numbers), sums = self.peers.sums([float(loss), *stopping], sums, like)
        if any(numbers):
            raise _Stop(int(max(numbers)))
        return loss, sums

    def _refuse_nonsense(self, loss: float, norm: float, batches: Sequence[Batch]) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        samples = [line for batch in batches for line in data.describe(batch)]
        raise Diverged(
            f"the loss at step {self.state.step + 1} is {loss} (gradient norm {norm}); the last good checkpoint is kept. "
            f"Lower training.learning_rate, or look at the batch's samples:\n  " + "\n  ".join(samples)
        )

    def _after_step(self) -> None:
        step = self.state.step
        last = step >= self.steps
        if step % self.settings["log_every"] == 0 or last:
            self._log()
        if self._is_due():
            self._judge()
        if step % self.settings["checkpoint_every"] == 0 and not self.state.stop_reason:
            self.save_checkpoint()

    def _is_due(self) -> bool:
        """Whether the weights as they are have still to be validated: before the first step, now and then, and after the last. A run that
        ended in the middle of a validation owes it when it goes on."""
        return self.state.validated != self.state.step and self._validates_at(self.state.step)

    def _validates_at(self, step: int) -> bool:
        return step % self.settings["validate_every"] == 0 or step >= self.steps

    def _judge(self) -> None:
        self._validate()
        if self.state.step:
            self._consider_stopping()
        if self.state.step >= self.steps and not self.state.stop_reason:
            self.state.stop_reason = f"all {self.steps} steps done"

    def _consider_stopping(self) -> None:
        waited = self.state.step - self.state.best_step
        if self.settings["patience"] and waited >= self.settings["patience"]:
            self.state.stop_reason = f"no better validation loss for {waited} steps (patience {self.settings['patience']})"

    def _validate(self) -> None:
        """The whole validation set; keeps the weights when they are the best so far."""
        if not self.peers.alone:  # machines of different kinds round differently
            self.trained.put(self.peers.copies(self.trained.arrays()))
        loss, tokens = 0.0, 0
        for batch in data.validation_batches(self.job.valid, self.settings["batch_size"]):
            self._check_stop()
            tokens += data.target_count(batch)
            if share := self.peers.share_of(batch):
                loss += self.engine.loss(share)
        loss, _ = self._over_peers(loss, {}, {})
        mean = loss / tokens
        state = self.state
        state.validated = state.step
        state.last_validation_loss = mean
        if state.first_validation_loss is None:
            state.first_validation_loss = mean
        if mean < state.best_loss - self.settings["min_delta"]:
            state.best_loss, state.best_step = mean, state.step
            self.best = {name: mx.array(array) for name, array in self.trained.arrays().items()}
            mx.eval(self.best)
        self._write({"step": state.step, "epoch": state.epoch, "validation_loss": mean, "best_step": state.best_step})

    def _log(self) -> None:
        use = self.meter.read()
        state, pace = self.state, self.since.take()
        left = (self.steps - state.step) * state.trained_seconds / max(1, state.step)
        self._write(
            {
                "step": state.step,
                "steps": self.steps,
                "epoch": state.epoch,
                **pace,
                "learning_rate": optimise.learning_rate(self.settings, state.step - 1, self.steps),
                "elapsed_s": round(state.trained_seconds, 2),
                "eta_s": round(left, 1),
                "memory_bytes": use.memory,
                "peak_memory_bytes": use.peak,
                "utilisation": use.busy,
            }
        )
        budget = self.settings["memory_budget_gb"] * 1e9
        self._warn(
            "memory",
            use.peak > budget,
            f"WARNING: {human_bytes(use.peak)} of memory used at the peak; the recipe's budget is {human_bytes(budget)}",
        )
        if self.undisturbed and use.busy is not None:
            self._warn(
                "use",
                use.busy < 0.7,
                f"WARNING: the accelerator is {use.busy:.0%} used; "
                "something else may be running on this machine, or the batches may be too small to fill it",
            )
        self.undisturbed = True

    def _warn(self, of: str, wrong: bool, line: str) -> None:
        """Once, and again only after it was right in between: every line of metrics shows the number anyway."""
        if wrong and of not in self.warned:
            self.watcher.say(line)
        if wrong:
            self.warned.add(of)
        else:
            self.warned.discard(of)

    def _write(self, metrics: dict[str, Any]) -> None:
        if not self.peers.first:
            return
        with self.job.metrics.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(metrics) + "\n")
            self.state.metrics_bytes = lines.tell()
        self.watcher.measured(metrics)

    def _check_stop(self) -> None:
        """Together they stop at a step's end, see `_over_peers`; a process that trains alone need not wait for it."""
        if self.asked_to_stop and self.peers.alone:
            raise _Stop(self.asked_to_stop[0])

    def save_checkpoint(self) -> None:
        if not self.peers.first:
            return
        checkpoints.save(self.job.checkpoints, Checkpoint(self.state, self.trained.arrays(), self.best, self.update.state), self.job.stamp)

    def finish(self) -> dict[str, Any]:
        state = self.state
        if self.peers.first:
            lora.save(self.best, self.job.lora, len(self.job.model.layers), self.job.base, self.job.adapter)
            checkpoints.clear(self.job.checkpoints)
        use = self.meter.read()
        summary = {
            "steps": state.step,
            "planned_steps": self.steps,
            "epochs": state.epoch,
            "stop_reason": state.stop_reason,
            "best_step": state.best_step,
            "best_validation_loss": state.best_loss,
            "first_validation_loss": state.first_validation_loss,
            "last_validation_loss": state.last_validation_loss,
            "seconds": round(state.trained_seconds, 1),
            "samples_per_s": round(state.samples / state.trained_seconds, 3),
            "target_tokens_per_s": round(state.target_tokens / state.trained_seconds, 1),
            "peak_memory_bytes": use.peak,
            "device": current().kind,
            "device_name": current().name,
            "blas": current().blas,
        }
        self.watcher.say(
            f"{state.stop_reason}; best validation loss {state.best_loss:.4f} at step {state.best_step} "
            f"(was {state.first_validation_loss:.4f}); {human_seconds(state.trained_seconds)}"
        )
        return summary


class _Since:
    """Sums since the last line of metrics."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.loss, self.tokens, self.samples, self.norm, self.start = 0.0, 0, 0, 0.0, time.perf_counter()

    def add(self, loss: float, tokens: int, samples: int, norm: float) -> None:
        self.loss, self.tokens, self.samples, self.norm = self.loss + loss, self.tokens + tokens, self.samples + samples, norm

    def take(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self.start
        pace = {
            "loss": self.loss / max(1, self.tokens),
            "gradient_norm": self.norm,
            "samples_per_s": round(self.samples / seconds, 3),
            "target_tokens_per_s": round(self.tokens / seconds, 1),
        }
        self._reset()
        return pace


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that gets the number of SIGINT or SIGTERM when one arrives, instead of the process ending at once."""
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, lambda received, frame: asked.append(received))
    except ValueError:
        pass  # not the main thread: signals go to whoever runs it, and a checkpoint every interval is what there is
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _at_continue(note: Callable[[], None]) -> Iterator[None]:
    """Call `note` whenever the process goes on after it was stopped (SIGCONT: `fg` after Ctrl-Z, `kill -CONT`)."""
    try:
        before = signal.signal(signal.SIGCONT, lambda received, frame: note())
    except ValueError:  # not the main thread: signals go to whoever runs it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before)


Report = Callable[[str], None]
