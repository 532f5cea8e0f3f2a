"""The processes that train together and the device that each has: one process alone, or those that torchrun started.

Knows RANK, WORLD_SIZE and the like, the process group, and how a network is spread over it; nothing of what is trained.
"""

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from llamita.errors import SettingError
from llamita.processor import available_cores

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
PATIENCE = timedelta(days=7)  # ranks wait while the first one prepares text, which may take hours


@dataclass
class World:
    """Who we are among the ranks. Used as a context manager, it leaves the process group at the end."""

    rank: int
    n_ranks: int
    device: torch.device
    parallel: str  # "ddp": each rank holds the whole network; "fsdp": its layers are shared out between them
    control: Any = None  # a gloo group for words between ranks, which never times out

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def spread(self, network: nn.Module, layers: nn.ModuleList) -> nn.Module:
        """Return the network on its device, ready for gradients that are averaged over ranks."""
        if self.n_ranks > 1 and self.parallel == "fsdp":
            mesh = dist.device_mesh.init_device_mesh(self.device.type, (self.n_ranks,))
            for part in [*layers, network]:
                fully_shard(part, mesh=mesh)
            return network
        network = network.to(self.device)
        if self.n_ranks == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)

    def without_exchange(self, network: nn.Module, last: bool) -> AbstractContextManager:
        """For all but the last batch of an update: gradients stay on their rank, to be exchanged once."""
        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(last)
        elif isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()

    @staticmethod
    def settle(network: nn.Module) -> None:
        """After a forward pass without a backward: each rank keeps its own part of shared out layers only."""
        if isinstance(network, FSDPModule):
            network.reshard()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place; values lie on the device."""
        if self.n_ranks > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.n_ranks == 1:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.control)
        return bool(votes)

    def wait(self) -> None:
        """Return when every rank has called it."""
        if self.n_ranks > 1:
            dist.barrier(group=self.control)

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        if self.n_ranks > 1:
            dist.destroy_process_group()


def open_world(device: str = "auto", n_threads: int | None = None, parallel: str = "ddp") -> World:
    """Join the processes that torchrun started, or be alone; pick the device and the number of CPU threads.

    device: auto (CUDA, then MPS, then CPU), or a name that torch knows. n_threads: else the cores are shared between the
    processes of this machine. Raises SettingError for a device that is not there.
    """
    rank, n_ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank, n_local = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    elif n_local > 1:  # torchrun sets one thread a process, whatever the machine
        torch.set_num_threads(max(1, available_cores() // n_local))
    chosen = choose_device(device, local_rank)
    if chosen.type == "cpu":
        keep_freed_memory()
    if n_ranks == 1:
        return World(0, 1, chosen, parallel)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, n_ranks, chosen, parallel, dist.new_group(backend="gloo", timeout=PATIENCE))


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: otherwise each step maps its large buffers anew, page by zeroed page.

    Worth a sixth of the speed of a 15M model (docs/experiments.md). Does nothing where the library is not glibc.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The torch device for a name; raises SettingError where it is not there."""
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"device: found {name}, which torch cannot use here ({reason}); expected cpu, cuda or mps") from None
    return device
