"""What a team of threads needs to meet: atomic operations, and a barrier that spins for a while and then lets others run.

An unbounded spin collapses on a busy machine (llama2.c's OpenMP build falls to 3 % beside one busy process). The barrier counts
the waits that outlast its spin, so that the team can see that it shares its cores (engine/team.py).
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types

from llamita.simd.memory import emit_pointer
from llamita.simd.vectors import I32, I64, call, operation

_i64 = types.int64
SPINS = 50_000  # about a millisecond: yielding sooner gives a busy neighbour the core for a whole time slice at every barrier
# barrier memory: int64[16], arrivals at 0, long waits so far at 1, generation at 8: two cache lines
LONG_WAITS, GENERATION = 1, 8


def _pointer(builder: Any, address: Any, index: Any) -> Any:
    return emit_pointer(builder, address, index, I64, I64)


@operation(_i64, _i64, _i64)
def atomic_load(builder: Any, address: Any, index: Any) -> Any:
    """int64 at address[index]; a plain load in a waiting loop would be hoisted out of it: an endless loop."""
    return builder.load_atomic(_pointer(builder, address, index), "seq_cst", 8)


@operation(_i64, _i64, _i64, _i64)
def atomic_exchange(builder: Any, address: Any, index: Any, value: Any) -> Any:
    """Store a value and return the one before."""
    return builder.atomic_rmw("xchg", _pointer(builder, address, index), value, "seq_cst")


@operation(_i64, _i64, _i64, _i64)
def atomic_add(builder: Any, address: Any, index: Any, value: Any) -> Any:
    """Add and return the value before."""
    return builder.atomic_rmw("add", _pointer(builder, address, index), value, "seq_cst")


def emit_pause(builder: Any) -> None:
    """Tell the processor that this is a waiting loop."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        call(builder, "llvm.x86.sse2.pause", ir.VoidType())
    elif machine in ("arm64", "aarch64"):
        call(builder, "llvm.aarch64.hint", ir.VoidType(), I32(1))


@operation(types.void, _i64)
def pause(builder: Any, _: Any) -> Any:
    """Wait a few cycles; the argument is not looked at."""
    emit_pause(builder)
    return None


def emit_let_others_run(builder: Any) -> None:
    """Sleep for 50 microseconds or so. sched_yield is not enough: on Linux a waiting thread keeps its place in the queue."""
    if platform.system() == "Windows":
        call(builder, "Sleep", ir.VoidType(), I32(0))
    else:
        call(builder, "usleep", I32, I32(50))


@operation(types.void, _i64)
def let_others_run(builder: Any, _: Any) -> Any:
    """Offer the core to the operating system; the argument is not looked at."""
    emit_let_others_run(builder)
    return None


@operation(types.void, _i64, _i64)
def barrier(builder: Any, meeting: Any, n_threads: Any) -> Any:
    """Wait until n_threads threads have come here. meeting: address of int64[16], zeros at first."""
    arrivals = _pointer(builder, meeting, I64(0))
    generation = _pointer(builder, meeting, I64(GENERATION))
    mine = builder.load_atomic(generation, "acquire", 8)
    before = builder.atomic_rmw("add", arrivals, I64(1), "acq_rel")
    is_last = builder.icmp_signed("==", builder.add(before, I64(1)), n_threads)
    with builder.if_else(is_last) as (last, others):
        with last:
            builder.store_atomic(I64(0), arrivals, "monotonic", 8)
            builder.store_atomic(builder.add(mine, I64(1)), generation, "release", 8)
        with others:
            entry, spin, end = builder.block, builder.append_basic_block("spin"), builder.append_basic_block("met")
            builder.branch(spin)
            builder.position_at_end(spin)
            spins = builder.phi(I64)
            spins.add_incoming(I64(0), entry)
            emit_pause(builder)
            with builder.if_then(builder.icmp_signed(">", spins, I64(SPINS)), likely=False):
                with builder.if_then(builder.icmp_signed("==", spins, I64(SPINS + 1))):
                    builder.atomic_rmw("add", _pointer(builder, meeting, I64(LONG_WAITS)), I64(1), "monotonic")
                emit_let_others_run(builder)
            spins.add_incoming(builder.add(spins, I64(1)), builder.block)
            now = builder.load_atomic(generation, "acquire", 8)
            builder.cbranch(builder.icmp_signed("==", now, mine), spin, end)
            builder.position_at_end(end)
    return None
