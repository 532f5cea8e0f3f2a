"""One update of the weights: batches, gradients, clipping, optimizer. The inside of the training loop.

Everything that is random here is seeded by the step, so that the update after step s is the same in any run that gets there.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llamita.errors import SettingError
from llamita.train.batches import Batches
from llamita.train.config import Recipe
from llamita.train.network import Llama, document_starts_of
from llamita.train.optimizer import Optimizers
from llamita.train.schedule import learning_rate
from llamita.train.world import World

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class UpdateResult:
    """What one update was like. finite: False where it was not made, because loss or gradient was not a finite number."""

    loss: float  # mean cross entropy of all its tokens, nats
    gradient_norm: float  # before clipping
    learning_rate: float
    finite: bool
    data_seconds: float  # of waiting for tokens
    seconds: float


class Updater:
    """A network with its optimizers, ready to be updated step by step."""

    def __init__(self, recipe: Recipe, network: Llama, batches: Batches | None, world: World, bos_id: int = 1) -> None:
        """Spread the network over the ranks. Raises SettingError where they cannot share an update's sequences evenly."""
        self.config, self.context, self.world, self.batches = recipe.training, recipe.model.context, world, batches
        self.bos_id = bos_id
        n_sequences = self.config.sequences_per_update
        if n_sequences % world.n_ranks:
            raise SettingError(
                f"batch x accumulation: found {n_sequences} sequences per update, expected a multiple of the "
                f"{world.n_ranks} processes"
            )
        self.n_own = n_sequences // world.n_ranks
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
        ids = torch.zeros(self.batch, self.context, dtype=torch.int64, device=self.world.device)
        with self.world.without_exchange(self.spread, last=True):
            self._loss(ids, ids).backward()
        self._forget_gradients()

    def run(self, step: int, rate: float | None = None) -> UpdateResult:
        """Make the update after `step` updates, at the schedule's learning rate or at another."""
        started = time.perf_counter()
        torch.manual_seed(hash_of(self.config.seed, step, self.world.rank))
        self.network.train()
        loss, data_seconds = self._gradients(step)
        norm = self._clip()
        finite = math.isfinite(loss) and math.isfinite(norm)
        rate = learning_rate(self.config, step) if rate is None else rate
        if finite or self.scaler is not None:
            self.optimizers.step(rate, self.scaler)
        if self.scaler is not None:
            self.scaler.update()
            finite = finite or math.isfinite(loss)  # it lowers its factor by itself
        self._forget_gradients()
        return UpdateResult(loss, norm, rate, finite, data_seconds, time.perf_counter() - started)

    def _gradients(self, step: int) -> tuple[float, float]:
        """Fill the gradients with the mean over the update's sequences; return the loss and the seconds spent on data."""
        assert self.batches is not None
        n_batches, data_seconds = self.n_own // self.batch, 0.0
        total = torch.zeros((), device=self.world.device)
        for i in range(n_batches):
            started = time.perf_counter()
            first = self.world.rank * self.n_own + i * self.batch
            arrays = self.batches.read(step, first, first + self.batch)
            ids, targets = (torch.from_numpy(array).to(self.world.device, non_blocking=True) for array in arrays)
            data_seconds += time.perf_counter() - started
            with self.world.without_exchange(self.spread, last=i == n_batches - 1):
                loss = self._loss(ids, targets) / n_batches
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            total += loss.detach()
        return self.world.sum(total).item() / self.world.n_ranks, data_seconds

    def _loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        starts = document_starts_of(ids, self.bos_id) if self.config.document_mask else None
        with autocast(self.config.dtype, self.world.device):
            return self.forward(ids, targets, starts)

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
