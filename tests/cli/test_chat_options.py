"""Flags made from the fields of ChatOptions: every field has one, and they come back as its options."""

from ast import literal_eval
from typing import Any

import click
import pytest
from click.testing import CliRunner

from llamita.cli.chat_options import FIELDS, chat_options, chat_options_of


@click.command()
@chat_options
def show(**flags: Any) -> None:
    click.echo(repr(chat_options_of(flags)))


def invoke(*arguments: str):
    return CliRunner().invoke(show, list(arguments))


def test_every_field_has_a_flag_with_a_help_text():
    flags = {option.name: option for option in show.params if isinstance(option, click.Option)}
    assert set(flags) == set(FIELDS) == {"shape", "columns", "values", *CHOSEN}
    assert all(option.help for option in flags.values())


CHOSEN = {"system", "system_messages", "alpaca_prompt", "too_long", "on_bad", "mask", "validation_share"}


def test_what_is_not_said_is_not_passed_on_and_a_default_that_is_said_is():
    assert invoke().output == "{}\n"
    assert invoke("--too-long", "cut").output == "{'too_long': 'cut'}\n"


def test_flags_become_options():
    flags = "--shape alpaca --columns prompt=q --columns completion=a=b --set name=Tiny --system Kind --system-messages fold"
    more = "--alpaca-prompt --too-long drop --on-bad skip --mask all --validation-share 0.5"
    expected = {
        "shape": "alpaca", "columns": {"prompt": "q", "completion": "a=b"}, "values": {"name": "Tiny"}, "system": "Kind",
        "system_messages": "fold", "alpaca_prompt": True, "too_long": "drop", "on_bad": "skip", "mask": "all",
        "validation_share": 0.5,
    }  # fmt: skip
    assert literal_eval(invoke(*flags.split(), *more.split()).output) == expected


@pytest.mark.parametrize(
    "flags",
    [
        ("--shape", "csv"),
        ("--system", "\udcff"),
        ("--set", "a=\udcff"),
        ("--set", "name"),
        ("--set", "=x"),
        ("--mask", "x"),
        ("--on-bad", "go"),
    ],
)
def test_what_is_no_such_flag_is_a_mistake_of_the_command_line(flags: tuple[str, ...]):
    assert invoke(*flags).exit_code == 2
