"""`llamita plan`: from a size, the hours or a text to a recipe, line by line. The rules are in train/plan.py."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.recipe_options import recipe_options
from llamita.cli.screen import print_table

if TYPE_CHECKING:
    from llamita.train.machine import Machine
    from llamita.train.sizing import DataFacts, Dial

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


class Count(click.ParamType):
    """A whole number that may end in K, M or B: 15M, 1.1B."""

    name = "COUNT"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper()
        unit = text[-1:] if text[-1:] in UNITS else ""
        try:
            return round(float(text.removesuffix(unit).replace(",", "")) * UNITS[unit])
        except (ValueError, OverflowError):
            self.fail(f"found {value!r}, expected a number such as 15M or 260000", param, ctx)


@click.command("plan")
@click.option("--params", type=Count(), default=None, help="Parameters, such as 15M; the shape follows.")
@click.option("--preset", metavar="NAME", default=None, help="A published recipe: 260K, 15M, 42M, 110M, 1.1B or 7B.")
@click.option("--hours", type=float, default=None, help="The time that there is.")
@click.option("--data", metavar="PATH", type=click.Path(path_type=Path), default=None, help="A prepared folder, or text.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps or auto.")
@click.option("--measure/--no-measure", default=True, show_default=True, help="Time a few updates; else assume a speed.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write recipe.toml to this file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@recipe_options
@debug_option
def command(
    params: int | None, preset: str | None, hours: float | None, data: Path | None, device: str, measure: bool,
    out: Path | None, as_json: bool, overrides: dict,
) -> None:  # fmt: skip
    """Choose a model and how to train it: shape, batch, learning rate, memory, hours, each with its reason.

    Turn one dial or several: --params, --preset, --hours, --data. Every number of the recipe is a flag too, and stands.

    \b
        llamita plan --params 15M
        llamita plan --hours 2 --data my_texts/ --out recipe.toml
    """
    from llamita.train.config import write_recipe
    from llamita.train.machine import find_machine
    from llamita.train.measure import plan_and_measure
    from llamita.train.plan import plan
    from llamita.train.sizing import Dial
    from llamita.train.world import choose_device

    dial = Dial(params, preset, hours).validate()
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


def data_facts(path: Path | None, dial: "Dial", machine: "Machine", overrides: dict) -> "DataFacts | None":
    """What is known of the text: exactly of a prepared folder, by its bytes of any other file or folder."""
    from llamita.data.manifest import MANIFEST_NAME, read_manifest
    from llamita.errors import DataError
    from llamita.train.sizing import DataFacts, choose_vocab_size, estimate_data

    if path is None:
        return None
    if (path / MANIFEST_NAME).exists():
        manifest = read_manifest(path)
        return DataFacts(manifest.train.n_tokens, manifest.train.n_bytes, manifest.vocab_size)
    if not path.exists():
        raise DataError(f"{path}: found nothing, expected a text, a folder of texts or a prepared folder")
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    n_bytes = sum(file.stat().st_size for file in files)
    return estimate_data(n_bytes, overrides.get("vocab_size") or choose_vocab_size(n_bytes, dial, machine))
