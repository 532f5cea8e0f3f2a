"""The int8 micro-kernel: some panels of 16 weight rows times some activation rows, on every instruction set.

Lane = weight row: no horizontal sums, one load of 16 scales a group, and an activation is a 4-byte broadcast operand. Each
output
is summed over its groups in file order whatever the tile, so prefill, decode and batches agree to the last bit. Groups that are
no multiple of 32 take the small block: there scales are float32 and rounding is that of llama2.c's runq, speed matters less.
"""

from typing import Any

from llvmlite import ir
from numba import types

from llamita.engine.state import BLOCK, SMALL_BLOCK
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
from llamita.simd.vectors import F32, I8, I32, I64, LANES, VF16, VF32, VI32, call, constant, emit_fma, emit_splat


def _halves(builder: Any, vector: Any, n_parts: int) -> list:
    """Split 16 lanes of int32 into n_parts vectors."""
    size = LANES // n_parts
    undefined = ir.Constant(vector.type, ir.Undefined)
    lanes = [ir.Constant(ir.VectorType(I32, size), list(range(p * size, (p + 1) * size))) for p in range(n_parts)]
    return [builder.shuffle_vector(vector, undefined, part) for part in lanes]


def _join(builder: Any, parts: list) -> Any:
    """The inverse of _halves."""
    while len(parts) > 1:
        size = parts[0].type.count * 2
        lanes = ir.Constant(ir.VectorType(I32, size), list(range(size)))
        parts = [builder.shuffle_vector(a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _dot_avx2(builder: Any, total: Any, w: Any, x: Any, magnitude: Any) -> Any:
    """8 lanes: |x| * (w with x's sign); vpmaddubsw saturates, but magnitudes up to 127 stay below 32,768."""
    bytes_type, words = ir.VectorType(I8, 32), ir.VectorType(ir.IntType(16), 16)
    w, x, magnitude = (builder.bitcast(v, bytes_type) for v in (w, x, magnitude))
    signed = call(builder, "llvm.x86.avx2.psign.b", bytes_type, w, x)
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", words, magnitude, signed)
    ones = ir.Constant(words, [1] * 16)
    return builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", total.type, pairs, ones))


def _dot_plain(builder: Any, total: Any, w: Any, x: Any, is_unsigned: bool) -> Any:
    """Byte by byte, in any LLVM."""
    take_w = builder.lshr if is_unsigned else builder.ashr
    for byte in range(4):
        left, down = constant(VI32, 24 - 8 * byte), constant(VI32, 24)
        w_byte, x_byte = take_w(builder.shl(w, left), down), builder.ashr(builder.shl(x, left), down)
        total = builder.add(total, builder.mul(w_byte, x_byte))
    return total


def emit_dot(builder: Any, isa: InstructionSet, total: Any, w: Any, x: Any, magnitude: Any) -> Any:
    """total[lane] += sum over 4 bytes of w[lane] * x[lane]. Vectors of 16 int32; w is unsigned where isa.weight_offset says so.

    magnitude: |x| where isa.magnitudes says that it is stored, else ignored.
    """
    if isa.name == "avx512vnni":
        # the old signature (i32 vectors) is accepted by every LLVM, the new one (i8) only since 22
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", VI32, total, w, x)
    if isa.name in ("plain", "emulated"):
        return _dot_plain(builder, total, w, x, isa.weight_offset > 0)
    n_parts = 4 if isa.name == "neon" else 2
    parts = []
    for t, a, b, c in zip(*(_halves(builder, v, n_parts) for v in (total, w, x, magnitude)), strict=True):
        if isa.name == "avxvnni":
            parts.append(call(builder, "llvm.x86.avx512.vpdpbusd.256", t.type, t, a, b))
        elif isa.name == "avx2":
            parts.append(_dot_avx2(builder, t, a, b, c))
        else:
            bytes_type = ir.VectorType(I8, 16)
            a, b = builder.bitcast(a, bytes_type), builder.bitcast(b, bytes_type)
            parts.append(call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", t.type, t, a, b))
    return _join(builder, parts)


def emit_int8_tile(builder: Any, isa: InstructionSet, block: int, panels: int, rows: int, operands: Any) -> None:
    """One loop nest: groups, blocks of a group, products of a block. operands as in int8_tile, without the first three."""
    out, out_stride, weights, scales, quants, factors, corrections, n_groups, n_blocks, multiplier = operands
    steps = block // 4
    row_steps, is_small = steps * isa.planes, block == SMALL_BLOCK

    def pointer(address: Any, target: ir.Type) -> Any:
        return builder.inttoptr(address, target.as_pointer())

    def emit_block(_: Any, carried: list) -> list:
        quant, panel_weights, sums = carried[0], carried[1 : 1 + panels], list(carried[1 + panels :])
        for k in range(steps):
            w = [emit_load(builder, advance(builder, p, k), 64) for p in panel_weights]
            if rows == 1 and isa.prefetch_bytes:
                emit_prefetch(builder, advance(builder, panel_weights[0], k + isa.prefetch_bytes // 64), 3)
            for row in range(rows):
                x = emit_broadcast_i32(builder, quant, row * row_steps + k)
                magnitude = emit_broadcast_i32(builder, quant, row * row_steps + steps + k) if isa.magnitudes else x
                for panel in range(panels):
                    i = row * panels + panel
                    sums[i] = emit_dot(builder, isa, sums[i], w[panel], x, magnitude)
        panel_weights = [advance(builder, p, steps) for p in panel_weights]
        return [advance(builder, quant, rows * row_steps), *panel_weights, *sums]

    def emit_group(_: Any, carried: list) -> list:
        quant, factor, correction = carried[:3]
        panel_weights, panel_scales = carried[3 : 3 + panels], carried[3 + panels : 3 + 2 * panels]
        totals = list(carried[3 + 2 * panels :])
        # weights hold w + offset: starting at -offset * sum(activations) takes that out at no cost
        start = [emit_broadcast_i32(builder, correction, row) for row in range(rows) for _ in range(panels)]
        results = emit_loop(builder, n_blocks, [quant, *panel_weights, *start], emit_block)
        quant, panel_weights, sums = results[0], results[1 : 1 + panels], results[1 + panels :]
        scale_vectors = [emit_load(builder, p, 32) for p in panel_scales]
        if not is_small:
            scale_vectors = [builder.fpext(vector, VF32) for vector in scale_vectors]
        for row in range(rows):
            x_scale = emit_broadcast_f32(builder, factor, row)
            for panel in range(panels):
                i = row * panels + panel
                total = builder.sitofp(sums[i], VF32)
                if is_small:
                    product = builder.fmul(builder.fmul(total, scale_vectors[panel]), x_scale)
                    totals[i] = builder.fadd(totals[i], product)
                else:
                    product = builder.fmul(scale_vectors[panel], x_scale)
                    totals[i] = emit_fma(builder, total, product, totals[i])
        panel_scales = [advance(builder, p, 1) for p in panel_scales]
        factor, correction = advance(builder, factor, rows), advance(builder, correction, rows)
        return [quant, factor, correction, *panel_weights, *panel_scales, *totals]

    # panels follow each other in memory
    n_vectors = builder.mul(builder.mul(n_groups, n_blocks), I64(steps))
    start = [pointer(quants, I32), pointer(factors, F32), pointer(corrections, I32)]
    start += [advance(builder, pointer(weights, VI32), builder.mul(n_vectors, I64(p))) for p in range(panels)]
    scale_type = VF32 if is_small else VF16
    start += [advance(builder, pointer(scales, scale_type), builder.mul(n_groups, I64(p))) for p in range(panels)]
    n_pointers = len(start)
    totals = emit_loop(builder, n_groups, start + [ZERO] * (rows * panels), emit_group)[n_pointers:]
    factor = emit_splat(builder, multiplier, VF32)
    for i, total in enumerate(totals):
        row, panel = divmod(i, panels)
        offset = builder.add(builder.mul(out_stride, I64(row)), I64(panel * LANES))
        target = builder.bitcast(advance(builder, pointer(out, F32), offset), VF32.as_pointer())
        builder.store(builder.fmul(total, factor), target, align=4)


def tile_number(block: int, panels: int, rows: int) -> int:
    """The case of int8_tile's switch."""
    return (block << 16) + (panels << 8) + rows


_i = types.int64


@as_intrinsic
def int8_tile(
    typing: Any, block: Any, panels: Any, rows: Any, out: Any, out_stride: Any, weights: Any, scales: Any,
    quants: Any, factors: Any, corrections: Any, n_groups: Any, n_blocks: Any, multiplier: Any,
) -> Any:  # fmt: skip
    """out[row * out_stride + 16 * panel + lane] (float32) = the products of these panels and rows.

    Addresses: weights bytes [panel][k/4][16 lanes][4], scales float16 (small block: float32) [panel][group][16],
    quants int8 [k/block][rows][planes][block], factors float32 and corrections int32 [group][rows].
    n_blocks: blocks per group. (panels, rows) must be one of the instruction set's tiles; with the small block panels is 1.
    """

    def codegen(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        isa = current_isa()
        case_of = builder.add(builder.shl(operands[0], I64(16)), builder.shl(operands[1], I64(8)))
        case_of = builder.add(case_of, operands[2])
        tiles = [(BLOCK, p, r) for p, r in isa.quantized_tiles] + [(SMALL_BLOCK, 1, r) for r in isa.row_tiles]

        def case(tile: tuple[int, int, int]) -> Any:
            name = f"int8_tile_{isa.name}_{tile_number(*tile)}"
            return lambda: emit_call(builder, name, operands[3:], lambda b, a: emit_int8_tile(b, isa, *tile, a))

        emit_switch(builder, case_of, {tile_number(*tile): case(tile) for tile in tiles})
        return context.get_dummy_value()

    return types.void(_i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _i, _i, types.float32), codegen
