"""Cross entropy of a large vocabulary without its logits in memory: a chunk of rows at a time. Means, or one number a row.

torch's F.linear_cross_entropy can do that too, but torch.compile does not accept its chunked form (2.13).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NO_TARGET = -1  # of a row that counts for nothing: of a question, or of padding
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}  # of float32 logits: few and long products, what memory bears


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, masked: bool = False) -> Tensor:
    """Mean over N of the cross entropy (nats, float32) of softmax(x weight^T) at targets.

    x (N, D), weight (V, D), targets int64 (N,); products are made in autocast's dtype where autocast is on, else in x's.
    masked: rows whose target is NO_TARGET are left out of the mean; without any other it is 0.
    """
    if masked and not torch.compiler.is_compiling():  # compiled code wants the same shapes every time
        is_counted = targets != NO_TARGET
        x, targets, masked = x[is_counted], targets[is_counted], False
    return _ChunkedCrossEntropy.apply(*_in_one_dtype(x, weight), targets, _rows_of_chunk(weight), masked)


def linear_log_probabilities(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The logarithm (float32 (N,)) of the probability of each target, 0 where it is NO_TARGET; else as linear_cross_entropy."""
    rows = _rows_of_chunk(weight)
    if torch.compiler.is_compiling():
        return _ChunkedLogProbabilities.apply(*_in_one_dtype(x, weight), targets, rows)
    is_counted = targets != NO_TARGET
    found = _ChunkedLogProbabilities.apply(*_in_one_dtype(x[is_counted], weight), targets[is_counted], rows)
    return found.new_zeros(len(targets)).masked_scatter(is_counted, found)


def _rows_of_chunk(weight: Tensor) -> int:
    return max(64, CHUNK_BYTES.get(weight.device.type, 64 << 20) // (4 * weight.shape[0]))


def _in_one_dtype(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return x.to(dtype), weight.to(dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward makes the gradients as well, since the softmax of a chunk is at hand only there; backward scales them."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, targets: Tensor, rows: int, masked: bool) -> Tensor:
        loss = torch.zeros((), device=x.device)
        wants_x, wants_weight = context.needs_input_grad[:2]  # a frozen classifier wants none
        d_x = torch.empty_like(x) if wants_x else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        n_counted = (targets != NO_TARGET).sum().clamp(min=1) if masked else max(len(x), 1)
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), rows):
                part, wanted_ids = x[start : start + rows], targets[start : start + rows, None]
                is_counted = wanted_ids != NO_TARGET if masked else None  # (rows, 1)
                wanted_ids = wanted_ids.clamp(min=0) if masked else wanted_ids
                log_shares = F.log_softmax((part @ weight.T).float(), -1)  # (rows, V)
                wanted = log_shares.gather(1, wanted_ids)
                loss -= (wanted if is_counted is None else wanted * is_counted).sum()
                if d_x is None and d_weight is None:
                    continue
                slope = log_shares.exp()
                slope.scatter_add_(1, wanted_ids, slope.new_full((len(part), 1), -1.0))
                slope = ((slope if is_counted is None else slope * is_counted) / n_counted).to(x.dtype)
                if d_x is not None:
                    d_x[start : start + rows] = slope @ weight
                if d_weight is not None:
                    d_weight += slope.T @ part
        context.save_for_backward(d_x, None if d_weight is None else d_weight.to(weight.dtype))
        return loss / n_counted

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        made = (None if slope is None else slope * slopes[0].to(slope.dtype) for slope in context.saved_tensors)
        return *made, None, None, None


class _ChunkedLogProbabilities(torch.autograd.Function):
    """Backward makes the softmax of a chunk again, since only there it is known how much each row matters."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        context.save_for_backward(x, weight, targets)
        context.rows = rows
        found = x.new_zeros(len(x), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), rows):
                part, wanted_ids = x[start : start + rows], targets[start : start + rows, None]
                log_shares = F.log_softmax((part @ weight.T).float(), -1)  # (rows, V)
                wanted = log_shares.gather(1, wanted_ids.clamp(min=0)) * (wanted_ids != NO_TARGET)
                found[start : start + rows] = wanted[:, 0]
        return found

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, targets = context.saved_tensors
        wants_x, wants_weight = context.needs_input_grad[:2]
        d_x = torch.empty_like(x) if wants_x else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), context.rows):
                part, wanted_ids = x[start : start + context.rows], targets[start : start + context.rows, None]
                slope = -F.softmax((part @ weight.T).float(), -1)
                slope.scatter_add_(1, wanted_ids.clamp(min=0), slope.new_ones((len(part), 1)))
                slope *= slopes[0][start : start + context.rows, None] * (wanted_ids != NO_TARGET)
                slope = slope.to(x.dtype)
                if d_x is not None:
                    d_x[start : start + context.rows] = slope @ weight
                if d_weight is not None:
                    d_weight += slope.T @ part
        return d_x, None if d_weight is None else d_weight.to(weight.dtype), None, None
