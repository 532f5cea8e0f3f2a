"""`llamita sweep`: which recipe is best, by successive halving. The work is in train/sweep.py; here are flags and a table."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamita.cli import debug_option
from llamita.cli.dial import dial_options
from llamita.cli.given import given
from llamita.cli.recipe_options import recipe_options
from llamita.cli.screen import print_table
from llamita.cli.text import field_option, separator_option
from llamita.cli.train import SIGNAL_STATUS

if TYPE_CHECKING:
    from llamita.train.sweep import Sweep
    from llamita.train.sweep_results import TrialResult


@click.command("sweep", context_settings={"show_default": True})
@click.argument("text", nargs=-1)
@click.option("--out", metavar="FOLDER", required=True, help="The sweep's folder; the same command goes on there.")
@click.option("--grid", metavar="FIELD=A,B,...", multiple=True, help="Values of a number of the recipe. May be repeated.")
@click.option(
    "--reduction",
    type=click.IntRange(min=2),
    default=3,
    help="Of so many trials one goes on, and trains so many times as long.",
)
@dial_options
@click.option("--recipe", metavar="FILE", help="A recipe.toml to vary instead of a plan; flags still count.")
@click.option("--tokenizer", metavar="PATH", help="A tokenizer; else one is learned from the text.")
@click.option("--validation", metavar="PATH", multiple=True, help="Text that decides; else a part of TEXT. May be repeated.")
@field_option
@separator_option
@click.option("--device", default="auto", help="cpu, cuda, mps; auto takes the best.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; else all cores.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@recipe_options
@debug_option
def command(
    text: tuple[str, ...], out: str, grid: tuple[str, ...], reduction: int, dial: Any, recipe: str | None,
    tokenizer: str | None, validation: tuple[str, ...], field: str, separator: str, device: str, threads: int | None,
    as_json: bool, overrides: dict[str, Any],
) -> None:  # fmt: skip
    """Try a grid of recipes on TEXT, train the promising ones to the end, and leave the best recipe and its model.

    What the grid does not vary is planned as `llamita train` does it. Stopped at any moment, the same command goes on.

    \b
        llamita sweep my_texts/ --out sweep --grid learning_rate=1e-3,3e-3,1e-2 --grid optimizer=muon,adamw
        llamita train my_texts/ --recipe sweep/best.toml --out my_model
    """
    from llamita.train.torch_setup import set_up_torch

    set_up_torch()
    from llamita.cli.training_company import SweepCompany
    from llamita.train.grid import parse_grid
    from llamita.train.session import Wish
    from llamita.train.sweep import SweepWish, run_sweep
    from llamita.train.sweep_report import write_sweep_report
    from llamita.train.sweep_results import results, summary

    run = Wish(
        Path(out), text, dial=dial, recipe=Path(recipe) if recipe else None, overrides=overrides, tokenizer=tokenizer,
        validation=validation, reading=given({"field": field, "separator": separator}), device=device, n_threads=threads,
    )  # fmt: skip
    wish = SweepWish(run, parse_grid(grid), reduction)
    with SweepCompany() as company:
        sweep, study, signal_number = run_sweep(wish, company)
    found = results(sweep, study)
    page = write_sweep_report(sweep, found)
    if as_json:
        click.echo(json.dumps(summary(sweep, found, signal_number is None), indent=1))
    else:
        show(sweep, found, page)
    if signal_number is not None:
        click.echo("stopped and saved; the same command goes on", err=True)
        sys.exit(SIGNAL_STATUS + signal_number)


def show(sweep: "Sweep", found: list["TrialResult"], page: Path) -> None:
    """Print the table of the trials, best first, and what there is to go on with."""
    from llamita.train.sweep import BEST_FILE

    rungs = [f"rung {i + 1}" for i in range(len(sweep.rungs))]
    rows = [
        (
            *result.values.values(),
            *("" if loss is None else f"{loss:.4f}" for loss in result.losses),
            "" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}",
            result.n_steps,
            result.state + (f": {result.why}" if result.why else ""),
        )
        for result in found
    ]
    print_table(f"{sweep.folder}: validation loss, best first", (*found[0].values, *rungs, "bits/byte", "steps", ""), rows)
    click.echo(f"\nTable with curves: {page}")
    if (sweep.folder / BEST_FILE).exists():
        click.echo(f"The best recipe: {sweep.folder / BEST_FILE}\nTalk to its model: llamita run {sweep.folder}")
