"""`llamita prepare`: text to token shards. The work is in data/prepare.py; here are its flags and what it says at the end."""

import json
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.screen import print_table
from llamita.cli.text import field_option, separator_option, text_argument

if TYPE_CHECKING:
    from llamita.data.manifest import Manifest


@click.command("prepare", context_settings={"show_default": True})
@text_argument
@click.option(
    "-z",
    "--tokenizer",
    metavar="PATH",
    required=True,
    help="tokenizer.model, tokenizer.bin or tokenizer.json, or a folder with one, such as that of `llamita vocab`.",
)
@click.option("--out", metavar="FOLDER", required=True, help="Where the tokens go; a run that was interrupted goes on there.")
@click.option(
    "--validation", metavar="PATH", multiple=True, help="Text that validates; else a share of TEXT does. May be repeated."
)
@field_option
@separator_option
@click.option("--workers", type=click.IntRange(min=1), default=None, help="Processes that encode; else one per core.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, the manifest, instead of a table.")
@debug_option
def command(
    text: tuple[str, ...],
    tokenizer: str,
    out: str,
    validation: tuple[str, ...],
    field: str,
    separator: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Turn TEXT into tokens for training: files, folders (all their levels) or data sets of the Hugging Face hub.

    Reads .txt, .md, .jsonl, .json, .csv and .parquet, the first five also as .gz.

    \b
        llamita prepare stories.txt --tokenizer tokenizer.model --out tokens
        llamita prepare tinystories --tokenizer vocab --out tokens --validation tinystories:validation
    """
    from llamita.cli.progress import ShownProgress
    from llamita.data.prepare import PrepareOptions, prepare
    from llamita.data.sources import ReadOptions

    options = PrepareOptions(ReadOptions(field, separator), validation, workers or 0)
    with ShownProgress("encoding") as progress:
        manifest = prepare(text, tokenizer, out, options, progress)
    if as_json:
        click.echo(json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False))
    else:
        show(manifest, out)


def show(manifest: "Manifest", out: str) -> None:
    """Print what a folder of tokens holds."""
    rows = [
        (name, split.n_documents, split.n_bytes, split.n_tokens, f"{split.n_bytes / split.n_tokens:.2f}")
        for name, split in (("train", manifest.train), ("validation", manifest.validation))
    ]
    print_table(
        f"{out}: {manifest.vocab_size:,} pieces, {manifest.dtype}",
        ("split", "documents", "bytes", "tokens", "bytes/token"),
        rows,
    )
    overlap = manifest.overlap
    click.echo(
        f"\nDuplicates left out: {manifest.n_duplicates:,}. Validation documents that stand in the training text: "
        f"{overlap.n_documents:,}; of its runs of {overlap.run_tokens} tokens, {overlap.run_share:.1%} do."
    )
