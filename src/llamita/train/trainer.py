"""The training loop: update after update, and between them measuring, telling, saving and stopping.

What is trained is a Task (task.py), all that a step computes is in update.py, all that lies on the disk in checkpoint.py; this
file decides when. Every rank runs it in the same order; the first one alone writes and talks.
"""

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from llamita.errors import DivergedError, LlamitaError, TrainingError
from llamita.model import Model
from llamita.train import checkpoint
from llamita.train.checkpoint import Contents, RunState
from llamita.train.evaluate import Validation
from llamita.train.recorder import PreferenceRecord, Recorder, SilentRecorder, StepRecord, ValidationRecord
from llamita.train.signals import StopWish
from llamita.train.task import Task
from llamita.train.update import Updater, UpdateResult
from llamita.train.weights import whole
from llamita.train.world import World

CHECKPOINTS = "checkpoints"
MOST_SKIPPED_IN_A_ROW = 20
RETRY_SECONDS = 30.0  # after a checkpoint that could not be written
LAST_RETRIES = 20  # when only the end is left to wait for

Tell = Callable[[Model], list[tuple[str, str]]]  # a model -> prompts and what it told


class Trainer:
    """One run: a task, the folder it leaves and the ranks that work on it."""

    def __init__(
        self, task: Task, folder: Path, world: World, recorder: Recorder | SilentRecorder,
        start: tuple[Path, RunState] | None = None, tell: Tell | None = None,
    ) -> None:  # fmt: skip
        """Build the network, as the task begins or from the checkpoint `start`; raise LlamitaError where parts do not fit."""
        self.task, self.config, self.folder = task, task.recipe.training, folder
        self.world, self.recorder, self.tell = world, recorder, tell
        self.step, self.n_skipped, self._skipped_in_a_row = 0, 0, 0
        self._retry_at: float | None = None
        network = task.build()
        if start is not None:
            task.load(network, start[0])
        self.updater = Updater(self.config, network, task.objective(), world)
        if start is not None:
            self._restore(*start)

    def _restore(self, path: Path, state: RunState) -> None:
        self.step, self.n_skipped = state.step, state.n_skipped
        saved = checkpoint.read_optimizer(path)
        self.updater.optimizers.restore({name: torch.from_numpy(array.copy()) for name, array in saved.items()})
        if self.updater.scaler is not None:
            self.updater.scaler.load_state_dict(state.scaler)

    def run(self) -> int | None:
        """Train to the last step or to a signal, whose number is returned; every way out but an error leaves a checkpoint.

        Raises DivergedError when loss or gradients are not finite and the recipe says stop, TrainingError when nothing could be
        saved.
        """
        if self.world.is_first:
            checkpoint.set_aside(self.folder / CHECKPOINTS, self.step, self.recorder.note)
        with StopWish() as wish, _no_collection():
            self.updater.make_ready(self.recorder.note)
            while self.step < self.config.n_steps:
                self._one_step()
                if self.world.any(wish.signal_number is not None):
                    self._save_at_the_end(None)
                    return wish.signal_number or signal.SIGTERM  # of another rank
        return None

    def _one_step(self) -> None:
        result = self.updater.run(self.step)
        self._look_at(result)
        n_tokens = self.updater.objective.n_tokens(self.step)
        self.step += 1
        self.recorder.step(
            StepRecord(
                self.step,
                result.loss,
                result.learning_rate,
                result.gradient_norm,
                n_tokens,
                result.seconds,
                result.data_seconds,
            )
        )
        self._tell_more("training", result.more)
        self._between_steps()

    def _tell_more(self, what: str, means: dict[str, float]) -> None:
        """Record what an objective tells beside the loss, which only that of preferences does."""
        if means:
            self.recorder.preference(PreferenceRecord(self.step, what, **means))

    def _look_at(self, result: UpdateResult) -> None:
        """Stop or go on after an update that was not made."""
        if result.finite:
            self._skipped_in_a_row = 0
            return
        self.n_skipped += 1
        self._skipped_in_a_row += 1
        what = f"step {self.step + 1}: loss {result.loss}, gradient {result.gradient_norm}"
        if self.config.on_nonfinite == "stop" or self._skipped_in_a_row > MOST_SKIPPED_IN_A_ROW:
            raise DivergedError(
                f"{what}: not finite; checkpoints up to the last save are in {self.folder / CHECKPOINTS}. Try a lower "
                f"--learning-rate than {self.config.learning_rate:g}, or --on-nonfinite skip"
            )
        self.recorder.note(f"{what}: not finite, update skipped")

    def _between_steps(self) -> None:
        """Measure, tell and save where the recipe says so."""
        config, last = self.config, self.step == self.config.n_steps
        saves = last or self.step % config.save_every == 0
        validation = None
        if saves or self.step % config.eval_every == 0:
            validation = self._measure()
        if config.sample_every and (last or self.step % config.sample_every == 0):
            self._tell()
        if last:
            self._save_at_the_end(validation)
        elif saves or self.world.any(self._retry_at is not None and time.monotonic() >= self._retry_at):
            self._save(validation)

    def _measure(self) -> Validation | None:
        validation = self.task.measure(self.updater.network, self.updater.batch, self.world)
        if validation is not None:
            self.recorder.validation(ValidationRecord(self.step, validation.loss, validation.bits_per_byte))
            self._tell_more("validation", validation.more)
        gc.collect()
        return validation

    def _tell(self) -> None:
        model = self.task.model(self.updater.network, self._name)
        if self.world.is_first and self.tell is not None:
            for prompt, text in self.tell(model):
                self.recorder.sample(self.step, prompt, text)

    @property
    def _name(self) -> str:
        return f"step {self.step}"

    def _save(self, validation: Validation | None) -> bool:
        """Write a checkpoint and publish the best; return whether that worked on the first rank, which alone can fail."""
        contents, optimizer = self.task.contents(self.updater.network, self._name), self.updater.optimizers.state()
        self._retry_at = None
        if self.world.is_first:
            state = replace(
                run_state(self.task, self.world, self.step),
                validation_loss=validation and validation.loss,
                n_skipped=self.n_skipped,
                scaler={} if self.updater.scaler is None else self.updater.scaler.state_dict(),
            )
            try:
                arrays = {name: whole(value).numpy() for name, value in optimizer.items()}
                self._write(state, contents, arrays)
            except (OSError, LlamitaError) as error:
                self._retry_at = time.monotonic() + RETRY_SECONDS
                self.recorder.note(f"checkpoint of step {self.step}: {error}; the run goes on and tries again")
        return not self.world.any(self._retry_at is not None)

    def _write(self, state: RunState, contents: Contents, optimizer: dict) -> None:
        folder = self.folder / CHECKPOINTS
        self.recorder.sync()  # a log is never behind the checkpoint that goes on from it
        written = checkpoint.save(folder, state, contents, optimizer)
        best = checkpoint.best_of(folder)
        if best is None or best[1] == state.step:
            checkpoint.publish(written, self.folder)
        checkpoint.prune(folder, self.config.keep, best[1] if best else None)

    def _save_at_the_end(self, validation: Validation | None) -> None:
        """Save, and wait for room on the disk where there is none; raise TrainingError when none comes."""
        for _ in range(LAST_RETRIES):
            if self._save(validation):
                return
            time.sleep(RETRY_SECONDS)
        raise TrainingError(f"{self.folder}: no checkpoint could be written for {LAST_RETRIES * RETRY_SECONDS:.0f} seconds")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from collecting garbage by itself: in the middle of a step that costs up to half a second."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def run_state(task: Task, world: World, step: int) -> RunState:
    """The state of a run as this process would write it."""
    threads = torch.get_num_threads()
    return RunState(step, task.recipe.to_dict(), task.fingerprint, world.n_ranks, threads, world.device.type, base=task.base)
