"""Answers: the objective of fine-tuning on chats. Foretell what the assistant says; what it was told is only read."""

import numpy as np
import torch
from torch import Tensor

from llamita.train.objective import Batch, Forward
from llamita.train.rows import ExampleRows


class Answers:
    """See objective.py."""

    more: tuple[str, ...] = ()

    def __init__(self, rows: ExampleRows) -> None:
        self.rows = rows

    def read(self, step: int, first: int, last: int) -> Batch:
        """Rows of whole chats; each counts as much as it has tokens to be learned."""
        return self.batch(self.rows.rows(step, first, last))

    def batch(self, rows: list[np.ndarray]) -> Batch:
        """The batch of some rows."""
        filled = self.rows.filled(rows)
        ids, targets, starts = map(torch.from_numpy, (filled.ids, filled.targets, filled.starts))
        return Batch(filled.n_counted, ids, targets, starts)

    def weight(self, step: int) -> int:
        """Tokens to be learned from an update."""
        return self.rows.n_counted(self.rows.rows(step))

    def n_tokens(self, step: int) -> int:
        """Tokens of an update, those that are only read as well."""
        return self.rows.n_tokens(self.rows.rows(step))

    def means(self, forward: Forward, batch: Batch) -> list[Tensor]:
        """The mean cross entropy of the tokens to be learned."""
        return [forward(batch.ids, batch.targets, batch.starts, "counted")]
