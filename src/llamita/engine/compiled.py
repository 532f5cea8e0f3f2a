"""The engine's machine code: work.py, with all that it calls, as one C function. How it is kept is simd/machine_code.py's."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamita.simd.machine_code import load_kernel


def kernel_sources() -> list[Path]:
    """The files of this folder: a change of any of them may change the machine code."""
    return sorted(Path(__file__).parent.glob("*.py"))


@functools.cache
def load_work() -> Callable[[int, int], int]:
    """The entry point, work(state address, rank), from the cache or compiled now (some seconds, announced on stderr)."""

    def find_kernel() -> Any:
        from llamita.engine.work import work

        return work

    return load_kernel("engine", kernel_sources(), find_kernel, n_arguments=2)
