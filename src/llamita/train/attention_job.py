"""The record through which attention.py and the compiled attention share a job: sizes and addresses.

A field called like a buffer is its address. Letters as in model.py. Knows neither torch nor Numba.
"""

import numpy as np

LANES = 16
KEY_BLOCK = 96  # keys whose scores are handled at once; a multiple of every processor's tile rows

# Two counters that the threads draw from come first. B, T, T rounded up to 16, H, G, H + 2G, K, K rounded up to 8, B * H * T;
# the dtype of qkv, out, d_out, d_qkv; cosines, sines float32[T, K/2], starts int32[B, T] or 0, statistics float32[2, B, H, T]
_INTEGERS = """
    n_arrived n_drawn
    n_sequences n_tokens padded_tokens n_heads n_kv_heads n_all_heads head_size stride n_rows
    is_bfloat16 item_bytes is_backward
    qkv cosines sines starts out statistics d_out d_qkv
    scratch scratch_bytes
"""
# scale: of the scores, 1 / sqrt(K)
JOB = np.dtype([*((name, np.int64) for name in _INTEGERS.split()), ("scale", np.float32)], align=True)


def new_job(n_sequences: int, n_tokens: int, n_heads: int, n_kv_heads: int, head_size: int) -> np.ndarray:
    """A record (an array of one) with its sizes filled in and all addresses 0."""
    job = np.zeros(1, JOB)
    job["n_sequences"], job["n_tokens"], job["padded_tokens"] = n_sequences, n_tokens, -(-n_tokens // LANES) * LANES
    job["n_heads"], job["n_kv_heads"], job["n_all_heads"] = n_heads, n_kv_heads, n_heads + 2 * n_kv_heads
    job["head_size"], job["stride"], job["n_rows"] = head_size, -(-head_size // 8) * 8, n_sequences * n_heads * n_tokens
    job["scale"] = head_size**-0.5
    job["scratch_bytes"] = _scratch_bytes(int(job["padded_tokens"][0]), int(job["stride"][0]))
    return job


def _scratch_bytes(padded_tokens: int, stride: int) -> int:
    """Buffers of one thread, as attention_kernels.scratch_of lays them out, in whole cache lines."""
    keys = 4 * ((padded_tokens + KEY_BLOCK) * stride + LANES)
    block = 4 * LANES * (stride + LANES)
    return 4 * keys + 6 * block + 4 * (2 * KEY_BLOCK + 3) * LANES
