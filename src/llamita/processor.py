"""The processor that we run on, as the operating system tells: its name, its instruction sets, the cores that are ours.

Asked by the engine's team, by training and preparing, and by whoever reports on a machine. Knows nothing of what runs on it.
"""

import os
import platform
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may run on, hyperthreads counted."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
