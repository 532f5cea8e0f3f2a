"""The bootstrap: its interval is that of theory, holds the truth as often as it says, and is left out of short texts."""

import numpy as np
import pytest

from llamita.judge.resampling import FEWEST_PIECES, Interval, interval_of


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[0] / sums[1]


def drawn(rng: np.random.Generator, n: int, mean: float = 1.5) -> np.ndarray:
    """(2, n): losses and tokens of n texts of different lengths, whose true ratio is the mean."""
    n_tokens = rng.integers(50, 400, n).astype(float)
    return np.stack([n_tokens * rng.normal(mean, 0.2, n), n_tokens])


def found(columns: np.ndarray, documents: np.ndarray | None = None) -> Interval:
    interval = interval_of(ratio, columns, np.arange(columns.shape[1]) if documents is None else documents)
    assert interval is not None
    return interval


def test_the_interval_is_the_one_that_theory_gives():
    columns = drawn(np.random.default_rng(0), 500)
    above, below = columns
    mean = above.sum() / below.sum()
    error = 1.96 * np.sqrt(((above - mean * below) ** 2).sum()) / below.sum()  # the delta method
    interval = found(columns)
    assert (interval.n_pieces, interval.pieces) == (500, "documents")
    assert interval.low == pytest.approx(mean - error, abs=0.05 * error)
    assert interval.high == pytest.approx(mean + error, abs=0.05 * error)


def test_the_truth_lies_within_about_as_often_as_is_said():
    rng = np.random.default_rng(1)
    intervals = [found(drawn(rng, 40)) for _ in range(60)]
    assert 52 <= sum(i.low <= 1.5 <= i.high for i in intervals) <= 59


def test_joining_neighbours_of_very_many_pieces_changes_the_interval_little():
    columns = drawn(np.random.default_rng(2), 6_001)
    one_by_one = interval_of(ratio, columns[:, ::3], np.arange(2_001)[:2_001])
    assert one_by_one is not None
    interval = found(columns)
    assert interval.n_pieces == 6_001
    widths = interval.high - interval.low, (one_by_one.high - one_by_one.low) / np.sqrt(3)
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_documents_are_drawn_whole_where_there_are_enough():
    columns = np.repeat(drawn(np.random.default_rng(3), 60), 5, axis=1)  # five equal kilobytes tell no more than one
    by_document = found(columns, np.repeat(np.arange(60), 5))
    assert (by_document.n_pieces, by_document.pieces) == (60, "documents")
    by_kilobyte = found(columns, np.repeat(np.arange(20), 15))
    assert (by_kilobyte.n_pieces, by_kilobyte.pieces) == (300, "kilobytes")
    assert by_document.high - by_document.low == pytest.approx(np.sqrt(5) * (by_kilobyte.high - by_kilobyte.low), rel=0.1)


def test_too_few_pieces_give_no_interval():
    columns = drawn(np.random.default_rng(4), FEWEST_PIECES)
    assert interval_of(ratio, columns[:, 1:], np.zeros(FEWEST_PIECES - 1, int)) is None
    assert interval_of(ratio, columns, np.zeros(FEWEST_PIECES, int)) is not None


def test_the_same_text_gives_the_same_interval():
    columns = drawn(np.random.default_rng(5), 50)
    assert found(columns) == found(columns)
    assert not found(columns).holds_zero
    assert Interval(-1, 1, 10, "documents").holds_zero
