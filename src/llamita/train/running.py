"""What every run does, whatever it trains: alone in its folder, all ranks together, on from the newest checkpoint.

session.py (pre-training) and finetune.py say what is set up first and which task is trained. Knows no data.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from llamita.errors import SettingError
from llamita.train import checkpoint
from llamita.train.asked import CHANGEABLE
from llamita.train.checkpoint import RunState
from llamita.train.company import Company
from llamita.train.machine import find_machine, peak_flops
from llamita.train.recorder import Audience, Recorder, SilentRecorder
from llamita.train.task import Task
from llamita.train.trainer import CHECKPOINTS, Tell, Trainer, run_state
from llamita.train.world import World, open_world


class RunWish(Protocol):
    """What a user may ask of any run: where it lies, on which device it takes place, and who listens."""

    @property
    def out(self) -> Path: ...
    @property
    def device(self) -> str: ...
    @property
    def n_threads(self) -> int | None: ...
    @property
    def parallel(self) -> str: ...
    @property
    def tensorboard(self) -> bool: ...
    @property
    def wandb_project(self) -> str: ...


def run_together(
    wish: RunWish,
    company: Company,
    set_up: Callable[[World, Company], None],
    train: Callable[[World, Company], int | None],
) -> int | None:
    """Set up on the first rank, train on all of them, and return the number of the signal that ended it early, if one did.

    Under torchrun every process calls this. Only the first rank's company is told anything. Raises SettingError where the
    folder cannot be had, and what the two functions raise.
    """
    with open_world(wish.device, wish.n_threads, wish.parallel) as world:
        if not world.is_first:
            company = Company()
        with alone_in(wish.out) if world.is_first else _nothing():
            if world.is_first:
                set_up(world, company)
            world.wait()
            signal_number = train(world, company)
            if signal_number is None:
                company.finished(wish.out)
            else:
                company.stopped(wish.out)
            return signal_number


def train_task(
    task: Task, wish: RunWish, world: World, company: Company, tell: Tell | None, flops_per_token: float
) -> int | None:
    """Train a task to its end or to a signal, on from the newest whole checkpoint where there is one; all ranks together.

    Raises SettingError where the checkpoint is one of another run.
    """
    start = checkpoint.newest(wish.out / CHECKPOINTS, company.say)
    world.wait()  # nobody removes a checkpoint that another rank still looks at
    if start is not None:
        check_same_run(start[1], run_state(task, world, 0), company)
    first_step = start[1].step if start else 0
    if world.is_first:
        checkpoint.remove_leftovers(wish.out / CHECKPOINTS)
    company.training_begins()
    with _recorder(wish, world, task, first_step, flops_per_token) as recorder:
        if start is not None:
            recorder.note(f"going on after step {first_step:,} of {task.recipe.training.n_steps:,}")
        return Trainer(task, wish.out, world, recorder, start, tell if world.is_first else None).run()


def check_same_run(then: RunState, now: RunState, company: Company) -> None:
    """Raise SettingError where data or recipe are not those of the checkpoint; tell where only the machine is another."""
    found = checkpoint.differences(then, now, CHANGEABLE)
    if found:
        raise SettingError(f"checkpoint of step {then.step}: found another run: {'; '.join(found)}; expected the same")
    for line in checkpoint.environment_differences(then, now):
        company.say(f"{line}: the same samples in the same order, but sums may differ in their last bits")


def _recorder(wish: RunWish, world: World, task: Task, first_step: int, flops_per_token: float) -> Recorder | SilentRecorder:
    if not world.is_first:
        return SilentRecorder()
    training = task.recipe.training
    machine = find_machine(world.device.type, world.n_ranks)
    peak = peak_flops(machine.name, training.dtype)
    audience = Audience(wish.tensorboard, wish.wandb_project, task.recipe.to_dict())
    return Recorder(wish.out, first_step, training.n_steps, flops_per_token, peak and peak * world.n_ranks, audience)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it for as long as the block lasts, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise SettingError(
            f"{folder}: found another run at work there; wait for it, or name another folder with --out"
        ) from None
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(folder)):
            raise
        raise SettingError(f"{folder}: {error.strerror}; expected a folder where you may write") from None


@contextmanager
def _nothing() -> Iterator[None]:
    yield
