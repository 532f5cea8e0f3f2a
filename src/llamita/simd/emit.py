"""Loops and switches of the micro-kernels, written in LLVM code: unrolling in Python source costs seconds of type inference."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from llamita.simd.memory import emit_load
from llamita.simd.vectors import I64, VF32, VI32, constant, emit_splat

# typed as what it makes: a function without the first parameter of the one that it decorates
as_intrinsic: Any = intrinsic


def emit_loop(builder: Any, n: Any, carried: Sequence[Any], body: Callable[[Any, list], Sequence[Any]]) -> list:
    """for i in range(n): carried = body(i, carried); the values stay in registers. n may be 0."""
    entry = builder.block
    start, end = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", n, I64(0)), start, end)
    builder.position_at_end(start)
    index = builder.phi(I64)
    index.add_incoming(I64(0), entry)
    phis = [builder.phi(value.type) for value in carried]
    results = body(index, phis)
    following = builder.add(index, I64(1))
    for phi, initial, result in zip(phis, carried, results, strict=True):
        phi.add_incoming(initial, entry)
        phi.add_incoming(result, builder.block)
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, n), start, end)
    last = builder.block
    builder.position_at_end(end)
    outs = []
    for initial, result in zip(carried, results, strict=True):
        out = builder.phi(initial.type)
        out.add_incoming(initial, entry)
        out.add_incoming(result, last)
        outs.append(out)
    return outs


def emit_switch(builder: Any, value: Any, cases: dict[int, Callable[[], None]]) -> None:
    """Run the emitter of the case that equals value; anything else is declared impossible."""
    impossible, end = builder.append_basic_block("impossible"), builder.append_basic_block("end")
    switch = builder.switch(value, impossible)
    builder.position_at_end(impossible)
    builder.unreachable()
    for number, emit in cases.items():
        block = builder.append_basic_block(f"case{number}")
        switch.add_case(I64(number), block)
        builder.position_at_end(block)
        emit()
        builder.branch(end)
    builder.position_at_end(end)


def emit_call(builder: Any, name: str, operands: Sequence[Any], emit_body: Callable[[Any, Sequence[Any]], None]) -> None:
    """Call a function of the module that is written when it is first needed, and never copied into its caller.

    A micro-kernel gets its registers for itself then: copied into a large kernel it lost a third of its speed in some builds.
    """
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
        function = ir.Function(builder.module, kind, name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        body = ir.IRBuilder(function.append_basic_block("entry"))
        emit_body(body, function.args)
        body.ret_void()
    builder.call(function, operands)


def advance(builder: Any, pointer: Any, n: int | Any) -> Any:
    """The pointer n elements further."""
    return builder.gep(pointer, [I64(n) if isinstance(n, int) else n])


def emit_broadcast_f32(builder: Any, pointer: Any, index: int) -> Any:
    """The float at pointer[index] in all lanes."""
    return emit_splat(builder, emit_load(builder, advance(builder, pointer, index), 4), VF32)


def emit_broadcast_i32(builder: Any, pointer: Any, index: int) -> Any:
    """The 4 bytes at pointer[index] in all lanes."""
    return emit_splat(builder, emit_load(builder, advance(builder, pointer, index), 4), VI32)


ZERO = constant(VF32, 0.0)
