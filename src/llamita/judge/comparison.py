"""Comparison: whether one model foretells a text better than another, or whether the difference is noise.

Two scores of the same documents come in. Models with equal tokens are compared in nats per token; others in bits per byte,
which do not depend on the vocabulary. What is hard for both cancels out, as both are drawn together (resampling.py).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from llamita.errors import DataError
from llamita.judge.resampling import CONFIDENCE, N_DRAWINGS, Interval, interval_of
from llamita.judge.scoring import Score

Unit = Literal["nats per token", "bits per byte"]


@dataclass(frozen=True)
class Comparison:
    """The other model less the first, in `unit`: below 0 the other foretells better. interval: None where the text is short."""

    unit: Unit
    difference: float
    interval: Interval | None

    @property
    def is_more_than_noise(self) -> bool:
        """Whether the interval leaves out 0; where there is none, nothing is known to be more."""
        return self.interval is not None and not self.interval.holds_zero

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name, for JSON."""
        return {
            "unit": self.unit,
            "difference": self.difference,
            "interval": self.interval and asdict(self.interval),
            "confidence": CONFIDENCE,
            "method": f"paired bootstrap, {N_DRAWINGS} drawings, percentiles",
            "is_more_than_noise": self.is_more_than_noise,
        }


def compare(first: Score, other: Score) -> Comparison:
    """Compare two scores of the same texts, taken in the same order. Raises DataError where they are not of the same texts."""
    a, b = first.losses, other.losses
    if not np.array_equal(a.documents, b.documents):
        raise DataError("compare: found scores of two texts, expected one text for both models")
    same_tokens = first.ids_digest == other.ids_digest and np.array_equal(a.n_tokens, b.n_tokens)
    unit: Unit = "nats per token" if same_tokens else "bits per byte"
    below = (a.n_tokens, b.n_tokens) if same_tokens else (a.n_bytes * math.log(2), b.n_bytes * math.log(2))
    columns = np.stack([a.nats, below[0], b.nats, below[1]])
    difference = float(_difference(columns.sum(1, keepdims=True))[0])
    return Comparison(unit, difference, interval_of(_difference, columns, a.documents))


def _difference(sums: np.ndarray) -> np.ndarray:
    """(N,) from sums (4, N): nats and what they are divided by, of the first and of the other."""
    return sums[2] / sums[3] - sums[0] / sums[1]
