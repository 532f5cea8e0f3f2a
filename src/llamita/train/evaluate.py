"""How well a network foretells text that it was not trained on: mean cross entropy, and bits per byte.

Bits per byte do not depend on the vocabulary, so models with different tokenizers can be compared by them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from llamita.data.shards import TokenStream
from llamita.train.network import Llama, document_starts_of
from llamita.train.update import autocast
from llamita.train.world import World


@dataclass(frozen=True)
class Validation:
    """A measurement on the validation data."""

    loss: float  # nats per token; of preferences, a pair
    bits_per_byte: float  # NaN of preferences
    more: dict[str, float] = field(default_factory=dict)  # further means that the objective tells


def evaluate(
    network: Llama, stream: TokenStream, n_tokens: int, batch: int, dtype: str, world: World, bos_id: int | None = None
) -> Validation:
    """Measure the network on up to n_tokens of the stream, in windows of one context side by side, spread evenly over it.

    A stream shorter than a context is one short window. bos_id: where documents are masked from each other. All ranks
    take part.
    """
    context = min(network.config.context, stream.n_tokens - 1)
    n_all = (stream.n_tokens - 1) // context
    n_windows = max(1, min(n_tokens // context, n_all))
    starts = np.arange(n_windows) * n_all // n_windows * context

    def losses(part: np.ndarray) -> list[torch.Tensor]:
        tokens = stream.windows(part, context + 1)
        ids, targets = (torch.from_numpy(array).to(world.device) for array in (tokens[:, :-1], tokens[:, 1:]))
        return [network(ids, targets, None if bos_id is None else document_starts_of(ids, bos_id)) * len(part)]

    loss = summed(network, losses, starts, batch, dtype, world)[0] / n_windows
    return Validation(loss, loss / math.log(2) * stream.n_tokens / stream.n_bytes)


@torch.no_grad()
def summed(
    network: Llama, means: Callable[[Any], list[torch.Tensor]], rows: Any, batch: int, dtype: str, world: World
) -> list[float]:
    """The sums over all ranks of what `means` says of some rows at a time; without dropout and gradients.

    rows: a sequence that can be cut, the same on every rank; each rank takes its share of it.
    """
    own = rows[world.rank :: world.n_ranks]
    n_largest_share = math.ceil(len(rows) / world.n_ranks)
    n_rounds = math.ceil(n_largest_share / batch)  # as many on every rank: under FSDP each forward pass is a meeting
    total = torch.zeros((), device=world.device)
    network.eval()
    for i in range(n_rounds):
        part = own[i * batch : (i + 1) * batch]
        with autocast(dtype, world.device):
            found = torch.stack(means(part if len(part) else rows[:1]))
        total = total + found * bool(len(part))
    network.train()
    world.settle(network)
    return world.sum(total).tolist()
