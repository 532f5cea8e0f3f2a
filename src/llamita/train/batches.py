"""Which tokens a step sees, as a pure function of seed and step: nothing to save, nothing to restore when a run resumes.

An epoch cuts the tokens, read as a ring, into windows of one context that begin at an offset drawn for that epoch, and
visits each window once in a shuffled order. The order is that of all ranks together; a rank takes its share of it.
"""

import hashlib

import numpy as np

from llamita.data.shards import TokenStream
from llamita.errors import SettingError

ROUNDS = 6  # of the Feistel network; four are enough for a permutation that looks random (Luby and Rackoff, 1988)


class Batches:
    """The samples of a run: ids and targets of any step, for any share of the sequences."""

    def __init__(self, stream: TokenStream, context: int, sequences_per_update: int, seed: int) -> None:
        """Raises SettingError where the text is shorter than one context and its next token."""
        if stream.n_tokens <= context:
            raise SettingError(
                f"context: found {context} tokens, but the training text has only {stream.n_tokens}; "
                "take a smaller context or more text"
            )
        self.stream, self.context, self.seed = stream, context, seed
        self.sequences_per_update = sequences_per_update
        self.windows_per_epoch = stream.n_tokens // context

    def read(self, step: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and targets, int64 (last - first, context), of sequences first to last - 1 of the update after `step`."""
        tokens = self.stream.windows(self.starts(step)[first:last], self.context + 1)
        return tokens[:, :-1], tokens[:, 1:]

    def starts(self, step: int) -> np.ndarray:
        """Where the sequences of the update after `step` updates begin in the stream: int64 (sequences_per_update,)."""
        samples = step * self.sequences_per_update + np.arange(self.sequences_per_update)
        epochs, places = np.divmod(samples, self.windows_per_epoch)
        starts = np.empty_like(samples)
        for epoch in np.unique(epochs):
            keys = _keys(self.seed, int(epoch))
            here = epochs == epoch
            offset = int(keys[-1]) % self.context
            starts[here] = offset + shuffled(places[here], self.windows_per_epoch, keys[:-1]) * self.context
        return starts % self.stream.n_tokens


def shuffled(places: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Return the images of places, int64 in [0, n), under a permutation of [0, n) that the keys decide.

    A Feistel network permutes the next larger square power of two; what lands outside [0, n) is permuted again.
    """
    half_bits = max(1, (int(n - 1).bit_length() + 1) // 2)
    images = _feistel(places.astype(np.uint64), half_bits, keys)
    while (outside := images >= n).any():
        images[outside] = _feistel(images[outside], half_bits, keys)
    return images.astype(np.int64)


def _feistel(values: np.ndarray, half_bits: int, keys: np.ndarray) -> np.ndarray:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << shift) | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every input bit moves about half of the output bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _keys(seed: int, epoch: int) -> np.ndarray:
    """One uint64 for each round, and one for the epoch's offset."""
    digest = hashlib.blake2b(f"llamita batches {seed} {epoch}".encode(), digest_size=8 * (ROUNDS + 1)).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)
