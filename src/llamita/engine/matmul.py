"""Matrix times rows of activations, for every storage: chooses micro-kernel tiles, keeps a panel in cache meanwhile."""

import numpy as np

from llamita.engine.float_tile import rows_tile
from llamita.engine.quantized_tile import quantized_tile
from llamita.engine.rows import block_of, quantized_bytes, tile_rows
from llamita.engine.state import BLOCK, FIRST_PANELS, MATRIX, PANELS_Q4_1
from llamita.simd.isa import current_isa
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import prefetch, record_reader
from llamita.simd.vectors import LANES

matrix_at = record_reader(MATRIX)
EARLY_BYTES = 8192

WIDE_PANELS, WIDE_ROWS = current_isa().wide_tile
MANY_WEIGHTS, MANY_ROWS = current_isa().many_rows_tile


@kernel
def share(n, part, n_parts):
    """The part-th of n_parts almost equal slices of range(n): first, end."""
    return n * part // n_parts, n * (part + 1) // n_parts


@piece
def multiply_panels(matrix, quants, factors, corrections, out, out_stride, first, last, n_rows):
    """matmul for panels of integers; quantized activations as quantize_rows writes them."""
    group = matrix.group
    block, n_groups = block_of(group), matrix.n_groups
    n_blocks, quant_size = matrix.padded_group // block, quantized_bytes(matrix.columns, group)
    panel_bytes = LANES * matrix.panel_row_bytes
    scale_bytes = LANES * n_groups * (2 if block == BLOCK else 4) * (2 if matrix.kind == PANELS_Q4_1 else 1)
    if n_rows == 1:
        quantized_tile(
            matrix.kind, block, np.int64(1), np.int64(1), out + 4 * first * LANES, out_stride,
            matrix.weights + first * panel_bytes, matrix.scales + first * scale_bytes, quants, factors, corrections,
            n_groups, n_blocks, matrix.multiplier, last - first,
        )  # fmt: skip
        return
    panel = first
    while panel < last:
        panels = 1
        if block == BLOCK and n_rows >= WIDE_ROWS and panel + WIDE_PANELS <= last:
            panels = WIDE_PANELS
        weights = matrix.weights + panel * panel_bytes
        ahead, ahead_end = weights + panels * panel_bytes, weights + 2 * panels * panel_bytes
        slice_bytes = panels * panel_bytes * WIDE_ROWS // n_rows
        # the next panels' scales: their stream is too short for the processor to foresee it
        next_scales = matrix.scales + (panel + panels) * scale_bytes
        for line in range(0, panels * scale_bytes, 64):
            prefetch(next_scales + line)
        row = 0
        while row < n_rows:
            rows = tile_rows(n_rows - row)
            step = panels if rows == WIDE_ROWS else 1
            if n_rows > 2 * WIDE_ROWS:  # many tiles a panel: enough time to fetch the next panels meanwhile
                for line in range(ahead, min(ahead + slice_bytes, ahead_end), 64):
                    prefetch(line)
                ahead += slice_bytes
            groups_at = 4 * row * n_groups
            for p in range(0, panels, step):
                quantized_tile(
                    matrix.kind, block, step, rows, out + 4 * (row * out_stride + (panel + p) * LANES), out_stride,
                    weights + p * panel_bytes, matrix.scales + (panel + p) * scale_bytes, quants + row * quant_size,
                    factors + groups_at, corrections + groups_at, n_groups, n_blocks, matrix.multiplier, np.int64(1),
                )  # fmt: skip
            row += rows
        panel += panels


@piece
def multiply_rows(matrix, x, x_stride, out, out_stride, first, last, n_rows):
    """matmul for rows of floats: first and last count weight rows here."""
    weight = first
    while weight < last:
        n_weights = MANY_WEIGHTS if n_rows >= MANY_ROWS and weight + MANY_WEIGHTS <= last else 1
        weights = matrix.weights + weight * matrix.row_bytes
        row = 0
        while row < n_rows:
            rows, step = 1, 1
            if n_rows - row >= MANY_ROWS and n_weights == MANY_WEIGHTS:
                rows, step = MANY_ROWS, MANY_WEIGHTS
            for i in range(0, n_weights, step):
                rows_tile(
                    matrix.kind, step, rows, out + 4 * (row * out_stride + weight + i), out_stride,
                    weights + i * matrix.row_bytes, matrix.row_bytes, x + 4 * row * x_stride, x_stride, matrix.columns,
                )  # fmt: skip
            row += rows
        weight += n_weights


@kernel
def matmul(matrix, x, x_stride, quants, factors, corrections, out, out_stride, first, last, n_rows):
    """out float32[row, weight row] for the weight rows 16 * first to 16 * last of one matrix and n_rows activation rows.

    x: float32 rows for ROWS_*; quants, factors, corrections: the same rows quantized for PANELS_*. Panels write whole vectors.
    """
    if matrix.kind >= FIRST_PANELS:
        multiply_panels(matrix, quants, factors, corrections, out, out_stride, first, last, n_rows)
    else:
        end = min(last * LANES, matrix.rows)
        multiply_rows(matrix, x, x_stride, out, out_stride, first * LANES, end, n_rows)


@kernel
def stored_row_bytes(matrix):
    """Bytes of a row of weights, without scales, as they lie where matmul reads them."""
    return matrix.panel_row_bytes if matrix.kind >= FIRST_PANELS else matrix.row_bytes


@kernel
def fetch_early(matrix, first):
    """Ask for the beginning of this thread's slice of the next matrix before waiting at a barrier: memory must not idle."""
    start = matrix.weights + first * LANES * stored_row_bytes(matrix)
    for line in range(0, EARLY_BYTES, 64):
        prefetch(start + line)


@kernel
def n_panels(matrix):
    """Vectors of 16 weight rows, the last perhaps in part."""
    return (matrix.rows + np.int64(LANES - 1)) >> 4
