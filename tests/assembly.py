"""Compile one micro-kernel for any processor that LLVM knows: how the assembly of paths that cannot run here is looked at."""

from collections.abc import Callable, Sequence

from llvmlite import binding, ir

from llamita.engine.float_tile import emit_attention_tile, emit_rows_tile
from llamita.engine.quantized_tile import Tile, emit_quantized_tile
from llamita.engine.state import BLOCK, PANELS_Q8
from llamita.simd.isa import forced_isa

I64, F32 = ir.IntType(64), ir.FloatType()
# instruction set -> (triple, processor) to compile for
TARGETS = {
    "avx512vnni": ("x86_64-unknown-linux-gnu", "znver5"),
    "avxvnni": ("x86_64-unknown-linux-gnu", "alderlake"),
    "avx2": ("x86_64-unknown-linux-gnu", "haswell"),
    "neon": ("aarch64-unknown-linux-gnu", "neoverse-n1"),
    "plain": ("x86_64-unknown-linux-gnu", "x86-64"),
}


def assembly_of(isa_name: str, parameters: Sequence[ir.Type], emit: Callable, cpu: str = "") -> str:
    """The assembly of a function of these parameters whose body is emit(builder, instruction set, arguments)."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple, default_cpu = TARGETS[isa_name]
    module = ir.Module("tile")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), "tile")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with forced_isa(isa_name) as isa:
        emit(builder, isa, function.args)
    builder.ret_void()
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu or default_cpu, opt=3)
    parsed = binding.parse_assembly(str(module))
    options = binding.create_pipeline_tuning_options(speed_level=3)
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_assembly(parsed)


def quantized_assembly(isa_name: str, panels: int, rows: int, kind: int = PANELS_Q8, block: int = BLOCK, cpu: str = "") -> str:
    """The loop nest of quantized matrices for one tile."""
    tile = Tile(kind, block, panels, rows)
    return assembly_of(isa_name, [I64] * 9 + [F32, I64], lambda b, isa, a: emit_quantized_tile(b, isa, tile, a), cpu)


def rows_assembly(isa_name: str, kind: int, n_weights: int, n_rows: int) -> str:
    """The float micro-kernel's loop for one tile."""
    return assembly_of(isa_name, [I64] * 7, lambda b, _, a: emit_rows_tile(b, kind, n_weights, n_rows, a))


def attention_assembly(isa_name: str, n_rows: int, n_columns: int, n_bytes: int) -> str:
    """The attention micro-kernel's loop for one tile."""
    return assembly_of(isa_name, [I64] * 7, lambda b, _, a: emit_attention_tile(b, n_rows, n_columns, n_bytes, a))
