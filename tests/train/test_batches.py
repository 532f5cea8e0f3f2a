"""The order of samples: a permutation an epoch, a pure function of seed and step, the same for any share of the ranks."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.errors import SettingError
from llamita.train.batches import Batches, shuffled


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 100, 1000, 4097])
def test_shuffled_is_a_permutation(n):
    keys = np.arange(6, dtype=np.uint64) + np.uint64(n)
    assert sorted(shuffled(np.arange(n), n, keys)) == list(range(n))


def test_keys_decide_the_permutation():
    n = np.arange(1000)
    one, other = (shuffled(n, 1000, np.full(6, key, np.uint64)) for key in (1, 2))
    assert (one != other).mean() > 0.98
    assert abs(np.corrcoef(n, one)[0, 1]) < 0.1


def test_an_epoch_visits_every_window_once_and_the_next_begins_elsewhere(tokens):
    batches = Batches(tokens, context=10, sequences_per_update=5, seed=1)
    per_epoch = batches.windows_per_epoch // 5
    epochs = [np.concatenate([batches.starts(step) for step in range(e * per_epoch, (e + 1) * per_epoch)]) for e in range(3)]
    for starts in epochs:
        assert len(set(starts)) == tokens.n_tokens // 10
        assert len(set(starts % 10)) == 1
    assert len({starts[0] % 10 for starts in epochs}) > 1
    assert not np.array_equal(epochs[0], epochs[1])


def test_an_update_may_reach_over_the_end_of_an_epoch(tokens):
    batches = Batches(tokens, context=999, sequences_per_update=7, seed=1)
    assert batches.windows_per_epoch == 5
    starts = np.concatenate([batches.starts(step) for step in range(5)])
    for epoch in range(7):
        assert len(set(starts[5 * epoch : 5 * epoch + 5])) == 5


def test_shares_of_the_ranks_are_the_whole(tokens):
    batches = Batches(tokens, context=12, sequences_per_update=8, seed=3)
    ids, targets = batches.read(7, 0, 8)
    for first, last in ((0, 4), (4, 8), (2, 3)):
        part_ids, part_targets = batches.read(7, first, last)
        assert np.array_equal(part_ids, ids[first:last])
        assert np.array_equal(part_targets, targets[first:last])
    assert np.array_equal(ids[:, 1:], targets[:, :-1])


def test_another_seed_gives_another_order(tokens):
    one, other = (Batches(tokens, 12, 8, seed).starts(0) for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_a_text_shorter_than_one_context_is_refused(tokens):
    with pytest.raises(SettingError, match=r"context: found 5000 tokens, .* only 5000"):
        Batches(tokens, context=5000, sequences_per_update=1, seed=0)
