"""Cross entropy of a large vocabulary without its logits in memory: a chunk of rows at a time, gradients in the same pass.

torch's F.linear_cross_entropy can do that too, but torch.compile does not accept its chunked form (2.13).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}  # of float32 logits: what caches hold, what memory bears


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean over N of the cross entropy (nats, float32) of softmax(x weight^T) at targets.

    x (N, D), weight (V, D), targets int64 (N,); products are made in autocast's dtype where autocast is on, else in x's.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    rows = max(64, CHUNK_BYTES.get(device, 64 << 20) // (4 * weight.shape[0]))
    return _ChunkedCrossEntropy.apply(x.to(dtype), weight.to(dtype), targets, rows)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward makes the gradients as well, since the softmax of a chunk is at hand only there; backward scales them."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        loss = torch.zeros((), device=x.device)
        wanted = any(context.needs_input_grad)
        d_x = torch.empty_like(x) if wanted else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(x), rows):
                part, wanted_ids = x[start : start + rows], targets[start : start + rows]
                log_shares = F.log_softmax((part @ weight.T).float(), -1)  # (rows, V)
                loss -= log_shares.gather(1, wanted_ids[:, None]).sum()
                if d_x is not None and d_weight is not None:
                    slope = log_shares.exp()
                    slope.scatter_add_(1, wanted_ids[:, None], slope.new_full((len(part), 1), -1.0))
                    slope = (slope / len(x)).to(x.dtype)
                    d_x[start : start + rows] = slope @ weight
                    d_weight += slope.T @ part
        if d_x is not None and d_weight is not None:
            context.save_for_backward(d_x, d_weight.to(weight.dtype))
        return loss / len(x)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        d_x, d_weight = context.saved_tensors
        return d_x * slopes[0].to(d_x.dtype), d_weight * slopes[0].to(d_weight.dtype), None, None
