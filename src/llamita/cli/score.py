"""`llamita score`: how well a model foretells a text, and whether another does it better. Flags and tables only.

What is counted is in judge/windows.py, what is noise in judge/resampling.py.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from llamita.cli import debug_option
from llamita.cli.sampling_options import engine_options
from llamita.cli.screen import print_table
from llamita.cli.text import field_option, separator_option, text_argument

if TYPE_CHECKING:
    from llamita.data.sources import Source
    from llamita.judge import Comparison, Score
    from llamita.model import Model

STANDARD_INPUT = "-"
STANDARD_INPUT_FILE = "standard input"  # what it is kept in, as every model reads it from the beginning
WINDOWS = ("documents", "stream", "strided")  # those of judge/windows.py


@click.command("score", context_settings={"show_default": True})
@click.argument("model")
@text_argument
@click.option(
    "--windows",
    type=click.Choice(WINDOWS),
    default="documents",
    help="What is read at a time: each document by itself; all of them as one stream, cut by contexts, as llama2.c does; or "
    "that stream in windows that overlap, as Hugging Face does.",
)
@click.option(
    "--stride", type=click.IntRange(min=1), default=None, help="Tokens from a window to the next; else half a context."
)
@click.option("--bos/--no-bos", default=None, help="Whether BOS stands before each document; else as the tokenizer does it.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=None, metavar="BYTES", help="Score about so much, from all of TEXT."
)
@click.option(
    "--compare", "other", metavar="MODEL", default=None, help="Another model: which is better, and by more than noise?"
)
@click.option("-z", "--tokenizer", metavar="PATH", default=None, help="The tokenizer; else the one beside the model.")
@field_option
@separator_option
@engine_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@debug_option
def command(model: str, text: tuple[str, ...], other: str | None, as_json: bool, **flags: Any) -> None:
    """Measure how well MODEL foretells TEXT: cross entropy, perplexity, bits per byte.

    TEXT is what `llamita prepare` reads: files, folders, data sets; - reads text from standard input. Only bits per byte can be
    compared between models with different tokenizers, and only numbers with the same windows at all.

    \b
        llamita score stories stories.txt
        llamita score model.gguf stories.txt --compare model-q4_0.gguf
    """
    from llamita.data.sources import find_sources
    from llamita.judge import compare

    models = [open_model(model, flags["tokenizer"], flags["dtype"])]
    if other:
        models.append(open_model(other, None, None, models[0]))
        flags["context"] = flags["context"] or min(one.config.context for one in models)  # both read the same windows
    with named_files(text) as names:
        scores = score_all(models, find_sources(names), flags)
    comparison = compare(*scores) if other else None
    if as_json:
        facts = scores[0].to_dict()
        if comparison:
            facts |= {"compare": scores[1].to_dict() | {"comparison": comparison.to_dict()}}
        click.echo(json.dumps(facts, indent=2))
    else:
        show(scores, [model, other or ""], comparison)


def open_model(path: str, tokenizer: str | None, dtype: str | None, relative: "Model | None" = None) -> "Model":
    """Read a model; relative: whose tokenizer it takes where none lies beside it."""
    from dataclasses import replace

    from llamita.formats import read_model
    from llamita.language_model import find_model

    model = read_model(find_model(path), tokenizer, dtype)
    if relative and model.tokenizer is None:
        model = replace(model, tokenizer=relative.tokenizer).validate()
    return model


def score_all(models: list["Model"], sources: list["Source"], flags: dict[str, Any]) -> list["Score"]:
    """Score one model after the other on the same documents, showing how far the work is."""
    from llamita.cli.progress import ShownProgress
    from llamita.data.sources import ReadOptions, documents, sample
    from llamita.judge import score

    options, told = ReadOptions(flags["field"], flags["separator"]), set()

    def texts() -> Iterator[str]:
        if flags["limit"]:
            return sample(sources, options, flags["limit"], note)
        return (document.text for document in documents(sources, options, note))

    def note(source: "Source", line: str) -> None:
        if source.name not in told:  # once, not for each model
            told.add(source.name)
            name = STANDARD_INPUT_FILE if source.name.endswith(f"/{STANDARD_INPUT_FILE}") else source.name
            shown.say(f"{name}: {line}")

    n_bytes = sum(source.n_text_bytes for source in sources)
    done, total = 0, len(models) * min(n_bytes, flags["limit"] or n_bytes)

    def advance(n_more: int) -> None:
        nonlocal done
        done += n_more
        shown.update(done, total)

    with ShownProgress("scoring") as shown:
        return [
            score(
                model, texts(), flags["windows"], context=flags["context"], stride=flags["stride"], bos=flags["bos"],
                n_threads=flags["threads"], progress=advance,
            )
            for model in models
        ]  # fmt: skip


@contextmanager
def named_files(text: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """TEXT as names of files: standard input, where it is meant, becomes one, since every model reads it from the beginning."""
    if STANDARD_INPUT not in text:
        yield text
        return
    with TemporaryDirectory(prefix="llamita-score-") as folder:
        path = Path(folder) / STANDARD_INPUT_FILE
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield tuple(str(path) if name == STANDARD_INPUT else name for name in text)


def show(scores: list["Score"], names: list[str], comparison: "Comparison | None") -> None:
    """Print a table, one column a model, and what the difference is worth."""
    rows = [
        ("cross entropy, nats per token", *(f"{s.cross_entropy:.4f}" for s in scores)),
        ("95 % interval", *(interval_in_words(s.interval) for s in scores)),
        ("perplexity", *(f"{s.perplexity:.4g}" for s in scores)),
        ("bits per byte", *(f"{s.bits_per_byte:.4f}" for s in scores)),
        ("tokens counted", *(f"{s.n_tokens:,}" for s in scores)),
        ("of bytes of text", *(f"{s.n_bytes:,}" for s in scores)),
        ("tokens read a second", *(f"{s.tokens_per_second:,.0f}" for s in scores)),
    ]
    print_table(f"{scores[0].n_documents:,} documents", ("", *names[: len(scores)]), rows)
    click.echo()
    for description in dict.fromkeys(s.windowing.describe() for s in scores):
        click.echo(f"Windows: {description}.")
    if comparison:
        click.echo(in_words(comparison, names[1]))


def in_words(comparison: "Comparison", other: str) -> str:
    """The result of a comparison as a sentence."""
    better = "better" if comparison.difference < 0 else "worse"
    found = f"{other} foretells this text {better} by {abs(comparison.difference):.4f} {comparison.unit}"
    interval = comparison.interval
    if comparison.difference == 0 and (interval is None or interval.low == interval.high == 0):
        return f"{other} foretells this text exactly as well."
    if interval is None:
        return f"{found}. The text is too short to say whether that is more than noise."
    drawn = f"paired bootstrap of {interval.n_pieces:,} {interval.pieces}"
    verdict = "more than noise" if comparison.is_more_than_noise else "it may be noise, as no difference lies within"
    return f"{found}; 95 % interval {interval_in_words(interval, '+')}, {drawn}: {verdict}."


def interval_in_words(interval: Any, sign: str = "") -> str:
    """Both ends of an interval."""
    return "the text is too short" if interval is None else f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"
