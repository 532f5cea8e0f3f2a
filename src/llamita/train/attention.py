"""Rotary causal attention for training: our compiled operator on a CPU, torch's own attention everywhere else.

Stands between the qkv projection and the output projection of a layer. The operator reads q, k and v where the projection left
them, rotates them on the way, and runs on the very threads of torch's OpenMP: other threads would fight with those, which
spin for a while after each operation. Knows no layer and no parameter.
"""

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from llamita.simd.machine_code import load_kernel
from llamita.train.attention_job import new_job

DTYPES = (torch.float32, torch.bfloat16)


def uses_operator(qkv: torch.Tensor) -> bool:
    """Whether causal_attention takes the compiled operator for such a tensor: on a CPU, for float32 and bfloat16."""
    return qkv.device.type == "cpu" and qkv.dtype in DTYPES


def causal_attention(
    qkv: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    n_heads: int,
    n_kv_heads: int,
    document_starts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend from each token to itself and those before it, with rotary embedding (arXiv:2104.09864, 2305.13245).

    qkv: (B, T, H + 2G, K), query heads, key heads, value heads, K even; cosines, sines: float32 (T, K/2), of interleaved pairs.
    document_starts: int32 (B, T), the first position that a query may see, where documents are packed into one row; a query
    always sees itself. Scores are scaled by 1 / sqrt(K). Returns (B, T, H, K) in qkv's dtype; arithmetic is float32 on a CPU.
    Results do not depend on the number of threads. Raises ValueError when shapes or dtypes do not fit together.

        >>> angles = torch.outer(torch.arange(5.0), 10_000 ** (-torch.arange(0, 8, 2) / 8))
        >>> causal_attention(torch.ones(1, 5, 4, 8), angles.cos(), angles.sin(), n_heads=2, n_kv_heads=1).shape
        torch.Size([1, 5, 2, 8])
    """
    _check(qkv, cosines, sines, n_heads, n_kv_heads, document_starts)
    if uses_operator(qkv):
        return compiled_attention(qkv, cosines, sines, n_heads, n_kv_heads, document_starts)[0]
    return plain_attention(qkv, cosines, sines, n_heads, n_kv_heads, document_starts)


def _check(
    qkv: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, n_heads: int, n_kv_heads: int, starts: torch.Tensor | None
) -> None:
    """Raise ValueError unless all arguments fit together: compiled code looks at no bounds."""
    if qkv.dim() != 4 or qkv.shape[2] != n_heads + 2 * n_kv_heads or qkv.shape[3] % 2 or not qkv.shape[3]:
        expected = f"(B, T, {n_heads} + 2 * {n_kv_heads}, an even head size)"
        raise ValueError(f"qkv: found shape {tuple(qkv.shape)}, expected {expected}")
    if n_kv_heads < 1 or n_heads < 1 or n_heads % n_kv_heads:
        raise ValueError(f"n_heads: found {n_heads}, expected a multiple of n_kv_heads, {n_kv_heads}")
    for name, table in (("cosines", cosines), ("sines", sines)):
        expected = (qkv.shape[1], qkv.shape[3] // 2)
        if tuple(table.shape) != expected or table.dtype != torch.float32:
            raise ValueError(f"{name}: found {table.dtype} {tuple(table.shape)}, expected float32 {expected}")
    if starts is not None and (starts.shape != qkv.shape[:2] or starts.dtype != torch.int32):
        raise ValueError(f"document_starts: found {starts.dtype} {tuple(starts.shape)}, expected int32 {tuple(qkv.shape[:2])}")


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn the pairs of x (B, T, heads, K) by their positions' angles, in float32; the dtype stays."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (B, T, heads, K/2) each
    cosines, sines = cosines[:, None], sines[:, None]
    return torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), -1).flatten(-2).to(x.dtype)


def plain_attention(
    qkv: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    n_heads: int,
    n_kv_heads: int,
    document_starts: torch.Tensor | None,
) -> torch.Tensor:
    """The same in torch's own operations, for any device: the path of GPUs, and the operator's twin in the tests."""
    query, key, value = qkv.split((n_heads, n_kv_heads, n_kv_heads), 2)
    query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, heads, T, K)
    is_grouped = n_heads != n_kv_heads
    if document_starts is None:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=is_grouped)
        return out.transpose(1, 2)
    position = torch.arange(qkv.shape[1], device=qkv.device)
    starts = torch.minimum(document_starts, position)[:, None, :, None]  # (B, 1, T, 1)
    is_visible = (starts <= position) & (position <= position[:, None])  # (B, 1, T, T)
    if is_grouped:  # with a mask, only the kernels that know no groups save memory
        key, value = (x.repeat_interleave(n_heads // n_kv_heads, 1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=is_visible).transpose(1, 2)


@functools.cache
def load_work() -> Any:
    """attention_kernels.work as a C function of a job's address, from the cache or compiled now."""

    def find_kernel() -> Any:
        from llamita.train.attention_kernels import work

        return work

    return load_kernel("attention", sorted(Path(__file__).parent.glob("attention_*.py")), find_kernel, n_arguments=1)


@functools.cache
def torch_openmp() -> Any:
    """GOMP_parallel of the OpenMP library that torch itself runs on, or None where it has another (Windows).

    Looked up through torch's own module: the wheels bring their own libgomp, and a second one would mean a second team. Intel's
    and LLVM's OpenMP (conda, macOS) know the function too.
    """
    return getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)


