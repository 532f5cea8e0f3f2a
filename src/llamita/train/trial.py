"""One trial of a sweep: its way from rung to rung, made of runs that resume.

    trials/003/trunk/     the steps at the full rate that all its rungs share; each rung goes on where the one before stopped
    trials/003/rung-2/    from the trunk down to a rung: the rate falls and the model is measured, as if training ended there

Each is the folder of a run: `llamita report` and `llamita run` open it. The last rung ends with the same bits as a training by
the same recipe that nobody interrupted. Knows no other trial.
"""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from llamita.data.shards import Dataset
from llamita.errors import DivergedError
from llamita.files import atomic_file
from llamita.train import checkpoint
from llamita.train.checkpoint import RunState
from llamita.train.company import Company
from llamita.train.config import Recipe, write_recipe
from llamita.train.machine import describe_machine
from llamita.train.metrics import METRICS, StepRecord
from llamita.train.pretraining import Pretraining
from llamita.train.recorder import Audience, Recorder
from llamita.train.run_folder import RECIPE_FILE, RUN_FILE, data_entry, write_run
from llamita.train.rungs import Rung, branch_step, steps_at, steps_in_all
from llamita.train.trainer import CHECKPOINTS, Trainer
from llamita.train.world import World

TRUNK = "trunk"
EVALUATIONS = 5  # on the way to the first rung at least, for a curve


@dataclass(frozen=True)
class Trial:
    """A combination of a grid at work. number: its place in the grid; recipe: of the whole training; first: the first rung."""

    number: int
    values: dict[str, Any]
    recipe: Recipe
    folder: Path
    first: Rung

    def rung_folder(self, i: int) -> Path:
        """Where its training to rung i, counted from 0, lies."""
        return self.folder / f"rung-{i + 1}"

    def recipe_to(self, n_steps: int, **changes: Any) -> Recipe:
        """The recipe of a part of its way."""
        training = self.recipe.training
        every = max(1, min(training.eval_every, steps_at(training, self.first) // EVALUATIONS))
        settings: dict[str, Any] = {
            "n_steps": n_steps,
            "eval_every": every,
            "sample_every": 0,
            "keep": 2,
            "on_nonfinite": "stop",
        }
        return Recipe(self.recipe.model, replace(training, **settings | changes))


class Steps:
    """How many steps of a sweep are done, of about how many in all."""

    def __init__(self, company: Company, n_all: int) -> None:
        self._company, self._n_all, self._n_done = company, n_all, 0

    def advance(self, n_steps: int) -> None:
        """Tell of so many steps more."""
        self._n_done += n_steps
        self._company.update(self._n_done, self._n_all)


@dataclass(frozen=True)
class Place:
    """Where trials are trained, on what, and who is told. folder: the sweep's."""

    folder: Path
    dataset: Dataset
    world: World
    company: Company
    steps: Steps


class TrialRecorder(Recorder):
    """Logs as any run does, but shows no line of its own: of dozens of runs only the progress of all is of interest."""

    def __init__(self, folder: Path, first_step: int, n_steps: int, place: Place, nowhere: TextIO) -> None:
        self._place = place
        super().__init__(folder, first_step, n_steps, 0.0, None, Audience(tensorboard=False, screen=nowhere))

    def step(self, record: StepRecord) -> None:
        """Log a step."""
        super().step(record)
        self._place.steps.advance(1)

    def note(self, text: str) -> None:
        """Tell what the user should know all the same, such as a full disk."""
        self._place.company.say(text)


def train_to(trial: Trial, i: int, rung: Rung, place: Place) -> int | None:
    """Train a trial to rung i, from wherever it is, or to a signal, whose number is returned.

    Raises DivergedError when its loss is no finite number any more.
    """
    training, start = trial.recipe.training, None
    n_shared = branch_step(training, rung)
    if n_shared:
        # without a cool-down the rate stays up: these are the first steps of a training of any length
        trunk = trial.recipe_to(n_shared, cooldown_share=0.0)
        signal_number = _train(trunk, trial.folder / TRUNK, place, None)
        if signal_number is not None:
            return signal_number
        start = checkpoint.newest(trial.folder / TRUNK / CHECKPOINTS, place.company.say)
    folder = trial.rung_folder(i)
    if start is not None and not (folder / METRICS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / METRICS) as file:  # so that its curves begin at the first step
            file.write((trial.folder / TRUNK / METRICS).read_bytes())
    return _train(trial.recipe_to(steps_at(training, rung)), folder, place, start)


def steps_to(trial: Trial, i: int, rungs: Sequence[Rung]) -> int:
    """Steps that a trial computes from the rung before to rung i."""
    training = trial.recipe.training
    return steps_in_all(training, rungs[: i + 1]) - steps_in_all(training, rungs[:i])


def loss_at(trial: Trial, i: int) -> float:
    """The validation loss at the end of a training to rung i; raises DivergedError where it is not finite."""
    found = checkpoint.newest(trial.rung_folder(i) / CHECKPOINTS, lambda _: None)
    loss = found[1].validation_loss if found else None
    if loss is None or not math.isfinite(loss):
        raise DivergedError(f"validation loss {loss}: not finite")
    return loss


def forget_checkpoints(folder: Path) -> None:
    """Remove what only resuming needs of all runs under a folder; models and logs stay. What cannot be removed stays too."""
    for checkpoints in folder.glob(f"**/{CHECKPOINTS}"):
        shutil.rmtree(checkpoints, ignore_errors=True)


def _train(recipe: Recipe, folder: Path, place: Place, start: tuple[Path, RunState] | None) -> int | None:
    """A run in a folder: on from its own newest checkpoint, else from `start`, else from nothing."""
    start = checkpoint.newest(folder / CHECKPOINTS, place.company.say) or start
    first_step, n_steps = start[1].step if start else 0, recipe.training.n_steps
    if first_step == n_steps:
        return None
    checkpoint.remove_leftovers(folder / CHECKPOINTS)
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, folder / RECIPE_FILE)
    data = data_entry(place.dataset.folder, folder, place.folder)
    write_run({"data": data, "device": str(place.world.device)} | describe_machine(), folder / RUN_FILE)
    with Path(os.devnull).open("w") as nowhere, TrialRecorder(folder, first_step, n_steps, place, nowhere) as recorder:
        return Trainer(Pretraining(recipe, place.dataset), folder, place.world, recorder, start).run()
