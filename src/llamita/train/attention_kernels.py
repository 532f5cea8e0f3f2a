"""Rotary causal attention for training, forward and backward, as compiled code: what attention.py runs on a CPU.

A task is one key/value group of one sequence with all its query heads, so nobody else adds to its gradients. Sixteen queries
at a time are the 16 lanes: maxima, sums and masks need no horizontal step. Blocks of keys keep scores in the first-level cache;
forward carries a running maximum from block to block (arXiv:2112.05682), backward recomputes the scores (arXiv:2205.14135).
Scores are in base 2: queries are multiplied by log2(e) / sqrt(K) when read. Knows no torch; memory is addresses, checked before.
"""

import math
from typing import NamedTuple

import numpy as np

from llamita.simd.atomics import atomic_add
from llamita.simd.isa import current_isa
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import (
    get_bf16,
    get_f32,
    get_i32,
    load,
    load_8,
    load_bf16,
    load_bf16_8,
    load_first,
    load_i32,
    load_pairs,
    prefetch,
    record_reader,
    set_bf16,
    set_f32,
    set_i32,
    store,
    store_8,
    store_bf16,
    store_bf16_8,
    store_column,
    store_first,
)
from llamita.simd.product_tile import product_rows, product_tile
from llamita.simd.vectors import (
    LANES,
    add,
    divide,
    exp2,
    extract_lane,
    fma,
    insert_lane,
    keep_visible,
    maximum,
    multiply,
    reduce_add,
    splat,
    subtract,
    turn_pairs,
)
from llamita.train.attention_job import JOB, KEY_BLOCK

TILE_ROWS = product_rows(current_isa())
LARGE_TILE = TILE_ROWS[0]
READ_AHEAD = 16  # tokens: rows of a head lie in different pages, where no processor foresees them
LOWEST = np.float32(-3e38)  # finite, so that a block without a visible key gives 2**-inf = 0 and not 2**nan
LN_2 = np.float32(math.log(2))
LOG2_E = np.float32(math.log2(math.e))

read_job = record_reader(JOB)


class Scratch(NamedTuple):
    """Addresses of one thread's buffers, float32 with rows of job.stride; "columns" are [K][16 queries]."""

    keys: int
    values: int
    d_keys: int
    d_values: int
    queries: int
    d_out: int
    query_columns: int
    d_out_columns: int
    mixed: int  # columns: the output, or the gradient of the queries
    mixed_rows: int  # [stride / 16][16 queries][16]
    scores: int  # [KEY_BLOCK][16 queries]
    d_scores: int
    tops: int  # [16] of each query: minus the largest score
    deltas: int  # [16] minus sum of d_out * out
    starts: int  # int32[16]


@piece
def scratch_of(job, rank):
    """Where the buffers of thread `rank` lie; attention_job.scratch_bytes says how much that is."""
    base = job.scratch + rank * job.scratch_bytes
    keys = 4 * ((job.padded_tokens + KEY_BLOCK) * job.stride + LANES)
    small = base + 4 * keys
    block = 4 * LANES * (job.stride + LANES)
    scores = small + 6 * block
    vectors = scores + 2 * 4 * KEY_BLOCK * LANES
    return Scratch(
        base, base + keys, base + 2 * keys, base + 3 * keys,
        small, small + block, small + 2 * block, small + 3 * block, small + 4 * block, small + 5 * block,
        scores, scores + 4 * KEY_BLOCK * LANES, vectors, vectors + 4 * LANES, vectors + 8 * LANES,
    )  # fmt: skip


@piece
def read_lanes(address, is_half, n):
    """The first n numbers (float32, or bfloat16 if is_half) of a row as a vector, zeros behind; reads nothing more."""
    if n >= LANES:
        return load_bf16(address, 0) if is_half else load(address, 0)
    x = splat(np.float32(0))
    done = 0
    if n >= 8:
        x = load_bf16_8(address, 0) if is_half else load_8(address, 0)
        done = 8
    for lane in range(done, n):
        x = insert_lane(x, lane, get_bf16(address, lane) if is_half else get_f32(address, lane))
    return x


