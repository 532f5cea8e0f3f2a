"""Kernels as C functions, and the cache of their machine code: its folder, damaged files, and what its key depends on."""

import os

from llamita.cache import cache_folder
from llamita.simd import machine_code
from llamita.simd.kernel import kernel
from llamita.simd.machine_code import cache_key, load_kernel, read_object, write_object


@kernel
def weigh(tens, ones):
    return 10 * tens + ones


@kernel
def do_nothing(_address):
    pass


def test_a_kernel_is_compiled_once_and_takes_as_many_arguments_as_it_wants(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLAMITA_CACHE_DIR", str(tmp_path))
    compiled = load_kernel("scales", [], lambda: weigh, 2)
    assert "compiling the scales for this processor" in capsys.readouterr().err
    kept = load_kernel("scales", [], lambda: None, 2)
    assert capsys.readouterr().err == ""
    assert compiled(4, -2) == kept(4, -2) == 38
    load_kernel("pause", [], lambda: do_nothing, 1)(0)


def test_what_other_versions_left_is_forgotten_but_the_newest(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMITA_CACHE_DIR", str(tmp_path))
    for i in range(12):
        (tmp_path / f"pause-{i}.o").touch()
        os.utime(tmp_path / f"pause-{i}.o", (i, i))
    (tmp_path / "engine-0.o").touch()
    load_kernel("pause", [], lambda: do_nothing, 1)
    kept = {path.name for path in tmp_path.iterdir()}
    assert {f"pause-{i}.o" for i in range(5, 12)} | {"engine-0.o"} < kept
    assert len(kept) == machine_code.MOST_KEPT + 1


def test_an_object_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "kernel.o"
    write_object(path, "name", b"machine code")
    assert read_object(path) == ("name", b"machine code")
    assert [p.name for p in tmp_path.iterdir()] == ["kernel.o"]


def test_damaged_objects_are_not_used(tmp_path):
    path = tmp_path / "kernel.o"
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


def test_a_change_of_a_source_changes_the_key(tmp_path):
    source = tmp_path / "kernels.py"
    source.write_text("a")
    before = cache_key([source])
    source.write_text("b")
    assert cache_key([source]) != before


def test_a_change_in_simd_changes_every_key(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_code, "__file__", str(tmp_path / "machine_code.py"))
    before = cache_key([])
    (tmp_path / "vectors.py").write_text("# a kernel")
    assert cache_key([]) != before
