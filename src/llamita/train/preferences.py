"""Preferences: the objective of DPO (arXiv:2305.18290). Of two answers to a prompt, make the chosen one likelier than before.

How likely is compared with a reference, the model before training, whose probabilities are made once (reference.py). Label
smoothing is that of conservative DPO (Mitchell, 2023): some share of the pairs may be the wrong way round.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llamita.train.objective import Batch, Forward
from llamita.train.rows import ExampleRows

PER_PAIR = 2


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """Rows of pairs; examples 2 p and 2 p + 1 of a batch are the chosen and the rejected answer of pair p."""

    numbers: Tensor  # int64 (B, T): the example in the batch that a token belongs to
    reference: Tensor  # float32 (2 pairs,): the logarithm of each answer's probability before training


class Preferences:
    """See objective.py."""

    more: tuple[str, ...] = ("reward_accuracy", "reward_margin")

    def __init__(self, rows: ExampleRows, reference: np.ndarray, beta: float, label_smoothing: float) -> None:
        """reference: float32 (N,), of every example of the rows."""
        self.rows, self._reference = rows, reference
        self._beta, self._label_smoothing = beta, label_smoothing

    def read(self, step: int, first: int, last: int) -> PairBatch:
        """Rows of whole pairs; each counts as much as it has pairs."""
        return self.batch(self.rows.rows(step, first, last))

    def batch(self, rows: list[np.ndarray]) -> PairBatch:
        """The batch of some rows."""
        filled = self.rows.filled(rows)
        units = np.concatenate(rows)
        reference = torch.from_numpy(self._reference[self.rows.members(units)])
        ids, targets, starts, numbers = map(torch.from_numpy, (filled.ids, filled.targets, filled.starts, filled.numbers))
        return PairBatch(len(units), ids, targets, starts, numbers=numbers, reference=reference)

    def weight(self, step: int) -> int:
        """Pairs of an update."""
        return sum(map(len, self.rows.rows(step)))

    def n_tokens(self, step: int) -> int:
        """Tokens of an update."""
        return self.rows.n_tokens(self.rows.rows(step))

    def means(self, forward: Forward, batch: Batch) -> list[Tensor]:
        """The loss a pair, the share of pairs whose chosen answer has the higher reward, and the mean margin of the rewards."""
        assert isinstance(batch, PairBatch)
        gained = answer_log_probabilities(forward, batch, batch.numbers, len(batch.reference)) - batch.reference
        chosen, rejected = (self._beta * gained).unflatten(0, (-1, PER_PAIR)).unbind(1)
        margins = chosen - rejected
        smoothing = self._label_smoothing
        losses = -(1 - smoothing) * F.logsigmoid(margins) - smoothing * F.logsigmoid(-margins)
        return [losses.mean(), (margins > 0).float().mean(), margins.detach().mean()]


def answer_log_probabilities(forward: Forward, batch: Batch, numbers: Tensor, n_examples: int) -> Tensor:
    """The logarithm of the probability of each whole answer of a batch: float32 (n_examples,)."""
    each = forward(batch.ids, batch.targets, batch.starts, "each").flatten()
    is_of = numbers.flatten() == torch.arange(n_examples, device=numbers.device)[:, None]  # (n_examples, B T)
    return (each * is_of).sum(1)  # not index_add, whose sums differ from run to run on a GPU
