"""How a trained model learns from chats: every number of a Recipe, by the size of the model and of the data, with its reason.

The counterpart of plan.py for fine-tuning. A pure function of its inputs; knows no torch and no file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.model import tensor_shapes
from llamita.train.arithmetic import activation_bytes_per_token, flops_per_token, sequences_of_rank, state_bytes
from llamita.train.config import FinetuneConfig, Recipe, TrainConfig
from llamita.train.hyperparameters import MOST_SECONDS_UNSAVED, learning_rate_for, with_batch, with_given, with_numbers
from llamita.train.ledger import Ledger, PlanLine, amount
from llamita.train.machine import Machine
from llamita.train.packing import Packing

LARGEST_WHOLE = 50_000_000  # parameters of a model whose weights are all trained, where nobody says otherwise
SHARE_OF_PRETRAINING = 0.25  # of its learning rate: what is known shall not be forgotten
LARGEST_SMALL, SHARE_OF_SMALL = 10_000_000, 0.8  # a model that has yet to learn to read a question (docs/finetuning.md)
LORA_FACTOR = 5.0  # times the rate of all weights (about 10 in Thinking Machines' "LoRA Without Regret", 2025)
HIGHEST_OF_LORA = 2e-3
SHARE_OF_PREFERENCES = 0.05  # of the rate of answers
FEWEST_UNITS, MOST_UNITS = 8, 64  # chats, or pairs, behind an update
UPDATES_AN_EPOCH = 32  # that an epoch has at least, as far as it has chats for them
UNITS_A_ROW = 4  # of average length, so that little of a row stays empty
LONGEST_USUAL_ROW = 2048
ROW_MULTIPLE = 32
DEFAULT_EPOCHS = 3.0
# of TrainConfig: weights stay near where they were by few steps and low rates, gradients vary more from chat to chat
UNLIKE_PRETRAINING: dict[str, Any] = {"weight_decay": 0.0, "beta2": 0.999, "document_mask": True}
MEASUREMENTS = 10  # in a run at most
MOST_EVAL_TOKENS = 1 << 16
EVAL_COST = 0.15  # of the time of training at most; a token that is measured costs a third of one that is learned


@dataclass(frozen=True)
class ChatFacts:
    """What a plan has to know of the chats. lengths: places that a unit to learn from takes in a row, int64 (units,)."""

    lengths: np.ndarray
    n_validation_tokens: int
    objective: str

    @property
    def unit(self) -> str:
        """What a unit is called."""
        return "pair" if self.objective == "preferences" else "chat"


@dataclass(frozen=True)
class FinetunePlan:
    """A recipe, how it came about, what speaks against it; memory it takes, and how long by the machine's assumed speed."""

    recipe: Recipe
    lines: list[PlanLine]
    warnings: list[str]
    n_trained: int  # parameters
    memory_bytes: int
    minutes: float


def plan_finetuning(
    model: ModelConfig, n_new: int, chats: ChatFacts, epochs: float, machine: Machine, overrides: Mapping[str, Any]
) -> FinetunePlan:
    """Choose everything that the user left open; fields of TrainConfig and FinetuneConfig in overrides are taken as they are.

    n_new: rows that LoRA trains whole. Raises SettingError, one line, where a number is out of range or does not fit, or the
    machine's devices cannot share the sequences of an update.
    """
    ledger = Ledger(overrides)
    if not 0 < epochs < 10_000:
        raise SettingError(f"epochs: found {epochs:g}, expected a positive number")
    finetuning = _choose_method(model, chats, ledger)
    n_trained = n_trained_parameters(model, finetuning, n_new)
    training = _choose_training(model, n_trained, finetuning, chats, epochs, machine, ledger)
    recipe = Recipe(model, training, finetuning).validate()
    sequences_of_rank(training, machine.n_devices)
    memory = memory_of(recipe, n_trained)
    ledger.add("parameters trained", f"of {model.n_parameters:,}", n_trained)
    ledger.add("memory", "weights, gradients, moments and activations", amount(memory, "B"))
    seconds = training.n_steps * _seconds_of_update(recipe, machine)
    if machine.memory_bytes is not None and memory > machine.memory_bytes:
        free, needed = amount(machine.memory_bytes, "B"), amount(memory, "B")
        smaller = "--lora-rank 16" if not finetuning.lora_rank else "a smaller --row-tokens or a smaller model"
        ledger.warn(f"it needs about {needed} of memory, but {free} are free: take {smaller}")
    return FinetunePlan(recipe, ledger.lines, ledger.warnings, n_trained, memory, seconds / 60)


