"""Rendered chats on the screen before training starts: what is learned stands out, in colour or between brackets."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llamita.data.examples import ChatData, Examples
    from llamita.tokenizer import Tokenizer

_LEARNED, _REST = "bold green", "dim"


def show(data: "ChatData", tokenizer: "Tokenizer", n_examples: int) -> None:
    """Print the first examples to learn from, of pairs both answers."""
    examples = data.train
    per_unit = 2 if data.manifest.kind == "pairs" else 1
    in_colour = sys.stdout.isatty()
    what = "bold and green" if in_colour else "between [[ and ]]"
    click.echo(f"{data.folder}: what is {what} is learned, the rest is only read")
    for index in range(min(n_examples * per_unit, examples.n_examples)):
        _show_one(examples, index, per_unit, tokenizer, in_colour)


def _show_one(examples: "Examples", index: int, per_unit: int, tokenizer: "Tokenizer", in_colour: bool) -> None:
    from llamita.tokenizer.spelled import spelled

    ids, counted = examples.ids(index).tolist(), examples.counted(index).tolist()
    stretches = [(_printable(text), flag) for text, flag in spelled(tokenizer, ids, counted)]
    kind = ("", "chosen, ", "rejected, ")[0 if per_unit == 1 else 1 + index % 2]
    title = f"{index // per_unit + 1} of {examples.n_examples // per_unit:,}: {kind}{len(ids)} tokens, {sum(counted)} learned"
    click.echo(f"\n--- {title} ---")
    if not in_colour:
        click.echo("".join(f"[[{text}]]" if flag else text for text, flag in stretches))
        return
    from rich.console import Console
    from rich.text import Text

    Console().print(Text.assemble(*((text, _LEARNED if flag else _REST) for text, flag in stretches)), soft_wrap=True)


def _printable(text: str) -> str:
    """A text without what could steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
