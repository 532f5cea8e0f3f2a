"""Rows of packed examples: what stands where, and that a network reads each example as if it stood alone."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")
import torch.nn.functional as F
from some_examples import SomeExamples  # pyright: ignore[reportMissingImports]

from llamita.errors import SettingError
from llamita.train.answers import Answers
from llamita.train.network import Llama, build_network
from llamita.train.rows import ExampleRows


@pytest.fixture
def examples(tiny_recipe) -> Any:
    return SomeExamples(30, tiny_recipe.model.vocab_size)


def test_every_token_to_be_learned_is_a_target_once_an_epoch(examples):
    rows = ExampleRows(examples, 1, 24, 4, seed=1)
    filled = rows.filled(rows.epoch())
    assert filled.n_counted == examples.n_counted == (filled.targets >= 0).sum()
    expected = np.concatenate([examples.ids(i)[examples.counted(i)] for i in range(30)])
    assert sorted(filled.targets[filled.targets >= 0]) == sorted(expected)
    assert rows.n_tokens(rows.epoch()) == examples.n_tokens - 30


def test_a_row_holds_whole_examples_and_padding_sees_itself_alone(examples):
    rows = ExampleRows(examples, 1, 24, 4, seed=1)
    units = rows.rows(0)
    filled = rows.filled(units)
    number = 0
    for i, row in enumerate(units):
        begin = 0
        for example in row:
            ids, counted = examples.ids(example), examples.counted(example)
            end = begin + len(ids) - 1
            assert np.array_equal(filled.ids[i, begin:end], ids[:-1])
            assert np.array_equal(filled.targets[i, begin:end], np.where(counted[1:], ids[1:], -1))
            assert (filled.starts[i, begin:end] == begin).all()
            assert (filled.numbers[i, begin:end] == number).all()
            begin, number = end, number + 1
        assert (filled.targets[i, begin:] == -1).all()
        assert np.array_equal(filled.starts[i, begin:], np.arange(begin, 24))


def test_packed_examples_are_learned_as_if_each_stood_alone(examples, tiny_recipe):
    source = build_network(tiny_recipe.model, seed=2)
    network = Llama(tiny_recipe.model, n_positions=48)  # longer than the context, which no example is
    network.load_state_dict({name: tensor * 6 for name, tensor in source.state_dict().items()})
    objective = Answers(ExampleRows(examples, 1, 48, 30, seed=1))
    batch = objective.batch(objective.rows.epoch())
    (packed,) = objective.means(network, batch)
    slopes = torch.autograd.grad(packed, list(network.parameters()))

    total = torch.zeros(())
    for i in range(examples.n_examples):
        ids, counted = torch.from_numpy(examples.ids(i)), torch.from_numpy(examples.counted(i))
        targets = torch.where(counted[1:], ids[1:], -1)
        total = total + F.cross_entropy(network.logits(ids[None, :-1])[0], targets, ignore_index=-1, reduction="sum")
    alone = total / examples.n_counted
    assert batch.weight == examples.n_counted
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=0)
    for found, expected in zip(slopes, torch.autograd.grad(alone, list(network.parameters())), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_shares_of_an_update_are_the_whole(examples):
    objective = Answers(ExampleRows(examples, 1, 24, 4, seed=1))
    for step in (0, 3, 50):
        whole, parts = objective.read(step, 0, 4), [objective.read(step, i, i + 1) for i in range(4)]
        assert torch.equal(whole.ids, torch.cat([part.ids for part in parts]))
        assert objective.weight(step) == whole.weight == sum(part.weight for part in parts)
        assert 0 < objective.n_tokens(step) <= 4 * 24


def test_pairs_stay_together(examples):
    rows = ExampleRows(examples, 2, 30, 4, seed=1)
    held = [rows.members(row) for row in rows.epoch()]
    assert sorted(i for row in held for i in row) == list(range(30))
    assert all(row[place + 1] == row[place] + 1 for row in held for place in range(0, len(row), 2))


def test_an_example_longer_than_a_row_is_refused(examples):
    with pytest.raises(SettingError, match=r"row_tokens: found 5, expected at least the 11 of the longest chat"):
        ExampleRows(examples, 1, 5, 4, seed=1)
