"""Causal attention over the cache: putting a token's key and value there, and reading all of it with tiles of queries.

Keys lie [position / 16][head_stride][16 positions], values [position][head_stride]: one micro-kernel for scores and values,
and no horizontal sums. Both are float32, or float16 (n_bytes 2) beside integer weights: half of what many sequences, or long
ones, have to bring from memory.
"""

from llamita.engine.float_tile import attention_tile
from llamita.engine.rows import softmax, turn
from llamita.simd.isa import current_isa
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import (
    get_f32,
    load,
    load_first,
    set_f32,
    store,
    store_column,
    store_column_f16,
    store_f16,
    store_first,
)
from llamita.simd.vectors import LANES, multiply, splat

QUERY_TILE = current_isa().query_tile


@kernel
def remember(key, value, head_size, head_stride, cosines, sines, keys, values, n_bytes, position):
    """Put the rotated key and the value of one key/value head of one token into the cache.

    cosines, sines: of this position; keys, values: of this head. key stays as it is: two threads may do the same.
    """
    block = keys + n_bytes * ((position >> 4) * LANES * head_stride + (position & 15))
    row = values + n_bytes * position * head_stride
    for i in range(0, head_size, LANES):
        left = head_size - i
        k = load(key, i) if left >= LANES else load_first(key, i, left)
        v = load(value, i) if left >= LANES else load_first(value, i, left)
        k = turn(k, cosines, sines, i)
        if n_bytes == 2:
            store_column_f16(block, i * LANES, k)
            store_f16(row, i, v)
        else:
            store_column(block, i * LANES, k)
            store(row, i, v)


@piece
def score_blocks(scores, queries, keys, n_bytes, head_stride, rows, n_blocks, ahead):
    """scores [block][rows][16] = queries [part][rows][16] times the keys of n_blocks blocks of 16 positions."""
    n_parts = head_stride // LANES
    block = 0
    while block < n_blocks:
        columns = 4 if rows == 1 and block + 4 <= n_blocks else 1
        attention_tile(
            rows, columns, n_bytes, scores + 4 * block * rows * LANES, queries,
            keys + n_bytes * block * LANES * head_stride, LANES, LANES * head_stride, n_parts, ahead,
        )  # fmt: skip
        block += columns


@piece
def mix_values(heads, scores, values, n_bytes, head_stride, rows, n_blocks, ahead):
    """heads [part][rows][16] = scores [block][rows][16] times the values of n_blocks blocks of 16 positions."""
    n_parts = head_stride // LANES
    part = 0
    while part < n_parts:
        columns = 1
        if rows == 1 and part + 3 <= n_parts:
            columns = 4 if part + 4 <= n_parts else 3
        attention_tile(
            rows, columns, n_bytes, heads + 4 * part * rows * LANES, scores,
            values + n_bytes * part * LANES, head_stride, LANES, n_blocks, ahead,
        )  # fmt: skip
        part += columns


@kernel
def attend(
    out, out_stride, query, query_stride, keys, values, n_bytes, head_size, head_stride, scale, n_rows, position,
    queries, heads, scores, ahead,
):  # fmt: skip
    """One head of n_rows tokens of one sequence, the first at `position`: tiles of queries, or one query (decode).

    out, query: first row of this head; keys, values: of its group; queries, heads, scores: buffers of this thread; ahead:
    how many numbers behind them lie those that are read next.
    """
    factor = splat(scale)
    row = 0
    while row < n_rows:
        real = min(n_rows - row, QUERY_TILE)
        rows = 1 if real == 1 else QUERY_TILE  # a short tile is computed in full; its spare rows repeat the last one
        n_blocks = (position + row + real - 1) // LANES + 1
        for r in range(rows):
            source = query + 4 * (row + min(r, real - 1)) * query_stride
            for i in range(0, head_size, LANES):
                left = head_size - i
                v = load(source, i) if left >= LANES else load_first(source, i, left)
                store(queries, i * rows + r * LANES, multiply(v, factor))
        score_blocks(scores, queries, keys, n_bytes, head_stride, rows, n_blocks, ahead)
        for r in range(rows):
            n_positions = position + row + min(r, real - 1) + 1
            # the inverse sum waits in the query buffer, which is free now
            set_f32(queries, r, softmax(scores + 4 * r * LANES, rows * LANES, n_blocks, n_positions))
        mix_values(heads, scores, values, n_bytes, head_stride, rows, n_blocks, ahead)
        for r in range(real):
            inverse = splat(get_f32(queries, r))
            target = out + 4 * (row + r) * out_stride
            for i in range(0, head_size, LANES):
                v = multiply(load(heads, i * rows + r * LANES), inverse)
                if head_size - i >= LANES:
                    store(target, i, v)
                else:
                    store_first(target, i, v, head_size - i)
        row += real
