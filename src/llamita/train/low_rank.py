"""LowRank: what LoRA adds to the matrices of one module of the network, and the product of both.

The matrices themselves stay as they are: beside W x stands scale * B (A x), with A and B so narrow that they are cheap to train
and to keep (arXiv:2106.09685). lora.py puts it into a network. Knows no network and no file.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRank(nn.Module):
    """A (rank, in) and B (out, rank) for some matrices of a module, by the names that these have there."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], rank: int, scale: float, dropout: float) -> None:
        """shapes: (out, in) of each matrix; A and B are made without a value. dropout: share of the inputs left out."""
        super().__init__()
        self.rank, self.scale, self.dropout = rank, scale, dropout
        self.a = nn.ParameterDict({name: nn.Parameter(torch.empty(rank, width)) for name, (_, width) in shapes.items()})
        self.b = nn.ParameterDict({name: nn.Parameter(torch.empty(height, rank)) for name, (height, _) in shapes.items()})

    def forward(self, x: Tensor, heights: Mapping[str, int]) -> Tensor | None:
        """What is added to the products of x (B, T, in) with the matrices named in heights, side by side (B, T, sum of out).

        Zeros stand for matrices without A and B; None where no matrix has them.
        """
        names = [name for name in heights if name in self.a]
        if not names:
            return None
        x = F.dropout(x, self.dropout, self.training)
        narrow = F.linear(x, torch.cat([self.a[name] for name in names])) * self.scale  # (B, T, rank * matrices)
        parts = dict(zip(names, narrow.split(self.rank, -1), strict=True))
        products = [
            F.linear(parts[name], self.b[name]) if name in parts else narrow.new_zeros((*x.shape[:-1], height))
            for name, height in heights.items()
        ]
        return torch.cat(products, -1)


def adapted_linear(x: Tensor, module: nn.Module, names: tuple[str, ...]) -> Tensor:
    """The products of x (B, T, in) with matrices of a module, side by side (B, T, sum of out), with what LowRank adds."""
    matrices: list[Tensor] = [getattr(module, name) for name in names]
    products = F.linear(x, matrices[0] if len(matrices) == 1 else torch.cat(matrices))
    low_rank = module.low_rank
    if not isinstance(low_rank, LowRank):
        return products
    added = low_rank(x, {name: len(matrix) for name, matrix in zip(names, matrices, strict=True)})
    return products if added is None else products + added
