"""One damaged file at a time: it is read, or refused with a line that names it, soon and in little memory; else a Finding.

What no Python code can catch (a crash, a loop inside a library) ends the process: campaign.py runs this in children.
"""

import resource
import signal
import sys
import time
import traceback
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fuzz.targets import Target, has_panicked

from llamita.errors import LlamitaError

MAX_CPU_SECONDS = 1.0
HANG_CPU_SECONDS = 10
MAX_BYTES = 16 << 20  # beyond the size of the files
TRACED = 16  # of so many files one is read under tracemalloc, which takes three times as long; the others' pages are counted
MAX_ADDRESS_SPACE_BYTES = 4 << 30
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class Finding(NamedTuple):
    """What went wrong: signature is the same for findings with one cause."""

    signature: str
    report: str


class Examiner:
    """Reads the damaged files of one format, each in the folder of its seed, which is made beneath `folder`."""

    def __init__(self, target: Target, folder: Path, hang_seconds: int = HANG_CPU_SECONDS) -> None:
        self._target = target
        self._hang_seconds = hang_seconds
        self.n_read = 0  # how many files were none the worse for the damage
        # a reader may look one folder up, where nothing shall be
        self._folders = [folder / f"seed-{i}" / "model" for i in range(len(target.seeds))]
        for seed, path in zip(target.seeds, self._folders, strict=True):
            path.mkdir(parents=True)
            for name, content in seed.files.items():
                (path / name).write_bytes(content)
            self._read(path)  # libraries are loaded and tables made, which shall not count
        self.n_read = 0

    def examine(self, seed: int, number: int) -> Finding | None:
        """Write the file of this number and read it; what went wrong, or None."""
        index, content = self._target.damaged(seed, number)
        path, sound = self._folders[index], self._target.seeds[index]
        (path / sound.damaged_name).write_bytes(content)
        is_traced = number % TRACED == 0
        if is_traced:
            tracemalloc.start()
        resident, started = _resident_bytes(), time.process_time()
        _end_after(self._hang_seconds)
        finding = self._read(path)
        _end_after(0)
        seconds, n_bytes = time.process_time() - started, _resident_bytes() - resident
        if is_traced:
            n_bytes = max(n_bytes, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        if finding is None and seconds > MAX_CPU_SECONDS:
            finding = Finding("slow", f"{seconds:.2f} s of CPU time")
        n_file_bytes = sum(map(len, ({**sound.files, sound.damaged_name: content}).values()))
        if finding is None and n_bytes > MAX_BYTES + n_file_bytes:
            finding = Finding("memory", f"{n_bytes} bytes for files of {n_file_bytes}")
            _forget_peak()
        return finding

    def _read(self, path: Path) -> Finding | None:
        try:
            self._target.read(path / self._target.opened)
        except LlamitaError as error:
            if has_panicked(error):
                return Finding("panic", traceback.format_exc())
            return _check_line(str(error), path)
        except Exception as error:
            return Finding(_signature(error), traceback.format_exc())
        except BaseException as error:
            if not has_panicked(error):
                raise
            return Finding(_signature(error), traceback.format_exc())
        self.n_read += 1
        return None


def limit_address_space() -> None:
    """Let allocations fail that the machine could not serve: an empty page costs no memory until it is touched."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))


def _check_line(line: str, folder: Path) -> Finding | None:
    if not line.isprintable():
        return Finding("lines", f"more than one line: {line!r}")
    if not line.startswith(str(folder)):
        return Finding("no file named " + line.split(":")[0][:40], line)
    return None


def _signature(error: BaseException) -> str:
    """The type of an exception and where in llamita it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "llamita" in Path(frame.filename).parts]
    place = f"{Path(frames[-1].filename).stem}-{frames[-1].name}" if frames else "outside"
    return f"{type(error).__name__} {place}"


def _end_after(cpu_seconds: int) -> None:
    """End this process by a signal after so much CPU time, wherever it is; 0: no more."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def _forget_peak() -> None:
    """Begin to measure anew, where the system can: else smaller peaks would hide behind this one."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident_bytes() -> int:
    """The most memory that this process had. Linux's own number: getrusage counts what ran in the process before, too."""
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
    return int(status.partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024
