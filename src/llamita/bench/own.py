"""Our engine under the protocol: tokens per second of each test, one call one measurement.

Knows ids, sequences and time; which model, how often and against whom is decided elsewhere.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import numpy as np

from llamita.bench.protocol import Protocol
from llamita.bench.subject import Subject
from llamita.engine import Engine, Sampling
from llamita.tokenizer.decoder import TextDecoder

GREEDY = Sampling(temperature=0)
FIRST_ORDINARY_ID = 3  # behind unknown, BOS and EOS


class OwnRun:
    """The subject in our engine, at the protocol's depth. Close it, or use it in a with block."""

    def __init__(self, subject: Subject, protocol: Protocol) -> None:
        self._subject, self._protocol = subject, protocol
        n_batch = protocol.batch if protocol.batch > 1 else 0
        self.engine = Engine(subject.model, protocol.n_threads, protocol.context, n_slots=1 + n_batch)
        self._ids = random_ids(subject.model.config.vocab_size, protocol.context)
        self._sequence = self.engine.sequence(GREEDY)
        self._start = protocol.depth_tokens + 1  # the last of these ids is pending, the others are in the cache
        self._sequence.append(self._ids[: self._start])
        self._sequence.read()
        self._batch = [self.engine.sequence(GREEDY) for _ in range(n_batch)]
        for sequence, token_id in zip(self._batch, random_ids(subject.model.config.vocab_size, n_batch), strict=True):
            sequence.append([token_id])

    def warm_up(self) -> None:
        """Bring weights and code to where a run finds them: the prompt once and one token, as llama-bench does."""
        self.prefill()
        self._rate(1, self._sequence.next)

    def prefill(self) -> float:
        """Tokens per second of reading the prompt in one go."""
        self._sequence.append(self._ids[self._start : self._protocol.depth_tokens + self._protocol.prompt_tokens])
        return self._rate(self._protocol.prompt_tokens, self._sequence.next)

    def decode(self) -> float:
        """Tokens per second of greedy decoding in one call."""
        n = self._protocol.decode_tokens
        return self._rate(n, lambda: self._sequence.run(n))

    def stream(self) -> float:
        """Tokens per second when each is decoded and written alone to a pipe that another process reads, as `run` does it."""
        return self._tell(self._sequence.stream(self._protocol.decode_tokens))

    def step(self) -> float:
        """The same when each is also asked for alone, in a call of the engine, as someone does who looks at each."""
        return self._tell(self._sequence.next() for _ in range(self._protocol.decode_tokens))

    def _tell(self, ids: Iterator[int]) -> float:
        with pipe_with_reader() as write:
            decoder = TextDecoder(self._subject.tokenizer)

            def tell() -> None:
                for token_id in ids:
                    write(decoder.feed(token_id).encode())

            return self._rate(self._protocol.decode_tokens, tell)

    def batch(self) -> float:
        """Tokens per second of several sequences together, each from an empty cache."""
        started = time.perf_counter()
        for _ in range(self._protocol.decode_tokens):
            self.engine.step(self._batch)
        seconds = time.perf_counter() - started
        for sequence in self._batch:
            sequence.rewind(1)
        return self._protocol.decode_tokens * len(self._batch) / seconds

    def read_bandwidth(self) -> float:
        """Bytes per second at which the engine's threads read its weights."""
        return self.engine.read_bandwidth()

    def bytes_per_token(self) -> int:
        """Weights that a step reads, and the keys and values at the middle of the decode test."""
        positions = self._protocol.depth_tokens + self._protocol.decode_tokens // 2
        return self.engine.weights.n_token_bytes + positions * self._subject.model.cache_bytes_per_token

    def _rate(self, n_tokens: int, act: Callable[[], object]) -> float:
        started = time.perf_counter()
        act()
        seconds = time.perf_counter() - started
        self._sequence.rewind(self._start)
        return n_tokens / seconds

    def close(self) -> None:
        """End the engine's threads."""
        self.engine.close()

    def __enter__(self) -> "OwnRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def random_ids(vocab_size: int, n: int) -> list[int]:
    """Token ids that stand for a text."""
    first = min(FIRST_ORDINARY_ID, vocab_size - 1)
    return np.random.default_rng(0).integers(first, vocab_size, n).tolist()


@contextmanager
def pipe_with_reader() -> Iterator[Callable[[bytes], object]]:
    """A function that writes to a process which reads to the end and forgets."""
    reader = subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert reader.stdin is not None
    assert reader.stdout is not None
    try:
        reader.stdout.read(1)  # it is up
        yield reader.stdin.write
    finally:
        reader.stdin.close()
        reader.stdout.close()
        reader.wait()


@contextmanager
def busy_core() -> Iterator[None]:
    """A process beside us that keeps one core busy, until the block ends or we do."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.read(1)
        yield
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


READER = "import os; os.write(1, b'.')\nwhile os.read(0, 65536): pass"
BUSY = "import os; parent = os.getppid(); os.write(1, b'.')\nwhile os.getppid() == parent: sum(range(10000))"
