"""Memory for the engine: aligned arrays and their addresses."""

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
