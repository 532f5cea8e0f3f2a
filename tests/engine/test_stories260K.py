"""The real stories260K against what llama2.c makes of it: logits, greedy ids, and what int8 costs on real text."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest

from llamita.engine import Engine, Sampling
from llamita.formats import read_model
from llamita.model import Model, with_dtype
from llamita.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(shared_data) -> Model:
    return read_model(shared_data / "models/stories260K/stories260K.bin")


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[Engine]:
    with Engine(model, n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(shared_data):
    return np.load(shared_data / "reference/stories260K_logits_llama2c_model_py.npz")


def test_logits_are_those_of_llama2c_within_a_thousandth(engine, reference):
    logits = engine.logits(reference["tokens"].ravel().tolist())
    assert np.abs(logits - reference["logits"].reshape(logits.shape)).max() < 1e-3


def test_greedy_ids_are_those_of_llama2c(engine, reference):
    expected = reference["greedy_ids"].ravel().tolist()
    sequence = engine.sequence(Sampling(temperature=0))
    sequence.append(expected[:1])
    assert sequence.run(len(expected) - 1) == expected[1:]
    sequence.close()


def cross_entropy(engine: Engine, stories: list[list[int]]) -> float:
    """Nats per token, each story a window of its own."""
    total, n_tokens = 0.0, 0
    for ids in stories:
        logits = engine.logits(ids[:-1]).astype(np.float64)
        largest = logits.max(1, keepdims=True)
        log_sums = largest[:, 0] + np.log(np.exp(logits - largest).sum(1))
        total += (log_sums - logits[np.arange(len(ids) - 1), ids[1:]]).sum()
        n_tokens += len(ids) - 1
    return total / n_tokens


def test_int8_costs_less_than_a_hundredth_of_a_nat_on_real_stories(engine, model, shared_data):
    text = (shared_data / "text/tinystories/toyrnn_tinystories_sample.txt").read_text(encoding="utf-8")
    tokenizer = model.tokenizer
    stories = [cast(Tokenizer, tokenizer).encode(story.strip(), bos=True)[:512] for story in text.split("<|endoftext|>")[1:25]]
    exact = cross_entropy(engine, stories)
    with Engine(with_dtype(model, "q8_0", 4), n_threads=1) as quantized_engine:
        assert abs(cross_entropy(quantized_engine, stories) - exact) < 0.01
    assert 1.2 < exact < 1.5  # llama2.c publishes 1.297 on its validation set
