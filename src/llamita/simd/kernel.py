"""The decorators for all compiled functions.

No fastmath: its nnan and ninf would break the -inf of the causal mask, and every fused multiply-add is explicit anyway.
No on-disk cache of Numba's: it watches one file and would keep stale machine code; machine_code.py keeps our own.
"""

from numba import njit

kernel = njit(nogil=True, error_model="numpy")

# A piece of a kernel with a name of its own: copied into its caller before compilation. LLVM optimizes a kernel again with each
# kernel that calls it, so six levels of calls above the matrix products took 27 s to compile, and one takes a third of that.
piece = njit(nogil=True, error_model="numpy", inline="always")
