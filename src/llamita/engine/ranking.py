"""What a row of logits says about its tokens, before anything adjusts it: the numbers that log-probabilities are made of.

Compiled; engine/scores.py is the Python side, which makes log-probabilities of them.
"""

import numpy as np

from llamita.engine.sampler import MINUS_INFINITY, argmax, exponentiate, hide_padding
from llamita.engine.state import RANK_BEST, RANK_LARGEST, RANK_SUM
from llamita.simd.kernel import kernel
from llamita.simd.memory import get_f32, get_i64, load, set_f32, set_i64, store
from llamita.simd.vectors import LANES, add, any_at_least, reduce_add, splat

BLOCK = 64  # vectors


@kernel
def insert(best, ids, n, logit, token):
    """Put a logit with its id into its place among the n largest so far, the last of which it pushes out."""
    place = n - 1
    while place > 0 and get_f32(best, place - 1) < logit:
        set_f32(best, place, get_f32(best, place - 1))
        set_i64(ids, place, get_i64(ids, place - 1))
        place -= 1
    set_f32(best, place, logit)
    set_i64(ids, place, token)


@kernel
def sum_of(values, n_vectors):
    """The sum of float32[16 * n_vectors], in blocks: in one sum the many small numbers are lost beside a large one."""
    total = splat(np.float32(0.0))
    for first in range(0, n_vectors, BLOCK):
        block = splat(np.float32(0.0))
        for i in range(first, min(first + BLOCK, n_vectors)):
            block = add(block, load(values, i * LANES))
        total = add(total, block)
    return reduce_add(total)


@kernel
def rank_row(logits, vocab_size, n_vectors, n_best, scratch, ranking, ids):
    """Fill a ranking (see RANK_LARGEST) with the n_best largest of a row of logits, of equals the lower ids.

    Leaves a copy of the logits in scratch, float32[16 * n_vectors], where a token may be drawn from them.
    """
    hide_padding(logits, vocab_size, n_vectors)
    set_f32(ranking, RANK_LARGEST, get_f32(logits, argmax(logits, n_vectors)))
    exponentiate(logits, scratch, n_vectors, np.float32(1.0))
    set_f32(ranking, RANK_SUM, sum_of(scratch, n_vectors))
    best, least = ranking + 4 * RANK_BEST, MINUS_INFINITY
    for i in range(n_best):
        set_f32(best, i, MINUS_INFINITY)
        set_i64(ids, i, np.int64(0))
    for i in range(n_vectors):
        v = load(logits, i * LANES)
        store(scratch, i * LANES, v)
        if n_best > 0 and any_at_least(v, least):
            for lane in range(LANES):
                logit = get_f32(logits, i * LANES + lane)
                if logit > least:
                    insert(best, ids, n_best, logit, i * LANES + lane)
                    least = get_f32(best, n_best - 1)
