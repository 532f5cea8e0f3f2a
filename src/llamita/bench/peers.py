"""Peers: other programs that run the same weights: llama2.c's run and runq, llama-bench, llama-cpp-python.

Each is started once per round with the subject's file, and its own numbers are read from what it prints.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from llamita.bench.protocol import Protocol
from llamita.bench.subject import PROMPT, Subject
from llamita.errors import LlamitaError, SettingError, one_line
from llamita.quant import FLOAT_DTYPES, QUANTIZED_DTYPES

LLAMA2C_TOKENS = 200  # after which llama2.c has found its speed
TIME_LIMIT_SECONDS = 900.0
ALL_DTYPES = (*FLOAT_DTYPES, *QUANTIZED_DTYPES)


class PeerFailure(LlamitaError):
    """A peer that could not be measured; the bench goes on without it."""


@dataclass(frozen=True)
class Peer:
    """Another program. label: its name in tables; path: its file; dtypes: which subjects it can run."""

    label: str
    path: str
    dtypes: tuple[str, ...]

    def measure(self, subject: Subject, protocol: Protocol) -> dict[str, float]:
        """Tokens per second by the names of the protocol's tests. Raises PeerFailure."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, str]:
        """What tells this program from others of its name, for JSON."""
        return {"label": self.label, "path": self.path, "sha256": hashlib.sha256(Path(self.path).read_bytes()).hexdigest()}


class Llama2c(Peer):
    """llama2.c's run (float32) or runq (int8), as `make runomp` builds them. Prompts are read at the speed of decoding."""

    def measure(self, subject: Subject, protocol: Protocol) -> dict[str, float]:
        if protocol.depth_tokens:
            raise PeerFailure(f"{self.label}: always begins with an empty cache, so it is left out at a depth")
        n_tokens = min(LLAMA2C_TOKENS, subject.model.config.context)
        command = [self.path, subject.llama2c_file, "-z", subject.tokenizer_file, "-t", "0", "-n", n_tokens, "-i", PROMPT]
        done = run_peer(self.label, command, protocol.n_threads)
        if (rate := achieved(done.stderr + done.stdout)) is None:
            raise PeerFailure(f"{self.label}: printed no 'achieved tok/s', but {last_line(done.stderr)}")
        return dict.fromkeys((protocol.prefill, protocol.decode), rate)


class LlamaBench(Peer):
    """llama.cpp's llama-bench."""

    def measure(self, subject: Subject, protocol: Protocol) -> dict[str, float]:
        p = protocol
        settings = {
            "-p": p.prompt_tokens,
            "-n": p.decode_tokens,
            "-d": p.depth_tokens,
            "-t": p.n_threads,
            "-r": 1,
            "-o": "json",
        }
        flags = [word for pair in settings.items() for word in pair]
        done = run_peer(self.label, [self.path, "-m", subject.gguf_file, *flags], p.n_threads)
        return read_llama_bench(self.label, done.stdout, p)


class LlamaCppPython(Peer):
    """The package llama-cpp-python of this Python."""

    def measure(self, subject: Subject, protocol: Protocol) -> dict[str, float]:
        p = protocol
        numbers = [p.prompt_tokens, p.decode_tokens, p.depth_tokens, p.n_threads]
        command = [sys.executable, "-m", "llamita.bench.llama_cpp_run", subject.gguf_file, *numbers]
        return read_llama_bench(self.label, run_peer(self.label, command, p.n_threads).stdout, p)

    def to_dict(self) -> dict[str, str]:
        """The label and the version that is installed."""
        return {"label": self.label, "version": version("llama-cpp-python")}


LLAMA_CPP_PYTHON = "llama-cpp-python"
KINDS = {"llama-bench": (LlamaBench, ALL_DTYPES), "runq": (Llama2c, ("q8_0",)), "run": (Llama2c, ("f32",))}


def find_peers(names: Iterable[str]) -> list[Peer]:
    """find_peer of each name; those of one label are known by their paths."""
    peers = [find_peer(name) for name in dict.fromkeys(names)]
    labels = [peer.label for peer in peers]
    return [replace(peer, label=peer.path) if labels.count(peer.label) > 1 else peer for peer in peers]


def find_peer(name: str) -> Peer:
    """The peer of a path, known by the beginning of its file's name, or of the word llama-cpp-python. Raises SettingError."""
    if name == LLAMA_CPP_PYTHON:
        if find_spec("llama_cpp") is None:
            raise SettingError(f"against: {name} is not installed in this Python")
        return LlamaCppPython(name, name, ALL_DTYPES)
    path = Path(name).absolute()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise SettingError(f"against: found no program {one_line(name)}, expected the path of one, or {LLAMA_CPP_PYTHON}")
    for beginning, (kind, dtypes) in KINDS.items():
        if path.name.startswith(beginning):
            return kind(path.name, str(path), dtypes)
    raise SettingError(f"against: found {one_line(path.name)}, expected a file named {', '.join(KINDS)} or so")


def run_peer(label: str, command: list, n_threads: int) -> subprocess.CompletedProcess[str]:
    """Run a command and return it with what it printed. Raises PeerFailure unless it ended well in time."""
    try:
        done = subprocess.run(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIME_LIMIT_SECONDS,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(n_threads)},
        )
    except subprocess.TimeoutExpired:
        raise PeerFailure(f"{label}: did not end within {TIME_LIMIT_SECONDS:.0f} s") from None
    except OSError as error:
        raise PeerFailure(f"{label}: {error.strerror}") from None
    if done.returncode:
        raise PeerFailure(f"{label}: ended with status {done.returncode}: {last_line(done.stderr)}")
    return done


def read_llama_bench(label: str, output: str, protocol: Protocol) -> dict[str, float]:
    """Tokens per second by test from llama-bench's JSON."""
    try:
        rows = json.loads(output[output.index("[") : output.rindex("]") + 1])
        return {protocol.prefill if row["n_prompt"] else protocol.decode: float(row["samples_ts"][0]) for row in rows}
    except (ValueError, LookupError, TypeError):
        raise PeerFailure(f"{label}: printed no JSON of llama-bench, but {last_line(output)}") from None


def achieved(text: str) -> float | None:
    """Tokens per second as llama2.c's programs and `llamita run` say it."""
    found = re.search(r"achieved tok/s: ([0-9.]+)", text)
    return float(found[1]) if found else None


def last_line(text: str) -> str:
    """The last line of a program's output, fit for a message."""
    lines = text.strip().splitlines()
    return one_line(lines[-1][:200]) if lines else "nothing"
