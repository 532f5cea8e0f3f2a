"""Whether the classifier of a checkpoint is its embedding once more: then a Model holds it once.

Stands under the readers of checkpoints that hold both always. Knows no format.
"""

import numpy as np

from llamita.quant import Tensor

_ROWS_AT_ONCE = 1024


def have_same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two matrices hold the same bits; most that differ do so in the first rows."""
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    for first in range(0, left.shape[0], _ROWS_AT_ONCE):
        one, other = (np.ascontiguousarray(t.rows(first, first + _ROWS_AT_ONCE).data) for t in (left, right))
        if not np.array_equal(one.view(f"u{one.itemsize}"), other.view(f"u{other.itemsize}")):
            return False
    return True
