"""Copies: the longest runs are those that a search of every place finds, over borders of blocks and shards."""

import numpy as np
import pytest

pytest.importorskip("pydivsufsort", reason="the library of suffix arrays comes with llamita[judge]")
from llamita.data.manifest import Shard, Split
from llamita.data.shards import TokenStream
from llamita.judge.copies import Copy, longest_copies

BOS = 1


def stream_of(tokens: np.ndarray, n_shards: int = 2) -> TokenStream:
    shards = [part.astype(np.uint16) for part in np.array_split(tokens, n_shards)]
    return TokenStream(Split(1, len(tokens), len(tokens), tuple(Shard("", len(part), "") for part in shards)), shards)


def naive(piece: np.ndarray, tokens: np.ndarray) -> int:
    """The length of the longest run, by trying every pair of places."""
    best = np.zeros(len(tokens) + 1, int)  # of runs that end at a token and at the one before
    longest = 0
    for token in piece:
        best[1:] = np.where(tokens == token, best[:-1] + 1, 0)
        longest = max(longest, int(best.max()))
    return longest


def check(copies: list[Copy], pieces: list[np.ndarray], tokens: np.ndarray) -> None:
    """Each copy is one, and no longer one exists."""
    for copy, piece in zip(copies, pieces, strict=True):
        assert copy.n_tokens == naive(piece, tokens)
        own = piece[copy.first : copy.first + copy.n_tokens]
        assert len(own) == copy.n_tokens
        assert (tokens[copy.place : copy.place + copy.n_tokens] == own).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n_ids", "block_tokens"), [(3, 50), (12, 173), (400, 1000), (3, 5000), (70_000, 999)])
def test_the_longest_runs_are_those_of_a_search_of_every_place(seed: int, n_ids: int, block_tokens: int):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, n_ids + 2, 1_500)
    if n_ids < 1 << 16:
        tokens[rng.integers(0, 1_500, 40)] = BOS
    pieces = [rng.integers(2, n_ids + 2, n) for n in (1, 7, 30, 60)]
    start = int(rng.integers(0, 1_400))
    planted = tokens[start : start + 80]
    pieces.append(np.concatenate([pieces[2], planted[planted != BOS], pieces[1]]))
    stream = TokenStream(Split(1, 1_500, 1, ()), [tokens.astype(np.uint32)])
    check(longest_copies(pieces, stream, BOS, block_tokens=block_tokens), pieces, tokens)


def test_a_run_over_the_borders_of_blocks_and_shards_is_found_whole():
    tokens = np.arange(2, 502)
    piece = np.concatenate([[600, 601], tokens[180:330], [602]])
    for block_tokens in (40, 100, 250, 10_000):
        copies = longest_copies([piece, tokens[:3]], stream_of(tokens, 3), BOS, block_tokens=block_tokens)
        assert copies == [Copy(150, 2, 180), Copy(3, 0, 0)]


def test_no_run_reaches_over_the_beginning_of_a_document_or_around_the_end():
    tokens = np.array([5, 6, 7, BOS, 8, 9, 5])
    assert longest_copies([np.array([6, 7, 8, 9])], stream_of(tokens), BOS) == [Copy(2, 0, 1)]
    assert longest_copies([np.array([9, 5, 5, 6, 7])], stream_of(tokens), BOS)[0].n_tokens == 3


def test_nothing_in_common_is_a_run_of_nothing():
    assert longest_copies([np.array([9, 10])], stream_of(np.array([5, 6, 7])), BOS)[0].n_tokens == 0


def test_a_vocabulary_of_more_than_65536_ids_is_searched_too():
    tokens = np.arange(80_000, 80_400)
    stream = TokenStream(Split(1, 400, 1, ()), [tokens.astype(np.uint32)])
    assert longest_copies([tokens[100:160] + 0, np.array([80_000 - 65_536])], stream, BOS) == [Copy(60, 0, 100), Copy(0, 0, 0)]


def test_progress_is_told_of_every_token_once():
    told: list[int] = []
    longest_copies([np.array([7] * 9)], stream_of(np.arange(2, 1_002)), BOS, told.append, block_tokens=300)
    assert told == [300, 300, 300, 100]