def n_trained_parameters(model: ModelConfig, finetuning: FinetuneConfig, n_new: int) -> int:
    """Parameters that are trained: all, or A, B and the rows of new tokens."""
    if not finetuning.lora_rank:
        return model.n_parameters
    shapes = {name: shape for name, shape in tensor_shapes(model).items() if name.split(".", 2)[-1] in finetuning.lora_targets}
    rows = n_new * model.width * (1 if model.tied_embedding else 2)
    return rows + sum(finetuning.lora_rank * sum(shape) for shape in shapes.values())


def held_bytes(model: ModelConfig, training: TrainConfig, finetuning: FinetuneConfig, n_trained: int) -> int:
    """Bytes that training holds whatever the batch. Of frozen weights only themselves; 16 bits each with bfloat16."""
    if not finetuning.lora_rank:
        return sum(state_bytes(model, training).values())
    frozen = (2 if training.dtype == "bfloat16" else 4 if training.dtype == "float32" else 6) * model.n_parameters
    return frozen + 16 * n_trained  # float32 weight, gradient and two moments


def memory_of(recipe: Recipe, n_trained: int) -> int:
    """All that training holds at once on one device."""
    training, finetuning = recipe.training, recipe.finetuning
    assert finetuning is not None
    activations = activation_bytes_per_token(recipe.model, training) * training.batch * finetuning.row_tokens
    return held_bytes(recipe.model, training, finetuning, n_trained) + activations


def flops_of_token(recipe: Recipe) -> float:
    """Operations to learn from one token; with LoRA the frozen matrices have no gradient, a third of all."""
    assert recipe.finetuning is not None
    flops = flops_per_token(replace(recipe.model, context=recipe.finetuning.row_tokens))
    return flops * 2 / 3 if recipe.finetuning.lora_rank else flops


def is_like_pretraining(n_parameters: int, finetuning: FinetuneConfig) -> bool:
    """Whether a model is so small that a form of answers is learned as text was: with muon, at nearly that rate."""
    return n_parameters <= LARGEST_SMALL and not finetuning.lora_rank and finetuning.objective == "answers"


def share_of(n_parameters: int, finetuning: FinetuneConfig) -> float:
    """The share of pre-training's learning rate."""
    return SHARE_OF_SMALL if is_like_pretraining(n_parameters, finetuning) else SHARE_OF_PRETRAINING


def learning_rate_of(n_parameters: int, finetuning: FinetuneConfig, optimizer: str) -> float:
    """The highest learning rate by size, method and objective."""
    rate = learning_rate_for(n_parameters, optimizer) * share_of(n_parameters, finetuning)
    if finetuning.lora_rank:
        rate = min(rate * LORA_FACTOR, HIGHEST_OF_LORA)
    if finetuning.objective == "preferences":
        rate *= SHARE_OF_PREFERENCES
    return float(f"{rate:.2g}")


def _choose_method(model: ModelConfig, chats: ChatFacts, ledger: Ledger) -> FinetuneConfig:
    """What is trained, and how long a row is."""
    is_small = model.n_parameters <= LARGEST_WHOLE
    how = f"{'up to' if is_small else 'above'} {LARGEST_WHOLE:,} parameters; 0 is all weights, without LoRA"
    rank = ledger.choose("lora_rank", 0 if is_small else FinetuneConfig.lora_rank, how)
    given = {field.name: ledger.overrides[field.name] for field in fields(FinetuneConfig) if field.name in ledger.overrides}
    longest, mean = int(chats.lengths.max()), float(chats.lengths.mean())
    wanted = max(longest, min(UNITS_A_ROW * mean, LONGEST_USUAL_ROW))
    row_tokens = math.ceil(wanted / ROW_MULTIPLE) * ROW_MULTIPLE
    how = f"the longest {chats.unit} has {longest:,}, an average one {mean:,.0f}"
    row_tokens = ledger.choose("row_tokens", row_tokens, how)
    if row_tokens < longest:
        raise SettingError(f"row_tokens: found {row_tokens}, expected at least the {longest} of the longest {chats.unit}")
    alpha = given.get("lora_alpha", 2.0 * max(rank, 1))
    settled = {"objective": chats.objective, "row_tokens": row_tokens, "lora_rank": rank, "lora_alpha": alpha}
    return FinetuneConfig(**(given | settled)).validate()


