"""Flags for every number of a Recipe, made from its fields: a field of ModelConfig or TrainConfig is a flag of plan and train,
one of TrainConfig or FinetuneConfig a flag of finetune.

A flag that is not given leaves its number to the planner. Holds no numbers itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from functools import wraps
from typing import Any

import click

from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.train.config import CHOICES, FinetuneConfig, TrainConfig, lora_targets_of

MODEL_HELP = {
    "width": "Width of the stream between layers.",
    "n_layers": "Layers.",
    "n_heads": "Query heads.",
    "n_kv_heads": "Key/value heads, a divisor of the query heads.",
    "mlp_width": "Width inside the MLP.",
    "vocab_size": "Tokens in the vocabulary.",
    "context": "Tokens that the model sees at once.",
    "head_size": "Width of a head; else width / heads.",
    "rope_theta": "Base of the rotary frequencies.",
    "norm_epsilon": "Of RMSNorm.",
    "tied_embedding": "Let the classifier be the embedding.",
}
TRAINING_FIELDS = {field.name: field for field in fields(TrainConfig)}
# a fresh model has plain RoPE
MODEL_FIELDS = {field.name: field for field in fields(ModelConfig) if field.name != "rope_scaling"}
# rows of chats are always masked from each other, and what is learned is seen from the chats
NOT_OF_FINETUNING = ("document_mask", "objective")


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb all flags of a recipe; its function gets those that were used as `overrides`, a dict by field name.

    Stands under @click.command, among the verb's own options.
    """
    return _with_flags(command, [*MODEL_FIELDS.values(), *TRAINING_FIELDS.values()])


def finetune_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same of a recipe of fine-tuning, whose model has its shape already."""
    chosen = [*fields(FinetuneConfig), *TRAINING_FIELDS.values()]
    return _with_flags(command, [field for field in chosen if field.name not in NOT_OF_FINETUNING])


def _with_flags(command: Callable[..., Any], chosen: Sequence[Field]) -> Callable[..., Any]:
    @wraps(command)
    def with_overrides(*arguments: Any, **flags: Any) -> Any:
        given = {field.name: flags.pop(field.name) for field in chosen}
        overrides = {name: value for name, value in given.items() if value is not None}
        return command(*arguments, overrides=overrides, **flags)

    flagged: Callable[..., Any] = with_overrides
    for field in reversed(chosen):
        help_text = field.metadata["help"] if field.metadata else MODEL_HELP[field.name]
        flagged = _option(field, help_text, CHOICES.get(field.name))(flagged)
    return flagged


class Matrices(click.ParamType):
    """Names of matrices with commas between."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        try:
            return lora_targets_of(value)
        except SettingError as error:
            self.fail(str(error), param, ctx)


def _option(field: Field, help_text: str, choices: tuple[str, ...] | None) -> Callable[..., Any]:
    """The flag of one field; None when it is not given. A count may be called without its n-."""
    flag = "--" + field.name.replace("_", "-")
    if field.type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=help_text)
    flags = (f"--{flag[4:]}", flag) if flag.startswith("--n-") else (flag,)
    kind = click.Choice(choices) if choices else field.type if isinstance(field.type, type) else Matrices()
    return click.option(*flags, field.name, type=kind, default=None, help=help_text)
