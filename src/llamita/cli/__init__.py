"""The command `llamita`: flags in, function calls out. Every verb is a file of this folder and loads when it is called.

This file holds what all verbs share: how they are found, and how a run ends. A mistake of the user is one line on stderr and
exit 1 (2 for the command line itself), Ctrl-C is exit 130, a reader that went away (`| head`) ends the run in silence.
"""

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TextIO

import click

from llamita import __version__
from llamita.errors import LlamitaError, one_line

# each is a module of this folder with a click command of the name `command`
VERBS = (
    "run", "chat", "serve", "inspect", "export", "score", "eval", "probe",
    "bench", "vocab", "prepare", "plan", "train", "finetune", "sweep", "report",
)  # fmt: skip
INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell reports of a program that SIGINT or SIGPIPE ended


class Verbs(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return import_module(f"llamita.cli.{cmd_name}").command if cmd_name in VERBS else None


def _note_debug(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    context.meta["debug"] = wanted or context.meta.get("debug", False)


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show the traceback of an error."
)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
@debug_option
def llamita() -> None:
    """The whole life of a small Llama: llama2.c in Python."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (sys.argv without arguments) and return the exit status."""
    prepare_streams()
    status = run_verb(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = nowhere()  # the interpreter flushes it at its own end
        return say(error)
    return status


def run_verb(arguments: list[str]) -> int:
    """Run one verb and turn every way in which it may end into an exit status."""
    meta = {}
    try:
        with llamita.make_context("llamita", list(arguments)) as context:
            meta = context.meta
            llamita.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as mistake:
        return say_usage(mistake, arguments)
    except (LlamitaError, OSError) as mistake:
        if meta.get("debug"):
            raise
        return say(mistake)
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        return INTERRUPTED
    return 0


def say(mistake: Exception) -> int:
    """Print a mistake as one line, unless it is only that the reader of our output has gone, and return the exit status."""
    if isinstance(mistake, BrokenPipeError):
        return BROKEN_PIPE
    click.echo(f"llamita: {mistake}", err=True)
    return 1


def say_usage(mistake: click.ClickException, arguments: list[str]) -> int:
    """Print what is wrong with a command line as one line that names the help, and return the exit status."""
    if isinstance(mistake, click.exceptions.NoArgsIsHelpError):
        mistake.show()
    else:
        context = getattr(mistake, "ctx", None)
        verb = next((argument for argument in arguments if not argument.startswith("-")), "")
        path = context.command_path if context else f"llamita {verb}" if verb in VERBS else "llamita"
        message = one_line(re.sub(r"\s*\n\s*", " ", mistake.format_message())).rstrip(".?")
        click.echo(f"{path}: {message[0].lower()}{message[1:]}; {path} --help tells more", err=True)
    return mistake.exit_code


def prepare_streams() -> None:
    """Let output never fail for want of a character or, where the caller closed it, of a stream."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, nowhere())
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="replace")


def nowhere() -> TextIO:
    """A stream that swallows everything."""
    return Path(os.devnull).open("w")
