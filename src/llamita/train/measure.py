"""How fast this machine trains a recipe, and how large a batch it bears: a few real updates on made-up tokens.

plan.py reckons with an assumed speed; plan_and_measure() replaces it by what was measured and plans again.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from llamita.train.arithmetic import flops_per_token
from llamita.train.batches import Batches
from llamita.train.config import Recipe
from llamita.train.machine import Machine
from llamita.train.network import build_network
from llamita.train.objective import NextToken
from llamita.train.plan import DataFacts, Dial, Plan, plan
from llamita.train.update import Updater
from llamita.train.world import World

N_UPDATES = 3
ROUNDS = 3  # of planning and measuring, until the size stays
Note = Callable[[str], None]


@dataclass(frozen=True)
class Measurement:
    """What a recipe does on this machine. batch: sequences of one pass; compiled: False where torch.compile failed."""

    batch: int
    tokens_per_second: float  # of one device, with the recipe's accumulation
    compiled: bool


class MadeUpTokens:
    """Tokens from nowhere, in place of a data.shards.TokenStream: as many as are asked for, different ones in every window."""

    n_tokens = 1 << 40

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """int64 (B, length) ids that follow from the starts alone."""
        return (starts[:, None] * 7919 + np.arange(length) ** 2) % self._vocab_size


def measure(recipe: Recipe, device: torch.device, note: Note) -> Measurement:
    """Time a few updates with the recipe's batch, or the largest half of it that fits the memory of a GPU."""
    batch = recipe.training.batch
    while True:
        try:
            return _measure_batch(recipe, batch, device, note)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            note(f"a batch of {batch} does not fit the memory of {device}")
            batch //= 2
        finally:
            torch.cuda.empty_cache()  # what was measured is gone by now; the run itself may need the room


def _measure_batch(recipe: Recipe, batch: int, device: torch.device, note: Note) -> Measurement:
    config, training = recipe.model, replace(recipe.training, batch=batch, accumulation=1)
    network = build_network(config, training.dropout, training.seed)
    batches = Batches(MadeUpTokens(config.vocab_size), config.context, batch, 0)  # pyright: ignore[reportArgumentType]
    updater = Updater(training, network, NextToken(batches), World(0, 1, device, "ddp"))
    compiled = updater.make_ready(note)
    updater.run(0)
    seconds_of_one = median(_timed(lambda: updater.run(0), device) for _ in range(N_UPDATES))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer_seconds = median(_timed(lambda: updater.optimizers.step(0.0), device) for _ in range(N_UPDATES))
    passes = max(1, recipe.training.sequences_per_update // batch)
    seconds = passes * max(seconds_of_one - optimizer_seconds, seconds_of_one / 10) + optimizer_seconds
    return Measurement(batch, passes * batch * config.context / seconds, compiled)


def _timed(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds of an action, with all that it started on the device."""
    started = time.perf_counter()
    action()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def plan_and_measure(
    dial: Dial, data: DataFacts | None, machine: Machine, overrides: Mapping[str, Any], device: torch.device, note: Note
) -> Plan:
    """Plan with the speed that this machine really has, and with a batch that really fits; the same arguments as plan()."""
    overrides, measured = dict(overrides), None
    for _ in range(ROUNDS):
        draft = plan(dial, data, machine, overrides)
        if draft.recipe.model == measured:
            return draft
        note(f"measuring {draft.recipe.model.n_parameters:,} parameters on {machine.name}")
        found, measured = measure(draft.recipe, device, note), draft.recipe.model
        if found.batch < draft.recipe.training.batch:
            overrides["batch"] = found.batch
        if not found.compiled:
            machine = replace(machine, can_compile=False)
        speed = found.tokens_per_second * flops_per_token(measured)
        machine = replace(machine, flops_per_second=speed, is_measured=True)
    return plan(dial, data, machine, overrides)
