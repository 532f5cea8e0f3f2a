"""`llamita run`: llama2.c's command line. Its flags keep their letters, defaults and clamps; each has a long name too.

Reads flags and opens the model; story.py tells (-m generate), talk.py talks (-m chat).
"""

import click

from llamita.cli import debug_option
from llamita.cli.adapter_option import adapter_option
from llamita.cli.sampling_options import (
    as_c_int,
    as_text,
    engine_options,
    further_sampling_options,
    sampling_of,
    sampling_options,
)

LARGEST_SEED = (1 << 31) - 1


@click.command("run", context_settings={"show_default": True})
@click.argument("model", default="stories")
@click.option("-i", "--prompt", metavar="TEXT", default=None, help="How the story begins; in chat, the first message.")
@sampling_options(temperature=1.0, what="story", of_seeds=", and more than 32 bits wrap, as in llama2.c")
@click.option("-n", "--tokens", default=256, help="Tokens in all, the prompt included; 0 fills the context.")
@click.option(
    "-z",
    "--tokenizer",
    metavar="PATH",
    default=None,
    help="tokenizer.bin, .model or .json; else the model's own, then ./tokenizer.bin.",
)
@adapter_option
@click.option(
    "-m", "--mode", type=click.Choice(["generate", "chat"]), default="generate", help="Tell a story or talk (Llama 2 chat)."
)
@click.option("-y", "--system", metavar="TEXT", default=None, help="The system prompt in chat; else asked for.")
@further_sampling_options
@click.option("--samples", type=click.IntRange(min=1), default=1, help="Tell so many stories at once.")
@engine_options
@debug_option
def command(model: str, prompt: str | None, tokens: int, mode: str, system: str | None, **flags) -> None:
    """Tell a story with MODEL: a file, a folder or the name of a bundled model.

    The flags of one letter are llama2.c's. Text goes to stdout, the speed to stderr.

    \b
        llamita run -i "Once upon a time" -t 0.8
        llamita run stories15M.bin -z tokenizer.bin -n 0 -s 42
    """
    if mode == "chat" and flags["samples"] > 1:
        raise click.UsageError("--samples: found it beside -m chat, expected one or the other")
    flags["seed"] = as_c_int(flags["seed"])
    if (last := flags["seed"] + flags["samples"] - 1) > LARGEST_SEED or flags["seed"] < 0 <= last:
        found = f"found seeds {flags['seed']} to {last}"
        raise click.UsageError(f"--samples: {found}, expected all below 0, or all of 1 to {LARGEST_SEED}")
    from llamita.cli.story import tell, tell_many
    from llamita.cli.talk import talk
    from llamita.formats import read_model
    from llamita.language_model import LanguageModel, find_model

    sampling = sampling_of(flags)
    found = read_model(find_model(model), flags["tokenizer"], flags["dtype"], flags["adapter"])
    context = flags["context"]
    if context is None and mode == "generate" and 0 < tokens < found.config.context:
        context = tokens + 1  # no memory for what is not told; one more, so that what ends the story is -n
    with LanguageModel(found, flags["threads"], context, min(flags["samples"], 8)) as opened:
        limit = opened.engine.context if tokens <= 0 else min(tokens, opened.engine.context)
        if mode == "chat":
            talk(opened, sampling, limit, as_text(prompt), as_text(system))
        elif flags["samples"] > 1:
            tell_many(opened, as_text(prompt) or "", limit, sampling, flags["stop"], flags["samples"])
        else:
            tell(opened, as_text(prompt) or "", limit, sampling, flags["stop"])
