"""Rotary causal attention for training, forward and backward, as compiled code: what attention.py runs on a CPU.

A task is one key/value group of one sequence with all its query heads, so nobody else adds to its gradients. Sixteen queries
at a time are the 16 lanes: maxima, sums and masks need no horizontal step. Blocks of keys keep scores in the first-level cache;
forward carries a running maximum from block to block (arXiv:2112.05682), backward recomputes the scores (arXiv:2205.14135).
Scores are in base 2: queries are multiplied by log2(e) / sqrt(K) when read. Knows no torch and checks no size.
"""

import math

import numpy as np

from llamita.simd.atomics import atomic_add
from llamita.simd.isa import current_isa
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import (
    load,
    load_i32,
    record_reader,
    store,
    store_first,
)
from llamita.simd.product_tile import product_rows, product_tile
from llamita.simd.vectors import (
    LANES,
    add,
    divide,
    exp2,
    keep_visible,
    maximum,
    multiply,
    splat,
    subtract,
)
from llamita.train.attention_job import JOB, KEY_BLOCK
from llamita.train.attention_rows import (
    read_block,
    read_gradients,
    read_keys,
    read_starts,
    scratch_of,
    write_columns,
    write_row,
    zero,
)

TILE_ROWS = product_rows(current_isa())
LARGE_TILE = TILE_ROWS[0]
LOWEST = np.float32(-3e38)  # finite, so that a block without a visible key gives 2**-inf = 0 and not 2**nan
LN_2 = np.float32(math.log(2))
LOG2_E = np.float32(math.log2(math.e))

read_job = record_reader(JOB)


@piece
def score(job, scores, rows, columns, initial, n):
    """scores[j] = initial + rows[j] . columns for n keys, rounded up to whole tiles; initial: address of a vector."""
    for j in range(0, n, LARGE_TILE):
        product_tile(
            LARGE_TILE, LANES, scores + 4 * j * LANES, LANES, rows + 4 * j * job.stride, job.stride, 1,
            columns, LANES, initial, 0, job.head_size,
        )  # fmt: skip


@kernel
def channels_of_tile(left):
    """How many of the `left` channels (an even number) the next tile takes: 8 as 4 + 4, since a tile of 2 is half as fast."""
    for rows in TILE_ROWS:
        if left >= rows and (left - rows != 2 or rows <= 4):
            return rows
    return 2


@kernel
def add_mixture(job, mixed, rows, weights, n):
    """mixed[i] += sum over n keys of rows[j][i] * weights[j]: values by probabilities, or keys by the scores' gradients."""
    i = 0
    while i < job.head_size:
        n_channels = channels_of_tile(job.head_size - i)
        target = mixed + 4 * i * LANES
        product_tile(n_channels, LANES, target, LANES, rows + 4 * i, 1, job.stride, weights, LANES, target, LANES, n)
        i += n_channels


@kernel
def add_outer(job, d_rows, weights, rows, n):
    """d_rows[j] += sum over 16 queries r of weights[j][r] * rows[r], for n keys rounded up to whole tiles."""
    for i in range(0, job.stride, LANES):
        width = LANES if job.stride - i >= LANES else LANES // 2
        j = 0
        while j < n:
            n_keys = 2 * LARGE_TILE if width < LANES and n - j > LARGE_TILE else LARGE_TILE
            target = d_rows + 4 * (j * job.stride + i)
            product_tile(
                n_keys, width, target, job.stride, weights + 4 * j * LANES, LANES, 1,
                rows + 4 * i, job.stride, target, job.stride, LANES,
            )  # fmt: skip
            j += n_keys


@kernel
def mask_scores(scores, n, j, t, starts, high):
    """Scores of keys j to j + n - 1 that a query of the 16 from t on may not see become -inf."""
    if j + n <= t + 1 and j >= high:
        return
    lanes = load_i32(starts, 0)
    for key in range(n):
        store(scores, key * LANES, keep_visible(load(scores, key * LANES), j + key, t, lanes))


@kernel
def whole_tiles(n):
    """n keys rounded up to the rows that `score` writes."""
    return (n + LARGE_TILE - 1) // LARGE_TILE * LARGE_TILE


@kernel
def soften(job, scratch, n, top, total):
    """Make probabilities, not yet divided by their sum, of n rows of scores; correct `mixed` for a new maximum.

    Returns (maximum, sum) so far of each query.
    """
    high = top
    for j in range(n):
        high = maximum(high, load(scratch.scores, j * LANES))
    factor = exp2(subtract(top, high))
    total = multiply(total, factor)
    for j in range(n):
        p = exp2(subtract(load(scratch.scores, j * LANES), high))
        total = add(total, p)
        store(scratch.scores, j * LANES, p)
    for i in range(job.head_size):
        store(scratch.mixed, i * LANES, multiply(load(scratch.mixed, i * LANES), factor))
    return high, total


