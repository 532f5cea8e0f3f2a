"""Loads and stores of compiled code: an address (int64) and an index in elements, no bounds, any alignment.

Kernels see memory as addresses because one table of addresses can hold matrices of every storage type, mapped files among them,
and because machine code without Numba's array objects can be loaded without Numba (machine_code.py). Python keeps the
arrays alive and has checked all sizes.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

from llamita.simd.isa import current_isa
from llamita.simd.vectors import (
    F32,
    I8,
    I16,
    I32,
    I64,
    LANES,
    VF16,
    VF32,
    VI8,
    VI16,
    VI32,
    call,
    constant,
    emit_lane_mask,
    emit_splat,
    f32x16,
    i32x16,
    operation,
)

_i64, _i32, _f32 = types.int64, types.int32, types.float32
F16_LARGEST = 65504.0


def emit_pointer(builder: Any, address: Any, index: Any, element: ir.Type, target: ir.Type) -> Any:
    """A pointer to `target` at `index` elements behind an address."""
    pointer = builder.inttoptr(address, element.as_pointer())
    return builder.bitcast(builder.gep(pointer, [index]), target.as_pointer())


def emit_load(builder: Any, pointer: Any, align: int) -> Any:
    value = builder.load(pointer)
    value.align = align
    return value


def _loader(element: ir.Type, target: ir.Type, align: int) -> Any:
    return lambda b, address, index: emit_load(b, emit_pointer(b, address, index, element, target), align)


def _storer(element: ir.Type, target: ir.Type, align: int) -> Any:
    return lambda b, address, index, x: b.store(x, emit_pointer(b, address, index, element, target), align=align)


load = operation(f32x16, _i64, _i64)(_loader(F32, VF32, 4))
store = operation(types.void, _i64, _i64, f32x16)(_storer(F32, VF32, 4))
get_f32 = operation(_f32, _i64, _i64)(_loader(F32, F32, 4))
set_f32 = operation(types.void, _i64, _i64, _f32)(_storer(F32, F32, 4))
get_i32 = operation(_i32, _i64, _i64)(_loader(I32, I32, 1))
set_i32 = operation(types.void, _i64, _i64, _i32)(_storer(I32, I32, 4))
get_i64 = operation(_i64, _i64, _i64)(_loader(I64, I64, 8))
set_i64 = operation(types.void, _i64, _i64, _i64)(_storer(I64, I64, 8))
get_i8 = operation(_i64, _i64, _i64)(lambda b, a, i: b.sext(_loader(I8, I8, 1)(b, a, i), I64))
set_i8 = operation(types.void, _i64, _i64, _i64)(lambda b, a, i, x: _storer(I8, I8, 1)(b, a, i, b.trunc(x, I8)))
store_i8 = operation(types.void, _i64, _i64, i32x16)(lambda b, a, i, x: _storer(I8, VI8, 1)(b, a, i, b.trunc(x, VI8)))


def emit_widen_f16(builder: Any, halves: Any) -> Any:
    """16 float16 numbers (their bits, int16) as float32. Without the instruction LLVM would call a library for every one."""
    if current_isa().name != "plain":
        return builder.fpext(builder.bitcast(halves, VF16), VF32)
    bits = builder.zext(halves, VI32)
    magnitude = builder.shl(builder.and_(bits, constant(VI32, 0x7FFF)), constant(VI32, 13))
    value = builder.fmul(builder.bitcast(magnitude, VF32), constant(VF32, 2.0**112))  # moves the exponent, also of denormals
    is_special = builder.icmp_unsigned(">=", magnitude, constant(VI32, 0x7C00 << 13))
    value = builder.bitcast(value, VI32)
    value = builder.select(is_special, builder.or_(value, constant(VI32, 0x7F800000)), value)
    sign = builder.shl(builder.and_(bits, constant(VI32, 0x8000)), constant(VI32, 16))
    return builder.bitcast(builder.or_(value, sign), VF32)


def emit_narrow_f16(builder: Any, x: Any) -> Any:
    """16 float32 numbers as float16, rounded half to even; what is too large for it becomes its largest, not infinity."""
    for limit, order in ((F16_LARGEST, ">"), (-F16_LARGEST, "<")):  # of no number neither is true
        x = builder.select(builder.fcmp_ordered(order, x, constant(VF32, limit)), constant(VF32, limit), x)
    return builder.fptrunc(x, VF16)


def emit_load_f16(builder: Any, pointer: Any) -> Any:
    """16 float16 numbers as float32."""
    return emit_widen_f16(builder, emit_load(builder, builder.bitcast(pointer, VI16.as_pointer()), 2))


def emit_load_bf16(builder: Any, pointer: Any) -> Any:
    """16 bfloat16 numbers, the upper halves of float32."""
    bits = builder.zext(emit_load(builder, pointer, 2), VI32)
    return builder.bitcast(builder.shl(bits, constant(VI32, 16)), VF32)


load_f16 = operation(f32x16, _i64, _i64)(lambda b, a, i: emit_load_f16(b, emit_pointer(b, a, i, I16, VF16)))
load_bf16 = operation(f32x16, _i64, _i64)(lambda b, a, i: emit_load_bf16(b, emit_pointer(b, a, i, I16, VI16)))


def emit_narrow_bf16(builder: Any, x: Any) -> Any:
    """The bits (int16) of 16 float32 numbers as bfloat16, rounded half to even."""
    bits = builder.bitcast(x, VI32)
    is_odd = builder.and_(builder.lshr(bits, constant(VI32, 16)), constant(VI32, 1))
    rounded = builder.lshr(builder.add(builder.add(bits, is_odd), constant(VI32, 0x7FFF)), constant(VI32, 16))
    is_number = builder.fcmp_ordered("ord", x, x)  # rounding would carry some bits of "not a number" into the sign
    return builder.trunc(builder.select(is_number, rounded, constant(VI32, 0x7FC0)), VI16)


def emit_low_half(builder: Any, x: Any) -> Any:
    """Lanes 0 to 7 of a vector of 16."""
    return builder.shuffle_vector(x, x, constant(ir.VectorType(I32, LANES // 2), list(range(LANES // 2))))


def emit_load_half(builder: Any, pointer: Any, align: int) -> Any:
    """A vector of 16 lanes from a pointer to 8 elements; the upper lanes are 0."""
    half = emit_load(builder, pointer, align)
    return builder.shuffle_vector(half, constant(half.type, 0), constant(VI32, list(range(LANES))))


_HALF_F32, _HALF_I16 = ir.VectorType(F32, LANES // 2), ir.VectorType(I16, LANES // 2)


@operation(f32x16, _i64, _i64)
def load_8(builder: Any, address: Any, index: Any) -> Any:
    """8 float32 numbers in lanes 0 to 7, zeros behind; reads nothing more."""
    return emit_load_half(builder, emit_pointer(builder, address, index, F32, _HALF_F32), 4)


@operation(f32x16, _i64, _i64)
def load_bf16_8(builder: Any, address: Any, index: Any) -> Any:
    """8 bfloat16 numbers in lanes 0 to 7, zeros behind; reads nothing more."""
    bits = builder.zext(emit_load_half(builder, emit_pointer(builder, address, index, I16, _HALF_I16), 2), VI32)
    return builder.bitcast(builder.shl(bits, constant(VI32, 16)), VF32)


store_8 = operation(types.void, _i64, _i64, f32x16)(lambda b, a, i, x: _storer(F32, _HALF_F32, 4)(b, a, i, emit_low_half(b, x)))
store_bf16 = operation(types.void, _i64, _i64, f32x16)(
    lambda b, a, i, x: _storer(I16, VI16, 2)(b, a, i, emit_narrow_bf16(b, x))
)
store_bf16_8 = operation(types.void, _i64, _i64, f32x16)(
    lambda b, a, i, x: _storer(I16, _HALF_I16, 2)(b, a, i, emit_low_half(b, emit_narrow_bf16(b, x)))
)
load_i32 = operation(i32x16, _i64, _i64)(_loader(I32, VI32, 4))


@operation(_f32, _i64, _i64)
def get_bf16(builder: Any, address: Any, index: Any) -> Any:
    """One bfloat16 number as float32."""
    bits = builder.zext(_loader(I16, I16, 2)(builder, address, index), I32)
    return builder.bitcast(builder.shl(bits, I32(16)), F32)


@operation(types.void, _i64, _i64, _f32)
def set_bf16(builder: Any, address: Any, index: Any, x: Any) -> Any:
    """Store float32 as bfloat16, rounded half to even."""
    narrow = emit_narrow_bf16(builder, emit_splat(builder, x, VF32))
    return _storer(I16, I16, 2)(builder, address, index, builder.extract_element(narrow, I32(0)))


@operation(f32x16, _i64, _i64, _i64)
def load_pairs(builder: Any, address: Any, index: Any, n_pairs: Any) -> Any:
    """n_pairs (at most 8) float32 numbers, each in both lanes of a pair; zeros behind; reads nothing more."""
    numbers = constant(ir.VectorType(I32, LANES // 2), list(range(LANES // 2)))
    mask = builder.icmp_signed("<", numbers, emit_splat(builder, builder.trunc(n_pairs, I32), ir.VectorType(I32, LANES // 2)))
    pointer, zero = emit_pointer(builder, address, index, F32, _HALF_F32), constant(_HALF_F32, 0.0)
    half = call(builder, "llvm.masked.load.v8f32.p0", _HALF_F32, pointer, I32(4), mask, zero)
    return builder.shuffle_vector(half, zero, constant(VI32, [lane // 2 for lane in range(LANES)]))


@operation(_f32, _i64, _i64)
def get_f16(builder: Any, address: Any, index: Any) -> Any:
    """One float16 number as float32."""
    if current_isa().name != "plain":
        return builder.fpext(_loader(I16, ir.HalfType(), 2)(builder, address, index), F32)
    halves = builder.insert_element(constant(VI16, 0), _loader(I16, I16, 2)(builder, address, index), I32(0))
    return builder.extract_element(emit_widen_f16(builder, halves), I32(0))


@operation(types.void, _i64, _i64, _f32)
def set_f16(builder: Any, address: Any, index: Any, x: Any) -> Any:
    """Store float32 as float16, rounded half to even. The plain path has no use for it."""
    if current_isa().name == "plain":
        return None
    return _storer(I16, ir.HalfType(), 2)(builder, address, index, builder.fptrunc(x, ir.HalfType()))


def emit_masked_load(builder: Any, pointer: Any, mask: Any, zero: Any, align: int) -> Any:
    """A load whose masked lanes are 0 and touch no memory."""
    kinds = {VF32: "v16f32", VF16: "v16f16", VI16: "v16i16"}
    name = f"llvm.masked.load.{kinds[zero.type]}.p0"
    return call(builder, name, zero.type, pointer, I32(align), mask, zero)


@operation(f32x16, _i64, _i64, _i64)
def load_first(builder: Any, address: Any, index: Any, n_lanes: Any) -> Any:
    """The first n_lanes of a vector, the others 0: the end of a row that is no multiple of 16."""
    pointer = emit_pointer(builder, address, index, F32, VF32)
    return emit_masked_load(builder, pointer, emit_lane_mask(builder, n_lanes), constant(VF32, 0.0), 4)


@operation(types.void, _i64, _i64, f32x16, _i64)
def store_first(builder: Any, address: Any, index: Any, x: Any, n_lanes: Any) -> Any:
    """Store the first n_lanes and leave the memory behind them alone."""
    pointer = emit_pointer(builder, address, index, F32, VF32)
    mask = emit_lane_mask(builder, n_lanes)
    return call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), x, pointer, I32(4), mask)


@operation(types.void, _i64, _i64, f32x16)
def store_column(builder: Any, address: Any, index: Any, x: Any) -> Any:
    """float32 at index + 16 * lane = x[lane]: a column of a [.., 16] block."""
    pointer = emit_pointer(builder, address, index, F32, F32)
    for lane in range(LANES):
        builder.store(builder.extract_element(x, I32(lane)), builder.gep(pointer, [I64(LANES * lane)]), align=4)


@operation(types.void, _i64, _i64, f32x16)
def store_column_f16(builder: Any, address: Any, index: Any, x: Any) -> Any:
    """The same of a block of float16."""
    if not current_isa().has_half_cache:
        return
    x = emit_narrow_f16(builder, x)
    pointer = emit_pointer(builder, address, index, I16, ir.HalfType())
    for lane in range(LANES):
        builder.store(builder.extract_element(x, I32(lane)), builder.gep(pointer, [I64(LANES * lane)]), align=2)


@operation(types.void, _i64, _i64, f32x16)
def store_f16(builder: Any, address: Any, index: Any, x: Any) -> Any:
    """16 float16 numbers."""
    if current_isa().has_half_cache:
        _storer(I16, VF16, 2)(builder, address, index, emit_narrow_f16(builder, x))


def emit_prefetch(builder: Any, pointer: Any, level: int) -> Any:
    """Ask for a cache line, in the first (3) or second (2) level; any address is harmless."""
    pointer = builder.bitcast(pointer, I8.as_pointer())
    return call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(level), I32(1))


prefetch = operation(types.void, _i64)(lambda b, address: emit_prefetch(b, b.inttoptr(address, I8.as_pointer()), 2))


def record_reader(dtype: np.dtype) -> Any:
    """Make a function (address, index) -> the record at that place of an array of such records, for compiled code."""
    record = from_dtype(dtype)
    size = dtype.itemsize

    @intrinsic
    def at(typing: Any, address: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            place = builder.add(operands[0], builder.mul(operands[1], I64(size)))
            return builder.inttoptr(place, context.get_value_type(record))

        return record(_i64, _i64), codegen

    return at
