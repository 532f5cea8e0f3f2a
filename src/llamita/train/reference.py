"""The reference of DPO: how likely each answer was to the model before training. Made once and kept in the run's folder.

    OUT/reference.safetensors, reference.json   logarithms of probabilities of both sides; what they belong to, a checksum

It depends on the model and the chats alone: a run that goes on reads what it began with, and makes it again where it is lost.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from llamita.files import atomic_file, sha256_of
from llamita.formats.safetensors import read_arrays, write_tensors
from llamita.train.evaluate import summed
from llamita.train.network import Llama
from llamita.train.objective import Batch
from llamita.train.preferences import answer_log_probabilities
from llamita.train.rows import ExampleRows
from llamita.train.world import World

ARRAYS_FILE, FACTS_FILE = "reference.safetensors", "reference.json"
Reference = dict[str, np.ndarray]  # name of a side -> float32 (examples,)


def read_reference(folder: Path, belongs_to: dict[str, str]) -> Reference | None:
    """Read what write_reference has written for the same model and chats; None where that is missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        if facts["belongs_to"] == belongs_to and facts["sha256"] == sha256_of(folder / ARRAYS_FILE):
            return read_arrays(folder / ARRAYS_FILE)
    return None


def write_reference(reference: Reference, folder: Path, belongs_to: dict[str, str]) -> None:
    """Write the numbers, then what they belong to. Raises ModelFileError."""
    write_tensors(folder / ARRAYS_FILE, reference)
    facts = {"belongs_to": belongs_to, "sha256": sha256_of(folder / ARRAYS_FILE)}
    with atomic_file(folder / FACTS_FILE) as file:
        file.write(json.dumps(facts, indent=1).encode() + b"\n")


def make_reference(
    network: Llama, rows: ExampleRows, batch: int, dtype: str, world: World, advance: Callable[[int], None]
) -> np.ndarray:
    """The logarithm of the probability of every example's answer: float32 (examples,). All ranks take part.

    advance is told of each row that is done on this rank.
    """

    def found(part: list[np.ndarray]) -> list[torch.Tensor]:
        filled = rows.filled(part)
        ids, targets, starts, numbers = (
            torch.from_numpy(array).to(world.device) for array in (filled.ids, filled.targets, filled.starts, filled.numbers)
        )
        examples = rows.members(np.concatenate(part))
        here = answer_log_probabilities(network, Batch(1, ids, targets, starts), numbers, len(examples))
        everywhere = torch.zeros(rows.examples.n_examples, device=world.device)
        everywhere[torch.tensor(examples, device=world.device)] = here
        advance(len(part))
        return [everywhere]

    (values,) = summed(network, found, rows.epoch(), batch, dtype, world)
    return np.array(values, np.float32)
