"""Which examples stand in which row of an update, as a pure function of seed and step: nothing to save when a run resumes.

Rows have a fixed length. An epoch shuffles all units (an example, or the two answers of a pair) and puts each into the first
row that has room for it, so that every unit comes exactly once an epoch and little of a row stays empty. Knows no token.
"""

import hashlib
from functools import lru_cache

import numpy as np

from llamita.train.batches import ROUNDS, shuffled

OPEN_ROWS = 64  # that may still get something: more of them fill up better, and take longer


class Packing:
    """The rows of a run, numbered through all epochs. lengths: of the units, int64 (N,), each from 1 to row_length."""

    def __init__(self, lengths: np.ndarray, row_length: int, seed: int) -> None:
        assert len(lengths), "no unit to pack"
        assert 1 <= lengths.min() <= lengths.max() <= row_length, "units that fit no row"
        self._lengths, self._row_length, self._seed = lengths, row_length, seed
        self._ends = [0]  # of the epochs that were looked at, in rows
        self._epoch = lru_cache(maxsize=2)(self._packed)  # an update may reach from one epoch into the next

    def rows(self, first: int, last: int) -> list[np.ndarray]:
        """The units of the rows first to last - 1, in the order in which they stand there."""
        while self._ends[-1] < last:
            self.n_rows(len(self._ends))
        epochs = np.searchsorted(self._ends, np.arange(first, last), side="right") - 1
        return [self._epoch(int(epoch))[row - self._ends[epoch]] for row, epoch in zip(range(first, last), epochs, strict=True)]

    def n_rows(self, n_epochs: int) -> int:
        """How many rows the first epochs have together."""
        while len(self._ends) <= n_epochs:
            self._ends.append(self._ends[-1] + len(self._epoch(len(self._ends) - 1)))
        return self._ends[n_epochs]

    def _packed(self, epoch: int) -> list[np.ndarray]:
        """All rows of an epoch, by first fit over the rows that were opened last."""
        n_units = len(self._lengths)
        order = shuffled(np.arange(n_units), n_units, _keys(self._seed, epoch))
        rows: list[list[int]] = []
        room = np.zeros(OPEN_ROWS, np.int64)  # of the last rows; a row's place is its number modulo OPEN_ROWS
        for unit in order.tolist():
            length = self._lengths[unit]
            oldest = len(rows) % OPEN_ROWS if len(rows) >= OPEN_ROWS else 0
            fits = np.flatnonzero(room >= length)
            if len(fits):
                places = (fits - oldest) % OPEN_ROWS
                number = len(rows) - min(len(rows), OPEN_ROWS) + int(places.min())
            else:
                number = len(rows)
                rows.append([])
                room[number % OPEN_ROWS] = self._row_length
            rows[number].append(unit)
            room[number % OPEN_ROWS] -= length
        return [np.array(row) for row in rows]


def _keys(seed: int, epoch: int) -> np.ndarray:
    """One uint64 for each round of the permutation."""
    digest = hashlib.blake2b(f"llamita packing {seed} {epoch}".encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)
