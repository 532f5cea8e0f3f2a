"""The float micro-kernels: weight rows as they lie in the file (float32, float16, bfloat16) times activation rows; and
attention's.

Every sum runs over k in the same order whatever the tile, so prefill, decode and batches agree to the last bit.
"""

from typing import Any

from numba import types

from llamita.engine.state import ROWS_BF16, ROWS_F16, ROWS_F32
from llamita.simd.emit import ZERO, advance, as_intrinsic, emit_broadcast_f32, emit_call, emit_loop, emit_switch
from llamita.simd.isa import InstructionSet, current_isa
from llamita.simd.memory import emit_load, emit_load_bf16, emit_load_f16, emit_masked_load, emit_prefetch, emit_widen_f16
from llamita.simd.vectors import (
    F32,
    I8,
    I16,
    I64,
    LANES,
    VF16,
    VF32,
    VI16,
    VI32,
    constant,
    emit_fma,
    emit_lane_mask,
    emit_reduce_add,
)

_i = types.int64
ROW_AHEAD_BYTES = 1024  # decode asks for weights so early, into the second cache level; 2 KB, or the first, are worse than not


def _emit_weights(builder: Any, kind: int, pointer: Any) -> Any:
    """16 weights of a row (an i8 pointer) as float32."""
    if kind == ROWS_F32:
        return emit_load(builder, builder.bitcast(pointer, VF32.as_pointer()), 4)
    if kind == ROWS_F16:
        return emit_load_f16(builder, builder.bitcast(pointer, VF16.as_pointer()))
    return emit_load_bf16(builder, builder.bitcast(pointer, VI16.as_pointer()))


def _emit_last_weights(builder: Any, kind: int, pointer: Any, mask: Any) -> Any:
    """The end of a row: the next row, or the end of the file, must not be touched."""
    if kind == ROWS_F32:
        return emit_masked_load(builder, builder.bitcast(pointer, VF32.as_pointer()), mask, ZERO, 4)
    words = emit_masked_load(builder, builder.bitcast(pointer, VI16.as_pointer()), mask, constant(VI16, 0), 2)
    if kind == ROWS_F16:
        return emit_widen_f16(builder, words)
    return builder.bitcast(builder.shl(builder.zext(words, VI32), constant(VI32, 16)), VF32)


