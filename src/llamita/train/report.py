"""report.html: how a run went, on one page that needs nothing else: curves, samples, recipe, text, machine, hashes, cost.

Reads what the run has left in its folder and nothing from anywhere else. Everything that comes from a file is escaped: a sample
may hold any text.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from itertools import accumulate
from math import isfinite
from pathlib import Path
from typing import Any

from llamita.files import atomic_file
from llamita.train.chart import Series, label, line_chart, smoothed
from llamita.train.live_line import duration
from llamita.train.run_folder import RunFolder, read_run_folder

REPORT_FILE = "report.html"
MOST_SAMPLES = 60
SMOOTHED_SHARE = 50  # the smoothed loss is the mean of 1/50 of the run
UNINTERESTING_SHARE = 50  # the loss of the first 1/50 of the run is cut off at the top

STYLE_SHEET = Path(__file__).with_name("report.css")


def write_report(folder: Path, out: Path | None = None, price_per_hour: float | None = None) -> Path:
    """Write the report of a run, finished or not, into its folder or to `out`, and return its path.

    price_per_hour: of the machine, in any currency. Raises SettingError where the folder is none of a run, ModelFileError where
    the page cannot be written.
    """
    page = report_page(read_run_folder(folder), price_per_hour)
    path = out or folder / REPORT_FILE
    with atomic_file(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def report_page(run: RunFolder, price_per_hour: float | None) -> str:
    """The whole page as HTML. Its policy forbids it to run or to fetch anything, whatever stands in it."""
    body = "".join(
        (
            f"<h1>{escape(run.name)}</h1>{_heading(run)}{_tiles(run, price_per_hour)}",
            _charts(run),
            _samples(run),
            table_of("Text and tokenizer", _text_rows(run)),
            table_of("Model", asdict(run.recipe.model) | {"parameters": run.recipe.model.n_parameters} if run.recipe else {}),
            table_of("Training", asdict(run.recipe.training) if run.recipe else {}),
            table_of("Fine-tuning", asdict(run.recipe.finetuning) if run.recipe and run.recipe.finetuning else {}),
            table_of("Machine and run", _machine_rows(run)),
            table_of("Hashes", _hash_rows(run)),
        )
    )
    return html_page(f"{run.name}: training report", body)


def html_page(title: str, body: str) -> str:
    """A page around a body of HTML; the title is text."""
    policy, style = "default-src 'none'; style-src 'unsafe-inline'", STYLE_SHEET.read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{style}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def _heading(run: RunFolder) -> str:
    started = escape(str(run.facts.get("started", "")))
    return f"<p>A training run of llamita{f', started {started}' if started else ''}.</p>"


def _tiles(run: RunFolder, price_per_hour: float | None) -> str:
    """The few numbers that everybody wants first."""
    known, best = run.summary(), run.summary()["best_validation"]
    tiles = [("steps", f"{known['steps']:,}" + (f" of {known['n_steps']:,}" if known["n_steps"] else ""))]
    if best:
        if best["bits_per_byte"] is not None:
            tiles.append((f"bits per byte, at step {best['step']:,}", f"{best['bits_per_byte']:.4f}"))
        tiles.append((f"validation loss, at step {best['step']:,}", f"{best['loss']:.4f}"))
    if known["loss"] is not None:
        tiles.append(("training loss, last step", f"{known['loss']:.4f}"))
    if ranked := run.preferences("validation"):
        tiles.append((f"pairs ranked right, at step {ranked[-1].step:,}", f"{ranked[-1].reward_accuracy:.0%}"))
    if known["parameters"]:
        tiles.append(("parameters", label(known["parameters"])))
    tiles.append(("tokens seen", label(known["tokens"])))
    if known["tokens_per_second"]:
        tiles.append(("tokens per second, median", f"{known['tokens_per_second']:,.0f}"))
    tiles.append(("time at work", duration(run.seconds)))
    if price_per_hour is not None:
        tiles.append((f"cost, at {price_per_hour:g} per hour", f"{price_per_hour * known['hours']:.2f}"))
    return html_tiles(tiles)


def html_tiles(tiles: Sequence[tuple[str, str]]) -> str:
    """Names and values, large and side by side."""
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in tiles)
    return f'<div class="tiles">{cells}</div>'


def _charts(run: RunFolder) -> str:
    steps, validations = run.steps, run.validations
    if not steps and not validations:
        return "<h2>Curves</h2><p>No step has been logged yet.</p>"
    x, losses = [step.step for step in steps], [step.loss for step in steps]
    smooth = smoothed(losses, max(1, len(losses) // SMOOTHED_SHARE))
    tokens = list(accumulate(step.n_tokens for step in steps))
    at = [record.step for record in validations]
    measured = Series("validation", at, [record.loss for record in validations], "second", marked=True)
    lines = [Series("", x, losses, "raw"), Series("training, smoothed", x, smooth, "first"), measured]
    tokens_at = dict(zip(x, tokens, strict=True))
    bits = [(tokens_at.get(v.step, 0), v.bits_per_byte) for v in validations]
    bits_line = Series("validation", [x for x, _ in bits], [y for _, y in bits], "second", marked=True)
    speeds = [step.n_tokens / step.seconds if step.seconds else float("nan") for step in steps]
    small = (
        *_preference_charts(run),
        *([line_chart("Bits per byte", [bits_line], "tokens seen")] if any(isfinite(y) for _, y in bits) or not bits else []),
        line_chart("Loss", [Series("training, smoothed", tokens, smooth, "first")], "tokens seen", _top(smooth)),
        line_chart("Learning rate", [Series("", x, [step.learning_rate for step in steps], "first")], "step"),
        line_chart("Length of the gradient", [Series("", x, [step.gradient_norm for step in steps], "first")], "step"),
        line_chart("Tokens per second", [Series("", x, speeds, "first")], "step"),
    )
    loss = line_chart(f"Loss, nats per {'pair' if run.preferences('training') else 'token'}", lines, "step", _top(smooth))
    return f'<h2>Curves</h2>{loss}<div class="charts">{"".join(small)}</div>'


def _preference_charts(run: RunFolder) -> list[str]:
    """How pairs are ranked; nothing where answers are learned."""
    training, kept = run.preferences("training"), run.preferences("validation")
    if not training:
        return []
    charts = []
    for title, name in (("Pairs ranked right, share", "reward_accuracy"), ("Margin between the rewards", "reward_margin")):
        lines = [
            Series(side, [record.step for record in records], [getattr(record, name) for record in records], style, marked)
            for side, records, style, marked in (("training", training, "first", False), ("validation", kept, "second", True))
        ]
        charts.append(line_chart(title, lines, "step"))
    return charts


def _top(smooth: Sequence[float]) -> float | None:
    """Where the axis of the loss ends: at what it was after a little of the run, since the start would dwarf all the rest."""
    return smooth[len(smooth) // UNINTERESTING_SHARE] if smooth and smooth[-1] == smooth[-1] else None


def _samples(run: RunFolder) -> str:
    """What the model wrote, newest first and open; of very many, evenly chosen ones."""
    if not run.samples:
        return ""
    stride = -(-len(run.samples) // MOST_SAMPLES)
    shown = run.samples[::-1][::stride]
    entries = [
        f"<details{' open' if i == 0 else ''}><summary>step {sample.step:,}</summary>"
        f"<pre><b>{visible(sample.prompt)}</b>{visible(sample.text)}</pre></details>"
        for i, sample in enumerate(shown)
    ]
    return f"<h2>Samples</h2><p>The prompt in colour, then what the model wrote.</p>{''.join(entries)}"


def visible(text: str) -> str:
    """A text for HTML: escaped, with control characters written out."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text))


