"""Digests of texts: to know a text again in eight bytes, and to draw the validation text by lot.

Two different texts share their 64 bits by chance only: once in 3,000 corpora of a hundred million documents. Knows no document.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np


def digest_texts(texts: Iterable[bytes]) -> np.ndarray:
    """Two independent 64-bit digests of each text: uint64 (N, 2)."""
    return np.frombuffer(b"".join([blake2b(text, digest_size=16).digest() for text in texts]), "<u8").reshape(-1, 2)


class DigestSet:
    """A growing set of 64-bit numbers, eight bytes each: sorted arrays, where neighbours of like size are merged."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, digests: np.ndarray) -> np.ndarray:
        """Add uint64 (N,) and say of each whether it is new: bool (N,), false for the second of two in one call."""
        distinct, firsts = np.unique(digests, return_index=True)
        is_new = np.zeros(len(digests), bool)
        is_new[firsts] = True
        is_new &= ~self.contains(digests)
        run = distinct[is_new[firsts]]
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)
        return is_new

    def contains(self, digests: np.ndarray) -> np.ndarray:
        """Whether each of uint64 (N,) was added before: bool (N,)."""
        found = np.zeros(len(digests), bool)
        for run in self._runs:
            if len(run):
                found |= run[np.searchsorted(run, digests).clip(max=len(run) - 1)] == digests
        return found
