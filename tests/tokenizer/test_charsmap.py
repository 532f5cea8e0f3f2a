"""The table of replacements inside a sentencepiece model: only such as the library can walk without leaving it."""

import random
import struct
from contextlib import suppress

import numpy as np
import pytest

from llamita.errors import LlamitaError, TokenizerError
from llamita.tokenizer.charsmap import check_charsmap
from llamita.tokenizer.sentencepiece import parse_sentencepiece

HAS_LEAF, LEAF = 1 << 8, 1 << 31


def charsmap(units: dict[int, int], texts: bytes = b"a\0") -> bytes:
    trie = np.zeros(256, "<u4")
    for place, unit in units.items():
        trie[place] = unit
    return struct.pack("<I", trie.nbytes) + trie.tobytes() + texts


def test_no_table_and_a_table_that_stays_inside_are_accepted():
    check_charsmap(b"")
    check_charsmap(charsmap({0: 1 << 10 | HAS_LEAF, 1: LEAF | 1}))


@pytest.mark.parametrize(
    "data",
    [
        charsmap({0: 300 << 10}),  # children behind the end
        charsmap({0: 1 << 10 | 1 << 9}),  # the same by the scaled offset
        charsmap({0: 1 << 10 | HAS_LEAF, 1: LEAF | 2}),  # a replacement behind the end
        charsmap({0: LEAF}),  # a root that is a leaf: the library takes its offset all the same
        charsmap({}, b"a"),  # a replacement without an end
        charsmap({}, b""),
        charsmap({})[:900],
        struct.pack("<I", 0xFFFFFC00) + bytes(2000),
        b"\0\0\0",
    ],
)
def test_a_table_that_leads_outside_is_refused(data):
    with pytest.raises(TokenizerError, match="charsmap"):
        check_charsmap(data)


def test_a_real_table_is_accepted_and_refused_when_its_root_points_outside(shared_data):
    data = (shared_data / "tokenizers/sentencepiece_test/test_model.model").read_bytes()
    table = parse_sentencepiece(data, "test_model.model").rules.charsmap
    check_charsmap(table)
    with pytest.raises(TokenizerError, match="charsmap"):
        check_charsmap(table[:4] + struct.pack("<I", 0x3FFFFF << 10) + table[8:])


def test_a_damaged_real_table_is_refused_or_harmless(shared_data):
    """The root and its children, or any unit: whatever passes the check, the library walks through without a crash."""
    good = (shared_data / "tokenizers/sentencepiece_test/test_model.model").read_bytes()
    start = good.index(b"nfkc") + 8  # the table itself, in the normalizer's rules
    rng = random.Random(5)
    n_read = 0
    for i in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            place = start + 4 * rng.randrange(1, 40 if i % 2 else 40_000)
            struct.pack_into("<I", data, place, rng.choice([rng.getrandbits(32), 0, 255, 256, 1 << 31, (1 << 32) - 1]))
        with suppress(LlamitaError):
            parse_sentencepiece(bytes(data), "t.model").encode("Once upon a time 日本 😀\n")
            n_read += 1
    assert 0 < n_read < 150
