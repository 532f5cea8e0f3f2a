"""Rendered chats without a file behind them, for tests of what is made of them."""

import numpy as np


class SomeExamples:
    """As data.examples.Examples: n examples of random ids and lengths; the second part of each is the answer."""

    def __init__(self, n: int, vocab_size: int, longest: int = 12, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.n_examples = n
        self.lengths = rng.integers(3, longest + 1, n)
        self._ids = [rng.integers(3, vocab_size, length) for length in self.lengths]
        answers = [int(rng.integers(1, length)) for length in self.lengths]
        self._counted = [np.arange(length) >= begin for length, begin in zip(self.lengths, answers, strict=True)]
        self.n_tokens = int(self.lengths.sum())
        self.n_counted = int(sum(counted.sum() for counted in self._counted))
        self.n_bytes = 3 * self.n_counted

    def ids(self, index: int) -> np.ndarray:
        return self._ids[index]

    def counted(self, index: int) -> np.ndarray:
        return self._counted[index]
