"""`llamita train`: from text to a model folder, in one command. The work is in train/session.py; here are its flags.

Samples are told by the engine from the very weights in training: train and engine meet only here.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamita.cli import debug_option
from llamita.cli.dial import dial_options
from llamita.cli.recipe_options import recipe_options
from llamita.cli.text import field_option, separator_option

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
@click.option("--prompt", multiple=True, default=[""], help="How samples begin; may be repeated.")
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
    from llamita.data.prepare import PrepareOptions
    from llamita.data.sources import ReadOptions
    from llamita.train.session import Wish, run

    wish = Wish(
        Path(out), text, resume, dial, Path(recipe) if recipe else None, overrides, tokenizer,
        PrepareOptions(ReadOptions(field, separator), validation), device, threads, parallel, tensorboard, wandb,
    )  # fmt: skip
    with TerminalCompany() as company:
        signal_number = run(wish, company, teller(Path(out), prompt))
    if signal_number is not None:
        sys.exit(SIGNAL_STATUS + signal_number)


def teller(folder: Path, prompts: tuple[str, ...]) -> "Tell":
    """A function that tells one sample for each prompt from a model in training."""

    def tell(model: "Model") -> list[tuple[str, str]]:
        from dataclasses import replace

        from llamita.formats import read_tokenizer
        from llamita.language_model import LanguageModel
        from llamita.train.session import dataset_folder

        tokenizer = read_tokenizer(dataset_folder(folder) / "tokenizer.model")
        with LanguageModel(replace(model, tokenizer=tokenizer)) as teller:
            return [(p, teller.generate(p, SAMPLE_TOKENS, temperature=SAMPLE_TEMPERATURE, seed=1)) for p in prompts]

    return tell