@kernel
def attend(job, scratch, b, h, t):
    """16 queries of one head from token t on: out, and the two statistics that backward needs."""
    n_real = min(LANES, job.n_tokens - t)
    low, high = read_starts(job, scratch, b, t, n_real)
    sequence = job.qkv + job.item_bytes * job.head_size * (b * job.n_tokens * job.n_all_heads + h)
    factor = job.scale * LOG2_E
    read_block(job, sequence, job.n_all_heads, t, n_real, True, factor, scratch.queries, scratch.query_columns)
    zero(scratch.mixed, job.head_size * LANES)
    zero(scratch.tops, LANES)
    top, total = splat(LOWEST), splat(np.float32(0))
    for j in range(low // KEY_BLOCK * KEY_BLOCK, t + LANES, KEY_BLOCK):
        n = min(KEY_BLOCK, t + LANES - j)
        score(job, scratch.scores, scratch.keys + 4 * j * job.stride, scratch.query_columns, scratch.tops, n)
        mask_scores(scratch.scores, n, j, t, scratch.starts, high)
        top, total = soften(job, scratch, n, top, total)
        add_mixture(job, scratch.mixed, scratch.values + 4 * j * job.stride, scratch.scores, n)
    inverse = divide(splat(np.float32(1)), total)
    for i in range(job.head_size):
        store(scratch.mixed, i * LANES, multiply(load(scratch.mixed, i * LANES), inverse))
    out = job.out + job.item_bytes * job.head_size * (b * job.n_tokens * job.n_heads + h)
    write_columns(job, scratch, out, t, n_real, False, np.float32(1))
    row = (b * job.n_heads + h) * job.n_tokens + t
    store_first(job.statistics, row, top, n_real)
    store_first(job.statistics, job.n_rows + row, inverse, n_real)


@kernel
def differentiate_scores(scratch, n):
    """Scores of n keys become probabilities; their gradients minus delta, in d_scores, become gradients of the scores."""
    for j in range(n):
        p = exp2(load(scratch.scores, j * LANES))
        store(scratch.scores, j * LANES, p)
        store(scratch.d_scores, j * LANES, multiply(p, load(scratch.d_scores, j * LANES)))


@kernel
def attend_backward(job, scratch, b, h, t):
    """16 queries of one head from token t on: their gradient, and what they add to the gradients of keys and values."""
    n_real = min(LANES, job.n_tokens - t)
    low, high = read_starts(job, scratch, b, t, n_real)
    at = job.item_bytes * job.head_size * (b * job.n_tokens * job.n_all_heads + h)
    factor = job.scale * LOG2_E
    read_block(job, job.qkv + at, job.n_all_heads, t, n_real, True, factor, scratch.queries, scratch.query_columns)
    read_gradients(job, scratch, b, h, t, n_real)
    zero(scratch.mixed, job.head_size * LANES)
    for j in range(low // KEY_BLOCK * KEY_BLOCK, t + LANES, KEY_BLOCK):
        n = min(KEY_BLOCK, t + LANES - j)
        at_key = 4 * j * job.stride
        score(job, scratch.scores, scratch.keys + at_key, scratch.query_columns, scratch.tops, n)
        mask_scores(scratch.scores, whole_tiles(n), j, t, scratch.starts, high)
        score(job, scratch.d_scores, scratch.values + at_key, scratch.d_out_columns, scratch.deltas, n)
        differentiate_scores(scratch, whole_tiles(n))
        add_outer(job, scratch.d_values + at_key, scratch.scores, scratch.d_out, n)
        add_outer(job, scratch.d_keys + at_key, scratch.d_scores, scratch.queries, n)
        add_mixture(job, scratch.mixed, scratch.keys + at_key, scratch.d_scores, n)
    write_columns(job, scratch, job.d_qkv + at, t, n_real, True, job.scale)


@kernel
def run_task(job, scratch, b, g):
    """Forward or backward of one key/value group of one sequence."""
    read_keys(job, scratch, b, g)
    n_keys = (job.padded_tokens + KEY_BLOCK) * job.stride
    if job.is_backward:
        zero(scratch.d_keys, n_keys)
        zero(scratch.d_values, n_keys)
    n_queries = job.n_heads // job.n_kv_heads
    for h in range(g * n_queries, (g + 1) * n_queries):
        for t in range(0, job.n_tokens, LANES):
            if job.is_backward:
                attend_backward(job, scratch, b, h, t)
            else:
                attend(job, scratch, b, h, t)
    if job.is_backward:
        n, head_bytes = job.n_all_heads, job.item_bytes * job.head_size
        d_keys = job.d_qkv + head_bytes * (b * job.n_tokens * n + job.n_heads + g)
        for t in range(job.n_tokens):
            row = 4 * t * job.stride
            write_row(job, d_keys, n, t, True, LN_2, scratch.d_keys + row, LANES)
            write_row(job, d_keys + job.n_kv_heads * head_bytes, n, t, False, np.float32(1), scratch.d_values + row, LANES)


@kernel
def work(state):
    """One thread's share of a job: tasks in turn until none is left. state: address of a JOB record.

    Which thread takes a task changes nothing in its arithmetic, so results do not depend on the number of threads.
    """
    job = read_job(state, 0)
    scratch = scratch_of(job, atomic_add(state, 0, 1))
    task = atomic_add(state, 1, 1)
    while task < job.n_sequences * job.n_kv_heads:
        run_task(job, scratch, task // job.n_kv_heads, task % job.n_kv_heads)
        task = atomic_add(state, 1, 1)
