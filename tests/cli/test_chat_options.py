"""Flags made from the fields of ChatOptions: every field has one, and they come back as its options."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from llamita.cli.chat_options import FIELDS, chat_options, chat_options_of
from llamita.data.chat_options import ChatOptions


@click.command()
@chat_options
def show(**flags: Any) -> None:
    click.echo(repr(chat_options_of(flags, "chats", 64, 5)))


def invoke(*arguments: str):
    return CliRunner().invoke(show, list(arguments))


def test_every_field_has_a_flag_with_a_help_text():
    flags = {option.name: option for option in show.params if isinstance(option, click.Option)}
    assert set(flags) == set(FIELDS) == {"shape", "columns", "values", *CHOSEN}
    assert all(option.help for option in flags.values())


CHOSEN = {"system", "system_messages", "alpaca_prompt", "too_long", "on_bad", "mask", "validation_share"}


def test_without_flags_the_defaults_count():
    assert invoke().output == f"{ChatOptions(context=64, seed=5)!r}\n"


def test_flags_become_options():
    flags = "--shape alpaca --columns prompt=q --columns completion=a=b --set name=Tiny --system Kind --system-messages fold"
    more = "--alpaca-prompt --too-long drop --on-bad skip --mask all --validation-share 0.5"
    expected = ChatOptions(
        context=64, shape="alpaca", columns={"prompt": "q", "completion": "a=b"}, values={"name": "Tiny"}, system="Kind",
        system_messages="fold", alpaca_prompt=True, too_long="drop", on_bad="skip", mask="all", validation_share=0.5, seed=5,
    )  # fmt: skip
    assert invoke(*flags.split(), *more.split()).output == f"{expected!r}\n"


@pytest.mark.parametrize("flags", [("--shape", "csv"), ("--set", "name"), ("--set", "=x"), ("--mask", "x"), ("--on-bad", "go")])
def test_what_is_no_such_flag_is_a_mistake_of_the_command_line(flags: tuple[str, ...]):
    assert invoke(*flags).exit_code == 2
