"""report.html of a sweep: a table of its trials with their curves, charts, the recipe, on one page that needs nothing else.

The parts of a page and their style are report.py's and chart.py's. Everything that comes from a file is escaped.
"""

import math
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from llamita.files import atomic_file
from llamita.train.chart import Range, Series, line_chart, sparkline
from llamita.train.live_line import duration
from llamita.train.report import REPORT_FILE, html_page, html_tiles, table_of, visible
from llamita.train.study import FINISHED, RUNNING
from llamita.train.sweep import BEST_FILE, Sweep
from llamita.train.sweep_results import TrialResult

STYLES = ("first", "second", "third", "fourth")  # of lines side by side, in report.css
DIVERGED_SHARE = 1.5  # of the best's first loss: whoever stayed above has learned nothing and is left out of the picture
MOST_LINES = len(STYLES)
WIDE_FACTOR = 4  # values that differ by so much are drawn by factors


def write_sweep_report(sweep: Sweep, found: list[TrialResult]) -> Path:
    """Write the page of a sweep, finished or not, into its folder and return its path; raises ModelFileError."""
    path = sweep.folder / REPORT_FILE
    with atomic_file(path) as file:
        file.write(sweep_page(sweep, found).encode("utf-8", "replace"))
    return path


def sweep_page(sweep: Sweep, found: list[TrialResult]) -> str:
    """The whole page as HTML. found: best first."""
    name, grid = sweep.folder.resolve().name, sweep.facts["asked"]["grid"]
    fields = ", ".join(visible(field.replace("_", " ")) for field in grid)
    facts = {key: value for key, value in sweep.facts.items() if key not in ("asked", "base")}
    body = "".join(
        (
            f"<h1>{escape(name)}</h1><p>A sweep of llamita over {fields}, started {visible(str(sweep.facts['started']))}.</p>",
            html_tiles(_tiles(found)),
            f"<h2>Trials</h2>{_rungs_in_words(sweep)}{_trials(sweep, found)}",
            f'<h2>Curves</h2>{_curves(found)}<div class="charts">{_by_value(sweep, found)}</div>',
            _best(sweep, found),
            table_of("What all trials have in common", _in_common(sweep)),
            table_of("Machine and text", facts),
        )
    )
    return html_page(f"{name}: sweep", body)


def _tiles(found: list[TrialResult]) -> list[tuple[str, str]]:
    best, ended = found[0], sum(result.state != RUNNING for result in found)
    loss = next((loss for loss in reversed(best.losses) if loss is not None), None)
    tiles = [] if loss is None else [(f"validation loss of the best, {_values(best)}", f"{loss:.4f}")]
    if best.bits_per_byte is not None:
        tiles.append(("bits per byte of the best", f"{best.bits_per_byte:.4f}"))
    tiles.append(("trials ended", f"{ended} of {len(found)}"))
    tiles.append(("time at work", duration(sum(result.seconds for result in found))))
    return tiles


def _values(result: TrialResult) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.values.items())


def _rungs_in_words(sweep: Sweep) -> str:
    parts = [f"{rung.n_trials} to {rung.share:.0%} of a training" for rung in sweep.rungs]
    return (
        f"<p>Successive halving: {', '.join(parts)}. At each rung the rate falls as at the end of a training of that length, "
        "and the validation loss there, in nats per token, decides; the falling part is then left, and the next rung goes on "
        "from before it.</p>"
    )


def _trials(sweep: Sweep, found: list[TrialResult]) -> str:
    """The table: a row for each trial, best first, with its way down as a small line."""
    fields = list(found[0].values)
    ranges = _ranges(found)
    heads = ["", *(field.replace("_", " ") for field in fields)]
    heads += [*(f"rung {i + 1}" for i in range(len(sweep.rungs))), "bits per byte", "steps", "time", "", "curve"]
    rows = ["".join(f"<th>{visible(head)}</th>" for head in heads)]
    for place, result in enumerate(found, 1):
        losses = ["" if loss is None else f"{loss:.4f}" for loss in result.losses]
        bits = "" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"
        state = result.state + (f": {result.why}" if result.why else "")
        cells = [str(place), *map(str, result.values.values()), *losses, bits, f"{result.n_steps:,}", duration(result.seconds)]
        curve = sparkline(result.curves[-1], *ranges, _style(place, result)) if result.curves and ranges else ""
        rows.append("".join(f"<td>{visible(cell)}</td>" for cell in [*cells, state]) + f"<td>{curve}</td>")
    return f'<div class="wide"><table class="trials">{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'


