"""The learning-rate range test (arXiv:1506.01186): a short run whose rate rises by the same factor with every update.

A fresh network of the planned recipe sees real text; where its loss falls fastest and where it breaks out say which rates are
worth training with. Nothing is written, and only the curve is kept. rate_picture.py draws it, the command line shows it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamita.data.shards import Dataset
from llamita.errors import TrainingError
from llamita.train.config import Recipe
from llamita.train.pretraining import Pretraining
from llamita.train.recorder import SilentRecorder
from llamita.train.trainer import Trainer
from llamita.train.world import World

LOWEST_RATE, HIGHEST_RATE = 1e-6, 10.0
UPDATES_PER_DECADE = 20
WIDTH = 0.1  # of the smoothing, in decades
BREAKOUT_SHARE = 0.5  # a loss that has climbed back half of its fall has broken out ...
SMALLEST_BREAKOUT = 0.05  # ... but not before it has climbed this share of the first loss, which noise does not
LOOK_BACK = 4  # updates whose mean decides whether to stop

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class RangeTest:
    """A curve and what it says. Rates rise; losses are in nats a token, of the batch before the update at that rate."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest_rate: float  # where the smoothed loss falls fastest
    lowest_rate: float  # where it is lowest
    divergence_rate: float | None  # where it has climbed back half of its fall; None where the test ended before
    suggested_rate: float  # where half of the fall is done: the steepest place of a curve with two steps is a matter of noise
    reason: str


def range_test(recipe: Recipe, dataset: Dataset, world: World, note: Callable[[str], None], advance: Advance) -> RangeTest:
    """Train a fresh network at rising rates until its loss breaks out, and read the curve.

    advance is told how many updates are made, and of how many at most. The same for a seed, whatever ran before. Raises
    TrainingError where no rate lets the loss fall.
    """
    updater = Trainer(Pretraining(recipe, dataset), Path(), world, SilentRecorder()).updater  # the very one of a run
    updater.make_ready(note)
    rates, losses = [], []
    for step, rate in enumerate(rising_rates()):
        result = updater.run(step, rate)
        rates.append(rate)
        losses.append(result.loss)
        advance(step + 1, most_updates())
        if has_broken_out(losses):
            break
    return read_curve(rates, losses)


def most_updates() -> int:
    """Updates of a test that never breaks out."""
    return round(math.log10(HIGHEST_RATE / LOWEST_RATE) * UPDATES_PER_DECADE) + 1


def rising_rates() -> Iterator[float]:
    """The learning rate of every update."""
    for step in range(most_updates()):
        yield LOWEST_RATE * 10 ** (step / UPDATES_PER_DECADE)


def has_broken_out(losses: Sequence[float]) -> bool:
    """Whether the last losses have climbed so far from the lowest that the test is over; at once when not finite."""
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < 2 * LOOK_BACK:
        return False
    means = np.convolve(losses, np.full(LOOK_BACK, 1 / LOOK_BACK), "valid")
    return bool(means[-1] - means.min() > breakout(means[0], means.min()))


def breakout(first: float, lowest: float) -> float:
    """How far above the lowest loss a break-out begins, in nats."""
    return max(BREAKOUT_SHARE * (first - lowest), SMALLEST_BREAKOUT * first)


def smoothed_with_slopes(x: np.ndarray, y: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Values and slopes (float64 (N,)) of straight lines fitted around each x, neighbours weighted by a Gaussian."""
    distances = x - x[:, None]  # (N, N): from the centre of each fit to each point
    weights = np.exp(-0.5 * (distances / width) ** 2)
    total, first, second = (np.sum(weights * distances**power, 1) for power in (0, 1, 2))
    sums, moments = weights @ y, (weights * distances) @ y
    determinant = total * second - first**2
    return (second * sums - first * moments) / determinant, (total * moments - first * sums) / determinant


def read_curve(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """Find where a curve falls fastest, is lowest and breaks out; raise TrainingError where it does not fall."""
    finite = [math.isfinite(loss) for loss in losses]
    n = finite.index(False) if False in finite else len(losses)
    if n < 2 * LOOK_BACK:
        raise TrainingError(
            f"range test: the loss is not finite after {n} updates at {rates[n]:.2g}; is the model's shape sound?"
        )
    x, y = np.log10(rates[:n]), np.array(losses[:n])
    values, slopes = smoothed_with_slopes(x, y, WIDTH)
    lowest = int(values.argmin())
    steepest = int(slopes[: lowest + 1].argmin())
    fall = float(values[0] - values[lowest])
    if fall < SMALLEST_BREAKOUT * values[0]:
        raise TrainingError(
            f"range test: the loss, {values[0]:.2f} at first, fell by {max(fall, 0):.2f} only, whatever the rate; "
            "is there something to learn in the text?"
        )
    out = np.flatnonzero(values[lowest:] > values[lowest] + breakout(float(values[0]), float(values[lowest])))
    divergence = rates[lowest + int(out[0])] if len(out) else rates[n] if n < len(rates) else None
    halfway = rates[int((values <= values[0] - fall / 2).argmax())]
    reason = (
        f"half of the loss's fall is done there; it falls fastest at {rates[steepest]:.2g}, is lowest at {rates[lowest]:.2g} "
        f"and {'has not broken out by' if divergence is None else 'breaks out at'} {divergence or rates[-1]:.2g}"
    )
    curve = list(rates), list(losses), values.tolist()
    return RangeTest(*curve, rates[steepest], rates[lowest], divergence, rounded(halfway), reason)


def rounded(rate: float) -> float:
    """A rate with one digit, or one and a half below 2: a range test knows no more."""
    power = 10.0 ** math.floor(math.log10(rate))
    step = 0.5 if rate < 2 * power else 1.0
    return float(f"{round(rate / power / step) * step * power:.2g}")
