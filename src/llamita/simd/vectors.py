"""A Numba type that *is* an LLVM vector of 16 lanes, and functions that become one instruction (or a few) each.

Numba has had no vector math library since 0.62: np.exp in a loop is a scalar call, 40 times slower than `exp` here.
The emit_* functions write LLVM code and are shared with the micro-kernels; the lower-case names are for compiled code.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from llamita.simd.isa import LANES, current_isa

F32, F16 = ir.FloatType(), ir.HalfType()
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
VF32, VF16 = ir.VectorType(F32, LANES), ir.VectorType(F16, LANES)
VI8, VI16, VI32 = (ir.VectorType(element, LANES) for element in (I8, I16, I32))


class Vector(types.Type):
    """A Numba type whose values are LLVM vectors."""

    def __init__(self, name: str, llvm_type: ir.Type) -> None:
        self.llvm_type = llvm_type
        super().__init__(name=name)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, data_model_manager: Any, vector: Vector) -> None:
        super().__init__(data_model_manager, vector, vector.llvm_type)


f32x16, i32x16 = Vector("f32x16", VF32), Vector("i32x16", VI32)


def operation(result: Any, *parameters: Any) -> Callable[[Callable], Any]:
    """Turn `emit(builder, *operands) -> value` into a function that compiled code can call with up to 4 arguments."""

    def wrap(emit: Callable) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            emitted = emit(builder, *operands)
            return context.get_dummy_value() if result is types.void else emitted

        made = result(*parameters), codegen
        # Numba wants to see the number of arguments, hence no *arguments
        typers = (
            lambda t: made,
            lambda t, a: made,
            lambda t, a, b: made,
            lambda t, a, b, c: made,
            lambda t, a, b, c, d: made,
        )
        return intrinsic(typers[len(parameters)])

    return wrap


def call(builder: Any, name: str, result: ir.Type, *operands: Any, **flags: Any) -> Any:
    """Emit a call of an LLVM intrinsic or C function."""
    function_type = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), operands, **flags)


def constant(vector_type: ir.VectorType, value: Any) -> ir.Constant:
    """The same value in all lanes, or a list of one value a lane."""
    return ir.Constant(vector_type, value if isinstance(value, list) else [value] * vector_type.count)


LANE_NUMBERS = constant(VI32, list(range(LANES)))


def emit_splat(builder: Any, scalar: Any, vector_type: ir.VectorType) -> Any:
    """One scalar in all lanes; from a load this folds into the memory operand of its user, as {1to16}."""
    undefined = ir.Constant(vector_type, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(I32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, I32(0)), undefined, lanes)


def emit_fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c. Without the instruction LLVM would call fmaf for every lane: there, two roundings are better."""
    if current_isa().name == "plain":
        return builder.fadd(builder.fmul(a, b), c)
    return call(builder, f"llvm.fma.v{a.type.count}f32", a.type, a, b, c)


def emit_round(builder: Any, x: Any) -> Any:
    """Round half to even, as float. Without the instruction: adding 1.5 * 2**23 pushes the fraction out (|x| < 2**22)."""
    if current_isa().name == "plain":
        magic = constant(VF32, 12582912.0)
        return builder.fsub(builder.fadd(x, magic), magic)
    return call(builder, "llvm.rint.v16f32", VF32, x)


