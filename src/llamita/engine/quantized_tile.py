"""The micro-kernel of quantized matrices: some panels of 16 weight rows times some activation rows, on every instruction set.

Lane = weight row: no horizontal sums, one load of 16 scales a group, and an activation is a 4-byte broadcast operand. Each
output is summed over its groups in file order whatever the tile, so prefill, decode and batches agree to the last bit. int8
groups that are no multiple of 32 take the small block: there scales are float32 and rounding is that of llama2.c's runq, speed
matters less. pack.py tells how panels lie.
"""

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from llamita.engine.products import (
    emit_add_halves,
    emit_dot,
    emit_half_sum,
    emit_lower_halves,
    emit_upper_halves,
    half_sum_start,
)
from llamita.engine.state import BLOCK, PANELS_Q4_0, PANELS_Q4_1, PANELS_Q8, SMALL_BLOCK, SUM_FACTOR
from llamita.simd.emit import (
    ZERO,
    advance,
    as_intrinsic,
    emit_broadcast_f32,
    emit_broadcast_i32,
    emit_call,
    emit_loop,
    emit_switch,
)
from llamita.simd.isa import InstructionSet, current_isa
from llamita.simd.memory import emit_load, emit_prefetch
from llamita.simd.vectors import F32, I32, I64, LANES, VF16, VF32, VI32, constant, emit_fma, emit_splat

HALF_VECTORS, HALF_STEPS = 4, 8  # of a panel's group of 32 4-bit weights: vectors, and steps of 4 weights


@dataclass(frozen=True)
class Tile:
    """One tile: kind PANELS_*, block of activations, panels of 16 weight rows, activation rows."""

    kind: int
    block: int
    panels: int
    rows: int

    @property
    def number(self) -> int:
        """The case of quantized_tile's switch."""
        return (self.kind << 24) + (self.block << 16) + (self.panels << 8) + self.rows

    @property
    def is_small(self) -> bool:
        return self.block == SMALL_BLOCK

    @property
    def vectors_per_block(self) -> int:
        """Vectors of 64 bytes that a panel has for a block, or for a group of 4-bit weights."""
        return self.block // 4 if self.kind == PANELS_Q8 else HALF_VECTORS

    @property
    def numbers_per_group(self) -> int:
        """Vectors of a panel's scales, and offsets, for a group."""
        return 2 if self.kind == PANELS_Q4_1 else 1

    def row_steps(self, isa: InstructionSet) -> int:
        """Steps of 4 bytes from one activation row to the next; one row of the small block is dense."""
        return self.block // 4 * isa.planes

    def pairs(self) -> list[tuple[int, int]]:
        """(activation row, panel) of each accumulator."""
        return [(row, panel) for row in range(self.rows) for panel in range(self.panels)]


def tiles_of(isa: InstructionSet) -> list[Tile]:
    """All tiles that an instruction set needs."""
    tiles = [Tile(PANELS_Q8, BLOCK, panels, rows) for panels, rows in isa.quantized_tiles]
    tiles += [Tile(PANELS_Q8, SMALL_BLOCK, 1, rows) for rows in isa.row_tiles]
    for kind in (PANELS_Q4_0, PANELS_Q4_1):
        block = BLOCK if isa.has_blocks else SMALL_BLOCK
        tiles += [Tile(kind, block, panels, rows) for panels, rows in isa.quantized_tiles]
    return tiles


