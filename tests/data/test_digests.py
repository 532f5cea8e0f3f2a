"""Digests: a set of them is a set, whatever it is given."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llamita.data.digests import DigestSet, digest_texts


@given(st.lists(st.lists(st.integers(0, 20), max_size=30), max_size=20))
def test_a_digest_is_new_once(calls: list[list[int]]):
    digests, seen = DigestSet(), set()
    for numbers in calls:
        is_new = digests.add(np.array(numbers, np.uint64)).tolist()
        for number, new in zip(numbers, is_new, strict=True):
            assert new == (number not in seen)
            seen.add(number)
    known = digests.contains(np.arange(21, dtype=np.uint64))
    assert set(np.flatnonzero(known).tolist()) == seen


def test_a_digest_takes_eight_bytes():
    digests = DigestSet()
    for start in range(0, 100_000, 1000):
        digests.add(np.arange(start, start + 1000, dtype=np.uint64))
    assert sum(run.nbytes for run in digests._runs) == 800_000
    assert len(digests._runs) < 20


def test_equal_texts_have_equal_digests_and_others_do_not():
    digests = digest_texts([b"a", b"b", b"a", b""])
    assert digests[0].tolist() == digests[2].tolist()
    assert len(set(digests.ravel().tolist())) == 6
