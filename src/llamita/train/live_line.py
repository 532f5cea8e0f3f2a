"""The one line that shows how training goes: redrawn in place on a terminal, a plain line every few seconds elsewhere.

Gets records, keeps a few smoothed numbers, prints to stderr. Knows no file.
"""

import math
import sys
import time
from typing import NamedTuple, TextIO

from llamita.train.metrics import PreferenceRecord, StepRecord, ValidationRecord

REDRAW_SECONDS = 0.1
PLAIN_LINE_SECONDS = 10.0
SMOOTHING = 0.95  # share of the past in each smoothed number


class Smoothed:
    """An exponential average that is unbiased from its first value on (arXiv:1412.6980, section 3)."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, value: float) -> None:
        """Take in a value; one that is not finite would stay for ever and is left out."""
        if value - value == 0:
            self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * value
            self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)

    @property
    def value(self) -> float:
        """The average; 0 before the first value."""
        return self._sum / self._weight if self._weight else 0.0


class Part(NamedTuple):
    """A piece of the live line in many and in few words; where there is no room, those of the lowest rank go first."""

    long: str
    short: str
    rank: int


def fitted(parts: list[Part], width: int) -> str:
    """The parts as one line: in few words where many are wider, and then without those of low rank."""
    line = "  ".join(part.long for part in parts)
    if len(line) <= width:
        return line
    for lowest in sorted({part.rank for part in parts}):
        line = "  ".join(part.short for part in parts if part.rank >= lowest)
        if len(line) <= width:
            break
    return line


class Progress:
    """What the live line says, as text."""

    def __init__(self, first_step: int, n_steps: int, flops_per_token: float, peak_flops: float | None) -> None:
        self._first_step, self._n_steps = first_step, n_steps
        self._flops_per_token, self._peak_flops = flops_per_token, peak_flops
        self._loss, self._n_tokens, self._seconds = Smoothed(), Smoothed(), Smoothed()
        self._started: float | None = None  # after the first step, which may have compiled the network
        self._validation: ValidationRecord | None = None
        self._accuracy, self._margin = Smoothed(), Smoothed()
        self._ranks = False  # whether it learns preferences

    def step(self, record: StepRecord, width: int) -> str:
        """Take in a step and return the line, of at most so many characters where that can be."""
        now = time.monotonic()
        if self._started is None:
            self._started, self._first_step = now, record.step
        else:
            self._n_tokens.add(record.n_tokens)
            self._seconds.add(record.seconds)
        self._loss.add(record.loss)
        return fitted(self._parts(record, now - self._started), width)

    def validation(self, record: ValidationRecord) -> str:
        """Take in a measurement and return its own line."""
        self._validation = record
        return f"step {record.step:,}: validation loss {record.loss:.4f}{_bits(record, ', {:.4f} bits per byte')}"

    def preference(self, record: PreferenceRecord) -> str:
        """Take in how answers are ranked, and return the line of a measurement, "" after a step."""
        if record.what == "training":
            self._ranks = True
            self._accuracy.add(record.reward_accuracy)
            self._margin.add(record.reward_margin)
            return ""
        ranked, margin = f"{record.reward_accuracy:.0%}", f"{record.reward_margin:.3f}"
        return f"step {record.step:,}: {ranked} of the pairs ranked right, margin {margin}"

    def _parts(self, record: StepRecord, elapsed_seconds: float) -> list[Part]:
        rate = self._n_tokens.value / self._seconds.value if self._seconds.value else 0.0
        share = rate * self._flops_per_token / self._peak_flops if self._peak_flops else 0.0
        done, left = record.step - self._first_step, self._n_steps - record.step
        step, loss = f"{record.step:,}/{self._n_steps:,}", f"loss {self._loss.value:.3f}"
        parts = [Part(f"step {step}", step, 6), Part(loss, loss, 6)]
        if self._ranks:
            ranked, margin = f"{self._accuracy.value:.0%}", f"{self._margin.value:.2f}"
            parts.append(Part(f"ranked right {ranked}, margin {margin}", f"ranked {ranked}", 5))
        if known := self._validation:
            bits = _bits(known, " ({:.3f} bits/byte)")
            parts.append(Part(f"validation {known.loss:.3f}{bits}", f"val {known.loss:.3f}", 4))
        if rate:
            parts.append(Part(f"{rate:,.0f} tokens/s", f"{rate:,.0f} tok/s", 2))
        if share:
            parts.append(Part(f"MFU {share:.0%}", f"MFU {share:.0%}", 1))
        parts.append(Part(f"rate {record.learning_rate:.1e}", f"rate {record.learning_rate:.1e}", 3))
        if done and left > 0:
            remaining = f"{duration(elapsed_seconds / done * left)} left"
            parts.append(Part(remaining, remaining, 6))
        return parts


def _bits(record: ValidationRecord, form: str) -> str:
    """The bits per byte in a form, "" where there are none."""
    return "" if math.isnan(record.bits_per_byte) else form.format(record.bits_per_byte)


def duration(seconds: float) -> str:
    """A time as people say it: 42 s, 5 min 30 s, 2 h 05 min, 3 d 04 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02} h"


class PlainLine:
    """Lines for a pipe or a file: now and then one, and everything that is said in between."""

    width = sys.maxsize  # of a line, in characters

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._next_at = stream, 0.0

    def show(self, line: str, last: bool) -> None:
        """Print the line if the time for one has come, or if it is the last."""
        if last or time.monotonic() >= self._next_at:
            self.say(line)
            self._next_at = time.monotonic() + PLAIN_LINE_SECONDS

    def say(self, text: str) -> None:
        """Print lines of their own; a reader that went away, or a full disk, does not end a run."""
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            pass

    def close(self) -> None:
        """End the output."""


class TerminalLine:
    """A line at the bottom of a terminal; what is said scrolls away above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=stream), auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._next_at = 0.0

    @property
    def width(self) -> int:
        """Characters in a line of the terminal, as wide as it is now."""
        return self._live.console.width

    def show(self, line: str, last: bool) -> None:
        """Redraw the line, cut to the width of the terminal."""
        from rich.text import Text

        self._live.start()  # only now: it hides the cursor; the second time it does nothing
        if last or time.monotonic() >= self._next_at:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
            self._next_at = time.monotonic() + REDRAW_SECONDS

    def say(self, text: str) -> None:
        """Print lines above the live line."""
        from rich.text import Text

        self._live.console.print(Text(text))

    def close(self) -> None:
        """Leave the last line where it is."""
        self._live.stop()


def open_line(stream: TextIO | None = None) -> TerminalLine | PlainLine:
    """The line that suits a stream, stderr unless told otherwise."""
    chosen = stream or sys.stderr
    return TerminalLine(chosen) if chosen.isatty() else PlainLine(chosen)
