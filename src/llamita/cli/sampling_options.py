"""What `run`, `chat` and `serve` have in common: flags that say how tokens are drawn and how the engine runs."""

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from llamita.processor import available_cores

if TYPE_CHECKING:
    from llamita.engine import Sampling

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class TokenBias(click.ParamType):
    """ID=BIAS, such as 2=-inf."""

    name = "ID=BIAS"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        token_id, _, bias = value.partition("=")
        try:
            return int(token_id), float(bias)
        except ValueError:
            self.fail(f"found {value!r}, expected a token id, '=' and a number, such as 2=-1.5", param, ctx)


def sampling_options(temperature: float, what: str, of_seeds: str = "") -> Decorator:
    """The flags of one letter. what: what the same seed gives again; of_seeds: what else is to be said of seeds."""
    return _all_of(
        click.option(
            "-t", "--temperature", default=temperature, help="0 takes the likeliest token each time; below 0 counts as 0."
        ),
        click.option(
            "-p", "--top-p", default=0.9, help="Sample from the likeliest tokens that make up this share; 0 or 1: all."
        ),
        click.option("-s", "--seed", default=0, help=f"The same seed tells the same {what}; 0 takes the time{of_seeds}."),
    )


def further_sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags that llama2.c has not."""
    return _all_of(
        click.option("--top-k", default=0, help="Sample from the k likeliest tokens; 0: all."),
        click.option("--min-p", default=0.0, help="Leave out tokens less likely than this share of the likeliest; 0: none."),
        click.option("--repetition-penalty", default=1.0, help="Divide the scores of recent tokens by this; 1: off."),
        click.option("--logit-bias", type=TokenBias(), multiple=True, help="Add BIAS to a token's score; may be repeated."),
        click.option("--stop", metavar="TEXT", multiple=True, help="End before this text; may be repeated."),
    )(command)


def _useful_threads(_: click.Context, __: click.Parameter, wanted: int | None) -> int | None:
    """As many threads as are wanted, but no more than there are cores: further ones would only wait for one another."""
    cores = available_cores()
    if wanted is None or wanted <= cores:
        return wanted
    click.echo(f"llamita: --threads: found {wanted}, more than there are cores; takes {cores}", err=True)
    return cores


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How the model is opened."""
    return _all_of(
        click.option(
            "--dtype", type=click.Choice(["q8_0", "q4_0"]), default=None, help="Quantize on opening; kept in the cache."
        ),
        click.option(
            "--threads", type=click.IntRange(min=1), default=None, callback=_useful_threads, help="Threads; else one per core."
        ),
        click.option(
            "--context",
            type=click.IntRange(min=1),
            default=None,
            help="Tokens to make room for; else as the model was trained.",
        ),
    )(command)


def sampling_of(flags: Mapping[str, Any]) -> "Sampling":
    """How to draw tokens, by the flags; out of range they are clamped as llama2.c does it."""
    from llamita.engine import Sampling

    return Sampling(
        temperature=max(flags["temperature"], 0.0),
        top_p=flags["top_p"] if 0.0 <= flags["top_p"] <= 1.0 else 0.9,
        top_k=flags["top_k"],
        min_p=flags["min_p"],
        repetition_penalty=flags["repetition_penalty"],
        logit_bias=dict(flags["logit_bias"]),
        seed=xorshift_state(flags["seed"]),
    ).validate()


def xorshift_state(seed: int) -> int:
    """The generator's state for a seed: the unsigned 64-bit number itself, the seconds since 1970 for 0, as in llama2.c."""
    return seed % (1 << 64) or int(time.time())


def as_c_int(number: int) -> int:
    """What C's atoi, and so llama2.c's -s, makes of a number: strtol ends at the ends of 64 bits, and int keeps 32 of them."""
    clamped = min(max(number, -(1 << 63)), (1 << 63) - 1)
    return (clamped + (1 << 31)) % (1 << 32) - (1 << 31)


def as_seed(state: int) -> int:
    """The number that -s takes for a state: those of negative seeds are the upper half of 64 bits."""
    return state - (1 << 64) if state >> 63 else state


def as_text(argument: str | None) -> str | None:
    """A word of the command line with bytes that are no UTF-8 replaced; the shell passes any."""
    return None if argument is None else os.fsencode(argument).decode("utf-8", errors="replace")


def _all_of(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
