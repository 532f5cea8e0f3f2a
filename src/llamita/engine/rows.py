"""Work on one row (one token) of activations: embedding, RMS norm, quantization, rotary embedding, softmax.

Arguments named like arrays are addresses; rows are padded with zeros to whole vectors unless a count says otherwise.
"""

import numpy as np

from llamita.engine.state import BLOCK, ROWS_BF16, ROWS_F16, ROWS_F32, ROWS_Q8, SMALL_BLOCK, SUM_FACTOR
from llamita.simd.isa import current_isa
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import (
    get_f16,
    get_f32,
    get_i8,
    load,
    load_bf16,
    load_first,
    set_f32,
    set_i8,
    set_i32,
    store,
    store_first,
    store_i8,
)
from llamita.simd.vectors import (
    LANES,
    absolute,
    absolute_i32,
    add,
    add_i32,
    exp,
    fma,
    keep_first,
    maximum,
    multiply,
    reduce_add,
    reduce_add_i32,
    reduce_max,
    round_to_i32,
    splat,
    splat_i32,
    swap_pairs,
)

ROW_TILES, WIDE_ROWS = current_isa().row_tiles, current_isa().wide_tile[1]
PLANES = np.int64(current_isa().planes)
SHORT_ROW = 128
HAS_BLOCKS = current_isa().has_blocks


@kernel
def tile_rows(n_rows):
    """Activation rows of the next tile when n_rows are left: exact sizes, so no kernel writes beyond its rows."""
    for size in ROW_TILES:
        if n_rows == size or (n_rows > size and size <= WIDE_ROWS):
            return size
    return 1


@piece
def block_of(group):
    """Bytes of one activation row that lie together: what the int8 micro-kernel unrolls."""
    return BLOCK if HAS_BLOCKS and group % BLOCK == 0 else SMALL_BLOCK


@piece
def embed_groups(matrix, token, row, out):
    """embed_row for groups of integers with a scale each."""
    place = token * matrix.scale_row_bytes
    for g in range(matrix.n_groups):
        at = place + g * matrix.scale_group_bytes
        scale = get_f16(matrix.scales + at, 0) if matrix.scale_is_half else get_f32(matrix.scales + at, 0)
        weights, first = row + g * matrix.group_bytes, g * matrix.group
        if matrix.kind == ROWS_Q8:
            for i in range(matrix.group):
                set_f32(out, first + i, np.float32(get_i8(weights, i)) * scale)
        else:
            offset = np.float32(-8.0) * scale
            if matrix.offsets != 0:
                offset = get_f16(matrix.offsets + at, 0) if matrix.scale_is_half else get_f32(matrix.offsets + at, 0)
            for i in range(matrix.group):
                half = (get_i8(weights, i & 15) >> (i >> 4 << 2)) & 15
                set_f32(out, first + i, np.float32(half) * scale + offset)


@kernel
def embed_row(matrix, token, out):
    """out float32[columns] = row `token` of the embedding, from any ROWS_* storage. Whole vectors may overrun."""
    row, n = matrix.weights + token * matrix.row_bytes, matrix.columns
    if matrix.kind == ROWS_F32:
        for i in range(n):
            set_f32(out, i, get_f32(row, i))
    elif matrix.kind == ROWS_F16:
        for i in range(n):
            set_f32(out, i, get_f16(row, i))
    elif matrix.kind == ROWS_BF16:
        done = n - n % LANES
        for i in range(0, done, LANES):
            store(out, i, load_bf16(row, i))
        for i in range(done, n):  # two bytes a number, upper half of a float32
            low, high = get_i8(row, 2 * i) & 255, get_i8(row, 2 * i + 1) & 255
            set_i32(out, i, np.int32((low | high << 8) << 16))
    else:
        embed_groups(matrix, token, row, out)


@kernel
def normalize(x, n, norm, epsilon, out):
    """out = x / sqrt(mean(x**2) + epsilon) * norm over n columns (arXiv:1910.07467).

    A short row is summed one by one as in run.c: it costs nothing there, and tiny int8 models tell llama2.c's very text then.
    """
    total = np.float32(0.0)
    if n <= SHORT_ROW:
        for i in range(n):
            total += get_f32(x, i) * get_f32(x, i)
    else:
        squares = splat(total)
        for i in range(0, n, LANES):
            v = load(x, i)
            squares = fma(v, v, squares)
        total = reduce_add(squares)
    inverse = splat(np.float32(1.0) / np.sqrt(total / np.float32(n) + epsilon))
    for i in range(0, n, LANES):
        store(out, i, multiply(multiply(load(x, i), inverse), load(norm, i)))


