"""Flags made from the fields of a recipe: every field has one, and what is not given is not passed on."""

import click
import pytest
from click.testing import CliRunner

from llamita.cli.recipe_options import MODEL_FIELDS, MODEL_HELP, TRAINING_FIELDS, recipe_options


@click.command()
@click.argument("name")
@recipe_options
@click.option("--json", "as_json", is_flag=True)
def show(name: str, as_json: bool, overrides: dict) -> None:
    click.echo(f"{name} {as_json} {sorted(overrides.items())}")


def invoke(*arguments: str):
    return CliRunner().invoke(show, list(arguments))


def test_every_field_has_a_flag_with_a_help_text():
    flags = {option.name: option for option in show.params if isinstance(option, click.Option)}
    assert set(MODEL_HELP) == set(MODEL_FIELDS)
    for name in [*MODEL_FIELDS, *TRAINING_FIELDS]:
        assert "--" + name.replace("_", "-") in flags[name].opts
        assert flags[name].help


def test_what_is_not_given_is_not_passed_on():
    assert invoke("a").output == "a False []\n"


def test_values_have_the_type_of_their_field():
    flags = ("--steps", "5", "--learning-rate", "1e-3", "--no-compile", "--tied-embedding", "--schedule", "cosine", "--json")
    values = [("compile", False), ("learning_rate", 0.001), ("n_steps", 5), ("schedule", "cosine"), ("tied_embedding", True)]
    assert invoke("a", *flags).output == f"a True {values}\n"


@pytest.mark.parametrize("flags", [("--steps", "many"), ("--schedule", "sine"), ("--dtype", "int8"), ("--no-batch", "1")])
def test_a_wrong_value_is_a_usage_error(flags: tuple[str, ...]):
    assert invoke("a", *flags).exit_code == 2
