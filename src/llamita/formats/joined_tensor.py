"""A tensor whose pieces lie in several files: joined when it is touched, some rows at a time where that is enough.

A model that was split over devices lies in one file for each. Joining all of it at once would take the memory of the model, and
no view spans two mapped files; so a writer asks for rows, and only who touches `data`, as the engine does, gets a tensor in
memory. Knows no format.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from llamita.files import drop_pages
from llamita.quant import Tensor


class JoinedTensor(Tensor):
    """A matrix of a float dtype in pieces, side by side along an axis; `data` is made when it is touched, and kept."""

    pieces: tuple[np.ndarray, ...]
    axis: int

    @classmethod
    def of(cls, pieces: list[Tensor], axis: int) -> "JoinedTensor":
        """Join matrices of one dtype along axis 0 or 1."""
        joined = cls.__new__(cls)
        shape = list(pieces[0].shape)
        shape[axis] = sum(piece.shape[axis] for piece in pieces)
        values = {"dtype": pieces[0].dtype, "shape": tuple(shape), "scales": None, "offsets": None}
        joined.__dict__.update(values | {"pieces": tuple(piece.data for piece in pieces), "axis": axis})
        return joined

    @cached_property
    def data(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The whole tensor in memory."""
        return _concatenate(self.pieces, self.axis)

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored numbers."""
        return sum(piece.nbytes for piece in self.pieces)

    def rows(self, first: int, last: int) -> Tensor:
        """The rows first to last - 1, joined in memory; nothing else is read, and nothing is kept."""
        first, last, _ = slice(first, last).indices(self.shape[0])
        if self.axis == 1:
            parts = [piece[first:last] for piece in self.pieces]
        else:
            ends = np.cumsum([len(piece) for piece in self.pieces])
            starts = [end - len(piece) for end, piece in zip(ends, self.pieces, strict=True)]
            parts = [p[max(first - start, 0) : max(last - start, 0)] for start, p in zip(starts, self.pieces, strict=True)]
        joined = _concatenate(parts, self.axis)
        return Tensor(self.dtype, joined.shape, joined)


def _concatenate(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Join arrays and give the memory of the mapped files back that they lie in."""
    joined = np.concatenate(parts, axis)
    for part in parts:
        drop_pages(part)
    return joined
