"""Reading and writing of the compiled attention: from arrays of tokens to one thread's buffers in float32 and back.

Heads are rotated and scaled on the way. A row is a token's head, padded with zeros to job.stride; columns are [K][16 tokens].
Knows no attention: attention_kernels.py computes on what lies in the buffers.
"""

from typing import NamedTuple

import numpy as np

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
    load_pairs,
    prefetch,
    set_bf16,
    set_f32,
    set_i32,
    store,
    store_8,
    store_bf16,
    store_bf16_8,
    store_column,
)
from llamita.simd.vectors import (
    LANES,
    extract_lane,
    fma,
    insert_lane,
    multiply,
    reduce_add,
    splat,
    subtract,
    turn_pairs,
)
from llamita.train.attention_job import KEY_BLOCK

READ_AHEAD = 16  # tokens: rows of a head lie in different pages, where no processor foresees them


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
def read_lanes(address, is_bfloat16, n):
    """The first n numbers (float32, or bfloat16 if is_bfloat16) of a row as a vector, zeros behind; reads nothing more."""
    if n >= LANES:
        return load_bf16(address, 0) if is_bfloat16 else load(address, 0)
    x = splat(np.float32(0))
    done = 0
    if n >= 8:
        x = load_bf16_8(address, 0) if is_bfloat16 else load_8(address, 0)
        done = 8
    for lane in range(done, n):
        x = insert_lane(x, lane, get_bf16(address, lane) if is_bfloat16 else get_f32(address, lane))
    return x


@piece
def write_lanes(address, is_bfloat16, n, x):
    """Store the first n lanes of x as read_lanes reads them; writes nothing more."""
    if n >= LANES:
        if is_bfloat16:
            store_bf16(address, 0, x)
        else:
            store(address, 0, x)
        return
    done = 0
    if n >= 8:
        if is_bfloat16:
            store_bf16_8(address, 0, x)
        else:
            store_8(address, 0, x)
        done = 8
    for lane in range(done, n):
        if is_bfloat16:
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
            x = read_lanes(row + job.item_bytes * i, job.is_bfloat16, job.head_size - i)
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
        write_lanes(target + job.item_bytes * i, job.is_bfloat16, job.head_size - i, x)


@kernel
def zero(address, n):
    """float32[n] = 0, n rounded up to whole vectors."""
    for i in range(0, n, LANES):
        store(address, i, splat(np.float32(0)))


@kernel
def write_columns(job, scratch, address, t, n_rows, is_rotated, factor):
    """Write the 16 queries of scratch.mixed, which are columns, as rows of one head; n_rows of them are real."""
    for i in range(job.head_size):
        store_column(scratch.mixed_rows, (i >> 4) * LANES * LANES + (i & 15), load(scratch.mixed, i * LANES))
    n_heads = job.n_all_heads if is_rotated else job.n_heads
    for r in range(n_rows):
        write_row(job, address, n_heads, t + r, is_rotated, factor, scratch.mixed_rows + 4 * r * LANES, LANES * LANES)


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
def read_keys(job, scratch, b, g):
    """Read the rotated keys and the values of group g of sequence b, and zeros behind the last token."""
    n, head_bytes = job.n_all_heads, job.item_bytes * job.head_size
    sequence = job.qkv + b * job.n_tokens * n * head_bytes
    read_rows(job, sequence + (job.n_heads + g) * head_bytes, n, 0, job.n_tokens, True, np.float32(1), scratch.keys)
    values = sequence + (job.n_heads + job.n_kv_heads + g) * head_bytes
    read_rows(job, values, n, 0, job.n_tokens, False, np.float32(1), scratch.values)
    end, n_zeros = 4 * job.n_tokens * job.stride, (job.padded_tokens - job.n_tokens + KEY_BLOCK) * job.stride
    zero(scratch.keys + end, n_zeros)
    zero(scratch.values + end, n_zeros)


@kernel
def read_starts(job, scratch, b, t, n_real):
    """scratch.starts = the first key that each of 16 queries may see; returns (lowest, highest) of the real ones."""
    low = high = np.int64(0)
    if job.starts == 0:
        for lane in range(LANES):
            set_i32(scratch.starts, lane, np.int32(0))
        return low, high
    low = np.int64(t + n_real - 1)
    for lane in range(n_real):
        start = min(np.int64(get_i32(job.starts, b * job.n_tokens + t + lane)), t + lane)  # a query sees at least itself
        start = max(start, np.int64(0))
        low, high = min(low, start), max(high, start)
        set_i32(scratch.starts, lane, np.int32(start))
    for lane in range(n_real, LANES):
        set_i32(scratch.starts, lane, np.int32(low))
    return low, high


@kernel
def read_gradients(job, scratch, b, h, t, n_real):
    """Read 16 rows of d_out, divided by their sums of probabilities, and make the deltas of softmax's gradient of them."""
    at = job.item_bytes * job.head_size * (b * job.n_tokens * job.n_heads + h)
    read_rows(job, job.d_out + at, job.n_heads, t, n_real, False, np.float32(1), scratch.d_out)
    zero(scratch.d_out + 4 * n_real * job.stride, (LANES - n_real) * job.stride)
    row = (b * job.n_heads + h) * job.n_tokens + t
    store(scratch.tops, 0, subtract(splat(np.float32(0)), load_first(job.statistics, row, n_real)))
    zero(scratch.deltas, LANES)
    for r in range(n_real):
        inverse = splat(get_f32(job.statistics, job.n_rows + row + r))
        row_bytes = job.item_bytes * job.n_heads * job.head_size
        out = job.out + at + (t + r) * row_bytes
        total = splat(np.float32(0))
        for i in range(0, job.stride, LANES):
            place = r * job.stride + i
            prefetch(out + READ_AHEAD * row_bytes + job.item_bytes * i)
            x = multiply(load(scratch.d_out, place), inverse)
            total = fma(x, read_lanes(out + job.item_bytes * i, job.is_bfloat16, job.head_size - i), total)
            if job.stride - i >= LANES:
                store(scratch.d_out, place, x)
            else:
                store_8(scratch.d_out, place, x)
        set_f32(scratch.deltas, r, -reduce_add(total))
    transpose_rows(job, scratch.d_out, scratch.d_out_columns)
