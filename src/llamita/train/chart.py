"""Line charts as SVG text, drawn by hand: they take their colours from the page around them, and are as wide as it lets them.

A chart is a few kilobytes however long the run was. Knows nothing of training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 32  # margins around the drawn area
SPARK_WIDTH, SPARK_HEIGHT = 120, 24
MOST_POINTS = 600  # of one line; more cannot be seen


@dataclass(frozen=True)
class Series:
    """A line: x rising, y of the same length; a y that is not finite is a gap. style: a class of the page's style sheet."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    marked: bool = False  # with a dot at each point


@dataclass(frozen=True)
class Range:
    """From where to where an axis goes."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)


def line_chart(
    title: str, series: Sequence[Series], x_name: str, highest: float | None = None, by_factors: bool = False
) -> str:
    """Draw lines over a shared x axis and return <figure> ... </figure>; "" where there is nothing to draw.

    highest: the top of the y axis where some values are too large to be of interest; lines are cut there. by_factors: equal
    factors of x, which is positive, are equally far apart.
    """
    if by_factors:
        series = [replace(line, x=[math.log10(x) for x in line.x]) for line in series]
    points = [(x, y) for line in series for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return ""
    x_range = _range([x for x, _ in points])
    y_range = _range([min(y, highest) if highest is not None else y for _, y in points])
    legend = "".join(f'<span class="{line.style}">{escape(line.name)}</span>' for line in series if line.name)
    lines = "".join(_line(line, x_range, y_range, by_factors) for line in series)
    area = f'x="{LEFT}" y="{TOP - 4}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM + 8}"'
    clip = "clip-" + "".join(c if c.isalnum() else "-" for c in title)
    return (
        f"<figure><figcaption>{escape(title)} <small>by {escape(x_name)}</small>{legend}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<clipPath id="{clip}"><rect {area}/>'
        f'</clipPath>{_axes(x_range, y_range, by_factors)}<g clip-path="url(#{clip})">{lines}</g></svg></figure>'
    )


def _range(values: Sequence[float]) -> Range:
    """All values and a little air; never empty."""
    low, high = min(values), max(values)
    air = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return Range(low - air if low != 0 else low, high + air)


def _line(series: Series, x_range: Range, y_range: Range, by_factors: bool) -> str:
    paths, pen_is_down, dots = [], False, []
    for x, y in thinned(series.x, series.y):
        if not math.isfinite(y):
            pen_is_down = False
            continue
        place = f"{_across(x, x_range):.1f} {_down(y, y_range):.1f}"
        paths.append(("L" if pen_is_down else "M") + place)
        pen_is_down = True
        if series.marked:
            left, _, top = place.partition(" ")
            at = f"{10**x:.3g}" if by_factors else f"{x:,.0f}"
            dots.append(f'<circle cx="{left}" cy="{top}" r="3"><title>{at}: {y:.4g}</title></circle>')
    return f'<g class="{series.style}"><path d="{"".join(paths)}"/>{"".join(dots)}</g>'


def _across(x: float, x_range: Range) -> float:
    return LEFT + x_range.share(x) * (WIDTH - LEFT - RIGHT)


def _down(y: float, y_range: Range) -> float:
    return HEIGHT - BOTTOM - y_range.share(y) * (HEIGHT - TOP - BOTTOM)


def _axes(x_range: Range, y_range: Range, by_factors: bool) -> str:
    parts = []
    for value in ticks(y_range, 6):
        y = _down(value, y_range)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{label(value)}</text>')
    for value, text in factor_ticks(x_range) if by_factors else [(value, label(value)) for value in ticks(x_range, 6)]:
        x = _across(value, x_range)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 9}" text-anchor="middle">{text}</text>')
    return f'<g class="axes">{"".join(parts)}</g>'


def ticks(axis: Range, most: int) -> list[float]:
    """Round numbers within a range, at most so many."""
    rough = (axis.high - axis.low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return [number * step for number in range(first, last + 1)]


def factor_ticks(axis: Range) -> list[tuple[float, str]]:
    """Places on an axis of decimal logarithms, and the round numbers there: of each decade 1, 2, 5 or, of many, 1 alone."""
    digits = (1, 2, 5) if axis.high - axis.low < 2.5 else (1,)
    powers = range(math.floor(axis.low), math.ceil(axis.high) + 1)
    places = [(power + math.log10(digit), digit * 10.0**power) for power in powers for digit in digits]
    return [(place, label(value)) for place, value in places if axis.low <= place <= axis.high]


def label(value: float) -> str:
    """A tick as people read it: 1.5k, 20M, 3e-4."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}" if size >= 1e-3 or value == 0 else f"{value:.2g}".replace("e-0", "e-")


def sparkline(points: Sequence[tuple[float, float]], x_range: Range, y_range: Range, style: str) -> str:
    """Draw a line of a word's size, without axes, <svg> ... </svg>; what lies outside the ranges is cut."""
    places = [(x_range.share(x) * SPARK_WIDTH, (1 - y_range.share(y)) * SPARK_HEIGHT) for x, y in points if math.isfinite(y)]
    path = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(places))
    return (
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" aria-hidden="true">'
        f'<g class="{style}"><path d="{path}"/></g></svg>'
    )


def thinned(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """The points of a line; of a long one, the lowest and the highest of each of many equal stretches, so that spikes stay."""
    if len(x) <= MOST_POINTS:
        return list(zip(x, y, strict=True))
    stretch = 2 * len(x) / MOST_POINTS
    points = []
    for i in range(MOST_POINTS // 2):
        part = range(round(i * stretch), min(round((i + 1) * stretch), len(x)))
        ranked = sorted((j for j in part if math.isfinite(y[j])), key=lambda j: y[j])
        kept = sorted({ranked[0], ranked[-1]}) if ranked else [part[0]]
        points += [(x[j], y[j]) for j in kept]
    return points


def smoothed(y: Sequence[float], n: int) -> list[float]:
    """The mean of each value and up to n before it; values that are not finite do not count."""
    sums, counts = [0.0], [0]
    for value in y:
        known = math.isfinite(value)
        sums.append(sums[-1] + (value if known else 0.0))
        counts.append(counts[-1] + known)
    result = []
    for end in range(1, len(sums)):
        start = max(0, end - n - 1)
        count = counts[end] - counts[start]
        result.append((sums[end] - sums[start]) / count if count else math.nan)
    return result
