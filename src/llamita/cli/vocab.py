"""`llamita vocab`: learn a tokenizer from text. The work is in data/vocabulary.py; here are its flags and its report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.screen import print_table
from llamita.cli.text import field_option, separator_option, text_argument

if TYPE_CHECKING:
    from llamita.tokenizer.report import TokenizerReport


@click.command("vocab", context_settings={"show_default": True})
@text_argument
@click.option("--size", type=click.IntRange(min=260, max=1 << 20), default=4096, help="Pieces of the vocabulary.")
@click.option("--out", metavar="FOLDER", required=True, help="Where tokenizer.model, tokenizer.bin and tokenizer.json go.")
@click.option("--compare", metavar="PATH", multiple=True, help="Another tokenizer for the report; may be repeated.")
@field_option
@separator_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@debug_option
def command(
    text: tuple[str, ...],
    size: int,
    out: str,
    compare: tuple[str, ...],
    field: str,
    separator: str,
    as_json: bool,
) -> None:
    """Learn a tokenizer from TEXT, as llama2.c does: byte pairs of sentencepiece, single digits, bytes for rare characters.

    \b
        llamita vocab stories.txt --size 4096 --out vocab
    """
    from llamita.cli.progress import ShownProgress
    from llamita.data.sources import ReadOptions
    from llamita.data.tokenizer_copy import find_tokenizer
    from llamita.data.vocabulary import learn_vocabulary, report_vocabularies

    options = ReadOptions(field, separator)
    others = [find_tokenizer(path) for path in compare]
    with ShownProgress("learning") as progress:
        learn_vocabulary(text, size, out, options, progress)
    reports = report_vocabularies(text, [Path(out) / "tokenizer.model", *others], options)
    if as_json:
        click.echo(json.dumps({name: report.to_dict() for name, report in reports.items()}, indent=2, ensure_ascii=False))
    else:
        show(reports)


def show(reports: dict[str, "TokenizerReport"]) -> None:
    """Print reports side by side."""
    rows = [
        ("pieces", *(report.vocab_size for report in reports.values())),
        ("bytes per token", *(f"{report.bytes_per_token:.3f}" for report in reports.values())),
        ("tokens per word", *(f"{report.tokens_per_word:.3f}" for report in reports.values())),
        ("tokens that are bytes", *(f"{report.byte_share:.2%}" for report in reports.values())),
        ("pieces never used", *(report.n_unused for report in reports.values())),
    ]
    some = next(iter(reports.values()))
    print_table(f"On {some.n_bytes / 1e6:,.1f} MB of the text", ("", *reports), rows)
    click.echo(f"\nLongest pieces: {', '.join(piece.strip() for piece in some.longest_pieces)}")
