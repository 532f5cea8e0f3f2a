"""Pretraining: the task of learning a text from nothing. Its network is fresh, its checkpoints are model folders.

A Dataset gives the tokens, a Recipe says how they are learned. Knows no step and no checkpoint; trainer.py has these.
"""

from pathlib import Path

from llamita.data.shards import Dataset
from llamita.formats import huggingface
from llamita.model import Model
from llamita.train.batches import Batches
from llamita.train.checkpoint import ModelFolder
from llamita.train.config import Recipe
from llamita.train.evaluate import Validation, evaluate
from llamita.train.network import Llama, build_network
from llamita.train.objective import NextToken
from llamita.train.weights import load_weights, model_of
from llamita.train.world import World


class Pretraining:
    """See task.py."""

    base = ""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.recipe, self.dataset, self.fingerprint = recipe, dataset, dataset.fingerprint
        self._masked_by = dataset.manifest.bos_id if recipe.training.document_mask else None

    def build(self) -> Llama:
        """A network with fresh weights."""
        return build_network(self.recipe.model, self.recipe.training.dropout, self.recipe.training.seed)

    def load(self, network: Llama, checkpoint: Path) -> None:
        """Take the weights of a model folder."""
        load_weights(network, huggingface.read(checkpoint))

    def objective(self) -> NextToken:
        """The next token of every place of the text. Raises SettingError where the text is too short."""
        training = self.recipe.training
        batches = Batches(self.dataset.train, self.recipe.model.context, training.sequences_per_update, training.seed)
        return NextToken(batches, self._masked_by)

    def measure(self, network: Llama, batch: int, world: World) -> Validation:
        """Measure on the validation text."""
        training = self.recipe.training
        return evaluate(network, self.dataset.validation, training.eval_tokens, batch, training.dtype, world, self._masked_by)

    def model(self, network: Llama, name: str) -> Model:
        """The network as it is."""
        return model_of(network, self.recipe.model, name)

    def contents(self, network: Llama, name: str) -> ModelFolder:
        """A model folder with the tokenizer of the data."""
        return ModelFolder(self.model(network, name), self.dataset.folder)
