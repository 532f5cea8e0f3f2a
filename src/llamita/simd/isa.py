"""Which instructions this processor has, and what follows from that for the kernels: tile sizes and how int8 products are made.

Asks llvmlite, never Numba, so that `llamita inspect` can answer at once. LLAMITA_ISA forces a path, for tests and for doubt.
"""

import functools
import os
import platform
from dataclasses import dataclass

from llamita.errors import SettingError

LANES = 16  # of every vector in the kernels


@dataclass(frozen=True)
class InstructionSet:
    """One way of computing. A vector of the kernels always has 16 lanes; LLVM makes it of 1, 2 or 4 registers.

    weight_offset: added to stored int8 weights, because vpdpbusd multiplies unsigned by signed.
    quantized_tiles: (panels of 16 weight rows, activation rows) per call of the int8 micro-kernel, largest first: as many
        accumulators as the registers hold. many_rows_tile: (weight rows, activation rows) of the float one in prefill.
    query_tile: queries that attention handles at once in prefill. prefetch_bytes: how far ahead decode asks for int8 weights.
    magnitudes: activations are stored a second time without signs, because vpmaddubsw multiplies unsigned by signed.
    product_rows: rows of the float32 matrix product of train's attention, each of 16 sums.
    needs: names of LLVM's processor features. cpu_name: what LLVM compiles for when this path is forced ("" = the host).
    """

    name: str
    needs: tuple[str, ...]
    cpu_name: str
    weight_offset: int
    quantized_tiles: tuple[tuple[int, int], ...]
    many_rows_tile: tuple[int, int]
    query_tile: int
    prefetch_bytes: int
    half_prefetch_bytes: int = 8192  # the same for 4-bit weights
    magnitudes: bool = False
    product_rows: int = 6
    has_blocks: bool = True  # else only the micro-kernel for any group, which needs no float16 of the processor

    @property
    def planes(self) -> int:
        """Times that quantized activations are stored."""
        return 2 if self.magnitudes else 1

    @property
    def has_half_cache(self) -> bool:
        """Whether keys and values can be kept as float16: the plain path would convert them bit by bit."""
        return self.has_blocks

    @property
    def float_tiles(self) -> tuple[tuple[int, int], ...]:
        """(weight rows, activation rows) of the float micro-kernel: one row is one stream of memory, the best for decode."""
        return ((1, 1), self.many_rows_tile)

    @property
    def row_tiles(self) -> tuple[int, ...]:
        """Activation rows per tile of the int8 micro-kernel, largest first."""
        return tuple(sorted({rows for _, rows in self.quantized_tiles}, reverse=True))

    @property
    def wide_tile(self) -> tuple[int, int]:
        """(panels, rows) of the tile for many rows; one with more rows than this is for so many and no others."""
        return max(self.quantized_tiles)


# 2 x 6 makes 12 integer and 12 float accumulators of AVX-512's 32 registers, with 8 loads per 12 products; 1 x 12 has 13 loads
# and is 6 % slower. Decode (one row) reads one panel: one stream of memory. The others have registers for half or a quarter.
INSTRUCTION_SETS = {
    "avx512vnni": InstructionSet(
        "avx512vnni", ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"), "", 128,
        ((2, 6), (1, 8), (1, 6), (1, 4), (1, 2), (1, 1)), (4, 6), 12, 0, product_rows=8,
    ),
    "avxvnni": InstructionSet(
        "avxvnni", ("avxvnni", "avx2", "fma", "f16c"), "alderlake", 128,
        ((1, 4), (1, 2), (1, 1)), (2, 2), 4, 4096,
    ),
    "avx2": InstructionSet(
        "avx2", ("avx2", "fma", "f16c"), "haswell", 0,
        ((1, 4), (1, 2), (1, 1)), (2, 2), 4, 4096, magnitudes=True,
    ),
    "neon": InstructionSet(
        "neon", ("neon", "dotprod"), "", 0,
        ((1, 4), (1, 2), (1, 1)), (2, 2), 4, 4096,
    ),
    "plain": InstructionSet("plain", (), "x86-64", 0, ((1, 1),), (1, 1), 2, 0, product_rows=2, has_blocks=False),
    # for tests on machines without AVX-512: its tiles and its unsigned weights, with products made byte by byte
    "emulated": InstructionSet(
        "emulated", ("fma", "f16c"), "", 128,
        ((2, 6), (1, 8), (1, 6), (1, 4), (1, 2), (1, 1)), (4, 6), 12, 0, product_rows=8,
    ),
}  # fmt: skip


def is_blocked(isa: InstructionSet, group: int) -> bool:
    """Whether int8 weights in groups of this size take the fast micro-kernel, with float16 scales."""
    return isa.has_blocks and group % 32 == 0


@functools.cache
def host_features() -> frozenset[str]:
    """LLVM's names of the features that this processor has."""
    from llvmlite import binding

    try:
        return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)
    except RuntimeError:  # LLVM cannot tell on this system
        return frozenset()


def runnable_isas() -> list[str]:
    """Names of the paths that this machine can run, best first."""
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    names = [isa.name for isa in INSTRUCTION_SETS.values() if isa.needs and set(isa.needs) <= host_features()]
    # LLVM tells nothing of Apple's or some systems' processors; all 64-bit Apple processors have the dot product
    if is_arm and platform.system() == "Darwin" and "neon" not in names:
        names.insert(0, "neon")
    return sorted([*names, "plain"], key=lambda name: name == "emulated")


def detect_isa() -> str:
    """The path that the kernels take here: the best one, or the one that LLAMITA_ISA names.

    Raises SettingError when that is unknown or cannot run on this machine.
    """
    runnable = runnable_isas()
    wanted = os.environ.get("LLAMITA_ISA", "")
    if not wanted:
        return runnable[0]
    if wanted not in runnable:
        raise SettingError(f"LLAMITA_ISA: found {wanted}, expected one that this machine can run: {', '.join(runnable)}")
    return wanted


_forced: list[InstructionSet] = []


def current_isa() -> InstructionSet:
    """The instruction set that kernels are compiled for in this process."""
    return _forced[-1] if _forced else INSTRUCTION_SETS[detect_isa()]


class forced_isa:
    """While in this block, emitters emit for another instruction set: to look at its assembly, which may not run here."""

    def __init__(self, name: str) -> None:
        self.isa = INSTRUCTION_SETS[name]

    def __enter__(self) -> InstructionSet:
        _forced.append(self.isa)
        return self.isa

    def __exit__(self, *exception: object) -> None:
        _forced.pop()


def compile_target() -> tuple[str, str]:
    """(LLVM processor name, feature string) to compile for: the host itself, unless a lesser path is forced."""
    from llvmlite import binding

    isa = INSTRUCTION_SETS[detect_isa()]
    if isa.name == runnable_isas()[0] or not isa.cpu_name:
        try:
            return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
        except RuntimeError:
            return binding.get_host_cpu_name(), ""
    if isa.name == "plain" and platform.machine().lower() not in ("x86_64", "amd64"):
        return "generic", ""
    return isa.cpu_name, ""
