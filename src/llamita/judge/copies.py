"""Copies: the longest run of tokens in each of some pieces of text that stands, token for token, in a long text.

The long text is taken in blocks. libdivsufsort sorts all beginnings of a block and of the pieces together (a suffix array;
Manber and Myers, 1990), so that the beginning of the block that agrees longest with a place in a piece stands right above or
below it. Time grows with the long text and memory with a block: four million tokens a second, 250 MB. Knows no text, no model.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from llamita.data.encode import token_dtype
from llamita.data.shards import TokenStream
from llamita.errors import SettingError

BLOCK_TOKENS = 1 << 22
_COMPARED_TOKENS = 32  # at once


class Copy(NamedTuple):
    """The longest run of a piece that the long text holds: where it begins in the piece, and where there."""

    n_tokens: int
    first: int
    place: int


def longest_copies(
    pieces: Sequence[np.ndarray],
    stream: TokenStream,
    bos_id: int,
    progress: Callable[[int], None] | None = None,
    block_tokens: int = BLOCK_TOKENS,
) -> list[Copy]:
    """The longest Copy of each piece, the first of equally long ones; one of 0 tokens where not even one token is there.

    pieces: int64 (T,) each, without bos_id: so no copy reaches over the beginning of a document. progress is told
    of the tokens of the stream that were searched.
    """
    beginnings = np.cumsum([0, *(len(piece) + 1 for piece in pieces)])  # each with a BOS behind it
    joined = np.concatenate([part for piece in pieces for part in (piece, [bos_id])])
    rest = np.repeat(beginnings[1:] - 1, np.diff(beginnings)) - np.arange(len(joined))  # tokens from here to the piece's end
    longest, places = np.zeros(len(joined), np.int64), np.zeros(len(joined), np.int64)
    overlap = max(int(rest.max()) - 1, 0)  # what begins in a block may end behind it
    for start in range(0, stream.n_tokens, block_tokens):
        n = min(block_tokens + overlap, stream.n_tokens - start)
        block = stream.windows(np.array([start]), n)[0]
        text = np.concatenate([block, [bos_id], joined])
        found, where = _best_matches(text.astype(token_dtype(int(text.max()) + 1)), n, rest)
        is_longer = found > longest
        longest[is_longer], places[is_longer] = found[is_longer], start + where[is_longer]
        if progress:
            progress(min(block_tokens, stream.n_tokens - start))
    firsts = [first + int(longest[first:last].argmax()) for first, last in pairwise(beginnings)]
    return [Copy(int(longest[i]), i - int(first), int(places[i])) for i, first in zip(firsts, beginnings[:-1], strict=True)]


def load_library() -> Callable[[np.ndarray], np.ndarray]:
    """The function that sorts all beginnings of a text. Raises SettingError where the library is not installed."""
    try:
        from pydivsufsort import divsufsort
    except ImportError:
        raise SettingError("looking for copies needs pydivsufsort: pip install 'llamita[probe]'") from None
    return divsufsort


def _best_matches(text: np.ndarray, n_block: int, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each place of the pieces the longest agreement with any place of the block, and that place; both int64 (P,).

    text: the block, a BOS, then the pieces.
    """
    order = load_library()(text)
    ranks = np.flatnonzero(order > n_block)  # of places in pieces
    own = order[ranks].astype(np.int64) - (n_block + 1)
    longest, places = np.zeros(len(rest), np.int64), np.zeros(len(rest), np.int64)
    for neighbours in _neighbours_in_block(order, ranks, n_block):
        known = np.flatnonzero(neighbours >= 0)
        lengths = _agreements(text, own[known] + n_block + 1, neighbours[known], rest[own[known]])
        better = lengths > longest[own[known]]
        longest[own[known][better]], places[own[known][better]] = lengths[better], neighbours[known][better]
    return longest, places


def _neighbours_in_block(order: np.ndarray, ranks: np.ndarray, n_block: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the block that stand next above and next below each rank, -1 where there is none; int64 (P,) each."""
    in_block = np.flatnonzero(order < n_block)
    after = np.searchsorted(in_block, ranks)
    above = np.where(after > 0, order[in_block[np.maximum(after - 1, 0)]], -1)
    below = np.where(after < len(in_block), order[in_block[np.minimum(after, len(in_block) - 1)]], -1)
    return above.astype(np.int64), below.astype(np.int64)


def _agreements(text: np.ndarray, one: np.ndarray, other: np.ndarray, most: np.ndarray) -> np.ndarray:
    """How many tokens from places one and other on agree, up to most; int64 (P,)."""
    lengths = np.zeros(len(one), np.int64)
    going = np.flatnonzero(most > 0)
    while len(going):
        steps = lengths[going, None] + np.arange(_COMPARED_TOKENS)
        steps = np.minimum(steps, most[going, None])  # the token behind the end of a piece is a BOS, and inside the text
        equal = text[one[going, None] + steps] == text[other[going, None] + steps]
        equal &= steps < most[going, None]
        n_equal = np.where(equal.all(1), _COMPARED_TOKENS, equal.argmin(1))
        lengths[going] += n_equal
        going = going[n_equal == _COMPARED_TOKENS]
    return lengths
