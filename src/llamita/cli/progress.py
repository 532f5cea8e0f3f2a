"""How long work goes on: a bar with speed and time left on a terminal, a line now and then elsewhere. All of it on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import click

from llamita.data.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 10.0


class ShownProgress(Progress):
    """How much is done, in bytes or, where in_bytes is false, in what the title says; use it in a with statement."""

    def __init__(self, title: str, in_bytes: bool = True) -> None:
        self._title, self._in_bytes = title, in_bytes
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            counts = (DownloadColumn(), TransferSpeedColumn()) if self._in_bytes else (MofNCompleteColumn(),)
            columns = (TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def begin_again(self, title: str, in_bytes: bool) -> None:
        """Show the progress of other work from now on."""
        self.stop()
        self._title, self._in_bytes, self._task = title, in_bytes, None
        self._started = self._shown = time.monotonic()
        self.__enter__()

    def stop(self) -> None:
        """Leave the terminal to others; lines still come."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def say(self, line: str) -> None:
        """Show a line above the bar."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=True)

    def update(self, done_bytes: int, total_bytes: int) -> None:
        """Show how far the work is; both are counts of something else where in_bytes is false."""
        total = max(done_bytes, total_bytes) if total_bytes else None
        if self._bar:
            if self._task is None:
                self._task = self._bar.add_task(self._title, total=total)
            self._bar.update(self._task, completed=done_bytes, total=total)
        elif time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            speed = done_bytes / (self._shown - self._started)
            (unit, size), (speed_unit, speed_size) = self._unit_of(total_bytes or done_bytes), self._unit_of(speed)
            done, whole = _three_digits(done_bytes / size), _three_digits(total_bytes / size)
            self.say(f"{self._title}: {done} of about {whole}{unit}, {_three_digits(speed / speed_size)}{speed_unit}/s")

    def _unit_of(self, amount: float) -> tuple[str, float]:
        """The largest unit that an amount holds, and its size."""
        units = {" MB": 1e6, " kB": 1e3, " bytes": 1.0} if self._in_bytes else {"": 1.0}
        return next(((unit, size) for unit, size in units.items() if amount >= size), list(units.items())[-1])


def _three_digits(number: float) -> str:
    """A number with three digits, so that slow work shows that it goes on, or with all that it has before the point."""
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


@contextmanager
def counted(title: str, total: int, in_bytes: bool = True) -> Iterator[Callable[[int], None]]:
    """A function to be told of each part of `total` when it is done, which shows them all."""
    done = 0

    def advance(n_more: int) -> None:
        nonlocal done
        done += n_more
        shown.update(done, total)

    with ShownProgress(title, in_bytes) as shown:
        shown.update(0, total)
        yield advance
