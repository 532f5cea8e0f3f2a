"""Memory for the engine: aligned arrays, and giving back pages of a mapped file that are no longer needed."""

import ctypes
import mmap
import sys

import numpy as np

BORDER = 1 << 21  # 2 MB: whole cache lines for the kernels, and huge pages where the system grants them


def aligned(n: int, dtype: type | str) -> np.ndarray:
    """n zeros; only pages that are touched take memory. Small arrays are aligned to a cache line."""
    size = max(n, 1) * np.dtype(dtype).itemsize
    border = BORDER if size >= BORDER else 64
    memory = np.zeros(size + border, np.uint8)
    start = -memory.ctypes.data % border
    return memory[start : start + size].view(dtype)


def address_of(array: np.ndarray) -> int:
    """The address of the first element; also of a read-only array."""
    return array.__array_interface__["data"][0]


def mapping_of(array: np.ndarray) -> mmap.mmap | None:
    """The mapped file that an array is a view of, or None."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None


def drop_pages(array: np.ndarray) -> None:
    """Let the system take back the pages of a mapped file that an array covers; reading them again reads the file."""
    # anonymous memory would be zeroed by the same call: only for mapped files, and only where the call is known
    if mapping_of(array) is None or sys.platform != "linux" or array.nbytes == 0:
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    first, end = -(-low // mmap.PAGESIZE) * mmap.PAGESIZE, high // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), 4)  # MADV_DONTNEED
