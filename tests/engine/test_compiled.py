"""The cache of machine code: where it lies, damaged files, places that cannot be written, and starts at the same time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamita.engine.compiled import cache_folder, cache_key, load_work, read_object, write_object

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
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"engine-{cache_key()}.o"]


def test_an_object_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "engine.o"
    write_object(path, "name", b"machine code")
    assert read_object(path) == ("name", b"machine code")
    assert [p.name for p in tmp_path.iterdir()] == ["engine.o"]


def test_damaged_objects_are_not_used(tmp_path):
    path = tmp_path / "engine.o"
    write_object(path, "name", b"machine code")
    whole = path.read_bytes()
    for damaged in (b"", whole[:40], whole[:-1], whole + b"\0", whole[:600] + b"X" + whole[601:], b"X" + whole[1:]):
        path.write_bytes(damaged)
        assert read_object(path) is None or damaged == whole
    assert read_object(tmp_path / "absent.o") is None


def test_writing_where_nothing_can_be_written_only_costs_time(tmp_path):
    write_object(tmp_path / "no" / "such" / "folder.o", "name", b"code")


def test_the_folder_is_the_one_that_was_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMITA_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_a_folder_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("LLAMITA_CACHE_DIR", str(folder))
    assert cache_folder() is None


def test_a_file_in_place_of_the_folder_is_no_folder(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    monkeypatch.setenv("LLAMITA_CACHE_DIR", str(path))
    assert cache_folder() is None


def test_without_a_home_the_temporary_folder_serves(tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMITA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = cache_folder()
    assert folder is not None
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0


def test_the_key_changes_with_every_kernel_source(monkeypatch, tmp_path):
    from llamita.engine import compiled

    before = cache_key()
    changed = tmp_path / "more.py"
    changed.write_text("# a kernel")
    sources = compiled.kernel_sources()
    assert {path.name for path in sources} >= {"vectors.py", "forward.py", "int8_tile.py"}
    monkeypatch.setattr(compiled, "kernel_sources", lambda: [*sources, Path(changed)])
    assert cache_key() != before
