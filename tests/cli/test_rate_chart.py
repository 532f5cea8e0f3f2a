"""The curve of a range test in the terminal: 80 columns, with and without braille, with and without colour."""

import math

import click
import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.cli.rate_chart import HEIGHT, rate_chart
from llamita.train.range_test import read_curve, rising_rates

RATES = list(rising_rates())
LOSSES = [6 - 2 / (1 + (3e-3 / rate) ** 2) + rate**2 for rate in RATES]
TEST = read_curve([*RATES[:125], RATES[125]], [*LOSSES[:125], math.inf])


@pytest.mark.parametrize("braille", [True, False])
def test_a_chart_fits_80_columns_and_shows_the_curve_its_axes_and_the_suggestion(braille: bool):
    lines = [click.unstyle(line) for line in rate_chart(TEST, braille)]
    assert max(map(len, lines)) < 80
    assert len(lines) == HEIGHT + 5
    assert all(
        text in "\n".join(lines) for text in ("learning rate", "1e-06", "0.001", "loss, nats per token", "suggested: 0.003")
    )
    curve = [c for line in lines for c in line if (c == "*" if not braille else 0x2800 < ord(c) < 0x2900)]
    assert len(curve) > 60
    assert "\n".join(lines).isascii() == (not braille)


def test_the_curve_is_high_on_the_left_and_low_where_the_loss_is_low():
    lines = [click.unstyle(line)[8:] for line in rate_chart(TEST, braille=False)][1 : HEIGHT + 1]
    heights = {j: i for i, line in enumerate(lines) for j, c in enumerate(line) if c == "*"}
    assert heights[1] < HEIGHT // 3
    assert max(heights.values()) == HEIGHT - 1
    lowest = [j for j in heights if heights[j] == HEIGHT - 1]
    assert RATES[round(min(lowest) / 65 * 125)] < TEST.lowest_rate < RATES[round(max(lowest) / 65 * 125)]


def test_a_mark_near_the_right_end_stays_inside():
    losses = [6 - 2 / (1 + (3 / rate) ** 4) for rate in RATES]
    lines = [click.unstyle(line) for line in rate_chart(read_curve(RATES, losses), braille=True)]
    assert max(map(len, lines)) < 80
    assert any(line.endswith("▲") for line in lines)
