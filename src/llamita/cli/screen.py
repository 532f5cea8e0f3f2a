"""Tables for people and for pipes: drawn on a terminal, plain aligned columns elsewhere."""

import sys
from collections.abc import Sequence

import click


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; numbers stand to the right, integers with a comma every three digits."""
    cells = [[f"{cell:,}" if type(cell) is int else str(cell) for cell in row] for row in rows]
    to_right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] == "" for row in rows) for i in range(len(columns))
    ]
    if sys.stdout.isatty():
        _print_drawn(title, columns, cells, to_right)
    else:
        _print_plain(title, columns, cells, to_right)


def _print_drawn(title: str, columns: Sequence[str], cells: list[list[str]], to_right: list[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold")
    for column, right in zip(columns, to_right, strict=True):
        table.add_column(column, justify="right" if right else "left")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def _print_plain(title: str, columns: Sequence[str], cells: list[list[str]], to_right: list[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    click.echo(f"\n{title}")
    for row in [list(columns), *cells]:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, to_right, strict=True)
        ]
        click.echo("  ".join(aligned).rstrip())
