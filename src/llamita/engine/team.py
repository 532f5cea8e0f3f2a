"""A fixed team of threads for one engine: the caller and n_threads - 1 others, which sleep in Python when idle."""

import queue
import threading
import time
from collections.abc import Callable

import numpy as np

from llamita.engine.memory import address_of
from llamita.engine.state import JOB_FORWARD, LONG_WAITS, ROWS_PER_THREAD
from llamita.errors import SettingError
from llamita.processor import available_cores, cpu_facts

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.64
SOON_SECONDS = 0.2  # a long wait so soon after the team came together again: the machine is still busy
AGAIN_SECONDS = 0.05  # two long waits within: it is busy. A neighbour for a time slice, or a virtual machine's host, makes one


def default_threads() -> int:
    """Processor cores that this process may use; hyperthreads of one core share what the engine needs, so half of those."""
    usable = available_cores()
    return max(1, min(usable, _physical_cores() or usable))


def _physical_cores() -> int | None:
    """Distinct (package, core) pairs on Linux; None where the system does not say."""
    packages, cores = cpu_facts("physical id"), cpu_facts("core id")
    return len(set(zip(packages, cores, strict=True))) or None if len(packages) == len(cores) else None


class Team:
    """Runs `work(state_address, rank)` on all threads at once; see engine/work.py for how they meet.

    Where other processes want the cores too, threads wait for one that is not running, at every barrier. After two waits of a
    millisecond the caller therefore works alone for a while, which makes the same results, then tries the team again.
    state: the STATE record; its n_threads, owns_heads and meeting must be set.
    """

    def __init__(self, work: Callable[[int, int], int], state: np.ndarray, meeting: np.ndarray, n_threads: int) -> None:
        self._work, self._state, self._meeting, self.n_threads = work, state, meeting, n_threads
        self._address, self._owns_heads = address_of(state), int(state["owns_heads"][0])
        self._alone_until, self._together_since, self._pause = 0.0, 0.0, FIRST_PAUSE_SECONDS
        self._last_long_wait = 0.0
        self._is_closed = False
        self.keep_alive: list[object] = []  # memory that the threads may touch
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
        """Do the job that the state describes; returns when it is done. Raises SettingError when the threads have ended."""
        if self._is_closed:
            raise SettingError("the model: found it closed, expected it open; load it again")
        if self._alone_until:
            if time.perf_counter() < self._alone_until:
                self._work(self._address, 0)
                return
            self._come_together()
        before, n_rows = self._meeting[LONG_WAITS], int(self._state["n_rows"][0])
        while parked := self._work(self._address, 0):
            for rank in range(1, self.n_threads):
                if parked >> rank & 1:
                    self._inboxes[rank - 1].put(True)
        if self._meeting[LONG_WAITS] != before and self._shares_matrices(n_rows):
            self._long_wait(time.perf_counter())

    def _shares_matrices(self, n_rows: int) -> bool:
        """Whether threads met often enough that they should arrive together: not where each takes rows of its own (prefill)."""
        return n_rows < ROWS_PER_THREAD * self.n_threads and self._state["job"][0] == JOB_FORWARD

    def _long_wait(self, now: float) -> None:
        """Where they come soon, the next jobs are the caller's alone; longer and longer, while cores are taken."""
        was_soon = now - self._together_since < SOON_SECONDS
        is_again = now - self._last_long_wait < AGAIN_SECONDS
        self._last_long_wait = now
        if not was_soon and not is_again:
            return
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS) if was_soon else FIRST_PAUSE_SECONDS
        self._alone_until = now + self._pause
        self._state["n_threads"], self._state["owns_heads"] = 1, 1

    def go_on_alone(self) -> None:
        """Work without the other threads, which a forked process has not."""
        self.n_threads, self._owns_heads, self._inboxes, self._threads = 1, 1, [], []
        self._state["n_threads"], self._state["owns_heads"] = 1, 1

    def _come_together(self) -> None:
        self._alone_until, self._together_since = 0.0, time.perf_counter()
        self._state["n_threads"], self._state["owns_heads"] = self.n_threads, self._owns_heads

    def close(self) -> None:
        """End the threads; the memory may be freed afterwards."""
        self._is_closed = True
        for inbox in self._inboxes:
            inbox.put(False)
        for thread in self._threads:
            thread.join()
        self._threads = []
