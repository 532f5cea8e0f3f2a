"""Compile the engine once per processor and keep the machine code: a warm start loads it without Numba in a few milliseconds.

The cache folder holds object files named by a hash of all kernel sources, the versions of Numba and llvmlite and the processor;
Numba's own cache would watch a single file, fail on a read-only installation and cost the import of Numba. Set
LLAMITA_CACHE_DIR to move it. Knows nothing of what it compiles but the name of the entry point.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamita.simd.isa import compile_target, detect_isa

Work = Callable[[int, int], int]
# what the machine code may call: anything else would make LLVM end the process at load time
ALLOWED_SYMBOLS = {"usleep", "Sleep", "memcpy", "memset", "memmove", "sqrtf", "rintf", "fmaf", "fmaxf"}


def kernel_sources() -> list[Path]:
    """All files whose change may change the machine code."""
    package = Path(__file__).parent.parent
    return sorted([*(package / "simd").glob("*.py"), *(package / "engine").glob("*.py")])


def cache_key() -> str:
    """What the machine code depends on, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in kernel_sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for package in ("numba", "llvmlite"):
        digest.update(importlib.metadata.version(package).encode())
    digest.update(repr((sys.platform, detect_isa(), compile_target())).encode())
    return digest.hexdigest()[:32]


def cache_folder() -> Path | None:
    """A folder of this user's that can be written, or None: machine code from a folder of others' must not be run."""
    candidates = [os.environ.get("LLAMITA_CACHE_DIR")]
    if not candidates[0]:
        with contextlib.suppress(RuntimeError):  # no home folder
            import platformdirs

            candidates = [platformdirs.user_cache_dir("llamita")]
        owner = os.getuid() if hasattr(os, "getuid") else "user"
        candidates.append(str(Path(tempfile.gettempdir()) / f"llamita-{owner}"))
    for candidate in filter(None, candidates):
        folder = Path(candidate)
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            is_ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
            if is_ours and os.access(folder, os.W_OK):
                return folder
    return None


def read_object(path: Path) -> tuple[str, bytes] | None:
    """(name of the entry point, object code) of a cache file, or None where it is absent or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, name, code = content[:32], content[32 : 32 + 512].rstrip(b"\0"), content[544:]
    if len(content) <= 544 or hashlib.sha256(content[32:]).digest() != digest:
        return None
    return name.decode(), code


def write_object(path: Path, name: str, code: bytes) -> None:
    """Keep machine code; two processes may do this at once, each replaces the file as a whole. Failure only costs time."""
    body = name.encode().ljust(512, b"\0") + code
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(hashlib.sha256(body).digest() + body)
            file.close()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink()
            raise


def compile_object() -> tuple[str, bytes]:
    """Compile the entry point with Numba: (name, object code)."""
    from numba import config, njit, types

    settings: Any = config
    settings.CPU_NAME, settings.CPU_FEATURES = compile_target()
    from llamita.engine.work import work

    signature = (types.int64, types.int64)
    options: Any = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    bare = njit(**options)(work.py_func)
    bare.compile(signature)
    result = bare.overloads[signature]
    library = result.library
    unknown = {f.name for f in library._final_module.functions if f.is_declaration} - ALLOWED_SYMBOLS
    unknown = {name for name in unknown if not name.startswith("llvm.")}
    assert not unknown, f"compiled code calls {sorted(unknown)}"
    assert len(result.fndesc.llvm_func_name) < 512
    return result.fndesc.llvm_func_name, library._get_compiled_object()


def announce(line: str) -> None:
    """Tell the user why nothing happens for some seconds."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def load_object(name: str, code: bytes) -> Work:
    """Link object code into this process: a function of (state address, rank) that runs without the GIL."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    # Numba's calling convention: status f(result *, exception **, arguments); the kernels raise nothing
    native = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    function = native(engine.get_function_address(name))

    def work(state_address: int, rank: int) -> int:
        result, exception = ctypes.c_int64(), ctypes.c_void_p()
        status = function(ctypes.addressof(result), ctypes.addressof(exception), state_address, rank)
        assert status == 0, status
        return result.value

    work.engine = engine  # type: ignore[attr-defined]  # the code lives as long as its engine
    return work


@functools.cache
def load_work() -> Work:
    """The compiled entry point of engine/work.py, from the cache or compiled now (some seconds, announced on stderr)."""
    folder = cache_folder()
    path = folder / f"engine-{cache_key()}.o" if folder else None
    found = read_object(path) if path else None
    if found is None:
        announce(f"llamita: compiling the engine for this processor ({detect_isa()}); this happens once ...")
        started = time.perf_counter()
        found = compile_object()
        if path:
            write_object(path, *found)
        where = "" if path else "; no folder to keep it in could be written, set LLAMITA_CACHE_DIR"
        announce(f"llamita: compiled in {time.perf_counter() - started:.1f} s{where}")
    return load_object(*found)
