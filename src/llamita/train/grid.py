"""The grid of a sweep: from words such as `learning_rate=1e-3,3e-3` to values, and from one recipe to one for each combination.

Any field of ModelConfig or TrainConfig may vary that changes what is learned. Knows no training and no torch.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from itertools import product
from typing import Any

from llamita.config import ModelConfig
from llamita.errors import LlamitaError, SettingError, one_line
from llamita.train.config import Recipe, TrainConfig
from llamita.train.hyperparameters import learning_rate_for
from llamita.train.sizing import reshaped

MOST_COMBINATIONS = 256
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
MODEL_TYPES = {field.name: field.type for field in fields(ModelConfig) if field.name != "rope_scaling"}
TYPES = MODEL_TYPES | {field.name: field.type for field in fields(TrainConfig)}
FIXED = {  # fields that no grid may have, and why
    "n_steps": "the rungs of a sweep share the steps out; --steps says how many the last one has",
    "vocab_size": "the text is encoded once, for all; sweep over two vocabularies by two sweeps and compare bits per byte",
    "eval_tokens": "losses on other text cannot be compared",
    **dict.fromkeys(("eval_every", "save_every", "sample_every", "keep", "on_nonfinite"), "it changes nothing that is learned"),
}

Grid = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Combination:
    """One value of each field of a grid, and the recipe that it makes; without one where `error` says why it cannot be."""

    values: dict[str, Any]
    recipe: Recipe | None
    error: str = ""


def parse_grid(texts: Sequence[str]) -> Grid:
    """Read NAME=VALUE,VALUE,... one per field; raise SettingError, one line, at the first that is wrong."""
    if not texts:
        raise SettingError("grid: found none, expected one field or more, such as --grid learning_rate=1e-3,3e-3")
    grid: Grid = {}
    for text in texts:
        name, _, values = text.partition("=")
        name = _field_name(name.strip())
        if name in grid:
            raise SettingError(f"grid: {name}: found it twice, expected all its values in one --grid")
        grid[name] = _values(name, values)
    n = math.prod(map(len, grid.values()))
    if n > MOST_COMBINATIONS:
        raise SettingError(f"grid: found {n:,} combinations, expected {MOST_COMBINATIONS} at most; take fewer values")
    return grid


def _field_name(text: str) -> str:
    """The name of a field for what the user wrote: also learning-rate, and layers for n_layers."""
    name = text.replace("-", "_")
    name = f"n_{name}" if f"n_{name}" in TYPES else name
    if name in FIXED:
        raise SettingError(f"grid: {name}: found a field that cannot vary: {FIXED[name]}")
    if name not in TYPES:
        near = get_close_matches(name, TYPES, n=1)
        known = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(set(TYPES) - set(FIXED)))}"
        raise SettingError(one_line(f"grid: found unknown field {text or 'without a name'}; {known}"))
    return name


def _values(name: str, text: str) -> tuple[Any, ...]:
    values = tuple(_value(name, word.strip()) for word in text.split(","))
    for value in values:
        if values.count(value) > 1:
            raise SettingError(f"grid: {name}: found {value} twice, expected different values")
    if len(values) < 2:
        flag = "--" + name.replace("_", "-")
        raise SettingError(f"grid: {name}: found one value, expected two or more; what does not vary is a flag: {flag}")
    return values


def _value(name: str, word: str) -> Any:
    """A value in the type of its field."""
    kind: Any = TYPES[name]
    try:
        if kind is bool:
            return WORDS[word.lower()]
        value = kind(word)
        if kind is float and not math.isfinite(value):
            raise ValueError
        return value
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise SettingError(one_line(f"grid: {name}: found {word!r}, expected {expected}")) from None


def combinations(grid: Grid, base: Recipe, given: Collection[str], planned_rate: bool) -> list[Combination]:
    """Every combination of the values of a grid, in the order of the grid, with the recipe that it makes of the base.

    given: fields that the user gave and that stay as they are. planned_rate: where the grid has no learning rate, choose each
    combination's as `llamita plan` does; else the base's stands. Raises SettingError where a value is part of no combination
    that can be trained.
    """
    if twice := sorted(set(grid) & set(given)):
        raise SettingError(f"grid: {twice[0]}: found it as a flag too, expected one or the other")
    found = []
    for chosen in product(*grid.values()):
        values = dict(zip(grid, chosen, strict=True))
        try:
            found.append(Combination(values, recipe_of(values, base, given, planned_rate)))
        except LlamitaError as error:
            found.append(Combination(values, None, str(error)))
    for name, choices in grid.items():
        for value in choices:
            having = [combination for combination in found if combination.values[name] == value]
            if all(combination.recipe is None for combination in having):
                raise SettingError(f"grid: {name}={value} cannot be trained: {having[0].error}")
    return found


def recipe_of(values: Mapping[str, Any], base: Recipe, given: Collection[str], planned_rate: bool) -> Recipe:
    """The base with some fields changed, and what they bring along; raise LlamitaError where they do not fit each other.

    A width brings heads and MLP along as in a plan. The tokens of the whole training stay the same: where an update has more,
    there are fewer steps.
    """
    model, shape = base.model, {name: value for name, value in values.items() if name in MODEL_TYPES}
    if shape:
        model = reshaped(model, {name: getattr(model, name) for name in given if name in MODEL_TYPES} | shape)
    training = replace(base.training, **{name: value for name, value in values.items() if name not in MODEL_TYPES})
    if planned_rate and "learning_rate" not in values:
        training = replace(training, learning_rate=learning_rate_for(model.n_parameters, training.optimizer))
    before = base.training.sequences_per_update * base.model.context
    ratio = before / max(1, training.sequences_per_update * model.context)
    names = ("n_steps", "warmup_steps", "eval_every", "save_every")
    in_proportion = {name: max(1, round(getattr(training, name) * ratio)) for name in names if name not in values}
    if ratio != 1:
        training = replace(training, **in_proportion)
    return Recipe(model, training).validate()