def emit_quantized_tile(builder: Any, isa: InstructionSet, tile: Tile, operands: Any) -> None:
    """One loop over groups, for a single row within one over panels. operands as in quantized_tile, without the first four."""
    out, out_stride, weights, scales, quants, factors, corrections, n_groups, n_blocks, multiplier, n_times = operands

    def pointers(address: Any, target: ir.Type, stride: Any) -> list:
        first = builder.inttoptr(address, target.as_pointer())
        return [advance(builder, first, builder.mul(stride, I64(panel))) for panel in range(tile.panels)]

    n_vectors = builder.mul(builder.mul(n_groups, n_blocks), I64(tile.vectors_per_block))  # panels follow each other
    n_numbers = builder.mul(n_groups, I64(tile.numbers_per_group))
    row_start = [builder.inttoptr(at, kind.as_pointer()) for at, kind in ((quants, I32), (factors, F32), (corrections, I32))]
    n_pointers = len(row_start) + 2 * tile.panels

    def emit_group(_: Any, carried: list) -> list:
        quant, factor, correction = carried[:3]
        panel_weights, panel_scales = carried[3 : 3 + tile.panels], carried[3 + tile.panels : n_pointers]
        emit_sums = _emit_int8_sums if tile.kind == PANELS_Q8 else _emit_half_sums
        quant, panel_weights, sums = emit_sums(builder, isa, tile, n_blocks, quant, panel_weights, correction)
        totals = _emit_scaled(builder, tile, sums, panel_scales, factor, correction, carried[n_pointers:])
        if tile.rows == 1:  # of the next panel: the stream of scales is too short for the processor to foresee it
            emit_prefetch(builder, advance(builder, panel_scales[0], n_numbers), 3)
        panel_scales = [advance(builder, pointer, tile.numbers_per_group) for pointer in panel_scales]
        factor, correction = advance(builder, factor, tile.rows), advance(builder, correction, tile.rows)
        return [quant, factor, correction, *panel_weights, *panel_scales, *totals]

    factor = emit_splat(builder, multiplier, VF32)

    def emit_panels(_: Any, carried: list) -> list:
        target, panel_pointers = carried[0], carried[1:]
        ends = emit_loop(builder, n_groups, [*row_start, *panel_pointers, *([ZERO] * len(tile.pairs()))], emit_group)
        for total, (row, panel) in zip(ends[n_pointers:], tile.pairs(), strict=True):
            offset = builder.add(builder.mul(out_stride, I64(row)), I64(panel * LANES))
            place = builder.bitcast(advance(builder, target, offset), VF32.as_pointer())
            builder.store(builder.fmul(total, factor), place, align=4)
        return [advance(builder, target, LANES), *ends[len(row_start) : n_pointers]]

    start = [builder.inttoptr(out, F32.as_pointer()), *pointers(weights, VI32, n_vectors)]
    start += pointers(scales, VF32 if tile.is_small else VF16, n_numbers)
    if tile.rows == 1:
        emit_loop(builder, n_times, start, emit_panels)
    else:
        emit_panels(None, start)


