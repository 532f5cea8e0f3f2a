"""Opening what may not be a file, and writing files that are whole or absent."""

import os
import socket
import stat
import threading

import numpy as np
import pytest

from llamita import files
from llamita.errors import ModelFileError
from llamita.files import atomic_file, atomic_folder, check_room, drop_pages, map_file, read_file, start_writing_back

OPENERS = [map_file, lambda path: read_file(path, 100)]


@pytest.fixture(params=OPENERS, ids=["map_file", "read_file"])
def opener(request):
    return request.param


def refused(opener, path) -> str:
    with pytest.raises(ModelFileError) as caught:
        opener(path)
    line = str(caught.value)
    assert line.startswith(str(path).replace("\0", "\\x00"))
    assert "\n" not in line
    return line


def test_a_regular_file_is_read(opener, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert bytes(opener(tmp_path / "file")) == b"content"


def test_a_missing_file_is_refused(opener, tmp_path):
    assert "No such file" in refused(opener, tmp_path / "nowhere")
    refused(opener, tmp_path / "a\0b")


def test_an_empty_file_is_refused(opener, tmp_path):
    (tmp_path / "empty").touch()
    assert "found 0 bytes" in refused(opener, tmp_path / "empty")


def test_a_folder_is_refused(opener, tmp_path):
    assert "found a folder, expected a regular file" in refused(opener, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_at_once(opener, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.append(refused(opener, tmp_path / "pipe")), daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert "found a named pipe" in lines[0]


@pytest.mark.skipif(not os.path.exists(os.devnull) or os.name != "posix", reason="this system has no device files")  # noqa: PTH110
def test_a_device_and_a_socket_are_refused(opener, tmp_path):
    assert "found a device" in refused(opener, os.devnull)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert "found a socket" in refused(opener, tmp_path / "s")


def test_an_unreadable_file_is_refused(opener, tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(b"content")

    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)  # the tests may run as root, whom no mode stops
    assert "found Permission denied" in refused(opener, tmp_path / "secret")


def test_a_file_above_the_limit_is_refused(tmp_path):
    (tmp_path / "big").write_bytes(bytes(101))
    assert "found 101 bytes, expected at most 100" in refused(lambda path: read_file(path, 100), tmp_path / "big")


def test_a_written_file_has_its_content_and_no_leftovers(tmp_path):
    with atomic_file(tmp_path / "file") as file:
        file.write(b"new")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_leftovers(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def interrupted_write() -> None:
        with atomic_file(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_write()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(ModelFileError, match="writing: found No space left"), atomic_file(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_whoever_has_the_old_file_mapped_keeps_its_content(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    mapping = map_file(tmp_path / "file")
    with atomic_file(tmp_path / "file") as file:
        file.write(b"new and longer")
    assert bytes(mapping) == b"old"


def test_writing_into_a_missing_folder_or_over_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "nowhere" / "file", tmp_path):
        with pytest.raises(ModelFileError), atomic_file(path) as file:
            file.write(b"new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and modes are POSIX's")
def test_a_symbolic_link_stays_one_and_the_mode_is_the_usual(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with atomic_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_new_folder_appears_with_all_that_is_in_it(tmp_path):
    with atomic_folder(tmp_path / "new") as folder:
        (folder / "file").touch()
        assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "file").exists()


def test_after_an_error_there_is_no_new_folder(tmp_path):
    with pytest.raises(ModelFileError, match="No such file"), atomic_folder(tmp_path / "new") as folder:
        (folder / "a" / "b").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_written_into(tmp_path):
    with atomic_folder(tmp_path) as folder:
        assert folder == tmp_path.resolve()
    assert tmp_path.is_dir()


def test_a_file_or_a_missing_parent_is_no_place_for_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for path, message in ((tmp_path / "file", "folder: found a file"), (tmp_path / "a" / "b", "writing: found No such file")):
        with pytest.raises(ModelFileError, match=message), atomic_folder(path):
            pass


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice on files")
def test_the_disk_is_asked_to_begin_whenever_enough_has_come_together(tmp_path, monkeypatch):
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(files, "_WRITE_BACK_BYTES", 100)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, length, __: asked.append((start, start + length)))
    with (tmp_path / "file").open("wb") as file:
        for n_bytes in (60, 30, 15, 40, 240, 10):
            file.write(bytes(n_bytes))
            start_writing_back(file, n_bytes)
    assert asked == [(0, 105), (100, 385)]
    assert (tmp_path / "file").stat().st_size == 395


def test_a_disk_without_room_is_one_line_with_both_numbers(tmp_path):
    check_room(tmp_path / "file", 1)
    with pytest.raises(
        ModelFileError, match=r"file: free space: found [\d,]+ bytes, expected 1,000,000,000,000,000; make room"
    ):
        check_room(tmp_path / "file", 10**15)
    with pytest.raises(ModelFileError, match="nowhere: folder: found No such file"):
        check_room(tmp_path / "nowhere" / "file", 1)


def test_dropped_pages_are_read_again_and_memory_of_our_own_stays(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8)
    (tmp_path / "file").write_bytes(content.tobytes())
    mapped = np.frombuffer(map_file(tmp_path / "file"), np.uint8)
    for part in (mapped, mapped[5:70_000], mapped[-1:], mapped[::-3], mapped[:0]):
        drop_pages(part)
        np.testing.assert_array_equal(mapped, content)
    mine = content.copy()
    drop_pages(mine)
    np.testing.assert_array_equal(mine, content)
