"""What the tests of the server share: a model of random weights, and a server of it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from web import CONTEXT, Web, serving

from llamita.config import ModelConfig
from llamita.model import Model, random_model
from llamita.tokenizer.sentencepiece import parse_sentencepiece


@pytest.fixture(scope="session")
def toy_model(toy_sentencepiece_bytes: bytes) -> Model:
    """A model that says anything, quickly."""
    config = ModelConfig(width=32, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=48, vocab_size=400, context=CONTEXT)
    return replace(random_model(config), tokenizer=parse_sentencepiece(toy_sentencepiece_bytes, "toy"))


@pytest.fixture(scope="session")
def web(toy_model: Model) -> Iterator[Web]:
    """A client of a server that all tests share."""
    with serving(toy_model) as client:
        yield client