@piece
def write_lanes(address, is_half, n, x):
    """Store the first n lanes of x as read_lanes reads them; writes nothing more."""
    if n >= LANES:
        if is_half:
            store_bf16(address, 0, x)
        else:
            store(address, 0, x)
        return
    done = 0
    if n >= 8:
        if is_half:
            store_bf16_8(address, 0, x)
        else:
            store_8(address, 0, x)
        done = 8
    for lane in range(done, n):
        if is_half:
            set_bf16(address, lane, extract_lane(x, lane))
        else:
            set_f32(address, lane, extract_lane(x, lane))


@kernel
def turn(x, job, position, i, direction):
    """Rotate columns i to i + 15 of a head by their angles at a position (direction 1), or back (-1)."""
    at, n_pairs = position * (job.head_size // 2) + i // 2, (job.head_size - i) // 2
    cosines, sines = load_pairs(job.cosines, at, n_pairs), load_pairs(job.sines, at, n_pairs)
    return turn_pairs(x, cosines, multiply(sines, splat(np.float32(direction))))


@kernel
def read_rows(job, address, n_heads, t, n_rows, is_rotated, factor, rows):
    """rows[r] = factor * token t + r of one head of a [T, n_heads, K] array, rotated or not; zeros fill a row.

    address: of the head at token 0. A row's last vector may overrun into the next row, which is written after it.
    """
    row_bytes = job.item_bytes * n_heads * job.head_size
    for r in range(n_rows):
        row = address + (t + r) * row_bytes
        for i in range(0, job.head_size, LANES):
            prefetch(row + READ_AHEAD * row_bytes + job.item_bytes * i)
            x = read_lanes(row + job.item_bytes * i, job.is_half, job.head_size - i)
            if is_rotated:
                x = turn(x, job, t + r, i, 1)
            store(rows, r * job.stride + i, multiply(x, splat(factor)))


@kernel
def write_row(job, address, n_heads, t, is_rotated, factor, row, part_stride):
    """Token t of one head of a [T, n_heads, K] array = factor * row, rotated back or not. Vectors lie part_stride apart."""
    target = address + job.item_bytes * t * n_heads * job.head_size
    for i in range(0, job.head_size, LANES):
        x = multiply(load(row, i // LANES * part_stride), splat(factor))
        if is_rotated:
            x = turn(x, job, t, i, -1)
        write_lanes(target + job.item_bytes * i, job.is_half, job.head_size - i, x)


@kernel
def zero(address, n):
    """float32[n] = 0, n rounded up to whole vectors."""
    for i in range(0, n, LANES):
        store(address, i, splat(np.float32(0)))


@kernel
def write_columns(job, s, address, t, n_rows, is_rotated, factor):
    """Write the 16 queries of s.mixed, which are columns, as rows of one head; n_rows of them are real."""
    for i in range(job.head_size):
        store_column(s.mixed_rows, (i >> 4) * LANES * LANES + (i & 15), load(s.mixed, i * LANES))
    n_heads = job.n_rotated_heads if is_rotated else job.n_heads
    for r in range(n_rows):
        write_row(job, address, n_heads, t + r, is_rotated, factor, s.mixed_rows + 4 * r * LANES, LANES * LANES)


@kernel
def read_block(job, address, n_heads, t, n_real, is_rotated, factor, rows, columns):
    """Read 16 queries as rows and as columns; those beyond the context are 0."""
    read_rows(job, address, n_heads, t, n_real, is_rotated, factor, rows)
    zero(rows + 4 * n_real * job.stride, (LANES - n_real) * job.stride)
    transpose_rows(job, rows, columns)


@piece
def transpose_rows(job, rows, columns):
    """columns[i][r] = rows[r][i] of 16 rows."""
    for r in range(LANES):
        for i in range(0, job.stride, LANES):
            store_column(columns, i * LANES + r, load(rows, r * job.stride + i))


@kernel
def read_keys(job, s, b, g):
    """Read the rotated keys and the values of group g of sequence b, and zeros behind the last token."""
    n, head_bytes = job.n_rotated_heads, job.item_bytes * job.head_size
    sequence = job.qkv + b * job.n_tokens * n * head_bytes
    read_rows(job, sequence + (job.n_heads + g) * head_bytes, n, 0, job.n_tokens, True, np.float32(1), s.keys)
    values = sequence + (job.n_heads + job.n_kv_heads + g) * head_bytes
    read_rows(job, values, n, 0, job.n_tokens, False, np.float32(1), s.values)
    end, n_zeros = 4 * job.n_tokens * job.stride, (job.padded_tokens - job.n_tokens + KEY_BLOCK) * job.stride
    zero(s.keys + end, n_zeros)
    zero(s.values + end, n_zeros)


@kernel
def read_starts(job, s, b, t, n_real):
    """s.starts = the first key that each of 16 queries may see; returns (lowest, highest) of the real ones."""
    low = high = np.int64(0)
    if job.starts == 0:
        for lane in range(LANES):
            set_i32(s.starts, lane, np.int32(0))
        return low, high
    low = np.int64(t + n_real - 1)
    for lane in range(n_real):
        start = min(np.int64(get_i32(job.starts, b * job.n_tokens + t + lane)), t + lane)  # a query sees at least itself
        start = max(start, np.int64(0))
        low, high = min(low, start), max(high, start)
        set_i32(s.starts, lane, np.int32(start))
    for lane in range(n_real, LANES):
        set_i32(s.starts, lane, np.int32(low))
    return low, high


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
def soften(job, s, n, top, total):
    """Probabilities, not yet divided by their sum, of n rows of scores; corrects s.mixed for a new maximum: (maximum, sum)."""
    high = top
    for j in range(n):
        high = maximum(high, load(s.scores, j * LANES))
    factor = exp2(subtract(top, high))
    total = multiply(total, factor)
    for j in range(n):
        p = exp2(subtract(load(s.scores, j * LANES), high))
        total = add(total, p)
        store(s.scores, j * LANES, p)
    for i in range(job.head_size):
        store(s.mixed, i * LANES, multiply(load(s.mixed, i * LANES), factor))
    return high, total


@kernel
def attend(job, s, b, h, t):
    """16 queries of one head from token t on: out, and the two statistics that backward needs."""
    n_real = min(LANES, job.n_tokens - t)
    low, high = read_starts(job, s, b, t, n_real)
    sequence = job.qkv + job.item_bytes * job.head_size * (b * job.n_tokens * job.n_rotated_heads + h)
    factor = job.scale * LOG2_E
    read_block(job, sequence, job.n_rotated_heads, t, n_real, True, factor, s.queries, s.query_columns)
    zero(s.mixed, job.head_size * LANES)
    zero(s.tops, LANES)
    top, total = splat(LOWEST), splat(np.float32(0))
    for j in range(low // KEY_BLOCK * KEY_BLOCK, t + LANES, KEY_BLOCK):
        n = min(KEY_BLOCK, t + LANES - j)
        score(job, s.scores, s.keys + 4 * j * job.stride, s.query_columns, s.tops, n)
        mask_scores(s.scores, n, j, t, s.starts, high)
        top, total = soften(job, s, n, top, total)
        add_mixture(job, s.mixed, s.values + 4 * j * job.stride, s.scores, n)
    inverse = divide(splat(np.float32(1)), total)
    for i in range(job.head_size):
        store(s.mixed, i * LANES, multiply(load(s.mixed, i * LANES), inverse))
    out = job.out + job.item_bytes * job.head_size * (b * job.n_tokens * job.n_heads + h)
    write_columns(job, s, out, t, n_real, False, np.float32(1))
    row = (b * job.n_heads + h) * job.n_tokens + t
    store_first(job.statistics, row, top, n_real)
    store_first(job.statistics, job.n_rows + row, inverse, n_real)


@kernel
def read_gradients(job, s, b, h, t, n_real):
    """Read 16 rows of d_out divided by their sums of probabilities, and from them and `out` the deltas of softmax's gradient."""
    at = job.item_bytes * job.head_size * (b * job.n_tokens * job.n_heads + h)
    read_rows(job, job.d_out + at, job.n_heads, t, n_real, False, np.float32(1), s.d_out)
    zero(s.d_out + 4 * n_real * job.stride, (LANES - n_real) * job.stride)
    row = (b * job.n_heads + h) * job.n_tokens + t
    store(s.tops, 0, subtract(splat(np.float32(0)), load_first(job.statistics, row, n_real)))
    zero(s.deltas, LANES)
    for r in range(n_real):
        inverse = splat(get_f32(job.statistics, job.n_rows + row + r))
        row_bytes = job.item_bytes * job.n_heads * job.head_size
        out = job.out + at + (t + r) * row_bytes
        total = splat(np.float32(0))
        for i in range(0, job.stride, LANES):
            place = r * job.stride + i
            prefetch(out + READ_AHEAD * row_bytes + job.item_bytes * i)
            x = multiply(load(s.d_out, place), inverse)
            total = fma(x, read_lanes(out + job.item_bytes * i, job.is_half, job.head_size - i), total)
            if job.stride - i >= LANES:
                store(s.d_out, place, x)
            else:
                store_8(s.d_out, place, x)
        set_f32(s.deltas, r, -reduce_add(total))
    transpose_rows(job, s.d_out, s.d_out_columns)


@kernel
def differentiate_scores(s, n):
    """Of n rows of keys: probabilities into s.scores, gradients of the scores into s.d_scores, which held those of p minus delta."""
    for j in range(n):
        p = exp2(load(s.scores, j * LANES))
        store(s.scores, j * LANES, p)
        store(s.d_scores, j * LANES, multiply(p, load(s.d_scores, j * LANES)))


@kernel
def attend_backward(job, s, b, h, t):
    """16 queries of one head from token t on: their gradient, and what they add to the gradients of keys and values."""
    n_real = min(LANES, job.n_tokens - t)
    low, high = read_starts(job, s, b, t, n_real)
    at = job.item_bytes * job.head_size * (b * job.n_tokens * job.n_rotated_heads + h)
    factor = job.scale * LOG2_E
    read_block(job, job.qkv + at, job.n_rotated_heads, t, n_real, True, factor, s.queries, s.query_columns)
    read_gradients(job, s, b, h, t, n_real)
    zero(s.mixed, job.head_size * LANES)
    for j in range(low // KEY_BLOCK * KEY_BLOCK, t + LANES, KEY_BLOCK):
        n = min(KEY_BLOCK, t + LANES - j)
        at_key = 4 * j * job.stride
        score(job, s.scores, s.keys + at_key, s.query_columns, s.tops, n)
        mask_scores(s.scores, whole_tiles(n), j, t, s.starts, high)
        score(job, s.d_scores, s.values + at_key, s.d_out_columns, s.deltas, n)
        differentiate_scores(s, whole_tiles(n))
        add_outer(job, s.d_values + at_key, s.scores, s.d_out, n)
        add_outer(job, s.d_keys + at_key, s.d_scores, s.queries, n)
        add_mixture(job, s.mixed, s.keys + at_key, s.d_scores, n)
    write_columns(job, s, job.d_qkv + at, t, n_real, True, job.scale)


@kernel
def run_task(job, s, b, g):
    """Forward or backward of one key/value group of one sequence."""
    read_keys(job, s, b, g)
    n_keys = (job.padded_tokens + KEY_BLOCK) * job.stride
    if job.is_backward:
        zero(s.d_keys, n_keys)
        zero(s.d_values, n_keys)
    n_queries = job.n_heads // job.n_kv_heads
    for h in range(g * n_queries, (g + 1) * n_queries):
        for t in range(0, job.n_tokens, LANES):
            if job.is_backward:
                attend_backward(job, s, b, h, t)
            else:
                attend(job, s, b, h, t)
    if job.is_backward:
        n, head_bytes = job.n_rotated_heads, job.item_bytes * job.head_size
        d_keys = job.d_qkv + head_bytes * (b * job.n_tokens * n + job.n_heads + g)
        for t in range(job.n_tokens):
            row = 4 * t * job.stride
            write_row(job, d_keys, n, t, True, LN_2, s.d_keys + row, LANES)
            write_row(job, d_keys + job.n_kv_heads * head_bytes, n, t, False, np.float32(1), s.d_values + row, LANES)


@kernel
def work(state):
    """One thread's share of a job: tasks in turn until none is left. state: address of a JOB record.

    Which thread takes a task changes nothing in its arithmetic, so results do not depend on the number of threads.
    """
    job = read_job(state, 0)
    s = scratch_of(job, atomic_add(state, 0, 1))
    task = atomic_add(state, 1, 1)
    while task < job.n_sequences * job.n_kv_heads:
        run_task(job, s, task // job.n_kv_heads, task % job.n_kv_heads)
        task = atomic_add(state, 1, 1)
