"""`llamita train`: from text to a model folder, in one command. The work is in train/session.py; here are its flags.

Samples are told by the engine from the very weights in training: train and engine meet only here.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamita.cli import debug_option
from llamita.cli.dial import dial_options
from llamita.cli.given import given
from llamita.cli.recipe_options import recipe_options
from llamita.cli.text import UNICODE, field_option, separator_option

if TYPE_CHECKING:
    from llamita.model import Model
    from llamita.train.trainer import Tell

SAMPLE_TOKENS = 96
SAMPLE_TEMPERATURE = 0.8
SIGNAL_STATUS = 128  # what a shell adds to the number of the signal that ended a program


@click.command("train", context_settings={"show_default": True})
@click.argument("text", nargs=-1)
@click.option("--out", metavar="FOLDER", required=True, help="The run's folder, and at the end the model's.")
@click.option("--resume", is_flag=True, help="Go on where the run in the folder was; begin where there is none.")
@dial_options
@click.option("--recipe", metavar="FILE", help="A recipe.toml to follow instead of a plan; flags still count.")
@click.option("--tokenizer", metavar="PATH", help="A tokenizer; else one is learned from the text.")
@click.option("--validation", metavar="PATH", multiple=True, help="Text that validates; else a part of TEXT. May be repeated.")
@field_option
@separator_option
@click.option("--prompt", type=UNICODE, multiple=True, default=[""], help="How samples begin; may be repeated.")
@click.option("--device", default="auto", help="cpu, cuda, mps; auto takes the best.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of this process; else all cores are shared out.")
@click.option(
    "--parallel", type=click.Choice(["ddp", "fsdp"]), default="ddp", help="With torchrun: whole copies, or layers shared out."
)
@click.option("--tensorboard/--no-tensorboard", default=True, help="Write TensorBoard's event files.")
@click.option("--wandb", metavar="PROJECT", default="", help="Send the curves to Weights & Biases too.")
@recipe_options
@debug_option
def command(
    text: tuple[str, ...], out: str, resume: bool, dial: Any, recipe: str | None, tokenizer: str | None,
    validation: tuple[str, ...], field: str, separator: str, prompt: tuple[str, ...], device: str, threads: int | None,
    parallel: str, tensorboard: bool, wandb: str, overrides: dict[str, Any],
) -> None:  # fmt: skip
    """Train a Llama on TEXT: files, folders, a data set's name, or a folder that `llamita prepare` made.

    Whatever is not said is planned from the text and this machine; `llamita plan` shows how. On many devices:
    torchrun --nproc-per-node 4 -m llamita train ...

    \b
        llamita train my_texts/ --out my_model
        llamita run my_model
    """
    from llamita.train.torch_setup import set_up_torch

    set_up_torch()
    from llamita.cli.training_company import TerminalCompany
    from llamita.train.session import Wish, run

    wish = Wish(
        Path(out), text, resume, dial, Path(recipe) if recipe else None, overrides, tokenizer,
        validation, given({"field": field, "separator": separator}), device, threads, parallel, tensorboard, wandb,
    )  # fmt: skip
    with TerminalCompany() as company, engine_in_the_making() as engine_is_ready:
        signal_number = run(wish, company, teller(Path(out), prompt, engine_is_ready))
    if signal_number is not None:
        sys.exit(SIGNAL_STATUS + signal_number)


@contextmanager
def engine_in_the_making() -> Iterator[Callable[[], object]]:
    """Compile the engine in a process beside, where a first start has to, so that the first sample does not wait for it.

    Gives a function that returns when it is done. It is only a head start: whoever needs the engine compiles it if that failed.
    """
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process tells the samples
        yield lambda: None
        return
    code = "from llamita.engine.compiled import load_work; load_work()"
    nowhere = subprocess.DEVNULL
    maker = subprocess.Popen([sys.executable, "-c", code], stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        yield maker.wait
    finally:
        maker.kill()
        maker.wait()


def teller(folder: Path, prompts: tuple[str, ...], engine_is_ready: Callable[[], object]) -> "Tell":
    """A function that tells one sample for each prompt from a model in training."""

    def tell(model: "Model") -> list[tuple[str, str]]:
        from llamita.data.tokenizer_copy import find_tokenizer
        from llamita.formats import read_tokenizer
        from llamita.language_model import LanguageModel
        from llamita.train.session import dataset_folder

        engine_is_ready()
        tokenizer = read_tokenizer(find_tokenizer(dataset_folder(folder)))
        with LanguageModel(replace(model, tokenizer=tokenizer)) as teller:
            return [(p, teller.generate(p, SAMPLE_TOKENS, temperature=SAMPLE_TEMPERATURE, seed=1)) for p in prompts]

    return tell
