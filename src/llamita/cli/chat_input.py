"""Messages from a terminal or a pipe: a line each, or several lines that belong together. Knows no model.

A line that ends in a backslash goes on in the next one; a message between lines of three double quotes may hold any lines.
"""

import contextlib
import sys
from collections.abc import Callable

import click

FIRST, FURTHER = "> ", ". "
QUOTES = '"""'


def is_terminal() -> bool:
    """Whether somebody types."""
    return sys.stdin is not None and sys.stdin.isatty()


def prepare_input() -> None:
    """Let bytes that are no text not end the talk, and lines be edited and called back where the system can do it."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    if is_terminal():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input() uses it)


def read_line(prompt: str) -> str | None:
    """A line without its end, or None at the end of input. The prompt is for a terminal only, and never goes into a pipe."""
    if sys.stdin is None:
        return None
    if not is_terminal() or not sys.stdout.isatty():
        if is_terminal():
            click.echo(prompt, nl=False, err=True)
        line = sys.stdin.readline()
        return line.removesuffix("\n").removesuffix("\r") if line else None
    try:
        return input(prompt)
    except EOFError:
        return None


def read_message(read: Callable[[str], str | None] = read_line) -> str | None:
    """A message, or None at the end of input; a message that the end of input cuts off is one."""
    line = read(FIRST)
    if line is None:
        return None
    if line.lstrip().startswith(QUOTES):
        return _read_block(line.lstrip().removeprefix(QUOTES), read)
    lines = []
    while line is not None and line.endswith("\\"):
        lines.append(line[:-1])
        line = read(FURTHER)
    return "\n".join([*lines, *([] if line is None else [line])])


def _read_block(line: str | None, read: Callable[[str], str | None]) -> str:
    """What stands between the quotes, of which the first are gone."""
    lines: list[str] = []
    while line is not None and not line.rstrip().endswith(QUOTES):
        lines.append(line)
        line = read(FURTHER)
    if line is not None:
        lines.append(line.rstrip().removesuffix(QUOTES))
    return "\n".join(lines).strip("\n")
