"""Finetuning: the task of learning from chats what a trained model shall answer. All its weights learn, or LoRA beside them.

ChatData gives the examples, a Base the model, a Recipe says how. Checkpoints are model folders, or folders of an adapter in
PEFT's format. Knows no step; trainer.py has these.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from llamita.data.examples import ChatData, Examples
from llamita.files import atomic_file, read_file
from llamita.formats import huggingface
from llamita.formats.adapter import Adapter, read_adapter
from llamita.formats.adapter_writer import write_adapter
from llamita.formats.file_names import GENERATION_NAME
from llamita.formats.huggingface_config import generation_values
from llamita.formats.merged_model import merged
from llamita.formats.tokenizer_files import HUGGINGFACE_NAMES, LIMIT_BYTES
from llamita.model import Model
from llamita.train.answers import Answers
from llamita.train.base import Base
from llamita.train.checkpoint import Contents, ModelFolder
from llamita.train.config import FinetuneConfig, Recipe
from llamita.train.evaluate import Validation, summed
from llamita.train.lora import adapter_of, add_lora, add_rows, freeze, load_adapter
from llamita.train.network import Llama
from llamita.train.preferences import PER_PAIR, Preferences
from llamita.train.reference import Reference
from llamita.train.rows import ExampleRows
from llamita.train.weights import load_weights, model_of
from llamita.train.world import World


class Finetuning:
    """See task.py."""

    def __init__(self, recipe: Recipe, data: ChatData, base: Base, reference: Reference | None = None) -> None:
        """reference: of the examples of each side, where preferences are learned."""
        assert recipe.finetuning is not None
        self.recipe, self.data, self._base, self._reference = recipe, data, base, reference
        self.config: FinetuneConfig = recipe.finetuning
        self.fingerprint, self.base = data.fingerprint, base.sha256

    def build(self) -> Llama:
        """The network as it was trained, and beside it what LoRA trains."""
        training, base = self.recipe.training, self._base
        config = base.model.config if self.config.lora_rank else base.begun.config
        network = Llama(config, training.dropout, max(config.context, self.config.row_tokens))
        if not self.config.lora_rank:
            load_weights(network, base.begun)
            return network
        freeze(network, torch.bfloat16 if training.dtype == "bfloat16" else torch.float32)
        load_weights(network, base.model)
        add_lora(network, self.config, training.seed)
        if base.n_new:
            add_rows(network, base.n_known, base.new_rows())
        return network

    def load(self, network: Llama, checkpoint: Path) -> None:
        """Take the weights of a model folder, or those of an adapter."""
        if self.config.lora_rank:
            load_adapter(network, read_adapter(checkpoint, self._base.model.config))
        else:
            load_weights(network, huggingface.read(checkpoint))

    def objective(self) -> Answers | Preferences:
        """The answers, or which of two is preferred. Raises SettingError where a chat is longer than a row."""
        return self._objective("train")

    def _objective(self, side: str) -> Answers | Preferences:
        rows = rows_of(self.recipe, getattr(self.data, side))
        if self.config.objective == "answers":
            return Answers(rows)
        assert self._reference is not None, "preferences need a reference"
        return Preferences(rows, self._reference[side], self.config.beta, self.config.label_smoothing)

    def measure(self, network: Llama, batch: int, world: World) -> Validation:
        """Measure on the chats that were kept."""
        training, side = self.recipe.training, self.data.validation
        objective = self._objective("validation")
        rows = objective.rows.epoch(training.eval_tokens)

        def weighted(part: list) -> list[torch.Tensor]:
            found = objective.batch(part).to(world.device)
            return [mean * found.weight for mean in objective.means(network, found)]

        sums = summed(network, weighted, rows, batch, training.dtype, world)
        weight = objective.batch(rows).weight
        loss, *more = (value / weight for value in sums)
        told = dict(zip(objective.more, more, strict=True))
        return Validation(loss, math.nan if more else loss / math.log(2) * side.n_counted / side.n_bytes, told)

    def model(self, network: Llama, name: str) -> Model:
        """The network as a model; with LoRA the frozen one, with what was trained beside it added."""
        if self.config.lora_rank:
            return self._base.with_chat(replace(merged(self._base.model, self._adapter(network)), name=name))
        return self._base.with_chat(model_of(network, self.recipe.model, name))

    def contents(self, network: Llama, name: str) -> Contents:
        """A model folder, or an adapter with all that a chat needs besides."""
        if self.config.lora_rank:
            return AdapterFolder(self._adapter(network), self._base, self.data.folder)
        return ModelFolder(self.model(network, name), self.data.folder)

    def _adapter(self, network: Llama) -> Adapter:
        return adapter_of(network, self.config, self._base.name)


@dataclass(frozen=True)
class AdapterFolder:
    """What LoRA has trained, and the tokenizer and chat template where these are not the base's own."""

    adapter: Adapter
    base: Base
    tokenizer_folder: Path

    @property
    def n_bytes(self) -> int:
        """Bytes of the numbers."""
        return 4 * self.adapter.n_parameters

    def write(self, folder: Path) -> None:
        """Write it in PEFT's format."""
        write_adapter(self.adapter, folder, self.base.model.config)
        if not self.base.chats_differently:
            return
        files = [self.tokenizer_folder / name for name in HUGGINGFACE_NAMES]
        contents = {path.name: read_file(path, LIMIT_BYTES) for path in files if path.exists()}
        values = generation_values(self.base.tokenizer, self.base.stop_ids)
        contents[GENERATION_NAME] = json.dumps(values, indent=2).encode() + b"\n"
        for name, content in contents.items():
            with atomic_file(folder / name) as file:
                file.write(content)


def rows_of(recipe: Recipe, examples: Examples) -> ExampleRows:
    """The rows of a run out of examples of one side. Raises SettingError where a chat is longer than a row."""
    training, finetuning = recipe.training, recipe.finetuning
    assert finetuning is not None
    per_unit = PER_PAIR if finetuning.objective == "preferences" else 1
    return ExampleRows(examples, per_unit, finetuning.row_tokens, training.sequences_per_update, training.seed)
