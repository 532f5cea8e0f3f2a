"""Print a story as llama2.c's run does: the prompt as the model sees it, then token after token, then the speed on stderr.

What the flags mean was decided in run.py; the text comes from language_model.py.
"""

import sys
import time

import click

from llamita.cli.sampling_options import as_seed
from llamita.engine import Sampling
from llamita.engine.sampling import seed_of_sample
from llamita.language_model import LanguageModel


def tell(model: LanguageModel, prompt: str, limit: int, sampling: Sampling, stop: tuple[str, ...]) -> None:
    """Print prompt and story, `limit` tokens in all; the story also ends where ends_of says, or at a stop string."""
    ids = model.encode_prompt(prompt)
    click.echo(model.tokenizer.decode(ids[: limit + 1]), nl=False)
    n_tokens, first, last = 0, 0.0, 0.0
    if room := room_after(model, ids, limit):
        for piece in model.continue_ids(ids, room, sampling, stop, ends_of(model)):
            sys.stdout.write(piece)
            sys.stdout.flush()
            n_tokens += 1
            last = time.perf_counter()
            first = first or last
    click.echo()
    if n_tokens > 1:
        click.echo(f"achieved tok/s: {(n_tokens - 1) / (last - first):f}", err=True)


def tell_many(model: LanguageModel, prompt: str, limit: int, sampling: Sampling, stop: tuple[str, ...], n_samples: int) -> None:
    """Print several stories that begin with the prompt, each under a line that names the seed that tells it again."""
    ids = model.encode_prompt(prompt)
    begin = model.tokenizer.decode(ids[: limit + 1])
    room = room_after(model, ids, limit)
    start = time.perf_counter()
    texts = model.continue_many(ids, n_samples, room, sampling, stop, ends_of(model)) if room else [""] * n_samples
    for i, text in enumerate(texts):
        click.echo(f"--- seed {as_seed(seed_of_sample(sampling.seed, i))} ---\n{begin}{text}")
    click.echo(f"{n_samples} stories in {time.perf_counter() - start:.2f} s", err=True)


def ends_of(model: LanguageModel) -> set[int]:
    """The ids that end a story: BOS, as in run.c, and those that the model's files name; llama2.c's name none."""
    return {model.tokenizer.bos_id, *model.stop_ids}


def room_after(model: LanguageModel, ids: list[int], limit: int) -> int:
    """How many tokens may follow a prompt; says so when there are none."""
    room = max(limit - len(ids) + 1, 0)  # the last token needs no place in the cache
    if not room:
        whose = "the model's context" if limit == model.engine.context else "-n"
        click.echo(f"llamita: the prompt has {len(ids)} tokens, {whose} allows {limit}: nothing is left to tell", err=True)
    return room