@piece
def quantize_wide(x, n, group, quants, factors, corrections, rows, row):
    """quantize_row for groups that are multiples of 32."""
    for g in range(n // group):
        start = g * group
        peak = absolute(load(x, start))
        for k in range(LANES, group, LANES):
            peak = maximum(peak, absolute(load(x, start + k)))
        top = reduce_max(peak)
        inverse = splat(np.float32(127.0) / top if top > 0 else np.float32(0.0))
        total = splat_i32(np.int32(0))
        for k in range(0, group, LANES):
            q = round_to_i32(multiply(load(x, start + k), inverse))
            total = add_i32(total, q)
            i = start + k
            at = ((i >> 5) * rows + row) * PLANES * BLOCK + (i & 31)
            store_i8(quants, at, q)
            if PLANES == 2:
                store_i8(quants, at + BLOCK, absolute_i32(q))
        set_f32(factors, g * rows + row, top * np.float32(1.0 / 127.0))
        set_i32(corrections, g * rows + row, np.int32(SUM_FACTOR) * reduce_add_i32(total))


@piece
def quantize_narrow(x, n, group, quants, factors, corrections, rows, row):
    """quantize_row for any group, rounded as runq does: half away from zero. Groups are padded to multiples of 4."""
    padded = (group + 3) & ~3
    for g in range(n // group):
        top = np.float32(0.0)
        for k in range(group):
            top = max(top, abs(get_f32(x, g * group + k)))
        scale = top / np.float32(127.0)
        total = 0
        for k in range(padded):
            q = 0
            if k < group and top > 0:
                v = get_f32(x, g * group + k) / scale
                q = np.int64(v)
                if abs(v - np.float32(q)) >= np.float32(0.5):
                    q += 1 if v > 0 else -1
            total += q
            i = g * padded + k
            at = ((i >> 2) * rows + row) * PLANES * SMALL_BLOCK + (i & 3)
            set_i8(quants, at, q)
            if PLANES == 2:
                set_i8(quants, at + SMALL_BLOCK, abs(q))
        set_f32(factors, g * rows + row, scale)
        set_i32(corrections, g * rows + row, np.int32(SUM_FACTOR * total))


@kernel
def quantize_row(x, n, group, quants, factors, corrections, rows, row):
    """Write row `row` of a tile of `rows` rows: x float32[n] to int8 in groups, scale = largest magnitude / 127.

    quants [k / block][rows][planes][block], factors float32 and corrections int32 [n / group][rows]: SUM_FACTOR *
    sum of the group.
    """
    if block_of(group) == BLOCK:
        quantize_wide(x, n, group, quants, factors, corrections, rows, row)
    else:
        quantize_narrow(x, n, group, quants, factors, corrections, rows, row)


@kernel
def padded_columns(n, group):
    """Bytes of a row of activations as int8."""
    return n if block_of(group) == BLOCK else n // group * ((group + 3) & ~3)


@kernel
def quantized_bytes(n, group):
    """Bytes of a row of quantized activations."""
    return PLANES * padded_columns(n, group)


@kernel
def quantize_rows(x, x_stride, n_rows, n, group, quants, factors, corrections):
    """Quantize n_rows rows, tile after tile as the micro-kernel takes them."""
    row, size = 0, quantized_bytes(n, group)
    while row < n_rows:
        rows = tile_rows(n_rows - row)
        for r in range(rows):
            groups_at = 4 * row * (n // group)
            quantize_row(
                x + 4 * (row + r) * x_stride,
                n,
                group,
                quants + row * size,
                factors + groups_at,
                corrections + groups_at,
                rows,
                r,
            )
        row += rows


@kernel
def add_rows(x, y, n):
    """x += y over n columns."""
    for i in range(0, n, LANES):
        store(x, i, add(load(x, i), load(y, i)))


@piece
def turn(v, cosines, sines, i):
    """Turn the pairs of a vector by the angles from column i on (arXiv:2104.09864); the tables hold cos cos and -sin sin."""
    return fma(v, load(cosines, i), multiply(swap_pairs(v), load(sines, i)))


@kernel
def rotate(x, n, cosines, sines):
    """Turn the pairs of one head of n columns by its position's angles, in place. Nothing behind the head is touched."""
    for i in range(0, n, LANES):
        left = n - i
        v = load(x, i) if left >= LANES else load_first(x, i, left)
        v = turn(v, cosines, sines, i)
        if left >= LANES:
            store(x, i, v)
        else:
            store_first(x, i, v, left)


@kernel
def softmax(scores, stride, n_blocks, n_positions):
    """exp(score - max) of one row in blocks of 16, stride floats apart; beyond n_positions 0. Returns 1 / sum."""
    for block in range(n_positions >> 4, n_blocks):  # blocks before these are whole
        i = block * stride
        store(scores, i, keep_first(load(scores, i), n_positions - block * LANES))
    peak = load(scores, 0)
    for block in range(1, n_blocks):
        peak = maximum(peak, load(scores, block * stride))
    top = splat(-reduce_max(peak))
    total = splat(np.float32(0.0))
    for block in range(n_blocks):
        e = exp(add(load(scores, block * stride), top))
        store(scores, block * stride, e)
        total = add(total, e)
    return np.float32(1.0) / reduce_add(total)
