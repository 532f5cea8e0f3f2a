"""Pack int8 rows into panels of 16 rows: in this layout decode runs at memory speed, and the same kernel does prefill.

Panels lie [panel][k / 4][16 rows][4]; a group that is no multiple of 4 is padded with zeros, and so is the last panel.
Scales lie
[panel][group][16 rows] as float16 of scale / multiplier, a power of two that puts the largest scale of the matrix at 2**14
or so:
so all that matter are in float16's normal range, off by 2**-11 at most. With the small block they are float32, as in the file.
Where the instruction set multiplies unsigned by signed bytes, weights hold w + 128.
"""

import numpy as np

from llamita.engine.matmul import matrix_at, n_panels, share
from llamita.engine.rows import OFFSET, block_of
from llamita.engine.state import BLOCK
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import get_f16, get_f32, get_i8, get_i32, set_f16, set_f32, set_i8, set_i32
from llamita.simd.vectors import LANES

FLIP = np.int32(-2139062144) if OFFSET else np.int32(0)  # 0x80808080: w + 128 for four bytes at once


@piece
def pack_scales(source, target, panel):
    """The scales of one panel."""
    is_half = block_of(source.group) == BLOCK
    at = target.scales + (2 if is_half else 4) * panel * LANES * target.n_groups
    inverse = np.float32(1.0) / target.multiplier
    for lane in range(LANES):
        row = panel * LANES + lane
        scales = source.scales + row * source.scale_row_bytes
        for g in range(target.n_groups):
            scale = np.float32(0.0)
            if row < source.rows:
                place = scales + g * source.scale_group_bytes
                scale = get_f16(place, 0) if source.scale_is_half else get_f32(place, 0)
            if is_half:
                set_f16(at, g * LANES + lane, scale * inverse)
            else:
                set_f32(at, g * LANES + lane, scale * inverse)


@piece
def pack_words(source, target, panel):
    """The weights of one full panel whose groups are multiples of 4: four bytes at a time, group after group."""
    words = source.group >> 2
    at = target.weights + panel * LANES * target.n_groups * target.padded_group
    first = source.weights + panel * LANES * source.row_bytes
    for g in range(source.n_groups):
        group = first + g * source.group_bytes
        for word in range(words):
            place = at + (g * words + word) * 64
            for lane in range(LANES):
                set_i32(place, lane, get_i32(group + lane * source.row_bytes, word) ^ FLIP)


@piece
def pack_bytes(source, target, panel):
    """The weights of any panel, byte by byte."""
    at = target.weights + panel * LANES * target.n_groups * target.padded_group
    for lane in range(LANES):
        row = panel * LANES + lane
        for g in range(source.n_groups):
            group = source.weights + row * source.row_bytes + g * source.group_bytes
            for k in range(target.padded_group):
                w = 0
                if row < source.rows and k < source.group:
                    w = get_i8(group, k)
                i = g * target.padded_group + k
                set_i8(at, (i >> 2) * 64 + lane * 4 + (i & 3), w + OFFSET)


@kernel
def pack(source_address, target_address, rank, n_threads):
    """This thread's panels of one matrix; both addresses are of MATRIX records, target's weights and scales are filled."""
    source, target = matrix_at(source_address, 0), matrix_at(target_address, 0)
    first, last = share(n_panels(source), rank, n_threads)
    for panel in range(first, last):
        if (panel + 1) * LANES <= source.rows and source.group & 3 == 0:
            pack_words(source, target, panel)
        else:
            pack_bytes(source, target, panel)
        pack_scales(source, target, panel)
