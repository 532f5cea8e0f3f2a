"""`llamita probe`: does a model copy its training text? Flags only; what it means is said by judge/findings.py."""

import json

import click

from llamita.cli import debug_option
from llamita.cli.sampling_options import engine_options


@click.command("probe", context_settings={"show_default": True})
@click.argument("model")
@click.option(
    "--data",
    metavar="FOLDER",
    default=None,
    help="The tokens that it was trained on, as `llamita prepare` or `train` made them; else those of MODEL's own run.",
)
@click.option("--samples", type=click.IntRange(min=1), default=32, help="Texts to sample and to look up.")
@click.option("-n", "--tokens", type=click.IntRange(min=1), default=None, help="Tokens of a text; else 256, or the context.")
@click.option("-t", "--temperature", type=click.FloatRange(min=0), default=1.0, help="1 draws as the model says.")
@click.option(
    "-s", "--seed", type=click.IntRange(min=1), default=1, help="Of the first sample; the others have those that follow."
)
@engine_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a paragraph.")
@debug_option
def command(
    model: str,
    data: str | None,
    samples: int,
    tokens: int | None,
    temperature: float,
    seed: int,
    dtype: str | None,
    threads: int | None,
    context: int | None,
    as_json: bool,
) -> None:
    """Find out whether MODEL copies the text that it was trained on.

    Samples are looked up in all of the training text, beside held-out text of the same kind; and training text is scored beside
    held-out text. A run's folder knows its tokens.

    \b
        llamita probe my_model
        llamita probe model.gguf --data tokens --samples 128
    """
    from llamita.cli.progress import counted
    from llamita.data.shards import open_dataset
    from llamita.formats import read_model
    from llamita.judge import findings
    from llamita.judge.probing import ProbeOptions, data_of_run, probe
    from llamita.language_model import find_model

    path = find_model(model)
    dataset = open_dataset(data or data_of_run(path))
    opened = read_model(path, None, dtype)
    options = ProbeOptions(samples, tokens or min(256, context or opened.config.context), temperature, seed)
    found = probe(opened, dataset, options, threads, context, lambda title, total: counted(title, total, in_bytes=False))
    if as_json:
        click.echo(json.dumps(findings.to_dict(found), indent=2, ensure_ascii=False))
    else:
        click.echo(findings.paragraph(found))
