"""Rows of an update out of rendered chats: whole examples one behind the other, none of which sees its neighbours.

packing.py says which examples a row holds; here they become ids, targets and the masks between them. Knows no loss.
"""

from dataclasses import dataclass

import numpy as np

from llamita.data.examples import Examples
from llamita.errors import SettingError
from llamita.train.loss import NO_TARGET
from llamita.train.packing import Packing


@dataclass(frozen=True)
class Filled:
    """Rows (B, T). starts: where the example of each token begins. numbers: of the example in the batch, in their order there.

    Tokens behind the last example have no target and see nothing but themselves.
    """

    ids: np.ndarray  # int64
    targets: np.ndarray  # int64, NO_TARGET where a token is not to be learned
    starts: np.ndarray  # int32
    numbers: np.ndarray  # int64
    n_counted: int


class ExampleRows:
    """The rows of a run. A unit is what must not be torn apart: an example, or the two of a pair."""

    def __init__(self, examples: Examples, per_unit: int, row_tokens: int, rows_per_update: int, seed: int) -> None:
        """Raises SettingError where a unit is longer than a row."""
        self.examples, self._per_unit = examples, per_unit
        self.row_tokens, self._rows_per_update = row_tokens, rows_per_update
        self.lengths = unit_lengths(examples, per_unit)
        if self.lengths.max() > row_tokens:
            what = "the longest chat" if per_unit == 1 else "the longest pair of answers"
            raise SettingError(f"row_tokens: found {row_tokens}, expected at least the {self.lengths.max()} of {what}")
        self._packing = Packing(self.lengths, row_tokens, seed)
        per_example = np.array([np.count_nonzero(examples.counted(i)[1:]) for i in range(examples.n_examples)])
        self._n_counted = per_example.reshape(-1, per_unit).sum(1)

    def rows(self, step: int, first: int = 0, last: int | None = None) -> list[np.ndarray]:
        """The units of the rows first to last - 1, or of all, of the update after `step` updates."""
        begin = step * self._rows_per_update
        return self._packing.rows(begin + first, begin + (self._rows_per_update if last is None else last))

    def n_rows(self, n_epochs: int) -> int:
        """Rows of the first epochs."""
        return self._packing.n_rows(n_epochs)

    def epoch(self, n_tokens: int | None = None) -> list[np.ndarray]:
        """The rows of the first epoch, or so many of them as have n_tokens in all, padding included; at least one."""
        n_rows = self.n_rows(1)
        return self._packing.rows(0, n_rows if n_tokens is None else max(1, min(n_tokens // self.row_tokens, n_rows)))

    def n_counted(self, rows: list[np.ndarray]) -> int:
        """Tokens to be learned in rows."""
        return int(sum(self._n_counted[row].sum() for row in rows))

    def n_tokens(self, rows: list[np.ndarray]) -> int:
        """Tokens in rows, padding left out."""
        return int(sum(self.lengths[row].sum() for row in rows))

    def filled(self, rows: list[np.ndarray]) -> Filled:
        """The content of rows."""
        shape = (len(rows), self.row_tokens)
        ids, targets, numbers = np.zeros(shape, np.int64), np.full(shape, NO_TARGET), np.zeros(shape, np.int64)
        starts = np.tile(np.arange(self.row_tokens, dtype=np.int32), (len(rows), 1))
        number = 0
        for i, row in enumerate(rows):
            begin = 0
            for example in self.members(row):
                tokens, counted = self.examples.ids(example), self.examples.counted(example)
                end = begin + len(tokens) - 1  # the last token is foretold, but foretells nothing
                ids[i, begin:end] = tokens[:-1]
                targets[i, begin:end] = np.where(counted[1:], tokens[1:], NO_TARGET)
                starts[i, begin:end] = begin
                numbers[i, begin:end] = number
                number, begin = number + 1, end
        return Filled(ids, targets, starts, numbers, self.n_counted(rows))

    def members(self, units: np.ndarray) -> list[int]:
        """The examples of units, in order."""
        return (units[:, None] * self._per_unit + np.arange(self._per_unit)).ravel().tolist()


def unit_lengths(examples: Examples, per_unit: int) -> np.ndarray:
    """Places that each unit takes in a row: int64 (units,)."""
    return (examples.lengths - 1).reshape(-1, per_unit).sum(1)