# e**r - 1 - r = r**2 * polynomial(r) for |r| <= ln 2 / 2, from the Cephes library's expf; ln 2 in two parts (Cody and Waite)
_EXP_TERMS = (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


def emit_exp(builder: Any, x: Any) -> Any:
    """e**x = 2**whole * e**r, right to about one unit in the last place; below -87 it gives 0, from 88 on e**88."""
    in_range = builder.fcmp_ordered(">", x, constant(VF32, -87.0))
    x = builder.select(builder.fcmp_ordered("<", x, constant(VF32, 88.0)), x, constant(VF32, 88.0))
    x = builder.select(in_range, x, constant(VF32, 0.0))
    whole = emit_round(builder, builder.fmul(x, constant(VF32, math.log2(math.e))))
    r = emit_fma(builder, whole, constant(VF32, -_LN2_HIGH), x)
    r = emit_fma(builder, whole, constant(VF32, -_LN2_LOW), r)
    value = constant(VF32, 1.9875691500e-4)
    for term in _EXP_TERMS:
        value = emit_fma(builder, value, r, constant(VF32, term))
    value = builder.fadd(emit_fma(builder, value, builder.fmul(r, r), r), constant(VF32, 1.0))
    exponent = builder.shl(builder.add(builder.fptosi(whole, VI32), constant(VI32, 127)), constant(VI32, 23))
    value = builder.fmul(value, builder.bitcast(exponent, VF32))
    return builder.select(in_range, value, constant(VF32, 0.0))


# 2**r = 1 + r * polynomial(r) for |r| <= 1/2, from the Cephes library's exp2f
_EXP2_TERMS = (1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2, 2.402264791363012e-1, 6.931472028550421e-1)


def emit_exp2(builder: Any, x: Any) -> Any:
    """2**x for x < 128, right to about one unit in the last place; below -126, and of no number, it gives 0.

    A third fewer instructions than emit_exp: adding 1.5 * 2**23 rounds x and leaves the whole number in the lowest bits.
    """
    in_range = builder.fcmp_ordered(">", x, constant(VF32, -126.0))
    x = builder.select(in_range, x, constant(VF32, 0.0))
    magic = constant(VF32, 12582912.0)
    shifted = builder.fadd(x, magic)
    r = builder.fsub(x, builder.fsub(shifted, magic))
    value = constant(VF32, 1.535336188319500e-4)
    for term in (*_EXP2_TERMS, 1.0):
        value = emit_fma(builder, value, r, constant(VF32, term))
    exponent = builder.shl(builder.bitcast(shifted, VI32), constant(VI32, 23))
    value = builder.bitcast(builder.add(builder.bitcast(value, VI32), exponent), VF32)
    return builder.select(in_range, value, constant(VF32, 0.0))


def emit_maximum(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def emit_reduce_add(builder: Any, x: Any) -> Any:
    """The sum of the lanes by halves: always in the same order, so that equal vectors give equal sums."""
    n = LANES
    while n > 1:
        n //= 2
        undefined = ir.Constant(x.type, ir.Undefined)
        parts = (ir.Constant(ir.VectorType(I32, n), list(range(start, start + n))) for start in (0, n))
        low, high = (builder.shuffle_vector(x, undefined, part) for part in parts)
        x = builder.fadd(low, high)
    return builder.extract_element(x, I32(0))


def emit_lane_mask(builder: Any, n_lanes: Any) -> Any:
    """<16 x i1>: the lanes before n_lanes (int64)."""
    return builder.icmp_signed("<", LANE_NUMBERS, emit_splat(builder, builder.trunc(n_lanes, I32), VI32))


splat = operation(f32x16, types.float32)(lambda b, x: emit_splat(b, x, VF32))
splat_i32 = operation(i32x16, types.int32)(lambda b, x: emit_splat(b, x, VI32))
add = operation(f32x16, f32x16, f32x16)(lambda b, x, y: b.fadd(x, y))
multiply = operation(f32x16, f32x16, f32x16)(lambda b, x, y: b.fmul(x, y))
divide = operation(f32x16, f32x16, f32x16)(lambda b, x, y: b.fdiv(x, y))
fma = operation(f32x16, f32x16, f32x16, f32x16)(emit_fma)
maximum = operation(f32x16, f32x16, f32x16)(emit_maximum)
absolute = operation(f32x16, f32x16)(lambda b, x: call(b, "llvm.fabs.v16f32", VF32, x))
exp = operation(f32x16, f32x16)(emit_exp)
exp2 = operation(f32x16, f32x16)(emit_exp2)
round_to_i32 = operation(i32x16, f32x16)(lambda b, x: b.fptosi(emit_round(b, x), VI32))
absolute_i32 = operation(i32x16, i32x16)(lambda b, x: call(b, "llvm.abs.v16i32", VI32, x, I1(0)))
add_i32 = operation(i32x16, i32x16, i32x16)(lambda b, x, y: b.add(x, y))
reduce_add = operation(types.float32, f32x16)(emit_reduce_add)
reduce_add_i32 = operation(types.int32, i32x16)(lambda b, x: call(b, "llvm.vector.reduce.add.v16i32", I32, x))
reduce_max = operation(types.float32, f32x16)(
    lambda b, x: call(b, "llvm.vector.reduce.fmax.v16f32", F32, x, fastmath=("nnan",))
)
subtract = operation(f32x16, f32x16, f32x16)(lambda b, x, y: b.fsub(x, y))
# lanes 1 0 3 2 5 4 ...: the partner of each lane in a rotation
swap_pairs = operation(f32x16, f32x16)(lambda b, x: b.shuffle_vector(x, x, constant(VI32, [lane ^ 1 for lane in range(LANES)])))


@operation(f32x16, f32x16, f32x16)
def silu_multiply(builder: Any, gate: Any, up: Any) -> Any:
    """gate * (1 / (1 + exp(-gate))) * up (arXiv:2002.05202), in run.c's order"""
    denominator = builder.fadd(emit_exp(builder, builder.fneg(gate)), constant(VF32, 1.0))
    return builder.fmul(builder.fmul(gate, builder.fdiv(constant(VF32, 1.0), denominator)), up)


@operation(f32x16, f32x16, types.int64)
def keep_first(builder: Any, x: Any, n_lanes: Any) -> Any:
    """Lanes from n_lanes on become -inf: the causal mask."""
    return builder.select(emit_lane_mask(builder, n_lanes), x, constant(VF32, -math.inf))


@operation(types.boolean, f32x16, types.float32)
def any_at_least(builder: Any, x: Any, limit: Any) -> Any:
    """Whether a lane is >= limit."""
    hits = builder.fcmp_ordered(">=", x, emit_splat(builder, limit, VF32))
    return builder.icmp_unsigned("!=", builder.bitcast(hits, I16), I16(0))


@operation(i32x16, f32x16, f32x16, i32x16, i32x16)
def choose_if_greater(builder: Any, a: Any, b: Any, chosen: Any, otherwise: Any) -> Any:
    """Lane by lane: chosen where a > b, else otherwise."""
    return builder.select(builder.fcmp_ordered(">", a, b), chosen, otherwise)


@operation(types.int64, f32x16, types.float32, i32x16)
def lowest_index_of(builder: Any, values: Any, wanted: Any, vector_index: Any) -> Any:
    """The lowest 16 * vector_index + lane whose value is wanted: ties go to the lower id, as in llama2.c and numpy."""
    index = builder.add(builder.mul(vector_index, constant(VI32, LANES)), LANE_NUMBERS)
    equal = builder.fcmp_ordered("==", values, emit_splat(builder, wanted, VF32))
    index = builder.select(equal, index, constant(VI32, 2**31 - 1))
    return builder.sext(call(builder, "llvm.vector.reduce.smin.v16i32", I32, index), I64)


@operation(f32x16, f32x16, f32x16, f32x16)
def turn_pairs(builder: Any, x: Any, cosines: Any, sines: Any) -> Any:
    """Turn the pairs (0 1), (2 3), ... of x by angles; both lanes of a pair hold its cosine, or sine (arXiv:2104.09864)."""
    swapped = builder.shuffle_vector(x, x, constant(VI32, [lane ^ 1 for lane in range(LANES)]))
    signed = builder.fmul(sines, constant(VF32, [-1.0, 1.0] * (LANES // 2)))
    return emit_fma(builder, x, cosines, builder.fmul(swapped, signed))


@operation(f32x16, f32x16, types.int64, types.int64, i32x16)
def keep_visible(builder: Any, x: Any, key: Any, query: Any, starts: Any) -> Any:
    """Lanes become -inf unless starts[lane] <= key <= query + lane: scores of one key for the 16 queries from `query` on."""
    keys = emit_splat(builder, builder.trunc(key, I32), VI32)
    last = builder.add(emit_splat(builder, builder.trunc(query, I32), VI32), LANE_NUMBERS)
    is_visible = builder.and_(builder.icmp_signed("<=", starts, keys), builder.icmp_signed("<=", keys, last))
    return builder.select(is_visible, x, constant(VF32, -math.inf))


@operation(f32x16, f32x16, types.int64, types.float32)
def insert_lane(builder: Any, x: Any, lane: Any, value: Any) -> Any:
    """x with one lane replaced."""
    return builder.insert_element(x, value, builder.trunc(lane, I32))


extract_lane = operation(types.float32, f32x16, types.int64)(lambda b, x, lane: b.extract_element(x, b.trunc(lane, I32)))
