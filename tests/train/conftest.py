"""What tests of training share: tokens without a file behind them, and a model of a second's training."""

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.train.config import Recipe, TrainConfig

BOS_ID = 1


class Tokens:
    """A TokenStream in memory."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens, self.n_tokens, self.n_bytes, self.n_documents = tokens, len(tokens), 3 * len(tokens), 1

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        return self.tokens[(starts[:, None] + np.arange(length)) % self.n_tokens].astype(np.int64)


def learnable_tokens(n: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Four of five tokens follow from the one before; now and then a document begins."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, vocab_size, n)
    follows = rng.random(n) < 0.8
    for i in range(1, n):
        if follows[i]:
            tokens[i] = 3 + (tokens[i - 1] * 3 + 1) % (vocab_size - 3)
    tokens[::97] = BOS_ID
    return tokens


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(learnable_tokens(5000, 40))


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Small enough for a step in milliseconds."""
    model = ModelConfig(width=16, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=24, vocab_size=40, context=12)
    return Recipe(
        model,
        TrainConfig(
            n_steps=12, batch=4, accumulation=2, learning_rate=3e-3, warmup_steps=2, dropout=0.1, eval_every=4,
            eval_tokens=120, sample_every=0, save_every=4,
        ),
    )  # fmt: skip
