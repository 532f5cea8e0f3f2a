"""The curve of a range test in the terminal: loss by learning rate, in braille dots, or in stars where there are none."""

import math
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llamita.train.range_test import RangeTest

WIDTH, HEIGHT = 66, 16  # characters of the drawn area; with its axis less than 80 columns
MARGIN = 8  # for the numbers of the axis
TOP_SHARE = 0.3  # of the fall, shown above the first loss
BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # the bit of each dot of a character, by row and column


def print_rate_chart(test: "RangeTest") -> None:
    """Print the chart and what it means, coloured where the output is a terminal that wants it."""
    try:
        chr(BRAILLE).encode(sys.stdout.encoding or "ascii")
        lines = rate_chart(test, braille=True)
    except UnicodeEncodeError:
        lines = rate_chart(test, braille=False)
    click.echo("\n".join(lines))


def rate_chart(test: "RangeTest", braille: bool) -> list[str]:
    """The lines of the chart; colours are escape codes, which click.echo takes out where they do not belong."""
    low, first = min(test.smoothed), test.smoothed[0]
    top = first + TOP_SHARE * (first - low)
    left, right = math.log10(test.rates[0]), math.log10(test.rates[-1])
    columns, rows = (2, 4) if braille else (1, 1)  # dots of a character
    grid = [[0] * WIDTH for _ in range(HEIGHT)]
    raw = [[False] * WIDTH for _ in range(HEIGHT)]

    def place(rate: float, loss: float) -> tuple[int, int]:
        across = round((math.log10(rate) - left) / (right - left) * (WIDTH * columns - 1))
        down = round((top - min(loss, top)) / (top - low) * (HEIGHT * rows - 1))
        return min(down, HEIGHT * rows - 1), across

    for rate, loss in zip(test.rates, test.losses, strict=True):
        down, across = place(rate, loss if math.isfinite(loss) else top)
        raw[down // rows][across // columns] = True
    for down, across in _line([place(*point) for point in zip(test.rates, test.smoothed, strict=False)]):
        grid[down // rows][across // columns] |= DOTS[down % rows][across % columns]
    suggested = place(test.suggested_rate, low)[1] // columns
    lines = ["loss, nats per token"]
    for i in range(HEIGHT):
        cells = "".join(_cell(grid[i][j], raw[i][j], j == suggested, braille) for j in range(WIDTH))
        number = f"{top - (top - low) * (i + 0.5) / HEIGHT:.2f}" if i % 3 == 0 else ""
        lines.append(f"{number:>{MARGIN - 2}} {'│' if braille else '|'}{cells}")
    return [*lines, *_axis(left, right, suggested, test.suggested_rate, braille)]


def _cell(dots: int, raw: bool, is_suggested: bool, braille: bool) -> str:
    if dots:
        return click.style(chr(BRAILLE | dots) if braille else "*", fg="blue", bold=True)
    if is_suggested:
        return click.style("┊" if braille else ":", fg="yellow")
    return click.style("·" if braille else ".", dim=True) if raw else " "


def _line(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every dot on the straight lines from point to point."""
    dots = points[:1]
    for (down, across), (next_down, next_across) in pairwise(points):
        n = max(abs(next_down - down), abs(next_across - across), 1)
        dots += [
            (round(down + (next_down - down) * i / n), round(across + (next_across - across) * i / n)) for i in range(1, n + 1)
        ]
    return dots


def _axis(left: float, right: float, suggested: int, rate: float, braille: bool) -> list[str]:
    """The axis, a number at every power of ten, and the suggested rate under its mark."""
    corner, dash, tick, arrow = "└─┬▲" if braille else "+-+^"
    ruler, numbers = [dash] * WIDTH, [" "] * (WIDTH + MARGIN)
    for power in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1):
        across = round((power - left) / (right - left) * (WIDTH - 1))
        text = f"{10.0**power:g}"
        ruler[across] = tick
        numbers[across : across + len(text)] = text
    mark = f"{arrow} suggested: {rate:g}"
    if suggested + len(mark) > WIDTH:
        mark, suggested = f"suggested: {rate:g} {arrow}", suggested - len(mark) + 1
    indent = " " * (MARGIN - 1)
    return [
        f"{indent}{corner}{''.join(ruler)}",
        f"{indent} {''.join(numbers)}".rstrip(),
        f"{indent} {' ' * suggested}" + click.style(mark, fg="yellow"),
        f"{'learning rate':^{WIDTH + MARGIN}}".rstrip(),
    ]
