"""A campaign over one format: numbers 0, 1, 2, ... are damaged files, shared out among child processes, and findings are kept.

A child that dies of its file is replaced by one that goes on behind it. What a number stands for depends on the format and the
seed alone, so a campaign can be stopped anywhere, go on there, and each finding be made again.
"""

import multiprocessing
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import c_int64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.examine import HANG_CPU_SECONDS, Examiner, Finding, limit_address_space
from fuzz.targets import Target, find_target

KEPT = 3  # findings of one signature
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Campaign:
    """Which files are read: numbers first to last - 1 of a format and a seed.

    findings: the folder for what goes wrong. find: the function that knows the formats by name, in each child anew.
    hang_seconds: of CPU time, after which a child is ended.
    """

    format_name: str
    seed: int
    first: int
    last: int
    findings: Path
    find: Callable[[str], Target] = find_target
    hang_seconds: int = HANG_CPU_SECONDS

    def run(self, n_jobs: int, show: Callable[[int], None]) -> int:
        """Read all files; return how many findings there were. show gets the number up to which all were read."""
        places = _SPAWN.Array(c_int64, [self.first + job for job in range(n_jobs)])
        n_found = _SPAWN.Value(c_int64, 0)
        children: list[Any] = [self._start(job, n_jobs, places, n_found) for job in range(n_jobs)]
        try:
            while any(children):
                time.sleep(0.2)
                show(min(self.last, *places.get_obj()))
                for job, child in enumerate(children):
                    if child is None or child.is_alive():
                        continue
                    children[job] = None
                    if child.exitcode != 0:
                        if child.exitcode != -signal.SIGTERM:  # which comes from outside: the file is read again
                            self.keep(places[job], self._fatal(child.exitcode), n_found)
                            places[job] += n_jobs
                        children[job] = self._start(job, n_jobs, places, n_found)
        finally:
            for child in filter(None, children):
                child.terminate()
        return int(n_found.value)

    def keep(self, number: int, finding: Finding, n_found: Any) -> None:
        """Write the files of a finding and what went wrong, unless enough like it are there."""
        with n_found.get_lock():
            n_found.value += 1
        signature = "".join(c if c.isalnum() or c in "-_" else "-" for c in finding.signature)
        like_it = list(self.findings.glob(f"{self.format_name}-{signature}-*"))
        if len(like_it) >= KEPT:
            return
        folder = self.findings / f"{self.format_name}-{signature}-{self.seed}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        target = self.find(self.format_name)
        index, content = target.damaged(self.seed, number)
        sound = target.seeds[index]
        for name, file in {**sound.files, sound.damaged_name: content}.items():
            (folder / name).write_bytes(file)
        (folder / "report.txt").write_text(finding.report, encoding="utf-8")

    def _start(self, job: int, n_jobs: int, places: Any, n_found: Any):
        child = _SPAWN.Process(target=_work, args=(self, job, n_jobs, places, n_found), daemon=True)
        child.start()
        return child

    def _fatal(self, exit_code: int | None) -> Finding:
        """The finding for a child that died."""
        number = -(exit_code or 0)
        if number == signal.SIGPROF:
            return Finding("hang", f"more than {self.hang_seconds} s of CPU time")
        name = f"exit code {exit_code}"
        with suppress(ValueError):
            name = signal.Signals(number).name
        return Finding(f"died of {name}", name)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the damaged files, in memory where the system has such."""
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as folder:
        yield Path(folder)


def _work(campaign: Campaign, job: int, n_jobs: int, places: Any, n_found: Any) -> None:
    """Read every n_jobs-th file from places[job] on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    warnings.simplefilter("error")
    target = campaign.find(campaign.format_name)
    with scratch_folder() as folder:
        examiner = Examiner(target, folder, campaign.hang_seconds)
        limit_address_space()
        for number in range(places[job], campaign.last, n_jobs):
            places[job] = number
            if finding := examiner.examine(campaign.seed, number):
                campaign.keep(number, finding, n_found)
        places[job] = campaign.last
