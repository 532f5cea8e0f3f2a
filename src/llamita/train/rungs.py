"""Successive halving (arXiv:1502.07943): how far each trial of a sweep is trained, and who goes on.

All trials train to the first rung, the best of them go on to the next, and the best of those to the last, which is a whole
training. A rung is decided when all have come to it, so the order of trials does not matter. Pure functions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamita.train.config import TrainConfig

WARMUPS = 1.5  # of steps at the full rate at least, before the first cool-down: less says little of a rate
FEWEST_STEPS = 20  # of the first rung


@dataclass(frozen=True)
class Rung:
    """A place where trials are compared. share: of a whole training; n_trials: how many come here."""

    share: float
    n_trials: int


def rungs_for(trainings: Sequence[TrainConfig], reduction: int) -> list[Rung]:
    """As many rungs as leave fewer than `reduction` trials for the last, but none too short to say anything.

    Of each rung's trials one in `reduction` goes on, and trains so many times as long.
    """
    smallest = max(map(_smallest_share, trainings))
    n_rungs = 1
    while reduction**n_rungs <= len(trainings) and reduction**-n_rungs >= smallest:
        n_rungs += 1
    shares = [float(reduction) ** (i + 1 - n_rungs) for i in range(n_rungs)]
    return [Rung(share, max(1, len(trainings) // reduction**i)) for i, share in enumerate(shares)]


def _smallest_share(training: TrainConfig) -> float:
    """The share of a training after which it can be judged: past warm-up, and some steps long."""
    until = training.warmup_steps * WARMUPS
    if training.schedule == "wsd" and training.cooldown_share < 1:
        until /= 1 - training.cooldown_share
    return max(until, FEWEST_STEPS) / training.n_steps


def steps_at(training: TrainConfig, rung: Rung) -> int:
    """Steps of a training that ends at a rung."""
    return max(1, round(training.n_steps * rung.share))


def branch_step(training: TrainConfig, rung: Rung) -> int:
    """Steps that a training to this rung shares with one to any later rung; 0 where its schedule shares none.

    wsd stays at its full rate for these, whatever its length (arXiv:2405.18392). A cosine falls from the first step on, at
    another pace for each length.
    """
    if training.schedule != "wsd":
        return 0
    n_steps = steps_at(training, rung)
    return min(math.floor(n_steps * (1 - training.cooldown_share)), n_steps - 1)


def steps_in_all(training: TrainConfig, rungs: Sequence[Rung]) -> int:
    """Steps that are computed of a trial which comes to the last of these rungs."""
    total = before = 0
    for rung in rungs:
        total += steps_at(training, rung) - before
        before = branch_step(training, rung)
    return total


def going_on(losses: Mapping[int, float], n_places: int) -> list[int]:
    """The numbers of the trials with the lowest losses, of equal ones the first; not more than there are finite losses."""
    finite = [(loss, number) for number, loss in losses.items() if math.isfinite(loss)]
    return sorted(number for _, number in sorted(finite)[:n_places])
