"""A reader that breaks in every way that the fuzzer must notice: what it is tested with."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from fuzz.targets import Seed, Target

from llamita.errors import ModelFileError


def _loop(_: Path) -> None:
    while True:
        pass


def _hold_memory(_: Path) -> None:
    len(b"x" * (40 << 20))


def _stop_process(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _divide(_: Path) -> None:
    raise ZeroDivisionError


def _name_another(_: Path) -> None:
    raise ModelFileError("another file", "content", "nine", "another digit")


def _write_two_lines(path: Path) -> None:
    error = ModelFileError(path, "content", "four", "another digit")
    error.args = (f"{path}: two\nlines",)
    raise error


class PanicException(BaseException):
    """As the libraries in Rust raise it."""


def _panic(path: Path) -> None:
    try:
        raise PanicException
    except PanicException:
        raise ModelFileError(path, "content", "three", "another digit") from None


# what the file holds -> the beginning of the finding's name, and what the reader does
FAULTS: dict[bytes, tuple[str, Callable[[Path], None]]] = {
    b"3": ("panic", _panic),
    b"4": ("lines", _write_two_lines),
    b"5": ("hang", _loop),
    b"6": ("memory", _hold_memory),
    b"7": ("died-of-SIGSEGV", _stop_process),
    b"8": ("ZeroDivisionError", _divide),
    b"9": ("no-file-named", _name_another),
}


def find_broken(name: str) -> Target:
    """A format of files that hold one digit."""
    seed = Seed({"file": b"0"}, "file", lambda rng: b"%d" % rng.randrange(10))
    return Target(name, (seed,), "file", _read)


def _read(path: Path) -> None:
    """Read 0, refuse 1 and 2, break at the others."""
    digit = path.read_bytes()
    if digit in FAULTS:
        FAULTS[digit][1](path)
    if digit != b"0":
        raise ModelFileError(path, "content", digit, "0")