def _run(job: np.ndarray, tensors: dict[str, torch.Tensor | None]) -> None:
    """Run a job on as many threads as torch uses. tensors: the job's arrays by name, all contiguous."""
    for name, tensor in tensors.items():
        job[name] = 0 if tensor is None else tensor.data_ptr()
    n_threads = torch.get_num_threads()
    scratch = torch.empty(n_threads * int(job["scratch_bytes"][0]), dtype=torch.uint8)
    job["scratch"] = scratch.data_ptr()
    work, openmp = load_work(), torch_openmp()
    if openmp is not None:
        openmp(work, ctypes.c_void_p(job.ctypes.data), ctypes.c_uint(n_threads), ctypes.c_uint(0))
        return
    with ThreadPoolExecutor(n_threads) as team:
        list(team.map(work, [job.ctypes.data] * n_threads))


def _job_of(qkv: torch.Tensor, n_heads: int, n_kv_heads: int) -> np.ndarray:
    n_sequences, n_tokens, _, head_size = qkv.shape
    job = new_job(n_sequences, n_tokens, n_heads, n_kv_heads, head_size)
    job["is_bfloat16"], job["item_bytes"] = qkv.dtype == torch.bfloat16, qkv.element_size()
    return job


@torch.library.custom_op("llamita::causal_attention", mutates_args=(), device_types="cpu")
def compiled_attention(
    qkv: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    n_heads: int,
    n_kv_heads: int,
    document_starts: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator: (out (B, T, H, K), statistics float32 (2, B, H, T): of scores' rows, the largest and 1 / the sum)."""
    out, statistics = _outputs(qkv, n_heads)
    tensors = {"qkv": qkv, "cosines": cosines, "sines": sines, "starts": document_starts}
    tensors = {name: tensor if tensor is None else tensor.contiguous() for name, tensor in tensors.items()}
    _run(_job_of(qkv, n_heads, n_kv_heads), {**tensors, "out": out, "statistics": statistics})
    return out, statistics


@torch.library.custom_op("llamita::causal_attention_backward", mutates_args=(), device_types="cpu")
def compiled_attention_backward(
    qkv: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    document_starts: torch.Tensor | None,
    out: torch.Tensor,
    statistics: torch.Tensor,
    d_out: torch.Tensor,
    n_heads: int,
    n_kv_heads: int,
) -> torch.Tensor:
    """The gradient of qkv from that of out, both in their dtype."""
    job = _job_of(qkv, n_heads, n_kv_heads)
    job["is_backward"] = True
    d_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    tensors = {"qkv": qkv, "cosines": cosines, "sines": sines, "starts": document_starts, "out": out, "d_out": d_out}
    tensors = {name: tensor if tensor is None else tensor.contiguous() for name, tensor in tensors.items()}
    _run(job, {**tensors, "statistics": statistics, "d_qkv": d_qkv})
    return d_qkv


def _outputs(qkv: torch.Tensor, n_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    n_sequences, n_tokens, _, head_size = qkv.shape
    statistics = qkv.new_empty((2, n_sequences, n_heads, n_tokens), dtype=torch.float32)
    return qkv.new_empty((n_sequences, n_tokens, n_heads, head_size)), statistics


@compiled_attention.register_fake
def _(qkv, _cosines, _sines, n_heads, *_):
    return _outputs(qkv, n_heads)


@compiled_attention_backward.register_fake
def _(qkv, *_):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[torch.Tensor, torch.Tensor]) -> None:
    qkv, cosines, sines, ctx.n_heads, ctx.n_kv_heads, document_starts = inputs
    ctx.save_for_backward(qkv, cosines, sines, document_starts, *output)


@functools.partial(compiled_attention.register_autograd, setup_context=_save_for_backward)
def _(ctx: Any, d_out: torch.Tensor, _: torch.Tensor) -> tuple:
    qkv, cosines, sines, document_starts, out, statistics = ctx.saved_tensors
    d_qkv = compiled_attention_backward(
        qkv, cosines, sines, document_starts, out, statistics, d_out, ctx.n_heads, ctx.n_kv_heads
    )
    return d_qkv, None, None, None, None, None
