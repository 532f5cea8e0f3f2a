"""Time the server's scheduler without HTTP: several streams at once, in this process.

    python benchmarks/streams.py [--shape 110M] [--dtype q8_0] [--prompt 32] [--tokens 128] [--rounds 3] [STREAMS ...]

Prints, for each number of streams, the tokens per second of all together (median of the rounds, which take turns), what that is
of one stream's, the time to the first token, and the share of the time that the engine worked. Every stream has a prompt of its
own, so nothing is shared.
"""

import argparse
import statistics
import threading
import time

import numpy as np

from llamita.bench.subject import made_up_tokenizer, own_memory, shape_model
from llamita.config import PRESETS
from llamita.engine import Sampling
from llamita.model import Model
from llamita.serve.job import Event, Finish, Job
from llamita.serve.scheduler import Scheduler

FEWEST_IDS = min(config.vocab_size for config in PRESETS.values())


def build_model(shape: str, dtype: str) -> Model:
    """Random weights in memory of their own, which caches do not flatter."""
    config = PRESETS[shape]
    made = shape_model(config, dtype)
    tensors = {name: own_memory(tensor) for name, tensor in made.tensors.items()}
    return Model(config, tensors, made_up_tokenizer(config.vocab_size), name=f"{shape} {dtype}")


def run_streams(scheduler: Scheduler, n: int, n_prompt: int, n_tokens: int, seed: int) -> tuple[float, list[float], float]:
    """(tokens per second of n streams together, seconds to each first token, share of the time in the engine)."""
    rng = np.random.default_rng(seed)
    finishes: list[Finish] = []
    all_ended = threading.Event()

    def deliver(events: list[Event]) -> None:
        if isinstance(events[-1], Finish):
            finishes.append(events[-1])
            if len(finishes) == n:
                all_ended.set()

    prompts = rng.integers(3, FEWEST_IDS, (n, n_prompt))
    before, started = scheduler.statistics(), time.perf_counter()
    for i, prompt in enumerate(prompts.tolist()):
        scheduler.submit(Job(prompt, Sampling(temperature=0.8, top_p=0.9, seed=seed * n + i + 1), n_tokens), deliver)
    all_ended.wait()
    seconds, after = time.perf_counter() - started, scheduler.statistics()
    busy = after.prompt_seconds + after.answer_seconds - before.prompt_seconds - before.answer_seconds
    return n * n_tokens / seconds, [finish.timings.first_token_seconds for finish in finishes], busy / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="*", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--shape", choices=PRESETS, default="110M")
    parser.add_argument("--dtype", default="q8_0")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    found: dict[int, list[tuple[float, list[float], float]]] = {n: [] for n in options.streams}
    with Scheduler(build_model(options.shape, options.dtype), options.threads, n_slots=max(options.streams)) as scheduler:
        run_streams(scheduler, 1, options.prompt, 8, seed=0)
        for i in range(options.rounds):
            for n in options.streams:
                found[n].append(run_streams(scheduler, n, options.prompt, options.tokens, seed=i + 1))
    print(f"{options.shape} {options.dtype}, prompts of {options.prompt}, {options.tokens} tokens each")
    print(f"{'streams':>7} {'tokens/s':>9} {'ratio':>6} {'first token, s: median':>23} {'longest':>8} {'in the engine':>14}")
    one = statistics.median(rate for rate, _, _ in found[min(found)])
    for n, rounds in found.items():
        rate = statistics.median(rate for rate, _, _ in rounds)
        firsts = [second for _, seconds, _ in rounds for second in seconds]
        share = statistics.median(share for _, _, share in rounds)
        print(f"{n:7} {rate:9,.0f} {rate / one:5.2f}x {statistics.median(firsts):23.3f} {max(firsts):8.3f} {share:14.0%}")


if __name__ == "__main__":
    main()
