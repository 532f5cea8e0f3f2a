"""What an update makes smaller, and on which samples: the part of a training step that differs between kinds of training.

An Objective says which samples belong to a step, as a pure function of its number, and what their loss is. NextToken is that of
pre-training; answers.py and preferences.py have those of fine-tuning. Knows no optimizer, no rank and no file.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from llamita.train.batches import Batches
from llamita.train.network import document_starts_of

Forward = Callable[..., Tensor]  # the network, as the ranks share it


@dataclass(frozen=True)
class Batch:
    """Samples that one device takes at once.

    weight: how much their means count beside those of the other batches of an update. starts: see Llama.forward.
    """

    weight: int
    ids: Tensor  # int64 (B, T)
    targets: Tensor  # int64 (B, T)
    starts: Tensor | None = None  # int32 (B, T)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


class Objective(Protocol):
    """What is trained for; `more` names the means that are told beside the loss."""

    more: tuple[str, ...]

    def read(self, step: int, first: int, last: int) -> Batch:
        """The rows first to last - 1 of the update after `step` updates."""
        ...

    def weight(self, step: int) -> int:
        """The weight of all batches of the update after `step` updates together."""
        ...

    def n_tokens(self, step: int) -> int:
        """How many tokens the update after `step` updates learns from, padding left out."""
        ...

    def means(self, forward: Forward, batch: Batch) -> list[Tensor]:
        """The loss of a batch, and what `more` names: means over it, float32 ()."""
        ...


class NextToken:
    """Pre-training: foretell every token of a text from those before it."""

    more: tuple[str, ...] = ()

    def __init__(self, batches: Batches, bos_id: int | None = None) -> None:
        """bos_id: where documents are masked from each other."""
        self.batches, self.bos_id = batches, bos_id

    def read(self, step: int, first: int, last: int) -> Batch:
        """Windows of the text; each counts as much as the others."""
        return self.batch(*self.batches.read(step, first, last))

    def batch(self, ids: Any, targets: Any) -> Batch:
        """The batch of ids and targets, numpy int64 (B, T)."""
        ids = torch.from_numpy(ids)
        starts = None if self.bos_id is None else document_starts_of(ids, self.bos_id)
        return Batch(len(ids), ids, torch.from_numpy(targets), starts)

    def weight(self, step: int) -> int:  # noqa: ARG002
        """Windows of an update."""
        return self.batches.sequences_per_update

    def n_tokens(self, step: int) -> int:  # noqa: ARG002
        """Tokens of an update."""
        return self.batches.sequences_per_update * self.batches.context

    def means(self, forward: Forward, batch: Batch) -> list[Tensor]:
        """The mean cross entropy."""
        return [forward(batch.ids, batch.targets, batch.starts)]
