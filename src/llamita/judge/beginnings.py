"""Beginnings that texts share: a slot of the engine begins a text behind what it, or another slot, has read of it already.

Used by likelihoods.py and answers.py, which run many texts at once. What is taken over is what reading would give, bit for bit.
"""

from collections.abc import Sequence as Many

import numpy as np

from llamita.engine import Sampling, Sequence
from llamita.engine.sequence import LEAST_TO_COPY


def begin(sequence: Sequence, ids: np.ndarray, sampling: Sampling, n_most: int, others: Many[Sequence] = ()) -> None:
    """Begin a text, int64 (T,), in the slot of a sequence; at most its first n_most ids need not be read again.

    others: sequences of the same engine, each of which may have read a longer beginning of it than this one.
    """
    kept = n_shared(sequence, ids, n_most)
    sources = [(n_shared(other, ids, n_most), other) for other in others]
    n, source = max(sources, key=lambda pair: pair[0], default=(0, sequence))
    if n < kept + LEAST_TO_COPY:
        sequence.reuse(sampling, kept)
        sequence.append(ids[kept:])
        return
    sequence.reuse(sampling, 0)
    sequence.append(ids)
    sequence.take_over(source, n)


def n_shared(sequence: Sequence, ids: np.ndarray, n_most: int) -> int:
    """How many of the first n_most ids of a text a sequence has read as its own first."""
    n = min(sequence.n_read, n_most)
    differs = np.flatnonzero(sequence.history[:n] != ids[:n])
    return int(differs[0]) if len(differs) else n
