"""How long work goes on: a bar with speed and time left on a terminal, a line now and then elsewhere. All of it on stderr."""

import sys
import time
from typing import TYPE_CHECKING, Self

import click

from llamita.data.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 10.0


class TextProgress(Progress):
    """Bytes of text done, shown; use it in a with statement."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
        """Show how far the work is."""
        total = max(done_bytes, total_bytes) if total_bytes else None
        if self._bar:
            if self._task is None:
                self._task = self._bar.add_task(self._title, total=total)
            self._bar.update(self._task, completed=done_bytes, total=total)
        elif time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            speed = done_bytes / 1e6 / (self._shown - self._started)
            self.say(f"{self._title}: {done_bytes / 1e6:,.0f} of about {total_bytes / 1e6:,.0f} MB, {speed:.1f} MB/s")