def _emit_int8_sums(
    builder: Any, isa: InstructionSet, tile: Tile, n_blocks: Any, quant: Any, weights: list, correction: Any
) -> tuple[Any, list, list]:
    """The integer sums of a group, block after block: (activations behind it, weights behind it, sums)."""
    steps, row_steps = tile.block // 4, tile.row_steps(isa)

    def emit_block(_: Any, carried: list) -> list:
        quant, panel_weights, sums = carried[0], carried[1 : 1 + tile.panels], list(carried[1 + tile.panels :])
        for k in range(steps):
            w = [emit_load(builder, advance(builder, pointer, k), 64) for pointer in panel_weights]
            if tile.rows == 1 and isa.prefetch_bytes:
                emit_prefetch(builder, advance(builder, panel_weights[0], k + isa.prefetch_bytes // 64), 3)
            for row in range(tile.rows):
                x = emit_broadcast_i32(builder, quant, row * row_steps + k)
                magnitude = emit_broadcast_i32(builder, quant, row * row_steps + steps + k) if isa.magnitudes else x
                for panel in range(tile.panels):
                    i = row * tile.panels + panel
                    sums[i] = emit_dot(builder, isa, sums[i], w[panel], x, magnitude)
        panel_weights = [advance(builder, pointer, steps) for pointer in panel_weights]
        return [advance(builder, quant, tile.rows * row_steps), *panel_weights, *sums]

    # weights hold w + offset: starting at -offset * sum(activations) takes that out at no cost
    assert isa.weight_offset in (0, -SUM_FACTOR)
    starts = [
        emit_broadcast_i32(builder, correction, row) if isa.weight_offset else constant(VI32, 0) for row, _ in tile.pairs()
    ]
    results = emit_loop(builder, n_blocks, [quant, *weights, *starts], emit_block)
    return results[0], results[1 : 1 + tile.panels], results[1 + tile.panels :]


def _emit_half_sums(
    builder: Any, isa: InstructionSet, tile: Tile, n_blocks: Any, quant: Any, weights: list, correction: Any
) -> tuple[Any, list, list]:
    """The same for a group of 4-bit weights: word i holds the weights of steps i and i + 4.

    Several rows take a loop over words that LLVM cannot unroll (n_blocks is 1, which it does not know): it would go through
    them row by row, with all weights on the stack.
    """
    row_steps = HALF_STEPS if tile.is_small else tile.row_steps(isa)
    start, ahead, n_parts = half_sum_start(isa), isa.half_prefetch_bytes // 64, len(half_sum_start(isa))

    def emit_word(_: Any, carried: list) -> list:
        quant, panel_weights, flat = carried[0], carried[1 : 1 + tile.panels], carried[1 + tile.panels :]
        sums = [list(flat[i : i + n_parts]) for i in range(0, len(flat), n_parts)]
        w = [emit_load(builder, pointer, 64) for pointer in panel_weights]
        if tile.rows == 1 and ahead:
            emit_prefetch(builder, advance(builder, panel_weights[0], ahead), 3)
        for step, emit_halves in ((0, emit_lower_halves), (HALF_VECTORS, emit_upper_halves)):
            halves = [emit_halves(builder, vector) for vector in w]
            for i, (row, panel) in enumerate(tile.pairs()):
                x = emit_broadcast_i32(builder, quant, row * row_steps + step)
                sums[i] = emit_add_halves(builder, isa, sums[i], halves[panel], x)
        behind = [advance(builder, pointer, 1) for pointer in (quant, *panel_weights)]
        return [*behind, *(part for total in sums for part in total)]

    carried = [quant, *weights, *(start * len(tile.pairs()))]
    if tile.rows == 1:
        for _ in range(HALF_VECTORS):
            carried = emit_word(None, carried)
    else:
        carried = emit_loop(builder, builder.mul(n_blocks, I64(HALF_VECTORS)), carried, emit_word)
    flat, sums = carried[1 + tile.panels :], []
    for i, (row, _panel) in enumerate(tile.pairs()):
        first = constant(VI32, 0)
        if tile.kind == PANELS_Q4_0:  # -8 * sum(activations)
            eighth = builder.ashr(emit_load(builder, advance(builder, correction, row), 4), I32(4))
            first = emit_splat(builder, eighth, VI32)
        sums.append(emit_half_sum(builder, isa, flat[i * n_parts : (i + 1) * n_parts], first))
    return advance(builder, quant, tile.rows * row_steps), carried[1 : 1 + tile.panels], sums


def _emit_scaled(
    builder: Any, tile: Tile, sums: list, scales: list, factor: Any, correction: Any, totals: list
) -> list:  # float32 vectors
    """totals + sums * (weight scale * activation scale), and for q4_1 + offset * activation scale * sum(activations)."""

    def emit_numbers(pointer: Any, which: int) -> Any:
        vector = emit_load(builder, advance(builder, pointer, which), 32)
        return vector if tile.is_small else builder.fpext(vector, VF32)

    scale_vectors = [emit_numbers(pointer, 0) for pointer in scales]
    offsets = [emit_numbers(pointer, 1) for pointer in scales] if tile.kind == PANELS_Q4_1 else []
    results = []
    for i, (row, panel) in enumerate(tile.pairs()):
        x_scale, total = emit_broadcast_f32(builder, factor, row), builder.sitofp(sums[i], VF32)
        if tile.kind == PANELS_Q8 and tile.is_small:
            product = builder.fmul(builder.fmul(total, scale_vectors[panel]), x_scale)
            results.append(builder.fadd(totals[i], product))
            continue
        product = builder.fmul(scale_vectors[panel], x_scale)
        results.append(emit_fma(builder, total, product, totals[i]))
        if offsets:
            n = builder.sitofp(emit_load(builder, advance(builder, correction, row), 4), F32)
            row_scale = builder.fmul(emit_load(builder, advance(builder, factor, row), 4), F32(1 / SUM_FACTOR))
            row_sum = emit_splat(builder, builder.fmul(n, row_scale), VF32)
            results[i] = emit_fma(builder, offsets[panel], row_sum, results[i])
    return results


_i = types.int64


@as_intrinsic
def quantized_tile(
    typing: Any, kind: Any, block: Any, panels: Any, rows: Any, out: Any, out_stride: Any, weights: Any, scales: Any,
    quants: Any, factors: Any, corrections: Any, n_groups: Any, n_blocks: Any, multiplier: Any, n_times: Any,
) -> Any:  # fmt: skip
    """out[row * out_stride + 16 * panel + lane] (float32) = the products of these panels and rows.

    Addresses: weights and scales as pack.py lays them for this kind PANELS_*, quants int8 [k/block][rows][planes][block],
    factors float32 and corrections int32 [group][rows]. n_blocks: blocks per group. The four first make one of tiles_of.
    n_times: a single row goes through so many panels, one behind the other; more rows take 1.
    """

    def codegen(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        isa = current_isa()
        case_of = operands[3]
        for value, bits in zip(operands[:3], (24, 16, 8), strict=True):
            case_of = builder.add(case_of, builder.shl(value, I64(bits)))

        def case(tile: Tile) -> Any:
            name = f"quantized_tile_{isa.name}_{tile.number}"
            return lambda: emit_call(builder, name, operands[4:], lambda b, a: emit_quantized_tile(b, isa, tile, a))

        emit_switch(builder, case_of, {tile.number: case(tile) for tile in tiles_of(isa)})
        return context.get_dummy_value()

    return types.void(_i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _i, types.float32, _i), codegen
