"""Talk as llama2.c's chat mode does: its prompts, its Llama 2 template, its random numbers.

Mended: the end of input ends the talk, long messages overflow nothing, and a limit that ends the talk is said. The token that
llama2.c prints behind the end of a reply, before it asks again, is left out.
"""

import sys
from contextlib import closing

import click

from llamita.engine import Sampling, Sequence
from llamita.language_model import LanguageModel
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.decoder import TextDecoder


def talk(model: LanguageModel, sampling: Sampling, limit: int, message: str | None, system: str | None) -> None:
    """Ask and answer until the input or the limit of `limit` tokens ends. message, system: None asks for them."""
    if hasattr(sys.stdin, "reconfigure"):  # bytes that are no text end no talk
        sys.stdin.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    full = limit_of(limit, model.engine.context, model.config.context)
    system = ask("Enter system prompt (optional): ") if system is None else system
    message = ask("User: ") if message is None and system is not None else message
    with closing(model.engine.sequence(sampling)) as sequence:
        while system is not None and message is not None:
            ids = model.tokenizer.encode(render(system, message), bos=model.tokenizer.adds_bos)
            if sequence.position + len(ids) > limit:
                say_limit(f"a message of {len(ids)} tokens does not fit behind the {sequence.position} so far", full)
                return
            # llama2.c samples at every position and throws away what it samples inside a prompt
            sequence.skip_coins(len(ids) - 1 if sequence.position == 0 else len(ids))
            sequence.append(ids)
            sys.stdout.write("Assistant: ")
            if not answer(model.tokenizer, sequence, ids[-1], limit):
                say_limit("the talk is full", full)
                return
            system, message = "", ask("User: ")
    click.echo()


def answer(tokenizer: Tokenizer, sequence: Sequence, previous_id: int, limit: int) -> bool:
    """Print one reply; whether it came to its end before the limit."""
    decoder = TextDecoder(tokenizer, previous_id)
    while sequence.position <= limit:
        token_id = sequence.next()
        if token_id == tokenizer.eos_id:
            click.echo(decoder.flush())
            return True
        sys.stdout.write(decoder.feed(token_id))
        sys.stdout.flush()
    click.echo(decoder.flush())
    return False


def render(system: str, message: str) -> str:
    """A message in the template of Llama 2 chat."""
    return f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{message} [/INST]" if system else f"[INST] {message} [/INST]"


def ask(guide: str) -> str | None:
    """Print the guide and read a line; None at the end of input."""
    sys.stdout.write(guide)
    sys.stdout.flush()
    line = sys.stdin.readline() if sys.stdin else ""
    return line.removesuffix("\n") if line else None


def limit_of(limit: int, context: int, largest_context: int) -> str:
    """The limit of a talk in words, and the flag that allows more. context: of this run; largest_context: the model's."""
    if limit < context:
        return f"{limit} tokens; a larger -n allows more, up to the context of {context}"
    if context < largest_context:
        return f"{limit} tokens, the context; a larger --context allows more, up to {largest_context}"
    return f"{limit} tokens, the model's context"


def say_limit(what: str, limit: str) -> None:
    """Tell why the talk is over."""
    click.echo(f"llamita: {what}: the limit is {limit}", err=True)
