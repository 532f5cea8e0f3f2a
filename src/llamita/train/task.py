"""Task: all that the trainer asks of a kind of training. pretraining.py has one, finetuning.py has those of fine-tuning.

A task knows what is trained on which data and what is left of it; the trainer knows steps, pauses and checkpoints, and neither
knows the other's part.
"""

from pathlib import Path
from typing import Protocol

from llamita.model import Model
from llamita.train.checkpoint import Contents
from llamita.train.config import Recipe
from llamita.train.evaluate import Validation
from llamita.train.network import Llama
from llamita.train.objective import Objective
from llamita.train.world import World


class Task(Protocol):
    """What is trained. fingerprint: of the data; base: of the model that training begins with, "" where that is none."""

    recipe: Recipe
    fingerprint: str
    base: str

    def build(self) -> Llama:
        """The network before the first step, on the CPU."""
        ...

    def load(self, network: Llama, checkpoint: Path) -> None:
        """Give a built network the weights that `contents` left in a checkpoint; raise LlamitaError where they do not fit."""
        ...

    def objective(self) -> Objective:
        """What it is trained for; raises LlamitaError where data and recipe do not fit each other."""
        ...

    def measure(self, network: Llama, batch: int, world: World) -> Validation | None:
        """Measure the network on what it is not trained on, batch rows at once; None where there is no such data.

        All ranks take part.
        """
        ...

    def model(self, network: Llama, name: str) -> Model:
        """The network as a model that can be run; all ranks have to ask."""
        ...

    def contents(self, network: Llama, name: str) -> Contents:
        """What a checkpoint keeps of the network; all ranks have to ask."""
        ...
