"""`python -m fuzz gguf --files 1000000`: read a million damaged files of a format, on all cores; what `make fuzz` runs.

Ends with 1 where anything but a model or a one-line refusal came out; the files and a report of each finding are kept.
"""

import os
import secrets
import sys
from pathlib import Path

import click
from fuzz.campaign import Campaign, scratch_folder
from fuzz.examine import Examiner
from fuzz.targets import find_target, targets
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

NAMES = [target.name for target in targets()]


@click.command(context_settings={"show_default": True})
@click.argument("formats", nargs=-1, type=click.Choice(NAMES))
@click.option("--files", type=click.IntRange(min=1), default=1_000_000, help="Damaged files of each format.")
@click.option("--seed", type=click.IntRange(min=0), default=None, help="What decides the damage; else a new one.")
@click.option("--first", type=click.IntRange(min=0), default=0, help="Go on at this file.")
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="Processes.")
@click.option("--findings", type=click.Path(path_type=Path), default=Path("fuzz-findings"), help="Where findings are kept.")
@click.option("--only", type=click.IntRange(min=0), default=None, help="Read this file alone, in this process.")
def main(
    formats: tuple[str, ...], files: int, seed: int | None, first: int, jobs: int, findings: Path, only: int | None
) -> None:
    """Read damaged files of FORMATS, of all if none is named."""
    seed = secrets.randbits(31) if seed is None else seed
    if only is not None:
        _read_one(formats[0], seed, only)
        return
    n_found = sum(_run(Campaign(name, seed, first, files, findings), jobs) for name in formats or NAMES)
    sys.exit(1 if n_found else 0)


def _run(campaign: Campaign, n_jobs: int) -> int:
    """Run a campaign with a progress bar; say how to go on where it is stopped."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    place = campaign.first
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(f"{campaign.format_name}, seed {campaign.seed}", total=campaign.last, completed=place)

        def show(number: int) -> None:
            nonlocal place
            place = number
            progress.update(task, completed=number)

        try:
            n_found = campaign.run(n_jobs, show)
        except KeyboardInterrupt:
            click.echo(f"stopped; go on with: {campaign.format_name} --seed {campaign.seed} --first {place}")
            sys.exit(130)
    n_files = campaign.last - campaign.first
    click.echo(f"{campaign.format_name}: {n_files:,} files, seed {campaign.seed}: {n_found or 'no'} findings")
    if n_found:
        click.echo(f"  kept in {campaign.findings}")
    return n_found


def _read_one(name: str, seed: int, number: int) -> None:
    """Show what one file gives."""
    with scratch_folder() as folder:
        finding = Examiner(find_target(name), folder).examine(seed, number)
    click.echo(finding.report if finding else "read, or refused with one line")


if __name__ == "__main__":
    main()
