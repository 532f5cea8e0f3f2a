"""Flags for every number of a Recipe, made from its fields: a field of ModelConfig or TrainConfig is a flag of plan and train.

A flag that is not given leaves its number to the planner. Holds no numbers itself.
"""

from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from typing import Any

import click

from llamita.config import ModelConfig
from llamita.train.config import CHOICES, TrainConfig

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


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb all flags of a recipe; its function gets those that were used as `overrides`, a dict by field name.

    Stands under @click.command, among the verb's own options.
    """

    @wraps(command)
    def with_overrides(*arguments: Any, **flags: Any) -> Any:
        names = [*MODEL_FIELDS, *TRAINING_FIELDS]
        given = {name: flags.pop(name) for name in names}
        overrides = {name: value for name, value in given.items() if value is not None}
        return command(*arguments, overrides=overrides, **flags)

    chosen: Callable[..., Any] = with_overrides
    for name, field in reversed(TRAINING_FIELDS.items()):
        chosen = _option(field, field.metadata["help"], CHOICES.get(name))(chosen)
    for name, field in reversed(MODEL_FIELDS.items()):
        chosen = _option(field, MODEL_HELP[name], None)(chosen)
    return chosen


def _option(field: Field, help_text: str, choices: tuple[str, ...] | None) -> Callable[..., Any]:
    """The flag of one field; None when it is not given. A count may be called without its n-."""
    flag = "--" + field.name.replace("_", "-")
    if field.type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=help_text)
    flags = (f"--{flag[4:]}", flag) if flag.startswith("--n-") else (flag,)
    kind = click.Choice(choices) if choices else field.type
    return click.option(*flags, field.name, type=kind, default=None, help=help_text)
