"""Tensors on their way into a file, some rows at a time: a writer's memory is that of a piece, however large the tensor.

Stands between Model and every writer. Pieces come converted; once one is written, the pages of the mapped file that it came
from are given back, or the whole model would pile up in memory. Knows no file layout.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from llamita.files import drop_pages
from llamita.formats.joined_tensor import JoinedTensor
from llamita.quant import Tensor, convert

WEIGHTS_AT_ONCE = 1 << 20
Progress = Callable[[int], None]  # is told of each number of bytes when they have been written


def pieces(tensor: Tensor, dtype: str, group: int = 64, unit: int = 1) -> Iterator[Tensor]:
    """Yield a tensor in another dtype, some rows at a time; each piece must be done with before the next is asked for.

    group: weights per scale of q8_0. unit: rows of which a piece has a multiple, such as those of a head. Where the data of a
    tensor are a view in another order, pieces are such views. Raises ValueError where a group does not divide the row.
    """
    n_rows, *columns = tensor.shape
    if not isinstance(tensor, JoinedTensor):
        unit = max(unit, n_rows // len(tensor.data))
    n_at_once = max(1, WEIGHTS_AT_ONCE // (unit * (columns[0] if columns else 1))) * unit
    for first in range(0, n_rows, n_at_once):
        piece = _rows(tensor, first, min(first + n_at_once, n_rows))
        yield convert(piece, dtype, group)
        for part in (piece.data, piece.scales, piece.offsets):
            if part is not None:
                drop_pages(part)


def write_array(file: BinaryIO, array: np.ndarray, dtype: str, progress: Progress | None = None) -> None:
    """Write numbers row by row as a numpy dtype such as "<f4", without a copy where they lie so already."""
    dense = np.ascontiguousarray(array, dtype)
    file.write(dense.reshape(-1).view(np.uint8).data)
    if progress:
        progress(dense.nbytes)


def _rows(tensor: Tensor, first: int, last: int) -> Tensor:
    """The rows first to last - 1; of a view in another order, which is one of heads, they must be those of whole heads."""
    if isinstance(tensor, JoinedTensor) or len(tensor.data) == tensor.shape[0]:
        return tensor.rows(first, last)
    unit = tensor.shape[0] // len(tensor.data)
    return Tensor(tensor.dtype, (last - first, *tensor.shape[1:]), tensor.data[first // unit : last // unit])
