"""Products of small integers on every instruction set: 16 lanes, each the sum of 4 (8-bit) or more (4-bit) products.

Values of LLVM code while it is written; the micro-kernel quantized_tile.py is made of them. Knows no layout of a matrix.
"""

from typing import Any

from llvmlite import ir

from llamita.simd.isa import InstructionSet
from llamita.simd.vectors import I8, I32, LANES, VI32, call, constant

_BYTES, _WORDS = ir.VectorType(I8, 32), ir.VectorType(ir.IntType(16), 16)
_HALF_MASK, _HALF_BITS = constant(VI32, 0x0F0F0F0F), constant(VI32, 4)


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
    """8 lanes: |x| * (w with x's sign); vpmaddubsw saturates, but magnitudes up to 127 stay below 32,768. w is no -128."""
    w, x, magnitude = (builder.bitcast(v, _BYTES) for v in (w, x, magnitude))
    signed = call(builder, "llvm.x86.avx2.psign.b", _BYTES, w, x)
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", _WORDS, magnitude, signed)
    ones = ir.Constant(_WORDS, [1] * 16)
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


def emit_lower_halves(builder: Any, w: Any) -> Any:
    """The lower 4 bits of each byte of 16 int32."""
    return builder.and_(w, _HALF_MASK)


def emit_upper_halves(builder: Any, w: Any) -> Any:
    """The upper 4 bits of each byte of 16 int32."""
    return builder.and_(builder.lshr(w, _HALF_BITS), _HALF_MASK)


# Sums of 4-bit weights (0 to 15) times int8 activations over a group of 32. With AVX2 eight sums of pairs, at most 8 * 2 * 15 *
# 127 = 30,480, meet in 16 bits, two vectors of them, and are widened once a group; elsewhere a sum is one vector of 32 bits.


def half_sum_start(isa: InstructionSet) -> list:
    """The vectors of a sum of nothing."""
    return [constant(_WORDS, 0)] * 2 if isa.name == "avx2" else [constant(VI32, 0)]


def emit_add_halves(builder: Any, isa: InstructionSet, total: list, w: Any, x: Any) -> list:
    """The sum and the products of w, 4 bits in each byte, with x."""
    if isa.name != "avx2":
        return [emit_dot(builder, isa, total[0], w, x, x)]
    results = []
    for before, weights, activations in zip(total, _halves(builder, w, 2), _halves(builder, x, 2), strict=True):
        operands = builder.bitcast(weights, _BYTES), builder.bitcast(activations, _BYTES)
        results.append(builder.add(before, call(builder, "llvm.x86.avx2.pmadd.ub.sw", _WORDS, *operands)))
    return results


def emit_half_sum(builder: Any, isa: InstructionSet, total: list, start: Any) -> Any:
    """start + the sum, 16 int32."""
    if isa.name != "avx2":
        return builder.add(total[0], start)
    wide, ones = ir.VectorType(I32, LANES // 2), ir.Constant(_WORDS, [1] * 16)
    parts = [call(builder, "llvm.x86.avx2.pmadd.wd", wide, words, ones) for words in total]
    return builder.add(_join(builder, parts), start)
