"""The machine that trains: what it is, how much memory is free, how fast its matrix units can be at best.

The planner reckons with it and run.json records it. torch is imported only inside the functions that ask it something.
"""

import os
import platform
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llamita import __version__
from llamita.processor import CONTROL_GROUP, available_cores, cpu_facts, cpu_name

PACKAGES = ("torch", "numpy", "numba", "safetensors", "sentencepiece", "tokenizers", "tensorboard")

# Operations per second of dense 16-bit products summed in float32, from the makers' data sheets; the first match counts.
PEAK_FLOPS_16_BIT = (
    (r"\bB200\b", 2250e12),
    (r"\bH200\b", 989e12),
    (r"\bH20\b", 148e12),
    (r"\bH100 PCIe\b", 756e12),
    (r"\bH100 NVL\b", 835e12),
    (r"\b(H100|H800|GH200)\b", 989e12),
    (r"\b(A100|A800)\b", 312e12),
    (r"\bA40\b", 149.7e12),
    (r"\bA30\b", 165e12),
    (r"\bA10G\b", 70e12),
    (r"\bA10\b", 125e12),
    (r"\bL40S\b", 362e12),
    (r"\bL40\b", 181e12),
    (r"\bL4\b", 121e12),
    (r"\bRTX 6000 Ada\b", 364e12),
    (r"\bRTX A6000\b", 154.8e12),
    (r"\bRTX 5090\b", 209.5e12),
    (r"\bRTX 4090\b", 165.2e12),
    (r"\bRTX 4080\b", 97.5e12),
    (r"\bRTX 3090 Ti\b", 80e12),
    (r"\bRTX 3090\b", 71e12),
    (r"\bRTX 3080\b", 59.5e12),
    (r"\bV100\b", 125e12),  # float16 only
    (r"\bT4\b", 65e12),  # float16 only
    (r"\bMI300X\b", 1307e12),
    (r"\bMI210\b", 181e12),
)

# What training reaches where nobody has measured: docs/experiments.md has the CPU numbers, per core of a Zen 5.
ASSUMED_PER_CORE = {
    ("float32", False): 50e9,
    ("float32", True): 65e9,
    ("bfloat16", False): 100e9,
    ("bfloat16", True): 150e9,
}
ASSUMED_SHARE_OF_PEAK = 0.35
ASSUMED_OF_UNKNOWN_GPU = 10e12


@dataclass(frozen=True)
class Machine:
    """What the planner knows of where a run will take place: one process's share of it, and how many processes there are."""

    device: str  # cpu, cuda or mps
    name: str
    n_cores: int
    memory_bytes: int | None  # free for training; None: not known
    dtype: str  # the fastest in which its matrix units train well
    can_compile: bool  # whether torch.compile finds what it needs
    flops_per_second: float  # that training reaches, in the sense of arithmetic.flops_per_token
    is_measured: bool = False  # or flops_per_second is assumed
    n_devices: int = 1


def find_machine(device: str, n_devices: int = 1) -> Machine:
    """Look at a device of this machine (a name that torch knows, without "auto"); needs torch."""
    kind = device.partition(":")[0]
    n_cores = available_cores()
    dtype = fastest_dtype(kind)
    can_compile = kind != "mps" and any(map(shutil.which, ("c++", "g++", "clang++", "cl", os.environ.get("CXX", "c++"))))
    name = gpu_name(device) if kind == "cuda" else cpu_name()
    peak = peak_flops(name, dtype)
    if kind == "cpu":
        assumed = n_cores * ASSUMED_PER_CORE[dtype, can_compile]
    else:
        assumed = peak * ASSUMED_SHARE_OF_PEAK if peak else ASSUMED_OF_UNKNOWN_GPU
    return Machine(kind, name, n_cores, free_memory_bytes(device), dtype, can_compile, assumed, n_devices=n_devices)


def peak_flops(device_name: str, dtype: str) -> float | None:
    """Operations per second of a device's data sheet for 16-bit products; None for float32 and for devices not in the table."""
    if dtype == "float32":
        return None
    return next((peak for pattern, peak in PEAK_FLOPS_16_BIT if re.search(pattern, device_name)), None)


def fastest_dtype(kind: str) -> str:
    """bfloat16 where matrix units know it, float16 on older GPUs, float32 elsewhere. kind: cpu, cuda or mps."""
    import torch

    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if kind == "cpu" and set(cpu_flags()) & {"avx512_bf16", "amx_bf16", "bf16"}:  # bf16: ARM
        return "bfloat16"
    return "float32"


def free_memory_bytes(device: str = "cpu") -> int | None:
    """Memory that a process may take now: of the GPU, or of the machine within the limits of its container; None: not known."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0]
    found = [_available_by_meminfo(), _left_of_container()]
    known = [n_bytes for n_bytes in found if n_bytes is not None]
    if known:
        return min(known)
    with suppress(AttributeError, ValueError, OSError):  # macOS says how much there is, not how much is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def describe_machine() -> dict[str, Any]:
    """Everything about machine and software that a run should remember, for JSON."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": _total_memory_bytes(),
        "gpus": _gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"llamita": __version__} | {name: found for name in PACKAGES if (found := _version(name))},
    }


def cpu_flags() -> list[str]:
    """The instruction sets of the processor by Linux's names; empty elsewhere."""
    facts = cpu_facts("flags") or cpu_facts("Features")
    return facts[0].split() if facts else []


def gpu_name(device: str) -> str:
    """The name of a CUDA device."""
    import torch

    return torch.cuda.get_device_name(torch.device(device))


def _available_by_meminfo() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None


def _left_of_container() -> int | None:
    """What the control group (version 2) of this process may still take, pages of files that nobody reads given back."""
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        limit, taken = (int((CONTROL_GROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        lines = (CONTROL_GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        idle = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, limit - taken + idle)
    return None


def _total_memory_bytes() -> int | None:
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _gpus() -> list[dict[str, Any]]:
    """Names and memory of the CUDA devices, if this process has torch loaded anyway."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
