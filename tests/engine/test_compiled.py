"""The engine's machine code: warm starts without Numba, and cold ones at the same time."""

import os
import subprocess
import sys

import pytest

from llamita.cache import cache_folder
from llamita.engine.compiled import kernel_sources, load_work
from llamita.simd.machine_code import cache_key

PROGRAM = """
import sys
from llamita.config import ModelConfig
from llamita.engine import Engine, Sampling
from llamita.model import random_model
with Engine(random_model(ModelConfig(32, 1, 2, 2, 32, 64, 32)), n_threads=2) as engine:
    sequence = engine.sequence(Sampling(temperature=0))
    sequence.append([1])
    print(*sequence.run(5), "numba" in sys.modules)
"""


def start(**environment: str) -> subprocess.Popen:
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "LLAMITA_CACHE_DIR")}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=kept | environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def warm_folder() -> str:
    """The cache folder of this test run, with the machine code in it."""
    load_work()
    folder = cache_folder()
    assert folder is not None
    return str(folder)


def test_a_warm_start_does_not_import_numba(warm_folder):
    out, errors = start(LLAMITA_CACHE_DIR=warm_folder).communicate(timeout=60)
    assert out.split()[-1] == "False", errors
    assert errors == ""


def test_two_processes_that_start_at_once_without_a_cache_both_work_and_leave_one(tmp_path):
    both = [start(LLAMITA_CACHE_DIR=str(tmp_path / "new")) for _ in range(2)]
    done = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], done
    assert done[0][0].split()[:5] == done[1][0].split()[:5]
    assert all("compiling the engine" in errors for _, errors in done)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"engine-{cache_key(kernel_sources())}.o"]


def test_the_key_covers_the_kernels_of_the_engine():
    assert {path.name for path in kernel_sources()} >= {"work.py", "forward.py", "quantized_tile.py", "state.py"}
