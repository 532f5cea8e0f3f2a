"""Whether the classifier of a checkpoint is its embedding once more: then a Model holds it once.

Stands under the readers of checkpoints that hold both always. Knows no format.
"""

import numpy as np

from llamita.files import drop_pages
from llamita.quant import Tensor

_ROWS_AT_ONCE = 1024


def have_same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two matrices hold the same bits; most that differ do so in the first rows."""
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    for first in range(0, left.shape[0], _ROWS_AT_ONCE):
        one, other = (t.rows(first, first + _ROWS_AT_ONCE) for t in (left, right))
        for name in ("data", "scales", "offsets"):
            if not _are_same(getattr(one, name), getattr(other, name)):
                return False
        for tensor in (one, other):
            drop_pages(tensor.data)
    return True


def _are_same(left: np.ndarray | None, right: np.ndarray | None) -> bool:
    if left is None or right is None:
        return left is right
    one, other = np.ascontiguousarray(left), np.ascontiguousarray(right)
    return one.dtype == other.dtype and np.array_equal(one.view(f"u{one.itemsize}"), other.view(f"u{other.itemsize}"))
