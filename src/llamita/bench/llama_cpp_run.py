"""llama-cpp-python under the protocol: a process of its own that prints what llama-bench would.

    python -m llamita.bench.llama_cpp_run MODEL.gguf PROMPT_TOKENS DECODE_TOKENS DEPTH_TOKENS THREADS

Llama.eval, which all of its users go through, with flash attention; no sampling and no text, as in llama-bench.
"""

import json
import sys
import time
from importlib import import_module


def measure(path: str, n_prompt: int, n_decode: int, depth: int, n_threads: int) -> list[dict]:
    """Prefill and decode once, after a warm-up of both."""
    llama_cpp = import_module("llama_cpp")
    context = depth + max(n_prompt, n_decode)
    threads = {"n_threads": n_threads, "n_threads_batch": n_threads}
    llama = llama_cpp.Llama(path, n_ctx=context, flash_attn=True, verbose=False, **threads)
    ids = [3 + 7919 * i % (llama.n_vocab() - 3) for i in range(context)]

    def prefill() -> float:
        return rate(n_prompt, lambda: llama.eval(ids[depth : depth + n_prompt]))

    def decode(n: int) -> float:
        return rate(n, lambda: [llama.eval([token_id]) for token_id in ids[depth : depth + n]])

    def rate(n: int, act) -> float:
        llama.reset()
        if depth:
            llama.eval(ids[:depth])
        started = time.perf_counter()
        act()
        return n / (time.perf_counter() - started)

    prefill()
    decode(1)
    shared = {"build_commit": llama_cpp.__version__}
    return [
        {"n_prompt": n_prompt, "n_gen": 0, "samples_ts": [prefill()]} | shared,
        {"n_prompt": 0, "n_gen": n_decode, "samples_ts": [decode(n_decode)]} | shared,
    ]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