def _text_rows(run: RunFolder) -> dict[str, Any]:
    manifest = run.manifest
    if manifest is None:
        return {}
    rows: dict[str, Any] = {"vocabulary": manifest.vocab_size, "tokenizer": manifest.tokenizer}
    for name, split in (("training", manifest.train), ("validation", manifest.validation)):
        documents, tokens = split.n_documents, split.n_tokens
        rows[f"{name} text"] = f"{documents:,} documents, {split.n_bytes:,} bytes, {tokens:,} tokens"
        rows[f"{name}, bytes per token"] = f"{split.n_bytes / max(1, tokens):.3f}"
        rows[f"{name}, tokens per document"] = f"{tokens / max(1, documents):,.1f}"
    rows["documents left out as duplicates"] = manifest.n_duplicates
    rows["validation documents in the training text"] = manifest.overlap.n_documents
    rows["validation runs of tokens in the training text"] = f"{manifest.overlap.run_share:.1%}"
    if run.steps:
        rows["epochs seen"] = f"{sum(step.n_tokens for step in run.steps) / max(1, manifest.train.n_tokens):.2f}"
    rows["sources"] = ", ".join(str(source.get("name", "?")) for source in manifest.recipe.sources[:20])
    return rows


def _machine_rows(run: RunFolder) -> dict[str, Any]:
    """run.json, and how the time was spent."""
    known = run.summary()
    rows: dict[str, Any] = {"processes, one after the other": known["processes"], "hours at work": f"{known['hours']:.3f}"}
    if known["data_share"] is not None:
        rows["share of the time waiting for text"] = f"{known['data_share']:.2%}"
    return rows | run.facts


def _hash_rows(run: RunFolder) -> dict[str, Any]:
    rows = {"weights, SHA-256 of model.safetensors": run.weights_sha256}
    if run.manifest is not None:
        rows["tokens, fingerprint"] = run.manifest.fingerprint
        rows["text, SHA-256"] = run.manifest.text_sha256
        rows["tokenizer, SHA-256"] = run.manifest.recipe.tokenizer_sha256
    return {name: value for name, value in rows.items() if value}


def table_of(title: str, rows: Mapping[str, Any]) -> str:
    """Names and values of any JSON type under a heading; "" without any."""
    if not rows:
        return ""
    named = [
        (visible(str(name).replace("_", " ")), _command(value) if name == "command" else _cell(value))
        for name, value in rows.items()
    ]
    cells = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in named)
    return f"<h2>{title}</h2><table>{cells}</table>"


def _command(words: Any) -> str:
    """A command line as a shell reads it."""
    return visible(shlex.join(["llamita", *map(str, words)]) if isinstance(words, list) else str(words))


def _cell(value: Any) -> str:
    """A value of any JSON type as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{visible(str(name))} {_cell(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "none"
    return visible("none" if value is None else str(value))
