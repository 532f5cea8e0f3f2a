"""Files on disk, before any format: open a regular file safely, map it read-only, write one that is either whole or absent.

Stands under every reader and writer of formats/, data/ and train/. It knows no layout: only that a path may be missing, a
folder, a pipe, empty or unreadable, and that a process or a disk may stop in the middle of a write. Each such case is one
ModelFileError line.
"""

import hashlib
import mmap
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llamita.errors import ModelFileError

if TYPE_CHECKING:  # the flags of `llamita train` come from a module that writes files, and its --help must not wait for numpy
    import numpy as np

# A pipe put in place of the file after the check must not block the open; Windows has neither pipes there nor text-free opens.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_WRITE_BACK_BYTES = 1 << 26
_MAPPED_AT_ONCE_BYTES = 1 << 21  # who touches a page of a mapped file maps its neighbours, too: on Linux up to a large page


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """Map a regular file read-only, its pages read when they are touched; raise ModelFileError where that cannot be done."""
    descriptor = _open_regular(path)
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ModelFileError(path, "file", error, "a file that can be mapped") from None
    finally:
        os.close(descriptor)


def read_file(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """Read a regular file of at most limit_bytes into memory; raise ModelFileError otherwise."""
    try:
        with os.fdopen(_open_regular(path), "rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes > limit_bytes:
                raise ModelFileError(path, "file size", f"{n_bytes} bytes", f"at most {limit_bytes}")
            return file.read(n_bytes)
    except OSError as error:
        raise ModelFileError(path, "file", error.strerror, "a readable file") from None


def drop_pages(array: "np.ndarray") -> None:
    """Give back the memory of what an array covers of a mapped file; whoever reads it again reads the file again.

    Arrays that are no views of a mapped file stay as they are, and so do all where the system has no such call.
    """
    mapping = mapping_of(array)
    if mapping is None or array.nbytes == 0 or not hasattr(mmap, "MADV_DONTNEED"):
        return
    import numpy as np

    start = np.frombuffer(mapping, np.uint8, 1).ctypes.data
    low, high = np.lib.array_utils.byte_bounds(array)
    first = max(low // _MAPPED_AT_ONCE_BYTES * _MAPPED_AT_ONCE_BYTES - start, 0)
    end = min(-(-high // _MAPPED_AT_ONCE_BYTES) * _MAPPED_AT_ONCE_BYTES - start, len(mapping))
    mapping.madvise(mmap.MADV_DONTNEED, first, end - first)


def start_writing_back(file: BinaryIO, n_bytes: int) -> None:
    """Let the system begin to put a file on the disk, after n_bytes were written: else all of it waits for the end.

    It is asked whenever so much has come together that the disk is worth it, and only where it can be asked.
    """
    end = file.tell()
    start = (end - n_bytes) // _WRITE_BACK_BYTES * _WRITE_BACK_BYTES
    if end - start >= _WRITE_BACK_BYTES and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)  # dirty pages are not dropped, but written


def mapping_of(array: "np.ndarray") -> mmap.mmap | None:
    """The mapped file that an array is a view of, or None."""
    import numpy as np

    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return base if isinstance(base, mmap.mmap) else None


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hex; raises OSError where it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_room(path: str | os.PathLike[str], n_bytes: int) -> None:
    """Raise ModelFileError unless the disk on which a path lies, or will lie, has so many bytes free."""
    folder = Path(os.path.realpath(path)).parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ModelFileError(folder, "folder", error.strerror, "one that is there") from None
    if free < n_bytes:
        raise ModelFileError(path, "free space", f"{free:,} bytes", f"{n_bytes:,}", "make room, or write to another disk")


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise ModelFileError where something lies that is no regular file, so that none can take its place."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ModelFileError(path, "file", _kind(target.stat().st_mode), "a regular file or a new name")


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name only when the block ends without an error and the bytes are on the disk.

    Whoever has the old file mapped keeps the old content. Raises ModelFileError where the file cannot be written.
    """
    target = Path(os.path.realpath(path))  # through a symbolic link, as open() would write
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        check_replaceable(path)
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise ModelFileError(path, "writing", error.strerror or error, "a folder with room where you may write") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a folder to write into: a new one gets its name only when the block ends without an error.

    A folder that is there is given as it is; what is written into it is the block's to keep whole. Raises ModelFileError.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        if target.is_dir():
            yield target
            return
        if target.exists():
            raise ModelFileError(path, "folder", _kind(target.stat().st_mode), "a folder or a new name")
        part.mkdir()
        yield part
        sync_folder(part)
        part.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise ModelFileError(path, "writing", error.strerror or error, "a folder with room where you may write") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open_regular(path: str | os.PathLike[str]) -> int:
    """The descriptor of a non-empty regular file, which the caller closes."""
    try:
        _check_regular(path, Path(path).stat())  # before the open: opening a device may act on it
        descriptor = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(path, "file", reason, "a readable file") from None
    try:
        _check_regular(path, os.fstat(descriptor))
    except ModelFileError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(path, "file", _kind(status.st_mode), "a regular file")
    if status.st_size == 0:
        raise ModelFileError(path, "file size", "0 bytes", "a file with content", "was a download or a copy interrupted?")


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def sync_folder(folder: Path) -> None:
    """Put the new name itself on the disk; Windows cannot open a folder and needs no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
