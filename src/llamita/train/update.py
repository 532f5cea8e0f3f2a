"""One update of the weights: batches, gradients, clipping, optimizer. The inside of the training loop.

What is learned from which samples is objective.py's. Everything that is random here is seeded by the step, so that the update
after step s is the same in any run that gets there.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llamita.train.arithmetic import sequences_of_rank
from llamita.train.config import TrainConfig
from llamita.train.network import Llama
from llamita.train.objective import Batch, Objective
from llamita.train.optimizer import Optimizers
from llamita.train.schedule import learning_rate
from llamita.train.world import World

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class UpdateResult:
    """What one update was like. finite: False where it was not made, because loss or gradient was not a finite number."""

    loss: float  # mean of all its samples
    gradient_norm: float  # before clipping
    learning_rate: float
    finite: bool
    data_seconds: float  # of waiting for tokens
    seconds: float
    more: dict[str, float] = field(default_factory=dict)  # further means that the objective tells


class Updater:
    """A network with its optimizers, ready to be updated step by step."""

    def __init__(self, config: TrainConfig, network: Llama, objective: Objective, world: World) -> None:
        """Spread the network over the ranks. Raises SettingError where they cannot share an update's sequences evenly."""
        self.config, self.world, self.objective = config, world, objective
        self.n_own = sequences_of_rank(config, world.n_ranks)
        self.batch = max(size for size in range(1, min(self.config.batch, self.n_own) + 1) if self.n_own % size == 0)
        self.network = network
        self.spread = world.spread(network, network.layers)
        self.optimizers = Optimizers(network, self.config)
        self.scaler = torch.amp.GradScaler(world.device.type) if self.config.dtype == "float16" else None
        self.forward: nn.Module = self.spread

    def make_ready(self, note: Callable[[str], None]) -> bool:
        """Warm up, compiled where the recipe says so; return whether it is compiled.

        A machine without a compiler trains all the same, more slowly, and `note` is told why.
        """
        if self.config.compile:
            note("compiling the network")
            self.compile()
        try:
            self.warm_up()
            return self.config.compile
        except Exception as error:  # a compiler may fail in any way
            if not self.config.compile or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[:1]
            note(f"torch.compile failed ({type(error).__name__}: {''.join(reason)[:200]}); training goes on without it")
        self.forget_compilation()
        self.warm_up()
        return False

    def compile(self) -> None:
        """Let torch.compile fuse the network; layer by layer where ranks exchange gradients while others are still made."""
        if self.world.n_ranks > 1:
            for layer in self.network.layers:
                layer.compile()
        else:
            self.forward = torch.compile(self.spread)  # pyright: ignore[reportAttributeAccessIssue]

    def forget_compilation(self) -> None:
        """Go back to the network as it is written, after torch.compile has failed."""
        self.forward = self.spread
        for layer in self.network.layers:
            layer._compiled_call_impl = None

    def warm_up(self) -> None:
        """Compute one gradient and throw it away: compiles, allocates, and lets DDP sort its buckets.

        DDP sorts them after its first backward pass; a resumed run would add its first gradients up in another order.
        """
        first = self.world.rank * self.n_own
        batch = self.objective.read(0, first, first + self.batch).to(self.world.device)
        with self.world.without_exchange(self.spread, last=True):
            self._means(batch)[0].backward()
        self._forget_gradients()

    def run(self, step: int, rate: float | None = None) -> UpdateResult:
        """Make the update after `step` updates, at the schedule's learning rate or at another."""
        started = time.perf_counter()
        self.network.train()
        (loss, *more), data_seconds = self._gradients(step)
        norm = self._clip()
        finite = math.isfinite(loss) and math.isfinite(norm)
        rate = learning_rate(self.config, step) if rate is None else rate
        if finite:  # all optimizers or none: the scaler would leave out only those whose own gradients overflowed
            self.optimizers.step(rate, self.scaler)
        if self.scaler is not None:
            self.scaler.update()
            finite = finite or math.isfinite(loss)  # it lowers its factor by itself
        self._forget_gradients()
        told = dict(zip(self.objective.more, more, strict=True))
        return UpdateResult(loss, norm, rate, finite, data_seconds, time.perf_counter() - started, told)

    def _gradients(self, step: int) -> tuple[list[float], float]:
        """Fill the gradients with those of the update's mean; return the objective's means and the seconds spent on data."""
        n_batches, n_ranks, data_seconds = self.n_own // self.batch, self.world.n_ranks, 0.0
        weight = self.objective.weight(step)
        total = torch.zeros(1 + len(self.objective.more), device=self.world.device)
        for i in range(n_batches):
            started = time.perf_counter()
            first = self.world.rank * self.n_own + i * self.batch
            torch.manual_seed(hash_of(self.config.seed, step, first))  # the same dropout, whichever rank reads this batch
            batch = self.objective.read(step, first, first + self.batch)
            parts = weight / max(1, batch.weight * n_ranks)  # ranks are averaged afterwards
            batch = batch.to(self.world.device)
            data_seconds += time.perf_counter() - started
            with self.world.without_exchange(self.spread, last=i == n_batches - 1):
                means = [mean / parts for mean in self._means(batch)]
                (means[0] if self.scaler is None else self.scaler.scale(means[0])).backward()
            total += torch.stack(means).detach()
        return [value / n_ranks for value in self.world.sum(total).tolist()], data_seconds

    def _means(self, batch: Batch) -> list[Tensor]:
        with autocast(self.config.dtype, self.world.device):
            return self.objective.means(self.forward, batch)

    def _clip(self) -> float:
        """Shorten the gradient to the longest allowed; return its length before."""
        if self.scaler is not None:
            self.optimizers.unscale(self.scaler)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip or math.inf, foreach=True)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _forget_gradients(self) -> None:
        for parameter in self.network.parameters():
            parameter.grad = None


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """The context in which matrices are multiplied in dtype."""
    return torch.autocast(device.type, DTYPES[dtype] if dtype != "float32" else torch.bfloat16, enabled=dtype != "float32")


def hash_of(*numbers: int) -> int:
    """A seed that differs between neighbours: 63 bits of the numbers, mixed."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "little") >> 1
