"""metrics.jsonl and samples.jsonl: what a run has measured and said so far, one JSON object a line, only ever appended to.

A killed run loses at most a torn last line, and a run that goes on first takes out what came after its checkpoint: the log of a
killed and resumed run has the same numbers as that of one that was never disturbed. Knows no torch, no screen and no page.
"""

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamita.files import atomic_file

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class StepRecord:
    """One update of the weights. step counts from 1: the number of updates after it."""

    step: int
    loss: float  # mean cross entropy of the batch before the update, nats per token
    learning_rate: float
    gradient_norm: float  # before clipping
    n_tokens: int  # of this update, all devices together
    seconds: float  # all of the update, the wait for data included
    data_seconds: float  # the wait for data


@dataclass(frozen=True)
class ValidationRecord:
    """The model after `step` updates on text that it is not trained on."""

    step: int
    loss: float  # nats per token; of preferences, a pair
    bits_per_byte: float  # NaN of preferences


@dataclass(frozen=True)
class PreferenceRecord:
    """How a model that learns preferences ranks answers, beside the loss that the record before has.

    what: training, for the pairs of the update; or validation. The reward of an answer is beta times the logarithm of how much
    likelier it has become.
    """

    step: int
    what: str
    reward_accuracy: float  # share of the pairs whose chosen answer has the higher reward
    reward_margin: float  # mean of the chosen answers' rewards less the rejected ones'


@dataclass(frozen=True)
class SampleRecord:
    """What the model after `step` updates writes after a prompt; text does not repeat the prompt."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class StartRecord:
    """A process begins, or goes on, after `step` updates."""

    step: int


KINDS = {
    "step": StepRecord,
    "validation": ValidationRecord,
    "preference": PreferenceRecord,
    "sample": SampleRecord,
    "start": StartRecord,
}
NAMES = {record_class: name for name, record_class in KINDS.items()}
Record = StepRecord | ValidationRecord | PreferenceRecord | SampleRecord | StartRecord


@dataclass(frozen=True)
class Line:
    """A record and when it was written."""

    record: Record
    unix_time: float  # seconds since 1970


def encode_line(record: Record) -> bytes:
    """The line of a record. Floats keep every bit; those that are not finite become null, which is what JSON has for them."""
    values = {name: _or_null(value) for name, value in asdict(record).items()}
    values = {"kind": NAMES[type(record)], **values, "unix_time": round(time.time(), 3)}
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def decode_line(text: bytes) -> Line | None:
    """The inverse of encode_line; None for a torn line, one of another program or one with a field of another type."""
    try:
        values = json.loads(text)
        record_class = KINDS[values.pop("kind")]
        unix_time = float(values.pop("unix_time"))
        types = {name: field.type for name, field in record_class.__dataclass_fields__.items()}
        return Line(record_class(**{name: _as(types[name], value) for name, value in values.items()}), unix_time)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_lines(path: Path) -> list[Line]:
    """Every line of a log that can be read, in its order; none where there is no log."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return [line for text in file if text.endswith(b"\n") and (line := decode_line(text))]


def cut_after(path: Path, step: int) -> None:
    """Take out what a log says about later steps, and torn lines; after step 0 that is everything. Whole or not at all."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        lines = list(file)
    decoded = [decode_line(line) if line.endswith(b"\n") else None for line in lines]
    kept = [line for line, found in zip(lines, decoded, strict=True) if found and found.record.step <= step and step > 0]
    if kept != lines:
        with atomic_file(path) as file:
            file.writelines(kept)


class Log:
    """A log that is open for appending. What a full disk does not take is kept and written later."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """Open or create a log; warn gets one line when writing fails, and one when it works again. Raises OSError."""
        self._path, self._warn = path, warn
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self.is_open = True
        self._unwritten = b""
        self._retry_at = 0.0  # on the monotonic clock

    def append(self, record: Record) -> None:
        """Write a line at once: a process killed after this call has lost nothing."""
        self._unwritten += encode_line(record)
        if time.monotonic() >= self._retry_at:
            self._write()

    def sync(self) -> None:
        """Put everything on the disk itself, so that it outlives a power cut too; as far as the disk lets us."""
        self._write()
        with suppress(OSError):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Write what is left, as far as the disk lets us."""
        self.sync()
        os.close(self._descriptor)
        self.is_open = False

    def _write(self) -> None:
        try:
            while self._unwritten:
                n_bytes = os.write(self._descriptor, self._unwritten)
                self._unwritten = self._unwritten[n_bytes:]
        except OSError as error:
            if not self._retry_at:
                self._warn(f"{self._path}: {error.strerror}; training goes on, the log is written when there is room again")
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        if self._retry_at:
            self._warn(f"{self._path}: written again")
            self._retry_at = 0.0


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as(expected: Any, value: Any) -> Any:
    """A JSON value as its field's type; raises TypeError where it has another."""
    if expected is float and value is None:
        return math.nan
    if type(value) is expected or (expected is float and type(value) is int):
        return expected(value)
    raise TypeError
