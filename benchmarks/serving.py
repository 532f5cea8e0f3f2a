"""Time servers over HTTP as clients see them: streams at once, and how long a newcomer waits for its first token.

    python benchmarks/serving.py [--shape 110M] [--dtype q8_0] [--threads 2] [--rounds 3] [--llama-server PATH]

Serves random weights in the shape by `llamita serve` and, where it is given, by llama.cpp's llama-server from the same GGUF
file, with 8 slots each. Both are up all the time and measured in turn (A B A B); a ratio is the median of the rounds' ratios.
Every stream has a prompt of its own, so nothing is shared. The client is one process with little to do, beside the servers.
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from served import served, wait_until_ready

from llamita.bench.subject import made_up_tokenizer, shape_model
from llamita.config import PRESETS, ModelConfig
from llamita.formats import write_model

SLOTS = 8
N_PROMPT, N_TOKENS = 32, 128
N_BESIDE = 7


@dataclass
class Stream:
    """What a client saw: seconds from its request to each event with text, and tokens that were written."""

    event_seconds: list[float]
    n_tokens: int

    @property
    def longest_pause(self) -> float:
        """Seconds between two events."""
        return max(b - a for a, b in zip(self.event_seconds, self.event_seconds[1:], strict=False))


async def stream(port: int, prompt: list[int], n_tokens: int, started: asyncio.Event | None = None) -> Stream:
    """Ask for a completion and read it; `started` is set with its first token."""
    body = {"prompt": prompt, "max_tokens": n_tokens, "stream": True, "ignore_eos": True, "temperature": 0.8, "top_p": 0.9,
            "stream_options": {"include_usage": True}}  # fmt: skip
    data = json.dumps(body).encode()
    began, seconds, written = time.perf_counter(), [], 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if any(choice.get("text") for choice in event.get("choices", ())):
                seconds.append(time.perf_counter() - began)
                if started:
                    started.set()
            written = (event.get("usage") or {}).get("completion_tokens", written)
    writer.close()
    if written != n_tokens:
        raise SystemExit(f"port {port}: found {written} tokens, expected {n_tokens}")
    return Stream(seconds, written)


async def at_once(port: int, n_streams: int, chance: random.Random, vocab_size: int) -> tuple[float, float]:
    """(tokens per second of all streams, median seconds to a first token)."""
    prompts = [[chance.randrange(100, vocab_size) for _ in range(N_PROMPT)] for _ in range(n_streams)]
    began = time.perf_counter()
    streams = await asyncio.gather(*(stream(port, prompt, N_TOKENS) for prompt in prompts))
    seconds = time.perf_counter() - began
    return n_streams * N_TOKENS / seconds, statistics.median(s.event_seconds[0] for s in streams)


async def beside_others(port: int, chance: random.Random, vocab_size: int, half: int) -> tuple[float, float]:
    """(seconds to a first token behind half a context beside streams that fill one, the longest pause that these made)."""

    def prompt(n: int) -> list[int]:
        return [chance.randrange(100, vocab_size) for _ in range(n)]

    started = [asyncio.Event() for _ in range(N_BESIDE)]
    running = [asyncio.create_task(stream(port, prompt(N_PROMPT), half, event)) for event in started]
    await asyncio.gather(*(event.wait() for event in started))
    newcomer = await stream(port, prompt(half), 16)
    streams = await asyncio.gather(*running)
    return newcomer.event_seconds[0], max(s.longest_pause for s in streams)


@contextlib.contextmanager
def llama_server(binary: str, model: Path, threads: int) -> Iterator[int]:
    """llama-server with the model: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [binary, "-m", str(model), "--port", str(port), "-np", str(SLOTS), "-c", str(SLOTS * 1024), "-t", str(threads)]
    process = subprocess.Popen([*command, "-tb", str(threads)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield port
    finally:
        process.terminate()
        process.wait()


def measure(ports: dict[str, int], rounds: int, config: ModelConfig) -> dict[str, dict[str, list[float]]]:
    """What each server did in each round: name of the number -> server -> a value for each round."""
    numbers: dict[str, dict[str, list[float]]] = {}
    for i in range(-1, rounds):  # the first warms up and does not count
        for server, port in ports.items():
            chance, found, half = random.Random(i), {}, config.context // 2
            for n in (1, SLOTS):
                speed, first = asyncio.run(at_once(port, n, chance, config.vocab_size))
                found |= {f"tokens/s, streams: {n}": speed, f"ms to first token, streams: {n}": 1e3 * first}
            first, pause = asyncio.run(beside_others(port, chance, config.vocab_size, half))
            found[f"ms to first token behind {half}, beside {N_BESIDE} streams"] = 1e3 * first
            found["longest pause of these, ms"] = 1e3 * pause
            if i >= 0:
                for name, value in found.items():
                    numbers.setdefault(name, {}).setdefault(server, []).append(value)
    return numbers


def show(numbers: dict[str, dict[str, list[float]]]) -> None:
    """Print a table: medians, and the median of the rounds' ratios."""
    servers = list(next(iter(numbers.values())))
    print("| | " + " | ".join(servers) + (" | ratio |" if len(servers) > 1 else " |"))
    print("|---" * (len(servers) + 1 + (len(servers) > 1)) + "|")
    for name, values in numbers.items():
        cells = [f"{statistics.median(values[server]):,.0f}" for server in servers]
        if len(servers) > 1:
            cells.append(f"{statistics.median(a / b for a, b in zip(*values.values(), strict=True)):.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    ours = next(iter(numbers["tokens/s, streams: 1"]))
    gains = [b / a for a, b in zip(*(numbers[f"tokens/s, streams: {n}"][ours] for n in (1, SLOTS)), strict=True)]
    print(f"\n{ours}: {SLOTS} streams have {statistics.median(gains):.2f} times the tokens per second of one.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="110M", choices=sorted(PRESETS))
    parser.add_argument("--dtype", default="q8_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-server", metavar="PATH", help="llama.cpp's server")
    options = parser.parse_args()
    config = PRESETS[options.shape]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = Path(folder) / "model.gguf"
        made = replace(shape_model(config, options.dtype), tokenizer=made_up_tokenizer(config.vocab_size))
        write_model(made, model, "gguf", dtype=options.dtype)
        url = stack.enter_context(
            served([sys.executable, "-m", "llamita"], str(model), "--threads", str(options.threads), "--slots", str(SLOTS))
        )
        ports = {"llamita serve": int(url.rpartition(":")[2])}
        if options.llama_server:
            ports["llama-server"] = stack.enter_context(llama_server(options.llama_server, model, options.threads))
        show(measure(ports, options.rounds, config))


if __name__ == "__main__":
    main()
