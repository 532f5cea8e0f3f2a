"""Tensors on their way into a file, some rows at a time: a writer's memory is that of a piece, however large the tensor.

Stands between Model and every writer. Pieces come converted; once one is written, the pages of the mapped file that it came
from are given back, or the whole model would pile up in memory. Knows no file layout.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import BinaryIO, TypeVar

import numpy as np

from llamita.files import drop_pages, start_writing_back
from llamita.formats.joined_tensor import JoinedTensor
from llamita.quant import FLOAT_DTYPES, Tensor, convert

WEIGHTS_AT_ONCE = 1 << 18  # whose conversion stays in the processor's cache
_NUMPY_DTYPES = {"f16": np.float16, "bf16": np.uint16}
T = TypeVar("T")
Progress = Callable[[int], None]  # is told of each number of bytes when they have been written


def pieces(tensor: Tensor, dtype: str, group: int = 64, unit: int = 1) -> Iterator[Tensor]:
    """Yield a tensor in another dtype, some rows at a time; each piece must be done with before the next is asked for.

    group: weights per scale of q8_0. unit: rows of which a piece has a multiple, such as those of a head. Where the data of a
    tensor are a view in another order, pieces are such views. Raises ValueError where a group does not divide the row,
    OverflowError for a number too large for f16.
    """
    n_rows, *columns = tensor.shape
    unit = max(unit, head_rows(tensor))
    n_at_once = max(1, WEIGHTS_AT_ONCE // (unit * (columns[0] if columns else 1))) * unit

    def made(first: int) -> tuple[Tensor, Tensor]:
        piece = whole_rows(tensor, first, min(first + n_at_once, n_rows))
        return piece, _converted(piece, dtype, group)

    for piece, converted in _one_ahead(made, range(0, n_rows, n_at_once)):
        yield converted
        for part in (piece.data, piece.scales, piece.offsets):
            if part is not None:
                drop_pages(part)


def _one_ahead(make: Callable[[int], T], starts: range) -> Iterator[T]:
    """Yield make(start) of each start; while one is used, a thread makes the next."""
    if len(starts) == 1:
        yield make(starts[0])
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(make, starts[0])
        for start in starts[1:]:
            ready, coming = coming.result(), thread.submit(make, start)
            yield ready
        yield coming.result()


def write_array(file: BinaryIO, array: np.ndarray, dtype: str, progress: Progress | None = None) -> None:
    """Write numbers row by row as a numpy dtype such as "<f4", without a copy where they lie so already."""
    dense = np.ascontiguousarray(array, dtype)
    file.write(dense.reshape(-1).view(np.uint8).data)
    start_writing_back(file, dense.nbytes)
    if progress:
        progress(dense.nbytes)


def _converted(piece: Tensor, dtype: str, group: int) -> Tensor:
    """The piece in another dtype; 16-bit floats by a table, which is several times as fast."""
    if piece.dtype == dtype or dtype not in FLOAT_DTYPES:
        return convert(piece, dtype, group)
    if piece.dtype in _NUMPY_DTYPES:
        data = np.take(_float_table(piece.dtype, dtype), piece.data.view(np.uint16))
    else:
        with np.errstate(over="ignore"):
            data = convert(piece, dtype).data
    if dtype == "f16" and np.isinf(data).any() and not np.isinf(piece.dequantize()).any():
        raise OverflowError("a weight too large for f16")
    return Tensor(dtype, piece.shape, data)


@cache
def _float_table(stored: str, dtype: str) -> np.ndarray:
    """What each 16 bits of one float dtype are in another, [65536]."""
    every = np.arange(1 << 16, dtype=np.uint16).view(_NUMPY_DTYPES[stored])
    with np.errstate(all="ignore"):
        return convert(Tensor(stored, every.shape, every), dtype).data


def head_rows(tensor: Tensor) -> int:
    """How many rows must be taken together: those of a head where the data are a view in another order, else 1."""
    return 1 if isinstance(tensor, JoinedTensor) or tensor.has_rows else tensor.shape[0] // len(tensor.data)


def whole_rows(tensor: Tensor, first: int, last: int) -> Tensor:
    """The rows first to last - 1; both must be multiples of head_rows."""
    unit = head_rows(tensor)
    if unit == 1:
        return tensor.rows(first, last)
    return Tensor(tensor.dtype, (last - first, *tensor.shape[1:]), tensor.data[first // unit : last // unit])
