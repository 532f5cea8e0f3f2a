"""How much of the validation text the training text knows already: the share of its runs of tokens that occur there too.

Sixteen tokens in a row are about a dozen words, as long as the runs that GPT-3's authors looked for (Brown et al. 2020,
appendix C). Formulaic text, such as children's stories, shares more of them without having been copied. Knows no text.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

RUN_TOKENS = 16  # a power of two
_DOUBLINGS = RUN_TOKENS.bit_length() - 1
_LOOKED_FOR = 200_000  # runs of the validation text, evenly from all of it
_SEARCHED_TOKENS = (
    1 << 27
)  # of the training text; of a larger one, blocks evenly from all of it, and the share is a lower bound
_BLOCK_TOKENS = 1 << 20
_FILTER_BITS = 22


def measure_overlap(train: Sequence[np.ndarray], validation: Sequence[np.ndarray]) -> tuple[float, int]:
    """The share of the validation tokens' runs that the training tokens hold, and how many runs were looked for.

    train, validation: shards of tokens (T,) each. Runs across the border of two shards or blocks are not looked at.
    """
    hashes = np.unique(np.concatenate([_hash_runs(block) for block in _blocks(validation)]))
    wanted = hashes[:: max(1, len(hashes) // _LOOKED_FOR)]
    if not len(wanted):
        return 0.0, 0
    is_found = np.zeros(len(wanted), bool)
    may_be_wanted = np.zeros(1 << _FILTER_BITS, bool)  # most runs are none of them, which one look here tells
    may_be_wanted[wanted >> np.uint64(64 - _FILTER_BITS)] = True
    n_blocks = sum(-(-len(shard) // _BLOCK_TOKENS) for shard in train)
    stride = max(1, -(-n_blocks * _BLOCK_TOKENS // _SEARCHED_TOKENS))
    for i, block in enumerate(_blocks(train)):
        if i % stride == 0:
            hashes = _hash_runs(block)
            hashes = hashes[may_be_wanted[hashes >> np.uint64(64 - _FILTER_BITS)]]
            places = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
            is_found[places[wanted[places] == hashes]] = True
    return float(is_found.mean()), len(wanted)


def _blocks(shards: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for shard in shards:
        for start in range(0, len(shard), _BLOCK_TOKENS):
            yield shard[start : start + _BLOCK_TOKENS]


def _hash_runs(tokens: np.ndarray) -> np.ndarray:
    """A 64-bit hash of the RUN_TOKENS tokens from each place on: uint64 (T - RUN_TOKENS + 1,), none where T is less."""
    if len(tokens) < RUN_TOKENS:
        return np.empty(0, np.uint64)
    hashes = _mix(tokens.astype(np.uint64))
    for step in range(_DOUBLINGS):  # from runs of 1, 2, 4, ... to runs twice as long
        hashes = _mix(hashes[: -(1 << step)] * np.uint64(3) + hashes[1 << step :])
    return hashes


def _mix(numbers: np.ndarray) -> np.ndarray:
    """Spread the bits of 64-bit numbers over all of them (the middle of splitmix64)."""
    numbers = (numbers + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return numbers ^ (numbers >> np.uint64(31))
