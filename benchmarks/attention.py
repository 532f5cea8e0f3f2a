"""Time one layer's attention, rotation included, forward and backward: our operator and torch's own, in turn.

    python benchmarks/attention.py [--rounds 15] [--dtype float32|bfloat16] [SHAPE ...]

Prints medians in milliseconds and, in brackets, the fastest and the slowest round. Needs llamita[train].
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from llamita.train.attention import compiled_attention, plain_attention

# name: (sequences, tokens, query heads, key/value heads, head size)
SHAPES = {
    "260K": (8, 512, 8, 4, 8),
    "15M": (8, 256, 6, 6, 48),
    "42M": (4, 1024, 8, 8, 64),
    "110M": (2, 1024, 12, 12, 64),
    "wide": (2, 1024, 8, 2, 128),
    "long": (1, 4096, 4, 4, 64),
}


def measure(attention: Callable, inputs: tuple, d_out: torch.Tensor) -> tuple[float, float]:
    """Milliseconds of forward and of backward."""
    started = time.perf_counter()
    out = attention(*inputs)
    between = time.perf_counter()
    torch.autograd.grad(out, inputs[0], d_out)
    return 1e3 * (between - started), 1e3 * (time.perf_counter() - between)


def in_brackets(times: list[float]) -> str:
    return f"{statistics.median(times):8.2f} ({min(times):7.2f} {max(times):7.2f})"


def compare(shape: tuple[int, int, int, int, int], dtype: torch.dtype, n_rounds: int) -> None:
    """Measure one shape and print a line for each way."""
    n_sequences, n_tokens, n_heads, n_kv_heads, head_size = shape
    qkv = torch.randn(n_sequences, n_tokens, n_heads + 2 * n_kv_heads, head_size, dtype=dtype, requires_grad=True)
    d_out = torch.randn(n_sequences, n_tokens, n_heads, head_size, dtype=dtype)
    angles = torch.outer(torch.arange(n_tokens).float(), 1e4 ** (-torch.arange(0, head_size, 2) / head_size))
    inputs = (qkv, angles.cos(), angles.sin(), n_heads, n_kv_heads, None)
    ways = {"llamita": lambda *inputs: compiled_attention(*inputs)[0], "torch": plain_attention}
    times = {name: [] for name in ways}
    for round_number in range(n_rounds + 1):
        for name, way in ways.items():
            measured = measure(way, inputs, d_out)
            if round_number:
                times[name].append(measured)
    n_products = 14 * n_sequences * n_heads * n_tokens**2 / 2 * head_size  # 4 forward, 10 backward for each visible pair
    for name, pairs in times.items():
        forward, backward = (list(part) for part in zip(*pairs, strict=True))
        both = [first + second for first, second in pairs]
        speed = n_products / statistics.median(both) / 1e6
        print(f"  {name:8s}{in_brackets(forward)}{in_brackets(backward)}{in_brackets(both)}{speed:8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one layer's attention, ours and torch's.")
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dtype}; ms: median (min max); GFLOPS of both"
    )
    print(f"  {'':8s}{'forward':>26s}{'backward':>26s}{'both':>26s}")
    for name in options.shapes:
        print(name, "B {} T {} H {} G {} K {}".format(*SHAPES[name]))
        compare(SHAPES[name], getattr(torch, options.dtype), options.rounds)


if __name__ == "__main__":
    main()
