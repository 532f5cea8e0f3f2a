"""The share of the validation text's runs that the training text holds."""

import numpy as np
import pytest

from llamita.data import overlap
from llamita.data.overlap import RUN_TOKENS, measure_overlap

RANDOM = np.random.default_rng(0)
TRAIN = RANDOM.integers(0, 4096, 50_000, dtype=np.uint16)
OTHER = RANDOM.integers(0, 4096, 5_000, dtype=np.uint16)


def naive(train: np.ndarray, validation: np.ndarray) -> float:
    """The definition, in Python sets."""
    known, wanted = (
        {tuple(tokens[i : i + RUN_TOKENS].tolist()) for i in range(len(tokens) - RUN_TOKENS + 1)}
        for tokens in (train, validation)
    )
    return len(known & wanted) / len(wanted)


def test_the_share_is_that_of_its_definition():
    validation = np.concatenate([OTHER, TRAIN[100:3100], OTHER[:1000]])
    share, n_runs = measure_overlap([TRAIN[:20_000], TRAIN[20_000:]], [validation])
    assert share == pytest.approx(naive(TRAIN, validation), abs=1e-9)
    assert n_runs > 5_000


def test_a_copy_shares_everything_and_other_text_nothing():
    assert measure_overlap([TRAIN], [TRAIN[5:400]])[0] == 1.0
    assert measure_overlap([TRAIN], [OTHER])[0] == 0.0


def test_a_text_shorter_than_a_run_has_none():
    assert measure_overlap([TRAIN], [OTHER[: RUN_TOKENS - 1]]) == (0.0, 0)
    assert measure_overlap([TRAIN[:3]], [OTHER])[0] == 0.0


def test_of_a_large_training_text_blocks_are_searched(monkeypatch):
    monkeypatch.setattr(overlap, "_BLOCK_TOKENS", 1000)
    monkeypatch.setattr(overlap, "_SEARCHED_TOKENS", 25_000)
    share, _ = measure_overlap([TRAIN], [TRAIN])
    assert share == pytest.approx(0.5, abs=0.02)
