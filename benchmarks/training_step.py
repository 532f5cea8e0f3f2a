"""Tokens per second of a training step on this machine's CPU, beside llama2.c's, in turn in one process.

    python benchmarks/training_step.py --llama2c FOLDER_OF_LLAMA2C [--shapes 260K 15M] [--rounds 5] [--seconds 4]

A step is everything an update needs: batch, forward, backward, clipping to 1.0, AdamW. llama2.c's is its own model.py and the
lines of its train.py: float32 and torch.compile, as it trains on a CPU; and the same with bfloat16 autocast added. Medians over
all steps of all rounds, and the range of the rounds' medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llamita.train.torch_setup import set_up_torch

set_up_torch()  # as the verbs do; both sides run with it
import torch

from llamita.config import PRESETS, ModelConfig
from llamita.train.batches import Batches
from llamita.train.config import TrainConfig
from llamita.train.network import build_network
from llamita.train.objective import NextToken
from llamita.train.update import Updater
from llamita.train.world import open_world

BATCH = 8
Step = Callable[[], float]  # one update; returns the seconds spent on reading tokens


class Tokens:
    """A stream of random tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.n_tokens = self.n_bytes = 4_000_000
        self.n_documents = 1
        self._tokens = np.random.default_rng(0).integers(0, vocab_size, self.n_tokens).astype(np.uint16)

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """int64 (B, length)"""
        return self._tokens[(starts[:, None] + np.arange(length)) % self.n_tokens].astype(np.int64)


def own_step(config: ModelConfig, dtype: str) -> Step:
    """llamita's update, compiled."""
    training = TrainConfig(1 << 30, BATCH, 1, 1e-3, 0, optimizer="adamw", dtype=dtype, compile=True)
    world, stream = open_world("cpu"), Tokens(config.vocab_size)
    batches = Batches(stream, config.context, BATCH, 0)  # pyright: ignore[reportArgumentType]
    updater = Updater(training, build_network(config), NextToken(batches), world)
    updater.compile()
    updater.warm_up()
    count = iter(range(1 << 30))
    return lambda: updater.run(next(count)).data_seconds


def llama2c_step(config: ModelConfig, dtype: str) -> Step:
    """llama2.c's model and optimizer in the order of its train.py."""
    from model import ModelArgs, Transformer  # pyright: ignore[reportMissingImports]

    arguments = ModelArgs(
        config.width, config.n_layers, config.n_heads, config.n_kv_heads, config.vocab_size, config.mlp_width, 32,
        config.norm_epsilon, config.context, 0.0,
    )  # fmt: skip
    raw = Transformer(arguments)
    optimizer = raw.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
    model, stream = torch.compile(raw), Tokens(config.vocab_size)
    batches = Batches(stream, config.context, BATCH, 0)  # pyright: ignore[reportArgumentType]
    count = iter(range(1 << 30))

    def step() -> float:
        ids, targets = (torch.from_numpy(array.copy()) for array in batches.read(next(count), 0, BATCH))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            model(ids, targets)
            loss = raw.last_loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return 0.0

    return step


def measure(step: Step, seconds: float) -> tuple[list[float], float]:
    """Run steps for some seconds; return how long each took, and the share of it that went to tokens."""
    times, data_seconds = [], 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times:
        started = time.perf_counter()
        data_seconds += step()
        times.append(time.perf_counter() - started)
    return times, data_seconds / sum(times)


def compare(shape: str, dtypes: list[str], llama2c: Path | None, rounds: int, seconds: float) -> None:
    """Print one table: ours and llama2.c's at every dtype, in turn."""
    config = PRESETS[shape]
    n_tokens = BATCH * config.context
    steps: dict[str, Step] = {}
    for dtype in dtypes:
        for who, build in (("llamita", own_step), *([("llama2.c", llama2c_step)] if llama2c else [])):
            torch._dynamo.reset()
            steps[f"{who} {dtype}"] = step = build(config, dtype)
            started = time.perf_counter()
            step()
            print(f"{shape} {who} {dtype}: first step {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    for step in steps.values():
        measure(step, 1.0)  # compiles again what was reset
    times: dict[str, list[list[float]]] = {name: [] for name in steps}
    shares: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seen, share = measure(step, seconds)
            times[name].append(seen)
            shares[name].append(share)
    print(f"\n| {shape}, batch {BATCH} x {config.context} | tokens/s | rounds | waiting for tokens |\n|---|---|---|---|")
    for name in steps:
        medians = sorted(n_tokens / statistics.median(part) for part in times[name])
        median = n_tokens / statistics.median(t for part in times[name] for t in part)
        print(f"| {name} | {median:,.0f} | {medians[0]:,.0f} to {medians[-1]:,.0f} | {max(shares[name]):.2%} |", flush=True)


def main() -> None:
    """Parse the command line and print a table per shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama2c", type=Path, help="a checkout of llama2.c; without it only ours is measured")
    parser.add_argument("--shapes", nargs="+", default=["260K", "15M"], choices=sorted(PRESETS))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    wanted = parser.parse_args()
    if wanted.llama2c:
        sys.path.insert(0, str(wanted.llama2c))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for shape in wanted.shapes:
        compare(shape, wanted.dtypes, wanted.llama2c, wanted.rounds, wanted.seconds)


if __name__ == "__main__":
    main()
