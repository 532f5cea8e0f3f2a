"""`llamita plan`: from a size, the hours or a text to a recipe, line by line. The rules are in train/plan.py."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.dial import dial_options
from llamita.cli.recipe_options import recipe_options
from llamita.cli.screen import print_table

if TYPE_CHECKING:
    from llamita.train.machine import Machine
    from llamita.train.sizing import DataFacts, Dial


@click.command("plan", context_settings={"show_default": True})
@dial_options
@click.option("--data", metavar="PATH", default=None, help="A prepared folder, or text as `llamita train` takes it.")
@click.option("--device", default="auto", help="cpu, cuda, mps or auto.")
@click.option("--measure/--no-measure", default=True, help="Time a few updates; else assume a speed.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write recipe.toml to this file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@recipe_options
@debug_option
def command(
    dial: "Dial", data: str | None, device: str, measure: bool, out: Path | None, as_json: bool, overrides: dict
) -> None:  # fmt: skip
    """Choose a model and how to train it: shape, batch, learning rate, memory, hours, each with its reason.

    Turn one dial or several: --params or --preset, --hours, --data. Every other flag is a number of the recipe, and stands.

    \b
        llamita plan --params 15M
        llamita plan --hours 2 --data my_texts/ --out recipe.toml
    """
    from llamita.train.torch_setup import set_up_torch

    set_up_torch()
    from llamita.train.config import write_recipe
    from llamita.train.machine import find_machine
    from llamita.train.measure import plan_and_measure
    from llamita.train.plan import plan
    from llamita.train.world import choose_device

    chosen = choose_device(device)
    machine = find_machine(str(chosen))
    facts = data_facts(data, dial, machine, overrides)
    if measure:
        made = plan_and_measure(dial, facts, machine, overrides, chosen, lambda line: click.echo(line, err=True))
    else:
        made = plan(dial, facts, machine, overrides)
    if out:
        write_recipe(made.recipe, out)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=1))
        return
    print_table(f"Plan for {machine.name}", ("what", "value", "because"), [(x.what, x.value, x.how) for x in made.lines])
    for warning in made.warnings:
        click.echo(f"note: {warning}", err=True)


def data_facts(name: str | None, dial: "Dial", machine: "Machine", overrides: dict) -> "DataFacts | None":
    """What is known of the text: exactly of a prepared folder, by its bytes of anything else."""
    from llamita.data.manifest import MANIFEST_NAME, read_manifest
    from llamita.data.sources import find_sources
    from llamita.train.sizing import DataFacts, choose_vocab_size, estimate_data

    if name is None:
        return None
    if (Path(name) / MANIFEST_NAME).exists():
        manifest = read_manifest(Path(name))
        return DataFacts(manifest.train.n_tokens, manifest.train.n_bytes, manifest.vocab_size)
    n_bytes = sum(source.n_text_bytes for source in find_sources([name]))
    return estimate_data(n_bytes, overrides.get("vocab_size") or choose_vocab_size(n_bytes, dial, machine))
