"""`llamita run`: llama2.c's command line. Its flags keep their letters, defaults and clamps; each has a long name too.

Reads flags and opens the model; story.py tells (-m generate), talk.py talks (-m chat).
"""

import os
import time

import click

from llamita.cli import debug_option


class TokenBias(click.ParamType):
    """ID=BIAS, such as 2=-inf."""

    name = "ID=BIAS"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        token_id, _, bias = value.partition("=")
        try:
            return int(token_id), float(bias)
        except ValueError:
            self.fail(f"found {value!r}, expected a token id, '=' and a number, such as 2=-1.5", param, ctx)


@click.command("run", context_settings={"show_default": True})
@click.argument("model", default="stories")
@click.option("-i", "--prompt", metavar="TEXT", default=None, help="How the story begins; in chat, the first message.")
@click.option("-t", "--temperature", default=1.0, help="0 takes the likeliest token each time; below 0 counts as 0.")
@click.option("-p", "--top-p", default=0.9, help="Sample from the likeliest tokens that make up this share; 0 or 1: all.")
@click.option("-s", "--seed", default=0, help="The same seed tells the same story; 0 takes the time.")
@click.option("-n", "--tokens", default=256, help="Tokens in all, the prompt included; 0 fills the context.")
@click.option(
    "-z", "--tokenizer", metavar="PATH", default=None, help="tokenizer.bin, .model or .json; else the model's own."
)
@click.option(
    "-m", "--mode", type=click.Choice(["generate", "chat"]), default="generate", help="Tell a story or talk (Llama 2 chat)."
)
@click.option("-y", "--system", metavar="TEXT", default=None, help="The system prompt in chat; else asked for.")
@click.option("--top-k", default=0, help="Sample from the k likeliest tokens; 0: all.")
@click.option("--min-p", default=0.0, help="Leave out tokens less likely than this share of the likeliest; 0: none.")
@click.option("--repetition-penalty", default=1.0, help="Divide the scores of recent tokens by this; 1: off.")
@click.option("--logit-bias", type=TokenBias(), multiple=True, help="Add BIAS to a token's score; may be repeated.")
@click.option("--stop", metavar="TEXT", multiple=True, help="End before this text; may be repeated.")
@click.option("--samples", type=click.IntRange(min=1), default=1, help="Tell so many stories at once.")
@click.option("--dtype", type=click.Choice(["q8_0", "q4_0"]), default=None, help="Quantize on opening; kept in the cache.")
@click.option("--threads", type=click.IntRange(min=1), default=None, help="Threads; else one per core.")
@click.option(
    "--context", type=click.IntRange(min=1), default=None, help="Tokens to make room for; else as the model was trained."
)
@debug_option
def command(model: str, prompt: str | None, seed: int, tokens: int, mode: str, system: str | None, **flags) -> None:
    """Tell a story with MODEL: a file, a folder or the name of a bundled model.

    The flags of one letter are llama2.c's. Text goes to stdout, the speed to stderr.

    \b
        llamita run -i "Once upon a time" -t 0.8
        llamita run stories15M.bin -z tokenizer.bin -n 0 -s 42
    """
    if mode == "chat" and flags["samples"] > 1:
        raise click.UsageError("--samples: found it beside -m chat, expected one or the other")
    from llamita.cli.story import tell, tell_many
    from llamita.cli.talk import talk
    from llamita.engine import Sampling
    from llamita.language_model import load

    sampling = Sampling(
        temperature=max(flags["temperature"], 0.0),
        top_p=flags["top_p"] if 0.0 <= flags["top_p"] <= 1.0 else 0.9,
        top_k=flags["top_k"],
        min_p=flags["min_p"],
        repetition_penalty=flags["repetition_penalty"],
        logit_bias=dict(flags["logit_bias"]),
        seed=xorshift_state(seed),
    ).validate()
    n_at_once = min(flags["samples"], 8)
    with load(model, flags["tokenizer"], flags["threads"], flags["context"], n_at_once, flags["dtype"]) as opened:
        limit = opened.engine.context if tokens <= 0 else min(tokens, opened.engine.context)
        if mode == "chat":
            talk(opened, sampling, limit, as_text(prompt), as_text(system))
        elif flags["samples"] > 1:
            tell_many(opened, as_text(prompt) or "", limit, sampling, flags["stop"], flags["samples"])
        else:
            tell(opened, as_text(prompt) or "", limit, sampling, flags["stop"])


def xorshift_state(seed: int) -> int:
    """What llama2.c makes of -s: the unsigned 64-bit number itself, the seconds since 1970 for 0."""
    return (seed or int(time.time())) % (1 << 64)


def as_text(argument: str | None) -> str | None:
    """A word of the command line with bytes that are no UTF-8 replaced; the shell passes any."""
    return None if argument is None else os.fsencode(argument).decode("utf-8", errors="replace")
