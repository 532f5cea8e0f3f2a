"""Flags that say how chats become examples: a field of ChatOptions is a flag. Holds no defaults itself."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import click

from llamita.cli.given import given
from llamita.cli.text import UNICODE
from llamita.data.chat_options import CHOICES, ChatOptions

FIELDS = {field.name: field for field in fields(ChatOptions) if field.metadata and field.name != "seed"}
_FLAGS = {"values": "--set"}
_METAVARS = {"columns": "OURS=THEIRS", "values": "NAME=TEXT"}


class Assignment(click.ParamType):
    """NAME=TEXT."""

    name = "NAME=TEXT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, text = UNICODE.convert(value, param, ctx).partition("=")
        if not name or not equals:
            self.fail(f"found {value!r}, expected a name, '=' and a text", param, ctx)
        return name, text


def chat_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the flags; its function gets them by the names of the fields, see chat_options_of.

    Stands under @click.command, among the verb's own options.
    """
    for field in reversed(FIELDS.values()):
        command = _option(field)(command)
    return command


def chat_options_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ChatOptions that the call says, by name."""
    found = given({name: flags[name] for name in FIELDS})
    return {name: dict(value) if name in _METAVARS else value for name, value in found.items()}


def _option(field: Field) -> Callable[..., Any]:
    flag = _FLAGS.get(field.name, "--" + field.name.replace("_", "-"))
    text: str = field.metadata["help"]
    if field.default is MISSING:
        return click.option(flag, field.name, type=Assignment(), multiple=True, metavar=_METAVARS[field.name], help=text)
    if field.type is bool:
        return click.option(flag, field.name, is_flag=True, help=text)
    choices = CHOICES.get(field.name)
    kind = click.Choice(choices) if choices else UNICODE if field.type is str else field.type
    metavar = f"[{'|'.join(filter(None, choices))}]" if choices else None
    shown = None if field.default else False  # nothing to show of an empty text
    return click.option(flag, field.name, type=kind, default=field.default, show_default=shown, metavar=metavar, help=text)
