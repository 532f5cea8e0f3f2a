"""`llamita report`: the page of a training run. What stands on it is in train/report.py."""

import json
from pathlib import Path

import click

from llamita.cli import debug_option


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="The page; else report.html in FOLDER."
)
@click.option("--price-per-hour", type=click.FloatRange(min=0), default=None, help="Of the machine, for the cost of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print the main numbers as one JSON object and write no page.")
@debug_option
def command(folder: Path, out: Path | None, price_per_hour: float | None, as_json: bool) -> None:
    """Write how the training run in FOLDER went, finished or not, as one page: curves, samples, recipe, text, machine, hashes.

    The page needs no network. `llamita train` writes it at its end.
    """
    from llamita.train.report import write_report
    from llamita.train.run_folder import read_run_folder

    if as_json:
        click.echo(json.dumps(read_run_folder(folder).summary(), indent=1))
    else:
        click.echo(write_report(folder, out, price_per_hour))
