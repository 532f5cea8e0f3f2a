"""Rows of whole examples: each exactly once an epoch, well filled, and a pure function of seed and row."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.train import packing
from llamita.train.packing import Packing


def lengths_of(n: int, longest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, longest + 1, n)


def epochs_of(packed: Packing, n_epochs: int) -> list[list[np.ndarray]]:
    ends = [packed.n_rows(epoch) for epoch in range(n_epochs + 1)]
    return [packed.rows(first, last) for first, last in pairwise(ends)]


@pytest.mark.parametrize(("n", "longest"), [(1, 1), (7, 50), (300, 20), (300, 50), (2000, 9)])
def test_every_unit_comes_once_an_epoch_and_no_row_overflows(n, longest):
    lengths = lengths_of(n, longest)
    for rows in epochs_of(Packing(lengths, 50, seed=3), 3):
        assert sorted(np.concatenate(rows)) == list(range(n))
        assert max(lengths[row].sum() for row in rows) <= 50


def test_rows_are_first_fit(monkeypatch):
    monkeypatch.setattr(packing, "OPEN_ROWS", 3)
    monkeypatch.setattr(packing, "shuffled", lambda places, _, __: places)
    packed = Packing(np.array([6, 7, 8, 3, 9, 4, 2, 1, 10, 1]), 10, seed=0)
    # 9 opens the fourth row and so closes the first, 4 the fifth and closes the second, though 2 and 1 would have fit there
    assert [row.tolist() for row in packed.rows(0, packed.n_rows(1))] == [[0, 3], [1], [2, 6], [4, 7], [5, 9], [8]]


def test_rows_are_well_filled():
    lengths = lengths_of(5000, 60)
    packed = Packing(lengths, 256, seed=0)
    assert lengths.sum() / (packed.n_rows(1) * 256) > 0.97


def test_epochs_and_seeds_differ_and_any_row_can_be_asked_for_first():
    lengths = lengths_of(400, 30)
    first, second = epochs_of(Packing(lengths, 50, seed=1), 2)
    assert [row.tolist() for row in first] != [row.tolist() for row in second]
    other = epochs_of(Packing(lengths, 50, seed=2), 1)[0]
    assert [row.tolist() for row in first] != [row.tolist() for row in other]
    fresh = Packing(lengths, 50, seed=1)
    n_before = len(first)
    late = fresh.rows(n_before - 1, n_before + 2)  # over the end of an epoch, before anything else was asked
    assert [row.tolist() for row in late] == [row.tolist() for row in [first[-1], *second[:2]]]
