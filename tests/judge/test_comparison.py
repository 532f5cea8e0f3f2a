"""Comparison: a model against itself is no difference, a worse one is found out, and a hair's breadth is called noise."""

import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from judge.toys import TEXTS, byte_level_model, sentencepiece_model
from llamita.errors import DataError
from llamita.formats import read_model
from llamita.judge import Score, compare, score
from llamita.judge.scoring import Losses
from llamita.language_model import find_model
from llamita.model import with_dtype
from stories import story


@pytest.fixture(scope="module")
def stories() -> list[Score]:
    """The bundled model, and the same in 4 bits, on 40 stories."""
    model = read_model(find_model("stories"))
    return [score(one, [story(4 * n) for n in range(40)]) for one in (model, with_dtype(model, "q4_0"))]


def test_four_bits_are_worse_and_by_more_than_noise(stories):
    found = compare(stories[0], stories[1])
    assert found.unit == "nats per token"
    assert found.difference == pytest.approx(stories[1].cross_entropy - stories[0].cross_entropy)
    assert found.difference > 0.01
    assert found.is_more_than_noise
    assert found.interval
    assert found.interval.pieces == "documents"
    assert 0 < found.interval.low < found.difference < found.interval.high
    alone = stories[0].interval
    assert alone
    assert found.interval.high - found.interval.low < (alone.high - alone.low) / 4  # what is hard for both cancels out


def test_the_other_way_round_is_the_other_sign(stories):
    there, back = compare(stories[0], stories[1]), compare(stories[1], stories[0])
    assert back.difference == -there.difference
    assert there.interval
    assert back.interval
    assert back.interval.low == pytest.approx(-there.interval.high)


def test_a_model_against_itself_is_no_difference(stories):
    found = compare(stories[0], stories[0])
    assert found.difference == 0
    assert not found.is_more_than_noise


def with_losses(like: Score, nats: np.ndarray) -> Score:
    losses = Losses(nats, np.full(len(nats), 100.0), np.full(len(nats), 300.0), np.arange(len(nats)))
    return replace(like, losses=losses)


@pytest.mark.parametrize(("gap", "is_more"), [(0.0, False), (1.0, True)])
def test_noise_is_told_from_a_gap_of_the_same_size_as_the_noise(stories, gap: float, is_more: bool):
    rng = np.random.default_rng(8)
    hard = rng.normal(150, 30, 400)  # what is hard for both is no noise
    found = compare(with_losses(stories[0], hard), with_losses(stories[0], hard + gap + rng.normal(0, 3, 400)))
    assert found.is_more_than_noise == is_more
    assert abs(found.difference - gap / 100) < 0.005


def test_other_vocabularies_are_compared_in_bits_per_byte(toy_sentencepiece_bytes: bytes):
    texts = TEXTS * 10
    one, other = (score(m, texts, n_threads=1) for m in (sentencepiece_model(toy_sentencepiece_bytes), byte_level_model()))
    found = compare(one, other)
    assert found.unit == "bits per byte"
    assert found.difference == pytest.approx(other.bits_per_byte - one.bits_per_byte)
    assert one.n_bytes != other.n_bytes  # a vocabulary without BOS leaves the first tokens out
    assert found.interval
    assert found.interval.n_pieces == 40


def test_equal_tokens_counted_in_other_places_are_no_equal_tokens(toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes)
    found = compare(score(model, TEXTS, n_threads=1), score(model, TEXTS, bos=False, n_threads=1))
    assert found.unit == "bits per byte"


def test_scores_of_two_texts_are_refused(stories, toy_sentencepiece_bytes: bytes):
    with pytest.raises(DataError, match="found scores of two texts"):
        compare(stories[0], score(sentencepiece_model(toy_sentencepiece_bytes), TEXTS, n_threads=1))


def test_a_short_text_is_compared_without_an_interval(toy_sentencepiece_bytes: bytes):
    one, other = (score(sentencepiece_model(toy_sentencepiece_bytes, seed), TEXTS, n_threads=1) for seed in (0, 1))
    found = compare(one, other)
    assert found.interval is None
    assert not found.is_more_than_noise
    facts = found.to_dict()
    assert facts["interval"] is None
    assert math.isfinite(cast(float, facts["difference"]))
