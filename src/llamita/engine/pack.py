"""Pack rows of small integers into panels of 16 rows: so decode runs at memory speed, and the same kernel does prefill.

int8 panels lie [panel][k / 4][16 rows][4]; a group that is no multiple of 4 is padded with zeros, and so is the last panel.
Where the instruction set multiplies unsigned by signed bytes, weights hold w + 128; where it changes the signs of weights,
-128, which has no opposite and which only foreign files hold, becomes -127.

4-bit panels lie [panel][group][4][16 rows][4]: the four words of a group are those of the file, word i with weights 4 i to
4 i + 3 in its lower halves and the 16 further ones in its upper.

Scales lie [panel][group][16 rows], of q4_1 [panel][group][2][16 rows] with the offsets, as float16 of number / multiplier, a
power of two that puts the largest of the matrix at 2**14 or so: so all that matter are in float16's normal range, off by
2**-11 at most. With the small block they are float32, as in the file.
"""

import numpy as np

from llamita.engine.matmul import matrix_at, n_panels, share
from llamita.engine.rows import block_of
from llamita.engine.state import BLOCK, PANELS_Q4_1, ROWS_Q8
from llamita.simd.isa import current_isa
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import get_f16, get_f32, get_i8, get_i32, set_f16, set_f32, set_i8, set_i32
from llamita.simd.vectors import LANES

OFFSET, IS_SIGN_CHANGED = current_isa().weight_offset, current_isa().magnitudes
FLIP = np.int32(-2139062144) if OFFSET else np.int32(0)  # 0x80808080: w + 128 for four bytes at once


@piece
def pack_numbers(source, target, numbers, panel, part, parts):
    """Scales, or offsets, of one panel: part 0 or 1 of the `parts` vectors that each group has."""
    is_half = block_of(source.group) == BLOCK
    at = target.scales + (2 if is_half else 4) * panel * LANES * target.n_groups * parts
    inverse = np.float32(1.0) / target.multiplier
    for lane in range(LANES):
        row = panel * LANES + lane
        row_numbers = numbers + row * source.scale_row_bytes
        for g in range(target.n_groups):
            number = np.float32(0.0)
            if row < source.rows:
                place = row_numbers + g * source.scale_group_bytes
                number = get_f16(place, 0) if source.scale_is_half else get_f32(place, 0)
            i = (g * parts + part) * LANES + lane
            if is_half:
                set_f16(at, i, number * inverse)
            else:
                set_f32(at, i, number * inverse)


@piece
def pack_halves(source, target, panel):
    """The 4-bit weights of one panel, four words a group. Rows that are not there have scale 0, so any weights will do."""
    at = target.weights + panel * LANES * target.panel_row_bytes
    for lane in range(LANES):
        row = panel * LANES + lane
        if row < source.rows:
            weights = source.weights + row * source.row_bytes
            for g in range(source.n_groups):
                for word in range(4):
                    set_i32(at, (4 * g + word) * LANES + lane, get_i32(weights + g * source.group_bytes, word))


@piece
def without_least(word):
    """Four int8 of which -128 becomes -127."""
    others = word ^ 0x80808080  # a byte of -128 is 0 now
    is_least = ~((others & 0x7F7F7F7F) + 0x7F7F7F7F | others) & 0x80808080
    return np.int32(word + (is_least >> 7))


@piece
def pack_words(source, target, panel):
    """The weights of one full panel whose groups are multiples of 4: four bytes at a time, group after group."""
    words = source.group >> 2
    at = target.weights + panel * LANES * target.panel_row_bytes
    first = source.weights + panel * LANES * source.row_bytes
    for g in range(source.n_groups):
        group = first + g * source.group_bytes
        for word in range(words):
            place = at + (g * words + word) * 64
            for lane in range(LANES):
                four = get_i32(group + lane * source.row_bytes, word)
                set_i32(place, lane, without_least(four) if IS_SIGN_CHANGED else four ^ FLIP)


@piece
def pack_bytes(source, target, panel):
    """The weights of any panel, byte by byte."""
    at = target.weights + panel * LANES * target.panel_row_bytes
    for lane in range(LANES):
        row = panel * LANES + lane
        for g in range(source.n_groups):
            group = source.weights + row * source.row_bytes + g * source.group_bytes
            for k in range(target.padded_group):
                w = 0
                if row < source.rows and k < source.group:
                    w = max(get_i8(group, k), -127) if IS_SIGN_CHANGED else get_i8(group, k)
                i = g * target.padded_group + k
                set_i8(at, (i >> 2) * 64 + lane * 4 + (i & 3), w + OFFSET)


@kernel
def pack(source_address, target_address, rank, n_threads):
    """This thread's panels of one matrix; both addresses are of MATRIX records, target's weights and scales are filled."""
    source, target = matrix_at(source_address, 0), matrix_at(target_address, 0)
    first, last = share(n_panels(source), rank, n_threads)
    for panel in range(first, last):
        if source.kind != ROWS_Q8:
            pack_halves(source, target, panel)
        elif (panel + 1) * LANES <= source.rows and source.group & 3 == 0:
            pack_words(source, target, panel)
        else:
            pack_bytes(source, target, panel)
        parts = 2 if target.kind == PANELS_Q4_1 else 1
        pack_numbers(source, target, source.scales, panel, 0, parts)
        if parts == 2:
            pack_numbers(source, target, source.offsets, panel, 1, parts)
