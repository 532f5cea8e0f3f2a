"""A fixed team of threads for one engine: the caller and n_threads - 1 others, which sleep in Python when idle."""

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llamita.engine.memory import address_of


def default_threads() -> int:
    """Processor cores that this process may use; hyperthreads of one core share what the engine needs, so half of those."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, _physical_cores() or usable))


def _physical_cores() -> int | None:
    """Distinct (package, core) pairs on Linux; None where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    lines = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    packages = [value for key, value in lines if key.strip() == "physical id"]
    cores = [value for key, value in lines if key.strip() == "core id"]
    return len(set(zip(packages, cores, strict=True))) or None if len(packages) == len(cores) else None


class Team:
    """Runs `work(state_address, rank)` on all threads at once; see engine/work.py for how they meet."""

    def __init__(self, work: Callable[[int, int], int], state: np.ndarray, n_threads: int) -> None:
        self._work, self._address, self.n_threads = work, address_of(state), n_threads
        self.keep_alive: list[object] = [state]  # memory that the threads may touch
        self._inboxes = [queue.SimpleQueue() for _ in range(n_threads - 1)]
        self._threads = [
            threading.Thread(target=self._follow, args=(rank, inbox), name=f"llamita-{rank}", daemon=True)
            for rank, inbox in enumerate(self._inboxes, start=1)
        ]
        for thread in self._threads:
            thread.start()

    def _follow(self, rank: int, inbox: queue.SimpleQueue) -> None:
        while inbox.get():
            self._work(self._address, rank)

    def run(self) -> None:
        """Do the job that the state describes, on all threads; returns when all are done."""
        while parked := self._work(self._address, 0):
            for rank in range(1, self.n_threads):
                if parked >> rank & 1:
                    self._inboxes[rank - 1].put(True)

    def close(self) -> None:
        """End the threads; the memory may be freed afterwards."""
        for inbox in self._inboxes:
            inbox.put(False)
        for thread in self._threads:
            thread.join()
        self._threads = []
