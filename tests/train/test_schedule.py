"""Learning rates by step, at the corners of each schedule."""

from dataclasses import replace
from itertools import pairwise

import pytest

from llamita.train.config import TrainConfig
from llamita.train.schedule import learning_rate

WSD = TrainConfig(n_steps=100, batch=1, accumulation=1, learning_rate=2.0, warmup_steps=10, cooldown_share=0.4, final_share=0.1)


def test_warm_up_rises_in_a_straight_line_to_the_highest():
    assert [learning_rate(WSD, step) for step in (0, 4, 9, 10, 50)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0])


def test_wsd_falls_in_a_straight_line_over_its_share():
    assert [learning_rate(WSD, step) for step in (60, 80)] == pytest.approx([2.0, 0.2 + 1.8 / 2])
    assert learning_rate(WSD, 99) == pytest.approx(0.2 + 1.8 / 40)


def test_cosine_is_that_of_llama2c():
    config = replace(WSD, schedule="cosine", final_share=0.0)
    assert learning_rate(config, 10) == pytest.approx(2.0)
    assert learning_rate(config, 55) == pytest.approx(1.0)
    assert 0 < learning_rate(config, 99) < 0.01


def test_a_run_without_warm_up_or_cooldown_has_one_rate():
    config = replace(WSD, warmup_steps=0, cooldown_share=0.0)
    assert {learning_rate(config, step) for step in range(100)} == {2.0}


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_the_rate_never_jumps(schedule):
    config = replace(WSD, schedule=schedule)
    rates = [learning_rate(config, step) for step in range(100)]
    assert max(abs(a - b) for a, b in pairwise(rates)) < 0.21
