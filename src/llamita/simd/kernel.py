"""The one decorator for all compiled functions.

No fastmath: its nnan and ninf would break the -inf of the causal mask, and every fused multiply-add is explicit anyway.
No on-disk cache of Numba's: it watches one file and would keep stale machine code; engine/compiled.py keeps its own.
"""

from numba import njit

kernel = njit(nogil=True, error_model="numpy")
