"""Compile a kernel once per processor and keep its machine code: a warm start loads it without Numba in a few milliseconds.

The cache folder holds object files named by a hash of all kernel sources, the versions of Numba and llvmlite and the processor;
Numba's own cache would watch a single file, fail on a read-only installation and cost the import of Numba. Set
LLAMITA_CACHE_DIR to move it. Knows nothing of what it compiles: a kernel takes int64s, returns an int64 or nothing, and
raises nothing.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llamita.cache import announce, cache_folder, why_no_folder
from llamita.simd.isa import compile_target, detect_isa

# what the machine code may call: anything else would make LLVM end the process at load time
ALLOWED_SYMBOLS = {"usleep", "Sleep", "memcpy", "memset", "memmove", "sqrtf", "rintf", "fmaf", "fmaxf"}
NAME_BYTES, DIGEST_BYTES = 512, 32  # of a cache file, before the code
MOST_KEPT = 12  # of one kernel: for two versions of the program, each on all instruction sets of a machine


def cache_key(sources: Iterable[Path]) -> str:
    """What the machine code depends on, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(__file__).parent.glob("*.py")), *sources]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for package in ("numba", "llvmlite"):
        digest.update(importlib.metadata.version(package).encode())
    digest.update(repr((sys.platform, detect_isa(), compile_target())).encode())
    return digest.hexdigest()[:32]


def read_object(path: Path) -> tuple[str, bytes] | None:
    """(name of the function, object code) of a cache file, or None where it is absent or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if len(body) <= NAME_BYTES or hashlib.sha256(body).digest() != digest:
        return None
    return body[:NAME_BYTES].rstrip(b"\0").decode(), body[NAME_BYTES:]


def write_object(path: Path, name: str, code: bytes) -> None:
    """Keep machine code; two processes may do this at once, each replaces the file as a whole. Failure only costs time."""
    body = name.encode().ljust(NAME_BYTES, b"\0") + code
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(hashlib.sha256(body).digest() + body)
            file.close()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink()
            raise


def forget_old_objects(folder: Path, what: str) -> None:
    """Remove what other versions have left of a kernel, but the newest. Failure only costs space."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"{what}-*.o"), key=lambda path: path.stat().st_mtime)[:-MOST_KEPT]:
            path.unlink(missing_ok=True)


def compile_object(find_kernel: Callable[[], Any], n_arguments: int) -> tuple[str, bytes]:
    """Compile the kernel that find_kernel imports, for int64s: (name, object code)."""
    from numba import config, njit, types
    from numba.core.compiler_lock import global_compiler_lock

    settings: Any = config
    settings.CPU_NAME, settings.CPU_FEATURES = compile_target()
    signature = (types.int64,) * n_arguments
    bare = njit(nogil=True, error_model="numpy")(find_kernel().py_func)
    with global_compiler_lock, only_linkable():
        bare.compile(signature)
        result = bare.overloads[signature]
        library = result.library
        library._ensure_finalized()
        unknown = {f.name for f in library._final_module.functions if f.is_declaration} - ALLOWED_SYMBOLS
        unknown = {name for name in unknown if not name.startswith("llvm.")}
        assert not unknown, f"compiled code calls {sorted(unknown)}"
        assert len(result.fndesc.llvm_func_name) < NAME_BYTES
        return result.fndesc.llvm_func_name, library.codegen._tm.emit_object(library._final_module)


@contextlib.contextmanager
def only_linkable() -> Iterator[None]:
    """While in this block, what Numba compiles is ready to be linked, not to be called from Python: half of its work.

    Each of the kernels that the wanted one calls would get machine code and two wrappers of its own. What was compiled so is
    forgotten at the end. Uses names that Numba keeps to itself, as does compile_object: hence its narrow version range.
    """
    from numba.core import codegen, cpu, dispatcher

    compiled: list[Any] = []
    add_overload = dispatcher.Dispatcher.add_overload

    def remember(self: Any, result: Any) -> None:
        compiled.append(self)
        add_overload(self, result)

    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (codegen.JITCodeLibrary, "_finalize_specific", lambda *_: None),
            (cpu.CPUContext, "get_executable", lambda *_: {}.get),  # any built-in function that is nobody else's
            (cpu.CPUContext, "create_cpython_wrapper", lambda *_, **__: None),
            (cpu.CPUContext, "create_cfunc_wrapper", lambda *_, **__: None),
            (dispatcher.Dispatcher, "add_overload", remember),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        try:
            yield
        finally:
            for one in compiled:
                one._reset_overloads()
                one.overloads.clear()


def wrap_as_c_function(name: str, n_arguments: int) -> str:
    """LLVM code of int64 c_function(int64, ...) around Numba's convention, status f(result *, exception **, arguments).

    A status other than 0 is an exception, a bug of ours that ends the process: torch's threads could not pass it on.
    """
    arguments = ", ".join(f"i64 %argument{i}" for i in range(n_arguments))
    return f"""
declare void @llvm.trap()
declare i32 @"{name}"(ptr, ptr, {", ".join(["i64"] * n_arguments)})
define i64 @c_function({arguments}) {{
  %result = alloca i64
  %exception = alloca ptr
  %status = call i32 @"{name}"(ptr %result, ptr %exception, {arguments})
  %is_well = icmp eq i32 %status, 0
  br i1 %is_well, label %well, label %broken
well:
  %value = load i64, ptr %result
  ret i64 %value
broken:
  call void @llvm.trap()
  unreachable
}}
"""


def load_object(name: str, code: bytes, n_arguments: int) -> Any:
    """Link object code into this process: a C function of ctypes, which runs without the GIL."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(wrap_as_c_function(name, n_arguments)), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    native = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * n_arguments)
    function: Any = native(engine.get_function_address("c_function"))
    function.engine = engine  # the code lives as long as its engine
    return function


def load_kernel(what: str, sources: Iterable[Path], find_kernel: Callable[[], Any], n_arguments: int) -> Any:
    """A kernel as a C function int64 f(int64, ...), from the cache or compiled now (some seconds, announced on stderr).

    what: its name for users and in the cache; sources: its files outside simd/; find_kernel: imports and returns it.
    """
    folder = cache_folder()
    path = folder / f"{what}-{cache_key(sources)}.o" if folder else None
    found = read_object(path) if path else None
    if path and found:
        with contextlib.suppress(OSError):
            os.utime(path)  # the newest are kept
    if found is None:
        announce(f"llamita: compiling the {what} for this processor ({detect_isa()}); this happens once ...")
        started = time.perf_counter()
        found = compile_object(find_kernel, n_arguments)
        if path:
            write_object(path, *found)
            forget_old_objects(path.parent, what)
        where = "" if path else f", but it cannot be kept: {why_no_folder()}"
        announce(f"llamita: compiled in {time.perf_counter() - started:.1f} s{where}")
    return load_object(*found, n_arguments)
