"""The processor that we run on, as the operating system tells: its name, its instruction sets, the cores that are ours.

Asked by the engine's team, by training and preparing, and by whoever reports on a machine. Knows nothing of what runs on it.
"""

import os
import platform
from contextlib import suppress
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")  # of this process where it runs in a container (version 2)


def available_cores() -> int:
    """Cores that this process may run on, hyperthreads counted, or as many as its container's share of time is worth."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _cores_of_container() or cores)


def _cores_of_container() -> int | None:
    """The time that the control group may take of each period, in whole cores; None: no limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # "max" is no number: no limit
        quota, period = (CONTROL_GROUP / "cpu.max").read_text(encoding="ascii").split()
        return max(1, -(-int(quota) // int(period)))
    return None


def cpu_name() -> str:
    """The processor's name as Linux or Python knows it."""
    return next(iter(cpu_facts("model name")), "") or platform.processor() or platform.machine()


def cpu_facts(key: str) -> list[str]:
    """What Linux says under a key, once per core; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in text.splitlines() if line.partition(":")[0].strip() == key]
