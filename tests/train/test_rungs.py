"""Who is trained how far: rungs, the steps that trainings of different lengths share, and who goes on. No torch."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from llamita.train.config import TrainConfig
from llamita.train.rungs import Rung, branch_step, going_on, rungs_for, steps_at, steps_in_all
from llamita.train.schedule import learning_rate

TRAINING = TrainConfig(n_steps=900, batch=1, accumulation=1, learning_rate=0.01, warmup_steps=20)
COSINE = replace(TRAINING, schedule="cosine")


@pytest.mark.parametrize(
    ("n_trials", "reduction", "counts"),
    [(2, 3, [2]), (3, 3, [3, 1]), (4, 3, [4, 1]), (8, 3, [8, 2]), (9, 3, [9, 3, 1]), (12, 3, [12, 4, 1]), (8, 2, [8, 4, 2, 1])],
)
def test_one_in_so_many_goes_on_and_trains_so_many_times_as_long(n_trials: int, reduction: int, counts: list[int]):
    rungs = rungs_for([TRAINING] * n_trials, reduction)
    assert [rung.n_trials for rung in rungs] == counts
    assert rungs[-1].share == 1
    shares = [rung.share for rung in rungs]
    assert all(later == pytest.approx(reduction * earlier) for earlier, later in pairwise(shares))


@pytest.mark.parametrize("training", [replace(TRAINING, warmup_steps=100), replace(TRAINING, n_steps=100)])
def test_no_rung_is_too_short_to_say_anything(training: TrainConfig):
    rungs = rungs_for([TRAINING] * 26 + [training], 3)
    assert rungs[0].n_trials == 27
    assert steps_at(training, rungs[0]) >= 20
    assert branch_step(training, rungs[0]) > training.warmup_steps
    assert len(rungs) < len(rungs_for([TRAINING] * 27, 3))


@pytest.mark.parametrize("cooldown_share", [0.0, 0.1, 1 / 3, 0.4, 0.999, 1.0])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 30, 899, 900])
def test_trainings_of_all_lengths_begin_with_the_steps_before_the_branch(cooldown_share: float, n_steps: int):
    whole = replace(TRAINING, n_steps=900, cooldown_share=cooldown_share)
    rung = Rung(n_steps / 900, 1)
    short = replace(whole, n_steps=steps_at(whole, rung))
    n_shared = branch_step(whole, rung)
    trunk = replace(whole, n_steps=max(1, n_shared), cooldown_share=0.0)
    assert 0 <= n_shared < short.n_steps == n_steps
    for step in range(n_shared):
        assert learning_rate(whole, step) == learning_rate(short, step) == learning_rate(trunk, step)


def test_a_cosine_shares_no_step():
    assert branch_step(COSINE, Rung(1 / 3, 3)) == 0
    assert steps_in_all(COSINE, [Rung(1 / 3, 3), Rung(1.0, 1)]) == 300 + 900
    assert steps_in_all(TRAINING, [Rung(1 / 3, 3), Rung(1.0, 1)]) == 300 + 900 - 180


def test_the_lowest_losses_go_on_and_no_infinite_one():
    losses = {0: 3.0, 1: 1.0, 2: math.inf, 3: 2.0, 4: 1.0}
    assert going_on(losses, 2) == [1, 4]
    assert going_on(losses, 1) == [1]
    assert going_on(losses, 9) == [0, 1, 3, 4]
    assert going_on({}, 1) == []