def _choose_training(
    model: ModelConfig, n_trained: int, finetuning: FinetuneConfig, chats: ChatFacts, epochs: float, machine: Machine,
    ledger: Ledger,
) -> TrainConfig:  # fmt: skip
    """How it is trained."""
    of_rows = replace(model, context=finetuning.row_tokens)  # what the rules of pre-training call a sequence
    is_small = is_like_pretraining(model.n_parameters, finetuning)
    how = f"muon where all weights of up to {LARGEST_SMALL:,} parameters learn answers"
    optimizer = ledger.choose("optimizer", "muon" if is_small else "adamw", how)
    rate = _choose_rate(model, finetuning, optimizer, ledger)
    draft = TrainConfig(1, 1, 1, rate, 1, "cosine", optimizer=optimizer, **UNLIKE_PRETRAINING)
    draft = with_given(draft, ledger)
    draft = with_numbers(draft, of_rows, int(epochs * chats.lengths.sum()), machine, ledger)
    n_units = len(chats.lengths)
    units = 2 ** round(math.log2(min(max(n_units / UPDATES_AN_EPOCH, FEWEST_UNITS), MOST_UNITS)))
    n_rows = Packing(chats.lengths, finetuning.row_tokens, draft.seed).n_rows(1)
    rows = max(1, round(units * n_rows / n_units))
    rows = -(-rows // machine.n_devices) * machine.n_devices
    held = held_bytes(model, draft, finetuning, n_trained)
    draft = with_batch(draft, of_rows, rows, f"about {units} {chats.unit}s", machine, ledger, held)
    an_epoch = n_rows / draft.sequences_per_update
    n_steps = ledger.choose("n_steps", max(1, round(epochs * an_epoch)), f"{epochs:g} epochs of {an_epoch:,.1f} updates")
    warmup = ledger.choose("warmup_steps", max(1, n_steps // 20), "1/20 of the steps")
    draft = replace(draft, n_steps=n_steps, warmup_steps=warmup)
    return with_given(_with_pauses(Recipe(model, draft, finetuning), chats, machine, ledger), ledger).validate()


def _choose_rate(model: ModelConfig, finetuning: FinetuneConfig, optimizer: str, ledger: Ledger) -> float:
    how = f"{share_of(model.n_parameters, finetuning):g} of pre-training's by the size"
    if finetuning.lora_rank:
        how += f", times {LORA_FACTOR:g} for LoRA, {HIGHEST_OF_LORA:g} at most"
    if finetuning.objective == "preferences":
        how += f", times {SHARE_OF_PREFERENCES:g} for preferences"
    return ledger.choose("learning_rate", learning_rate_of(model.n_parameters, finetuning, optimizer), how)


def _with_pauses(recipe: Recipe, chats: ChatFacts, machine: Machine, ledger: Ledger) -> TrainConfig:
    """How often the run measures itself, tells a sample and saves."""
    draft, finetuning = recipe.training, recipe.finetuning
    assert finetuning is not None
    n_tokens = min(MOST_EVAL_TOKENS, max(chats.n_validation_tokens, finetuning.row_tokens))
    n_tokens = ledger.choose("eval_tokens", n_tokens, f"all that were kept, {MOST_EVAL_TOKENS:,} at most")
    affordable = math.ceil(n_tokens / 3 / EVAL_COST / (draft.sequences_per_update * finetuning.row_tokens))
    every = min(draft.n_steps, max(1, draft.n_steps // MEASUREMENTS, affordable))
    every = max(1, min(every, int(MOST_SECONDS_UNSAVED / _seconds_of_update(recipe, machine))))
    how = f"{MEASUREMENTS} times in a run at most, {EVAL_COST:.0%} of its time, every {MOST_SECONDS_UNSAVED / 60:.0f} minutes"
    every = ledger.choose("eval_every", every, how)  # a given one brings the others along: each save measures too
    return replace(
        draft,
        eval_tokens=n_tokens,
        eval_every=every,
        save_every=ledger.choose("save_every", every, "with each measurement"),
        sample_every=ledger.choose("sample_every", 2 * every, "with every other measurement"),
    )


def _seconds_of_update(recipe: Recipe, machine: Machine) -> float:
    assert recipe.finetuning is not None
    n_tokens = recipe.training.sequences_per_update * recipe.finetuning.row_tokens
    return n_tokens * flops_of_token(recipe) / machine.flops_per_second / machine.n_devices
