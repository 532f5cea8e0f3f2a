"""DPO against its formula written by hand over whole logits, and what it does to a model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")
from some_examples import SomeExamples  # pyright: ignore[reportMissingImports]

from llamita.train.network import build_network
from llamita.train.preferences import Preferences
from llamita.train.reference import make_reference, read_reference, write_reference
from llamita.train.rows import ExampleRows
from llamita.train.update import Updater
from llamita.train.world import World

ALONE = World(0, 1, torch.device("cpu"), "ddp")


@pytest.fixture
def tiny_recipe(tiny_recipe):
    return replace(tiny_recipe, model=replace(tiny_recipe.model, context=24))


@pytest.fixture
def rows(tiny_recipe) -> ExampleRows:
    examples: Any = SomeExamples(16, tiny_recipe.model.vocab_size)
    return ExampleRows(examples, 2, 24, 3, seed=1)


def by_hand(network, examples, index: int):
    """The sum of the logarithms of the probabilities of an example's answer, from its logits."""
    ids, counted = torch.from_numpy(examples.ids(index)), examples.counted(index)
    shares = torch.log_softmax(network.logits(ids[None, :-1])[0], -1)
    return sum(shares[t, ids[t + 1]] for t in range(len(ids) - 1) if counted[t + 1])


@pytest.fixture
def reference(rows, tiny_recipe) -> np.ndarray:
    network = build_network(tiny_recipe.model, seed=4)
    return make_reference(network, rows, 2, "float32", ALONE, lambda _: None)


def test_the_reference_is_how_likely_each_answer_was(rows, reference, tiny_recipe):
    network = build_network(tiny_recipe.model, seed=4)
    with torch.no_grad():
        expected = [float(by_hand(network, rows.examples, i)) for i in range(16)]
    assert reference.dtype == np.float32
    assert reference == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (2.0, 0.0), (0.5, 0.2)])
def test_loss_metrics_and_gradients_are_those_of_the_paper(rows, reference, tiny_recipe, beta, smoothing):
    network = build_network(tiny_recipe.model, seed=5)
    objective = Preferences(rows, reference, beta, smoothing)
    batch = objective.read(1, 0, 3)
    loss, accuracy, margin = objective.means(network, batch)
    slopes = torch.autograd.grad(loss, list(network.parameters()))

    pairs = np.concatenate(rows.rows(1))
    losses, margins = [], []
    for pair in pairs:
        chosen, rejected = (by_hand(network, rows.examples, i) - reference[i] for i in (2 * pair, 2 * pair + 1))
        margins.append(beta * (chosen - rejected))
        right, wrong = (1 / (1 + torch.exp(-sign * margins[-1])) for sign in (1, -1))
        losses.append(-(1 - smoothing) * torch.log(right) - smoothing * torch.log(wrong))
    expected = sum(losses) / len(losses)
    assert batch.weight == len(pairs)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert accuracy.item() == pytest.approx(np.mean([m.item() > 0 for m in margins]))
    assert margin.item() == pytest.approx(np.mean([m.item() for m in margins]), rel=1e-4, abs=1e-6)
    for found, wanted in zip(slopes, torch.autograd.grad(expected, list(network.parameters())), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_training_raises_margin_and_accuracy(rows, reference, tiny_recipe):
    config = replace(tiny_recipe.training, batch=3, accumulation=1, dropout=0.0, optimizer="adamw", n_steps=40)
    network = build_network(tiny_recipe.model, seed=4)
    updater = Updater(config, network, Preferences(rows, reference, 0.5, 0.0), ALONE)
    results = [updater.run(step) for step in range(40)]
    assert results[0].loss == pytest.approx(np.log(2), abs=1e-4)  # nothing has been learned yet
    assert abs(results[0].more["reward_margin"]) < 1e-4
    assert results[-1].loss < 0.5
    assert results[-1].more["reward_margin"] > 0.5
    assert results[-1].more["reward_accuracy"] > 0.8


def test_a_reference_comes_back_unless_it_is_anothers_or_damaged(reference, tmp_path):
    belongs_to = {"data": "d", "model": "m"}
    assert read_reference(tmp_path, belongs_to) is None
    write_reference({"train": reference}, tmp_path, belongs_to)
    found = read_reference(tmp_path, belongs_to)
    assert found is not None
    assert np.array_equal(found["train"], reference)
    assert read_reference(tmp_path, belongs_to | {"model": "other"}) is None
    content = (tmp_path / "reference.safetensors").read_bytes()
    (tmp_path / "reference.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert read_reference(tmp_path, belongs_to) is None
