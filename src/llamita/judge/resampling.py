"""How far a number may be off because the text was this one and no other of its kind: the bootstrap, in plain numpy.

The pieces of the text are drawn again and again with replacement, and the number is worked out for each drawing; the middle
95 % of what comes out is the interval (the percentile bootstrap; Efron, 1979). Two models are drawn together, piece by piece,
so that what both find hard cancels out. Knows no model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
N_DRAWINGS = 10_000
FEWEST_PIECES = 10  # an interval from fewer says nothing
ENOUGH_DOCUMENTS = 30  # documents do not depend on each other, as the pieces of one do
MOST_PIECES = 2_000  # of more, neighbours are drawn together: nobody waits, and nothing changes
_DRAWN_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Interval:
    """Where the number of all text of this kind lies, with 95 % confidence.

    n_pieces of the text were drawn from; pieces says what they are: `documents` or `kilobytes`.
    """

    low: float
    high: float
    n_pieces: int
    pieces: str

    @property
    def holds_zero(self) -> bool:
        """Whether nothing at all is among what is likely."""
        return self.low <= 0 <= self.high


def interval_of(
    number: Callable[[np.ndarray], np.ndarray], columns: np.ndarray, documents: np.ndarray, seed: int = 0
) -> Interval | None:
    """The interval of number(sums of the columns), or None for a text of too few pieces.

    columns: float64 (k, R), what is summed up, for each kilobyte of text; documents: int64 (R,), of which document it is.
    number: from sums (k, N) of N drawings to (N,). Documents are drawn whole where there are enough of them.
    """
    n_documents, pieces = int(documents.max(initial=-1)) + 1, "kilobytes"
    if n_documents >= ENOUGH_DOCUMENTS:
        columns, pieces = np.stack([np.bincount(documents, column) for column in columns]), "documents"
    n_pieces = columns.shape[1]
    if n_pieces < FEWEST_PIECES:
        return None
    if n_pieces > MOST_PIECES:
        columns = np.add.reduceat(columns, np.arange(MOST_PIECES) * n_pieces // MOST_PIECES, axis=1)
    rng, found = np.random.default_rng(seed), []
    n_at_once = max(_DRAWN_AT_ONCE // columns.shape[1], 1)
    for first in range(0, N_DRAWINGS, n_at_once):
        drawn = rng.integers(0, columns.shape[1], (min(n_at_once, N_DRAWINGS - first), columns.shape[1]))
        found.append(number(columns[:, drawn].sum(2)))
    margin = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(found), [margin, 1 - margin]).tolist()
    return Interval(low, high, n_pieces, pieces)
