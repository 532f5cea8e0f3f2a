"""From one dial (a size, the hours, or the text that there is) to a whole Recipe, with the arithmetic shown line by line.

A pure function of its inputs: sizing.py chooses the model, hyperparameters.py its training, and this file adds what that costs
and what speaks against it. Measuring is measure.py's, asking is the command line's. Knows no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from llamita.train.arithmetic import (
    activation_bytes_per_token,
    flops_per_token,
    int8_file_bytes,
    memory_bytes,
    state_bytes,
    vocab_size_for,
)
from llamita.train.config import Recipe
from llamita.train.hyperparameters import choose_training
from llamita.train.ledger import Ledger, PlanLine, amount, readable
from llamita.train.machine import Machine
from llamita.train.published import PUBLISHED
from llamita.train.sizing import DataFacts, Dial, choose_model, choose_tokens

GOOD_EPOCHS = 4  # as good as new text (arXiv:2305.16264)
FEW_TOKENS_PER_PARAMETER = 5
LONG_HOURS = 72.0


@dataclass(frozen=True)
class Plan:
    """A recipe, how it came about, what speaks against it, and how long it takes by the machine's speed."""

    recipe: Recipe
    lines: list[PlanLine]
    warnings: list[str]
    tokens_per_second: float
    hours: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recipe": self.recipe.to_dict(),
            "parameters": self.recipe.model.n_parameters,
            "tokens_per_second": self.tokens_per_second,
            "hours": self.hours,
            "memory_bytes": memory_bytes(self.recipe.model, self.recipe.training),
            "lines": [asdict(line) for line in self.lines],
            "warnings": self.warnings,
        }

    def with_learning_rate(self, rate: float, how: str) -> "Plan":
        """The plan with another highest learning rate, and where that comes from."""
        recipe = Recipe(self.recipe.model, replace(self.recipe.training, learning_rate=rate)).validate()
        line = PlanLine("learning rate", how, readable(rate))
        others = [line for line in self.lines if line.what != "learning rate"]
        return replace(self, recipe=recipe, lines=[*others, line])


def plan(dial: Dial, data: DataFacts | None, machine: Machine, overrides: Mapping[str, Any]) -> Plan:
    """Choose everything that the dial leaves open; fields of ModelConfig and TrainConfig in overrides are taken as they are.

    Raises SettingError or ModelError, one line, where the user's numbers are out of range or do not fit each other.
    """
    ledger, dial = Ledger(overrides), dial.validate().settled()
    model = choose_model(dial, data, machine, ledger)
    n_tokens = choose_tokens(dial, model, data, machine, ledger)
    epochs = n_tokens / data.n_tokens if data else 0.0
    training = choose_training(model, n_tokens, epochs, machine, PUBLISHED.get(dial.preset or ""), ledger)
    recipe = Recipe(model, training).validate()
    n_tokens = training.n_steps * training.sequences_per_update * model.context
    rate = machine.flops_per_second * machine.n_devices / flops_per_token(model)
    hours = n_tokens / rate / 3600
    _add_costs(recipe, n_tokens, rate, machine, ledger)
    _warn(recipe, n_tokens, hours, data, machine, ledger)
    return Plan(recipe, ledger.lines, ledger.warnings, rate, hours)


def _add_costs(recipe: Recipe, n_tokens: int, rate: float, machine: Machine, ledger: Ledger) -> None:
    """Operations, time, memory and files."""
    model, training = recipe.model, recipe.training
    ledger.add("operations per token", "6 N + 12 L H K T", amount(flops_per_token(model), "FLOP"))
    ledger.add("operations", "x tokens", amount(flops_per_token(model) * n_tokens, "FLOP"))
    how = "measured" if machine.is_measured else "assumed, not measured"
    ledger.add("speed", f"{how}: {amount(machine.flops_per_second * machine.n_devices, 'FLOP/s')}", f"{rate:,.0f} tokens/s")
    ledger.add("time", "tokens / speed", _hours(n_tokens / rate / 3600))
    state = state_bytes(model, training)
    ledger.add("weights, gradients", "4 N each", amount(state["weights"] + state["gradients"], "B"))
    ledger.add("optimizer", f"moments of {training.optimizer}", amount(state["moments"], "B"))
    if state["copies"]:
        ledger.add("16-bit copies", "2 N", amount(state["copies"], "B"))
    per_token = activation_bytes_per_token(model, training)
    activations = per_token * training.batch * model.context
    ledger.add("activations", f"{amount(per_token, 'B')} a token x batch x context", amount(activations, "B"))
    ledger.add("memory", "together", amount(memory_bytes(model, training), "B"))
    ledger.add("file, f32", "4 N", amount(4 * model.n_parameters, "B"))
    ledger.add("file, int8", "N, and a scale per 64", amount(int8_file_bytes(model), "B"))


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.2g} min" if hours * 60 >= 1 else f"{hours * 3600:.2g} s"
    return f"{hours:.3g} h" if hours < 48 else f"{hours / 24:,.3g} days"


def _warn(recipe: Recipe, n_tokens: int, hours: float, data: DataFacts | None, machine: Machine, ledger: Ledger) -> None:
    """Say what the user may not expect."""
    model, n_parameters = recipe.model, recipe.model.n_parameters
    if data is not None:
        _warn_of_the_text(n_parameters, n_tokens, data, ledger)
    if n_tokens < FEW_TOKENS_PER_PARAMETER * n_parameters:
        ledger.warn(
            f"the model sees only {n_tokens / n_parameters:.1f} tokens a parameter; a smaller one would learn more in this time"
        )
    needed = memory_bytes(model, recipe.training)
    if machine.memory_bytes is not None and needed > machine.memory_bytes:
        free = amount(machine.memory_bytes, "B")
        ledger.warn(f"it needs about {amount(needed, 'B')} of memory, but {free} are free: take a smaller model or batch")
    if hours > LONG_HOURS:
        ledger.warn(f"it will take {_hours(hours)} here; --hours makes a plan for the time that you have")
    embedding = model.vocab_size * model.width
    if 2 * embedding > n_parameters and model.vocab_size > 2 * vocab_size_for(n_parameters - embedding):
        suiting = vocab_size_for(n_parameters)
        ledger.warn(f"the embedding is {embedding / n_parameters:.0%} of the model: a vocabulary of {suiting:,} would suit it")


def _warn_of_the_text(n_parameters: int, n_tokens: int, data: DataFacts, ledger: Ledger) -> None:
    epochs = n_tokens / data.n_tokens
    ledger.add("epochs", f"tokens / {data.n_tokens:,} of the text", f"{epochs:.1f}")
    if epochs > GOOD_EPOCHS:
        ledger.warn(
            f"the text is read {epochs:,.0f} times; after about {GOOD_EPOCHS} it is learned by heart more and more: "
            "watch the validation loss, or add text"
        )
    if n_parameters > 2 * data.n_tokens:
        ledger.warn(
            f"the model has more parameters ({n_parameters:,}) than the text has tokens ({data.n_tokens:,}): "
            "it can learn it by heart"
        )
