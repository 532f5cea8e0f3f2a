"""`llamita finetune`: from a model and chats to a model, or an adapter, that answers so. The work is in train/finetune.py.

Answers are told by the engine from the very weights in training: train and engine meet only here and in train.py.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamita.cli import debug_option
from llamita.cli.chat_options import chat_options, chat_options_of
from llamita.cli.given import given
from llamita.cli.recipe_options import finetune_options
from llamita.cli.template_option import template_option, template_source
from llamita.cli.text import UNICODE
from llamita.cli.train import SIGNAL_STATUS, engine_in_the_making

if TYPE_CHECKING:
    from collections.abc import Callable

    from llamita.data.examples import ChatData
    from llamita.model import Model
    from llamita.train.base import Base
    from llamita.train.finetune import FinetuneWish, TellAnswers

ANSWER_TOKENS = 96
N_QUESTIONS = 2  # of the chats that are measured on, where the user names none
MOST_QUESTION_CHARACTERS = 300  # of its end that are shown
KINDS = {None: "", True: "pairs", False: "chats"}


@click.command("finetune", context_settings={"show_default": True})
@click.argument("model", default="")
@click.argument("chats", nargs=-1)
@click.option("--validation", metavar="PATH", multiple=True, help="Chats to measure on; else some of CHATS. May be repeated.")
@click.option("--out", metavar="FOLDER", required=True, help="The run's folder, and at the end the model's or the adapter's.")
@click.option("--resume", is_flag=True, help="Go on where the run in the folder was; begin where there is none.")
@click.option("--dry-run", is_flag=True, help="Render the chats, show the plan, and train nothing.")
@click.option("--show-examples", metavar="N", type=click.IntRange(min=0), default=0, help="Print N chats as they are learned.")
@click.option("--epochs", type=float, default=3.0, help="How often each chat is read.")
@click.option(
    "--preference/--no-preference", default=None, help="Learn preferences (DPO); else the files say so by their pairs."
)
@template_option("The")
@click.option("--context", type=click.IntRange(min=2), help="Tokens of a chat at most; else what the model sees at once.")
@click.option("-z", "--tokenizer", metavar="PATH", default=None, help="The model's tokenizer, where none lies beside it.")
@click.option(
    "--prompt", type=UNICODE, multiple=True, help="A question that samples answer, may be repeated; else some of the chats'."
)
@chat_options
@click.option("--device", default="auto", help="cpu, cuda, mps; auto takes the best.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of this process; else all cores are shared out.")
@click.option(
    "--parallel", type=click.Choice(["ddp", "fsdp"]), default="ddp", help="With torchrun: whole copies, or layers shared out."
)
@click.option("--tensorboard/--no-tensorboard", default=True, help="Write TensorBoard's event files.")
@click.option("--wandb", metavar="PROJECT", default="", help="Send the curves to Weights & Biases too.")
@finetune_options
@debug_option
def command(
    model: str, chats: tuple[str, ...], show_examples: int, dry_run: bool, prompt: tuple[str, ...], **flags: Any
) -> None:
    """Teach MODEL to answer as in CHATS: files, folders or data sets of chats, instructions, or pairs of answers.

    Small models learn with all their weights and become a model; large ones with LoRA, which leaves a small adapter beside the
    model. --lora-rank decides. On many devices: torchrun --nproc-per-node 4 -m llamita finetune ...

    \b
        llamita finetune stories instructions.jsonl --out storyteller
        llamita chat storyteller
        llamita finetune smollm2 identity.json --out tiny --set name=Tiny --set author=us
        llamita chat smollm2 --adapter tiny
    """
    from llamita.train.torch_setup import set_up_torch

    set_up_torch()
    from llamita.cli.finetune_company import TerminalFinetuneCompany
    from llamita.train.finetune import rehearse, run_finetuning

    wish = wish_of(model, chats, flags)
    with TerminalFinetuneCompany(show_examples) as company:
        if dry_run:
            rehearse(wish, company)
            return
        with engine_in_the_making() as engine_is_ready:
            signal_number = run_finetuning(wish, company, teller(prompt, engine_is_ready))
    if signal_number is not None:
        sys.exit(SIGNAL_STATUS + signal_number)


def wish_of(model: str, chats: tuple[str, ...], flags: dict[str, Any]) -> "FinetuneWish":
    """What the flags ask for."""
    from llamita.language_model import find_model
    from llamita.train.finetune import FinetuneWish

    return FinetuneWish(
        out=Path(flags["out"]),
        model=find_model(model) if model else None,
        model_name=model,
        chats=chats,
        validation=flags["validation"],
        resume=flags["resume"],
        template=template_source(flags["template"]),
        tokenizer=flags["tokenizer"],
        kind=KINDS[flags["preference"]],
        options=chat_options_of(flags),
        context=flags["context"] or 0,
        epochs=given({"epochs": flags["epochs"]}).get("epochs"),
        overrides=flags["overrides"],
        device=flags["device"],
        n_threads=flags["threads"],
        parallel=flags["parallel"],
        tensorboard=flags["tensorboard"],
        wandb_project=flags["wandb"],
    )


def teller(prompts: tuple[str, ...], engine_is_ready: "Callable[[], object]") -> "TellAnswers":
    """A function that tells the answers to some questions from a model in training."""

    def tell(model: "Model", base: "Base", data: "ChatData") -> list[tuple[str, str]]:
        from llamita.engine import Sampling
        from llamita.language_model import LanguageModel

        engine_is_ready()
        stops = base.template.stop_ids, base.template.stop_texts
        with LanguageModel(replace(model, tokenizer=base.tokenizer), context=fitting_context(model, data)) as opened:
            return [
                (shown, "".join(opened.continue_ids(ids, ANSWER_TOKENS, Sampling(temperature=0.0), stops[1], stops[0])))
                for shown, ids in questions(prompts, base, data)
            ]

    return tell


def fitting_context(model: "Model", data: "ChatData") -> int:
    """Tokens to make room for: of a long context keys and values would take more memory than the training."""
    longest = int(max(data.train.lengths.max(), data.validation.lengths.max()))
    return min(model.config.context, longest + ANSWER_TOKENS)


def questions(prompts: tuple[str, ...], base: "Base", data: "ChatData") -> list[tuple[str, list[int]]]:
    """What is shown of each question, and the ids that ask it: the user's own, or beginnings of chats that are measured on."""
    from llamita.tokenizer.spelled import spelled

    if prompts:
        return [(f"{text}\n", base.template.encode([{"role": "user", "content": text}])) for text in prompts]
    held, per_unit = data.validation, 2 if data.manifest.kind == "pairs" else 1
    found = []
    for index in range(0, min(held.n_examples, N_QUESTIONS * per_unit), per_unit):
        ids = held.ids(index)[: int(held.counted(index).argmax())].tolist()
        shown = "".join(text for text, _ in spelled(base.tokenizer, ids, [False] * len(ids)))
        found.append((shown[-MOST_QUESTION_CHARACTERS:], ids))
    return found
