"""`llamita plan`: from a size, the hours or a text to a recipe, line by line. The rules are in train/plan.py."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.dial import dial_options
from llamita.cli.recipe_options import recipe_options
from llamita.cli.screen import print_table

if TYPE_CHECKING:
    from llamita.data.sources import Source
    from llamita.train.config import Recipe
    from llamita.train.machine import Machine
    from llamita.train.range_test import RangeTest
    from llamita.train.sizing import DataFacts, Dial
    from llamita.train.world import World


@click.command("plan", context_settings={"show_default": True})
@dial_options
@click.option("--data", metavar="PATH", default=None, help="A prepared folder, or text as `llamita train` takes it.")
@click.option("--device", default="auto", help="cpu, cuda, mps or auto.")
@click.option("--measure/--no-measure", default=True, help="Time a few updates; else assume a speed.")
@click.option("--find-lr", is_flag=True, help="Find a learning rate by a short range test on --data, and show its curve.")
@click.option("--use-found-lr", is_flag=True, help="The same, and plan with the rate that was found.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Draw the curve too: FILE.png, .svg, .pdf."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write recipe.toml to this file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@recipe_options
@debug_option
def command(
    dial: "Dial", data: str | None, device: str, measure: bool, find_lr: bool, use_found_lr: bool, plot: Path | None,
    out: Path | None, as_json: bool, overrides: dict,
) -> None:  # fmt: skip
    """Choose a model and how to train it: shape, batch, learning rate, memory, hours, each with its reason.

    Turn one dial or several: --params or --preset, --hours, --data. Every other flag is a number of the recipe, and stands.

    \b
        llamita plan --params 15M
        llamita plan --hours 2 --data my_texts/ --out recipe.toml
        llamita plan --data my_texts/ --find-lr --plot curve.png
    """
    from llamita.train.torch_setup import set_up_torch

    set_up_torch()
    from llamita.train.config import write_recipe
    from llamita.train.machine import find_machine
    from llamita.train.measure import plan_and_measure
    from llamita.train.plan import plan
    from llamita.train.world import World, choose_device

    find_lr = find_lr or use_found_lr
    check_flags(data, find_lr, use_found_lr, plot, overrides)
    world = World(0, 1, choose_device(device), "ddp")
    with shards_of(data if find_lr else None, dial, overrides, world) as shards:
        machine = find_machine(str(world.device))
        facts = data_facts(shards or data, dial, machine, overrides)
        if measure:
            made = plan_and_measure(dial, facts, machine, overrides, world.device, lambda line: click.echo(line, err=True))
        else:
            made = plan(dial, facts, machine, overrides)
        test = find_rate(made.recipe, shards, world, plot) if shards else None
    if test and use_found_lr:
        made = made.with_learning_rate(test.suggested_rate, f"range test: {test.reason}")
    if out:
        write_recipe(made.recipe, out)
    if as_json:
        click.echo(json.dumps(made.to_dict() | ({"range_test": without_infinities(test)} if test else {}), indent=1))
        return
    print_table(f"Plan for {machine.name}", ("what", "value", "because"), [(x.what, x.value, x.how) for x in made.lines])
    for warning in made.warnings:
        click.echo(f"note: {warning}", err=True)
    if test:
        show_test(test, made.recipe, use_found_lr)


def check_flags(data: str | None, find_lr: bool, use_found_lr: bool, plot: Path | None, overrides: dict) -> None:
    """Raise SettingError or a usage error for flags that do not fit each other, before time is spent."""
    from llamita.train.rate_picture import check_picture

    if find_lr and data is None:
        raise click.UsageError("--find-lr needs --data: text, or a folder that `llamita prepare` made")
    if plot and not find_lr:
        raise click.UsageError("--plot draws the curve of --find-lr, which is not asked for")
    if use_found_lr and "learning_rate" in overrides:
        raise click.UsageError("--use-found-lr and --learning-rate: two learning rates; leave one of them out")
    if plot:
        check_picture(plot)


@contextmanager
def shards_of(name: str | None, dial: "Dial", overrides: dict, world: "World") -> Iterator[str | None]:
    """A folder of shards: the one named, or one of the named text for as long as the block lasts; None for None."""
    if name is None:
        yield None
        return
    from llamita.cli.training_company import TerminalCompany
    from llamita.train.session import Wish, make_dataset

    with TemporaryDirectory(prefix="llamita-") as folder:
        with TerminalCompany() as company:
            shards = make_dataset(Wish(Path(folder), (name,), dial=dial, overrides=overrides), world, company)
        yield str(shards)


def find_rate(recipe: "Recipe", shards: str, world: "World", plot: Path | None) -> "RangeTest":
    """Run the range test of a recipe, and draw it where that is wanted."""
    from llamita.cli.progress import ShownProgress
    from llamita.data.shards import open_dataset
    from llamita.train.range_test import range_test
    from llamita.train.rate_picture import write_picture

    with ShownProgress("range test", in_bytes=False) as shown:
        test = range_test(recipe, open_dataset(shards), world, shown.say, shown.update)
    if plot:
        tokens = recipe.training.sequences_per_update * recipe.model.context
        title = f"{recipe.model.n_parameters:,} parameters, {recipe.training.optimizer}, {tokens:,} tokens per update"
        write_picture(test, title, plot)
    return test


def show_test(test: "RangeTest", recipe: "Recipe", used: bool) -> None:
    """Print the curve and what follows from it."""
    from llamita.cli.rate_chart import print_rate_chart

    click.echo("\nLearning-rate range test")
    print_rate_chart(test)
    click.echo(f"\nSuggested learning rate: {test.suggested_rate:g}, because {test.reason}.")
    if not used:
        click.echo(f"The plan has {recipe.training.learning_rate:g}; --use-found-lr takes the suggested one.")


def without_infinities(test: "RangeTest") -> dict:
    """A range test for JSON, which has no infinite numbers."""
    losses = [loss if math.isfinite(loss) else None for loss in test.losses]
    return asdict(test) | {"losses": losses}


def data_facts(name: str | None, dial: "Dial", machine: "Machine", overrides: dict) -> "DataFacts | None":
    """What is known of the text: exactly of a prepared folder, by its bytes of anything else; DataError for none."""
    from llamita.data.manifest import MANIFEST_NAME, read_manifest
    from llamita.data.sources import find_sources
    from llamita.errors import DataError, one_line
    from llamita.train.sizing import DataFacts, choose_vocab_size, estimate_data

    if name is None:
        return None
    if (Path(name) / MANIFEST_NAME).exists():
        manifest = read_manifest(Path(name))
        return DataFacts(manifest.train.n_tokens, manifest.train.n_bytes, manifest.vocab_size)
    sources = find_sources([name])
    if not any(map(may_hold_text, sources)):
        raise DataError(one_line(f"{name}: found no text, expected some to plan for; name a file or folder that holds some"))
    n_bytes = sum(source.n_text_bytes for source in sources)
    return estimate_data(n_bytes, overrides.get("vocab_size") or choose_vocab_size(n_bytes, dial, machine))


def may_hold_text(source: "Source") -> bool:
    """Whether there is anything in a file; of records, whose column of text is not known here, by their bytes."""
    from llamita.data.sources import documents

    if source.kind == "text":
        return next(documents([source]), None) is not None
    return source.kind == "dataset" or source.n_bytes > 0