def emit_rows_tile(builder: Any, kind: int, n_weights: int, n_rows: int, operands: Any) -> None:
    """n_weights rows of the matrix times n_rows activation rows. operands as in rows_tile, without the first three."""
    out, out_stride, weights, row_bytes, x, x_stride, n_columns = operands
    size = 4 if kind == ROWS_F32 else 2
    weight_pointer = builder.inttoptr(weights, I8.as_pointer())
    x_pointer = builder.inttoptr(x, F32.as_pointer())
    weight_rows = [advance(builder, weight_pointer, builder.mul(row_bytes, I64(i))) for i in range(n_weights)]
    x_rows = [advance(builder, x_pointer, builder.mul(x_stride, I64(i))) for i in range(n_rows)]
    n_vectors = builder.ashr(n_columns, I64(4))
    done = builder.shl(n_vectors, I64(4))
    mask = emit_lane_mask(builder, builder.sub(n_columns, done))

    def products(totals: list, w: list, xs: list) -> list:
        return [emit_fma(builder, w[i % n_weights], xs[i // n_weights], totals[i]) for i in range(len(totals))]

    def body(index: Any, totals: list) -> list:
        at = builder.mul(index, I64(LANES))
        if n_rows == 1:  # decode: rows follow each other, so this is of a row to come
            place = builder.add(builder.mul(at, I64(size)), I64(ROW_AHEAD_BYTES))
            emit_prefetch(builder, advance(builder, weight_rows[0], place), 2)
        w = [_emit_weights(builder, kind, advance(builder, row, builder.mul(at, I64(size)))) for row in weight_rows]
        xs = [emit_load(builder, builder.bitcast(advance(builder, row, at), VF32.as_pointer()), 4) for row in x_rows]
        return products(totals, w, xs)

    totals = emit_loop(builder, n_vectors, [ZERO] * (n_weights * n_rows), body)
    has_tail = builder.icmp_signed("<", done, n_columns)
    before, tail, end = builder.block, builder.append_basic_block("tail"), builder.append_basic_block("summed")
    builder.cbranch(has_tail, tail, end)
    builder.position_at_end(tail)
    ends = [advance(builder, row, builder.mul(done, I64(size))) for row in weight_rows]
    w = [_emit_last_weights(builder, kind, pointer, mask) for pointer in ends]
    x_ends = [builder.bitcast(advance(builder, row, done), VF32.as_pointer()) for row in x_rows]
    with_tail = products(totals, w, [emit_masked_load(builder, pointer, mask, ZERO, 4) for pointer in x_ends])
    last = builder.block
    builder.branch(end)
    builder.position_at_end(end)
    sums = []
    for total, longer in zip(totals, with_tail, strict=True):
        phi = builder.phi(VF32)
        phi.add_incoming(total, before)
        phi.add_incoming(longer, last)
        sums.append(phi)
    out_pointer = builder.inttoptr(out, F32.as_pointer())
    for i, total in enumerate(sums):
        row, weight = divmod(i, n_weights)
        target = advance(builder, out_pointer, builder.add(builder.mul(out_stride, I64(row)), I64(weight)))
        builder.store(emit_reduce_add(builder, total), target, align=4)


@as_intrinsic
def rows_tile(
    typing: Any, kind: Any, n_weights: Any, n_rows: Any, out: Any, out_stride: Any, weights: Any, row_bytes: Any,
    x: Any, x_stride: Any, n_columns: Any,
) -> Any:  # fmt: skip
    """out[row * out_stride + i] (float32) = dot(weight row i, x row): n_weights rows of kind ROWS_F32, _F16 or _BF16.

    Addresses: weights [n_weights] rows row_bytes apart, x float32 [n_rows] rows x_stride apart, both n_columns long.
    (n_weights, n_rows) must be one of the instruction set's float_tiles.
    """

    def codegen(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        isa = current_isa()
        case_of = builder.add(builder.shl(operands[0], I64(16)), builder.shl(operands[1], I64(8)))
        case_of = builder.add(case_of, operands[2])

        def case(kind: int, tile: tuple[int, int]) -> Any:
            def body(inner: Any, arguments: Any) -> None:
                emit_rows_tile(inner, kind, *tile, arguments)

            return lambda: emit_call(builder, f"rows_tile_{isa.name}_{kind}_{tile[0]}_{tile[1]}", operands[3:], body)

        kinds = (ROWS_F32, ROWS_F16, ROWS_BF16)
        emit_switch(builder, case_of, {(k << 16) + (t[0] << 8) + t[1]: case(k, t) for k in kinds for t in isa.float_tiles})
        return context.get_dummy_value()

    return types.void(_i, _i, _i, _i, _i, _i, _i, _i, _i, _i), codegen


def attention_tiles(isa: InstructionSet) -> tuple[tuple[int, int], ...]:
    """(queries, columns of 16) of attention_tile: four sums at once hide the latency of the multiply-add."""
    return ((1, 4), (1, 3), (1, 1), (isa.query_tile, 1))


def emit_attention_tile(builder: Any, n_rows: int, n_columns: int, n_bytes: int, operands: Any) -> None:
    """operands as in attention_tile, without the first three."""
    out, a, b, b_stride, column_stride, n_blocks, ahead = operands
    kind, element = (ROWS_F16, I16) if n_bytes == 2 else (ROWS_F32, F32)

    def block(_: Any, carried: list) -> list:
        a_pointer, b_pointer, *sums = carried
        for k in range(LANES):
            parts = []
            for column in range(n_columns):
                at = advance(builder, b_pointer, builder.mul(column_stride, I64(column))) if column else b_pointer
                parts.append(_emit_weights(builder, kind, at))
                if n_rows == 1 and (k + column) % (4 // n_bytes) == 0:  # once a line, whichever way the columns lie
                    emit_prefetch(builder, advance(builder, at, ahead), 2)
            for row in range(n_rows):
                x = emit_broadcast_f32(builder, a_pointer, row * LANES + k)
                for column in range(n_columns):
                    i = column * n_rows + row
                    sums[i] = emit_fma(builder, x, parts[column], sums[i])
            b_pointer = advance(builder, b_pointer, b_stride)
        return [advance(builder, a_pointer, n_rows * LANES), b_pointer, *sums]

    start = [builder.inttoptr(a, F32.as_pointer()), builder.inttoptr(b, element.as_pointer())] + [ZERO] * (n_rows * n_columns)
    target = builder.inttoptr(out, VF32.as_pointer())
    for i, total in enumerate(emit_loop(builder, n_blocks, start, block)[2:]):
        builder.store(total, advance(builder, target, i), align=4)


@as_intrinsic
def attention_tile(
    typing: Any, n_rows: Any, n_columns: Any, n_bytes: Any, out: Any, a: Any, b: Any, b_stride: Any, column_stride: Any,
    n_blocks: Any, ahead: Any,
) -> Any:  # fmt: skip
    """out[column, row, 0:16] = sum over k of a[k // 16, row, k % 16] * b[column * column_stride + k * b_stride + (0:16)]

    Both halves of attention: scores (a = queries, k = head size, 16 = positions) and values (a = probabilities,
    k = positions, 16 = part of the head). out, a, b: addresses of float32, b of floats of n_bytes (4 or 2); strides in
    elements; 16 * n_blocks values of k. A single row asks early for what lies `ahead` elements behind b.
    """

    def codegen(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        isa = current_isa()
        case_of = builder.add(builder.shl(operands[0], I64(16)), builder.shl(operands[1], I64(8)))
        case_of = builder.add(case_of, operands[2])

        def case(tile: tuple[int, int], n_bytes: int) -> Any:
            name = f"attention_tile_{isa.name}_{tile[0]}_{tile[1]}_{n_bytes}"
            return lambda: emit_call(builder, name, operands[3:], lambda b, a: emit_attention_tile(b, *tile, n_bytes, a))

        sizes = (4, 2) if isa.has_half_cache else (4,)
        cases = {(t[0] << 16) + (t[1] << 8) + n: case(t, n) for t in attention_tiles(isa) for n in sizes}
        emit_switch(builder, case_of, cases)
        return context.get_dummy_value()

    return types.void(_i, _i, _i, _i, _i, _i, _i, _i, _i, _i), codegen
