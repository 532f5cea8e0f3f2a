"""The register tile of a float32 matrix product whose factors lie anywhere: what train's attention is made of.

A vector of the second factor meets one number of each row of the first, and all sums stay in registers.
"""

from typing import Any

from llvmlite import ir
from numba import types

from llamita.simd.emit import advance, as_intrinsic, emit_call, emit_loop, emit_switch
from llamita.simd.isa import InstructionSet, current_isa
from llamita.simd.memory import emit_load
from llamita.simd.vectors import F32, I64, LANES, emit_fma, emit_splat

_i = types.int64


def product_rows(isa: InstructionSet) -> tuple[int, ...]:
    """Rows of the tiles of 16 lanes that product_tile has, largest first."""
    return tuple(rows for rows in (isa.product_rows, 4, 2) if rows <= isa.product_rows)


def _tiles(isa: InstructionSet) -> list[tuple[int, int]]:
    """All (rows, lanes). Narrow tiles need twice the rows: fewer sums would not hide the latency of the multiply-add."""
    narrow = [(rows, LANES // 2) for rows in (2 * isa.product_rows, isa.product_rows)]
    return [*((rows, LANES) for rows in product_rows(isa)), *narrow]


def emit_product_tile(builder: Any, n_rows: int, width: int, operands: Any) -> None:
    """operands as in product_tile, without the first two."""
    out, out_stride, a, a_stride, a_step, b, b_step, initial, initial_stride, n = operands
    vector = ir.VectorType(F32, width)

    def rows_of(address: Any, stride: Any) -> list:
        pointer = builder.inttoptr(address, F32.as_pointer())
        return [advance(builder, pointer, builder.mul(stride, I64(row))) for row in range(n_rows)]

    def opaque(pointer: Any) -> Any:
        """The same pointer, of unknown origin: else LLVM goes from row to row by adding, and each waits for the last."""
        return builder.asm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0", [pointer], False)

    def as_vector(pointer: Any) -> Any:
        return builder.bitcast(pointer, vector.as_pointer())

    if width == LANES:
        a_rows = [opaque(pointer) for pointer in rows_of(a, a_stride)]
    else:
        a_rows = [advance(builder, builder.inttoptr(a, F32.as_pointer()), LANES * row) for row in range(n_rows)]

    def body(_: Any, carried: list) -> list:
        a_index, b_pointer, *sums = carried
        x = emit_load(builder, as_vector(b_pointer), 4)
        for row, pointer in enumerate(a_rows):
            factor = emit_splat(builder, emit_load(builder, advance(builder, pointer, a_index), 4), vector)
            sums[row] = emit_fma(builder, factor, x, sums[row])
        return [builder.add(a_index, a_step), advance(builder, b_pointer, b_step), *sums]

    sums = [emit_load(builder, as_vector(pointer), 4) for pointer in rows_of(initial, initial_stride)]
    results = emit_loop(builder, n, [I64(0), builder.inttoptr(b, F32.as_pointer()), *sums], body)[2:]
    for pointer, total in zip(rows_of(out, out_stride), results, strict=True):
        builder.store(total, as_vector(pointer), align=4)


@as_intrinsic
def product_tile(
    typing: Any, n_rows: Any, width: Any, out: Any, out_stride: Any, a: Any, a_stride: Any, a_step: Any, b: Any, b_step: Any,
    initial: Any, initial_stride: Any, n: Any,
) -> Any:  # fmt: skip
    """out[row * out_stride + 0:width] = initial[row * initial_stride + 0:width]
                                         + sum over k < n of a[row * a_stride + k * a_step] * b[k * b_step + 0:width]

    for n_rows rows. out, a, b, initial: addresses of float32; strides and steps in elements; initial may be out.
    width is 16, with n_rows one of product_rows(); or 8, with a_stride 16 and n_rows the largest of these or twice as many.
    """

    def codegen(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        isa = current_isa()

        def case(rows: int, lanes: int) -> Any:
            name = f"product_tile_{isa.name}_{rows}_{lanes}"
            return lambda: emit_call(builder, name, operands[2:], lambda b, a: emit_product_tile(b, rows, lanes, a))

        case_of = builder.add(builder.shl(operands[0], I64(8)), operands[1])
        emit_switch(builder, case_of, {(r << 8) + w: case(r, w) for r, w in _tiles(isa)})
        return context.get_dummy_value()

    return types.void(*[_i] * 12), codegen