def _style(place: int, result: TrialResult) -> str:
    """Of a trial's line: the best, those that came to the end, the others."""
    return "first" if place == 1 else "second" if result.state == FINISHED else "raw"


def _ranges(found: list[TrialResult]) -> tuple[Range, Range] | None:
    """From where to where all curves go, without the losses of the beginning, which would dwarf all the rest."""
    points = [point for result in found for curve in result.curves for point in curve]
    if not points:
        return None
    low = min(loss for _, loss in points)
    return Range(0, max(tokens for tokens, _ in points)), Range(low, max(_top(found), low + 1e-3))


def _top(found: list[TrialResult]) -> float:
    """Where the axis of the loss ends: at the best's first measurement, or at the lowest of whoever came near that at all."""
    curves = [result.curves[0] for result in found if result.curves and result.curves[0]]
    if not curves:
        return math.nan
    first = curves[0][0][1]
    lowest = (min(loss for _, loss in curve) for curve in curves)
    return max([first, *(loss for loss in lowest if loss < DIVERGED_SHARE * first)])


def _curves(found: list[TrialResult]) -> str:
    """The way down of all trials: of each the whole curve to its last rung, and the end of those to earlier ones."""
    lines = []
    for place, result in reversed(list(enumerate(found, 1))):  # the best is drawn last, above the others
        style = _style(place, result)
        for i, curve in enumerate(result.curves):
            is_last = i + 1 == len(result.curves)
            shown = curve if is_last else _branch(curve, result.curves[i + 1])
            name = "best" if style == "first" and is_last else ""
            lines.append(Series(name, [x for x, _ in shown], [y for _, y in shown], style, marked=is_last))
    return line_chart("Validation loss, nats per token", lines, "tokens seen", _top(found) if found else None)


def _branch(curve: list[tuple[int, float]], longer: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The part of a curve that the longer one does not share, and the point where they part."""
    shared = [point for point in curve if point in longer]
    return shared[-1:] + [point for point in curve if point not in longer]


def _by_value(sweep: Sweep, found: list[TrialResult]) -> str:
    """For each field of numbers, the loss at the first rung, to which all trials came: a line for each choice of the others."""
    charts = []
    for field, choices in sweep.facts["asked"]["grid"].items():
        if any(isinstance(value, bool | str) for value in choices):
            continue
        by_factors = min(choices) > 0 and max(choices) >= WIDE_FACTOR * min(choices)
        lines: dict[str, list[tuple[float, float]]] = {}
        for result in found:
            others = ", ".join(f"{name} {value}" for name, value in result.values.items() if name != field)
            if result.losses[0] is not None:
                lines.setdefault(others, []).append((float(result.values[field]), result.losses[0]))
        series = []
        for style, (name, points) in zip(STYLES, sorted(lines.items()), strict=False):
            points.sort()
            series.append(Series(name, [x for x, _ in points], [y for _, y in points], style, marked=True))
        charts.append(line_chart("Validation loss at rung 1", series, field.replace("_", " "), None, by_factors))
        if len(lines) > MOST_LINES:
            charts.append(f"<p>Lines of {MOST_LINES} choices of the other fields, of {len(lines)}.</p>")
    return "".join(charts)


def _best(sweep: Sweep, found: list[TrialResult]) -> str:
    if found[0].state != FINISHED:
        return ""
    command = f"llamita train TEXT --recipe {sweep.folder / BEST_FILE} --out my_model"
    return (
        f"<h2>The best recipe</h2><p>{visible(_values(found[0]))}. Its model is trained already: it lies in the folder of the "
        f"sweep. To train it again, or on more text:</p><pre>{visible(command)}</pre>"
    )


def _in_common(sweep: Sweep) -> dict[str, Any]:
    values = asdict(sweep.base.model) | {"parameters": sweep.base.model.n_parameters} | asdict(sweep.base.training)
    return {name: value for name, value in values.items() if name not in sweep.facts["asked"]["grid"]}
