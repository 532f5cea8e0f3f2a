"""The learning-rate range test: what a curve says, and that the rate it suggests is one to train with."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

import kills  # pyright: ignore[reportMissingImports]

from llamita.config import ModelConfig
from llamita.data.shards import Dataset, open_dataset
from llamita.errors import SettingError, TrainingError
from llamita.train.config import Recipe, TrainConfig
from llamita.train.pretraining import Pretraining
from llamita.train.range_test import (
    RangeTest,
    has_broken_out,
    most_updates,
    range_test,
    read_curve,
    rising_rates,
    rounded,
    smoothed_with_slopes,
)
from llamita.train.rate_picture import check_picture, write_picture
from llamita.train.recorder import SilentRecorder
from llamita.train.trainer import Trainer
from llamita.train.update import Updater
from llamita.train.world import open_world

RECIPE = Recipe(
    ModelConfig(width=32, n_layers=2, n_heads=2, n_kv_heads=1, mlp_width=64, vocab_size=300, context=32),
    TrainConfig(n_steps=40, batch=8, accumulation=1, learning_rate=3e-3, warmup_steps=2, cooldown_share=0.0),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("text")
    kills.make_text(folder)
    return open_dataset(folder / "tokens")


def find(dataset: Dataset, **settings) -> RangeTest:
    recipe = replace(RECIPE, training=replace(RECIPE.training, **settings))
    return range_test(recipe, dataset, open_world("cpu", 1), print, lambda *_: None)


def made_curve(middle: float, noise: float = 0.02) -> tuple[list[float], list[float]]:
    """A loss that falls from 6 to 4 around a rate, and climbs from a hundred times that rate on."""
    rates = list(rising_rates())
    x = np.log10(np.array(rates) / middle)
    losses = 6 - 2 / (1 + np.exp(-6 * x)) + np.exp(4 * (x - 2)) + np.random.default_rng(0).normal(0, noise, len(x))
    n = next(n for n in range(1, len(losses)) if has_broken_out(losses[:n].tolist()))
    return rates[:n], losses[:n].tolist()


@pytest.mark.parametrize("middle", [1e-4, 3e-3, 2e-2])
def test_a_curve_says_where_the_loss_falls_is_lowest_and_breaks_out(middle: float):
    found = read_curve(*made_curve(middle))
    assert found.steepest_rate == pytest.approx(middle, rel=0.5)
    assert found.suggested_rate == pytest.approx(middle, rel=0.3)
    assert 3 * middle < found.lowest_rate < 100 * middle
    assert found.divergence_rate is not None
    assert 30 * middle < found.divergence_rate < 300 * middle
    assert f"{found.lowest_rate:.2g}" in found.reason


def test_a_curve_that_ends_before_it_breaks_out_has_no_such_rate():
    rates, losses = made_curve(2e-2)
    found = read_curve(rates[:95], losses[:95])
    assert found.divergence_rate is None
    assert "has not broken out" in found.reason


@pytest.mark.parametrize("end", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_curve_and_is_where_it_breaks_out(end: float):
    rates, losses = made_curve(3e-3)
    n = 90
    assert has_broken_out([*losses[:n], end])
    found = read_curve(rates[: n + 1], [*losses[:n], end])
    assert len(found.smoothed) == n
    assert found.divergence_rate == rates[n]


@pytest.mark.parametrize(
    ("losses", "expected"), [([6.0] * 60, "fell by 0.00 only"), ([6.0, math.nan], "not finite after 1 updates")]
)
def test_a_curve_without_a_fall_is_one_line(losses: list[float], expected: str):
    with pytest.raises(TrainingError, match=f"^range test: .*{expected}"):
        read_curve(list(rising_rates())[: len(losses)], losses)


def test_smoothing_keeps_a_straight_line_and_its_slope():
    x = np.linspace(-6, 1, 50)
    values, slopes = smoothed_with_slopes(x, 3 - 2 * x, 0.3)
    assert values == pytest.approx(3 - 2 * x)
    assert slopes == pytest.approx(np.full(50, -2.0))


@pytest.mark.parametrize(
    ("rate", "shown"), [(0.00629, 0.006), (0.0125, 0.0125), (0.0146, 0.015), (9.6e-5, 1e-4), (0.0199, 0.02)]
)
def test_a_suggestion_has_no_more_digits_than_are_known(rate: float, shown: float):
    assert rounded(rate) == pytest.approx(shown, rel=0.21)
    assert len(f"{rounded(rate):e}".partition("e")[0].rstrip("0").rstrip(".").replace(".", "")) <= 2


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_suggested_rate_trains_better_than_a_much_lower_one_or_one_that_breaks_out(dataset: Dataset, optimizer: str):
    found = find(dataset, optimizer=optimizer)

    def loss_with(rate: float) -> float:
        training = replace(RECIPE.training, optimizer=optimizer, learning_rate=rate)
        updater = Trainer(
            Pretraining(replace(RECIPE, training=training), dataset), Path(), open_world("cpu", 1), SilentRecorder()
        ).updater
        return float(np.mean([updater.run(step).loss for step in range(training.n_steps)][-5:]))

    best = loss_with(found.suggested_rate)
    assert best < loss_with(found.suggested_rate / 30) - 0.2
    assert found.divergence_rate is not None
    assert best < loss_with(found.divergence_rate) - 0.2
    assert 1e-4 < found.suggested_rate < 0.3


def test_the_curve_is_the_same_for_a_seed_and_stops_early(dataset: Dataset):
    first = find(dataset, dropout=0.1)
    torch.manual_seed(7)
    assert find(dataset, dropout=0.1) == first
    assert find(dataset, dropout=0.1, seed=2).losses != first.losses
    assert len(first.losses) < most_updates()
    assert first.losses[-1] > min(first.smoothed) + 0.1
    assert first.divergence_rate is not None


def test_an_update_whose_loss_is_no_number_ends_the_test(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    run = Updater.run

    def run_to_step_99(self: Updater, step: int, rate: float | None = None):
        result = run(self, step, rate)
        return replace(result, loss=math.nan, finite=False) if step == 99 else result

    monkeypatch.setattr(Updater, "run", run_to_step_99)
    found = find(dataset)
    assert len(found.losses) == 100
    assert math.isnan(found.losses[-1])
    assert found.suggested_rate < found.rates[-1] == found.divergence_rate


def test_the_picture_is_a_picture(tmp_path: Path):
    found = read_curve(*made_curve(3e-3))
    for name, begin in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        check_picture(tmp_path / name)
        write_picture(found, "0.3M parameters", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)


@pytest.mark.parametrize("name", ["curve", "curve.jpg", "missing/curve.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_test(tmp_path: Path, name: str):
    with pytest.raises(SettingError, match="curve"):
        check_picture(tmp_path / name)
