"""Draw the next token from a row of logits: penalties, mask, temperature, top-k, top-p, min-p, llama2.c's random numbers.

The steps follow llama2.c's run.c, so the same seed draws the same tokens wherever rounding does not decide; sums run over
vectors here, which run.c does one by one. What run.c does not have is off at its default.
"""

import numpy as np

from llamita.engine.state import SAMPLER
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import get_f32, get_i32, get_i64, load, record_reader, set_f32, set_i64, store
from llamita.simd.vectors import (
    LANES,
    add,
    any_at_least,
    choose_if_greater,
    divide,
    exp,
    keep_first,
    lowest_index_of,
    maximum,
    reduce_add,
    reduce_max,
    splat,
    splat_i32,
)

sampler_at = record_reader(SAMPLER)
_S12, _S25, _S27, _S32, _S8 = (np.uint64(n) for n in (12, 25, 27, 32, 8))
_FACTOR = np.uint64(0x2545F4914F6CDD1D)
MINUS_INFINITY = np.float32(-np.inf)


@kernel
def draw_coin(sampler):
    """The next number of xorshift64*, float32 in [0, 1): run.c's random_f32."""
    s = sampler.rng
    s ^= s >> _S12
    s ^= s << _S25
    s ^= s >> _S27
    sampler.rng = s
    bits = ((s * _FACTOR) >> _S32) >> _S8
    return np.float32(bits) / np.float32(16777216.0)


@kernel
def argmax(logits, n_vectors):
    """The lowest index of the largest of 16 * n_vectors numbers; 0 where none is a number, as a broken model makes them."""
    best, index = load(logits, 0), splat_i32(np.int32(0))
    for i in range(1, n_vectors):
        v = load(logits, i * LANES)
        index = choose_if_greater(v, best, splat_i32(np.int32(i)), index)
        best = maximum(v, best)
    found = lowest_index_of(best, reduce_max(best), index)
    return found if found < n_vectors * LANES else np.int64(0)


@kernel
def largest_between(logits, first, last, vocab_size):
    """(value, index) of the largest of vectors first to last of a row, of equals the lowest; (-inf, 0) where there is none."""
    best, index = splat(MINUS_INFINITY), splat_i32(np.int32(0))
    for i in range(first, last):
        v = load(logits, i * LANES)
        if (i + 1) * LANES > vocab_size:
            v = keep_first(v, vocab_size - i * LANES)
        index = choose_if_greater(v, best, splat_i32(np.int32(i)), index)
        best = maximum(v, best)
    top = reduce_max(best)
    return top, lowest_index_of(best, top, index) if top > MINUS_INFINITY else np.int64(0)


@piece
def count_ids(ids, first, end, counts):
    """counts[id] = how often each id of ids[first:end] is there; of other ids counts stays as it is."""
    for i in range(first, end):
        set_f32(counts, get_i64(ids, i), np.float32(0.0))
    for i in range(first, end):
        token = get_i64(ids, i)
        set_f32(counts, token, get_f32(counts, token) + np.float32(1.0))


@kernel
def adjust(sampler, logits, counts):
    """Logit bias; repetition penalty over the last penalty_window ids (arXiv:1909.05858), each id once; penalties of drawn ids.

    logit -= count * frequency_penalty + presence_penalty is OpenAI's definition. counts: a buffer like logits.
    """
    for i in range(sampler.n_bias):
        token = get_i64(sampler.bias_ids, i)
        set_f32(logits, token, get_f32(logits, token) + get_f32(sampler.bias_values, i))
    penalty, n = sampler.repetition_penalty, sampler.n_history
    if penalty != np.float32(1.0):
        first = max(n - sampler.penalty_window, 0)
        count_ids(sampler.history, first, n, counts)
        for i in range(first, n):
            token = get_i64(sampler.history, i)
            if get_f32(counts, token) > 0:
                logit = get_f32(logits, token)
                set_f32(logits, token, logit / penalty if logit > 0 else logit * penalty)
                set_f32(counts, token, np.float32(0.0))
    presence, frequency = sampler.presence_penalty, sampler.frequency_penalty
    if presence != np.float32(0.0) or frequency != np.float32(0.0):
        count_ids(sampler.history, sampler.n_prompt, n, counts)
        for i in range(sampler.n_prompt, n):
            token = get_i64(sampler.history, i)
            count = get_f32(counts, token)
            if count > 0:
                set_f32(logits, token, get_f32(logits, token) - (count * frequency + presence))
                set_f32(counts, token, np.float32(0.0))


@kernel
def hide_forbidden(mask, logits, vocab_size):
    """Logits of ids whose bit in mask (32 a word) is 0 become -inf."""
    for first in range(0, vocab_size, 32):
        word = get_i32(mask, first >> 5)
        if word != -1:
            for i in range(first, min(first + 32, vocab_size)):
                if word >> (i - first) & 1 == 0:
                    set_f32(logits, i, MINUS_INFINITY)


@kernel
def hide_padding(logits, vocab_size, n_vectors):
    """Numbers behind the vocabulary become -inf."""
    for i in range(vocab_size, n_vectors * LANES):
        set_f32(logits, i, MINUS_INFINITY)


@kernel
def exponentiate(logits, out, n_vectors, temperature):
    """out = exp((logit - largest) / temperature); returns the sum."""
    largest = load(logits, 0)
    for i in range(1, n_vectors):
        largest = maximum(largest, load(logits, i * LANES))
    heat = splat(temperature)
    top = splat(-(reduce_max(largest) / temperature))
    total = splat(np.float32(0.0))
    for i in range(n_vectors):
        e = exp(add(divide(load(logits, i * LANES), heat), top))
        store(out, i * LANES, e)
        total = add(total, e)
    return reduce_add(total)


@piece
def pick_by_sum(weights, n_vectors, wanted):
    """The first index at which the running sum of the weights passes `wanted`; else the last one with a weight."""
    total, last = np.float32(0.0), np.int64(0)
    for i in range(n_vectors):
        v = load(weights, i * LANES)
        block = reduce_add(v)
        if block > 0:
            last = i
        if total + block <= wanted:
            total += block
            continue
        for lane in range(LANES):
            total += get_f32(weights, i * LANES + lane)
            if wanted < total:
                return i * LANES + lane
    for lane in range(LANES - 1, -1, -1):  # the sum in this order was less than that of the lanes
        if get_f32(weights, last * LANES + lane) > 0:
            return last * LANES + lane
    return np.int64(0)


@piece
def comes_first(weights, ids, a, b):
    """Heap order: the larger weight, of equals the lower id."""
    wa, wb = get_f32(weights, a), get_f32(weights, b)
    return wa > wb or (wa == wb and get_i64(ids, a) < get_i64(ids, b))


@piece
def swap(weights, ids, a, b):
    """Exchange two entries."""
    w, i = get_f32(weights, a), get_i64(ids, a)
    set_f32(weights, a, get_f32(weights, b))
    set_i64(ids, a, get_i64(ids, b))
    set_f32(weights, b, w)
    set_i64(ids, b, i)


@kernel
def sift_down(weights, ids, start, n):
    """Restore the heap below `start`."""
    parent = start
    while 2 * parent + 1 < n:
        child = 2 * parent + 1
        if child + 1 < n and comes_first(weights, ids, child + 1, child):
            child += 1
        if not comes_first(weights, ids, child, parent):
            return
        swap(weights, ids, child, parent)
        parent = child


@piece
def gather(weights, n_vectors, limit, out_weights, out_ids):
    """Copy the entries >= limit (> 0) with their ids; returns how many."""
    n = 0
    for i in range(n_vectors):
        if any_at_least(load(weights, i * LANES), limit):
            for lane in range(LANES):
                w = get_f32(weights, i * LANES + lane)
                if w >= limit and w > 0:
                    set_f32(out_weights, n, w)
                    set_i64(out_ids, n, i * LANES + lane)
                    n += 1
    return n


@piece
def pick_of_top(weights, ids, n, top_k, enough, coin):
    """Pick among the largest of n candidates: at most top_k (0: any number), until their sum passes `enough`.

    A heap gives them in order, so a peaked distribution costs little; they gather behind its end, largest last.
    """
    for start in range(n // 2 - 1, -1, -1):
        sift_down(weights, ids, start, n)
    total, left = np.float32(0.0), n
    while left > 0:
        left -= 1
        swap(weights, ids, 0, left)
        sift_down(weights, ids, np.int64(0), left)
        total += get_f32(weights, left)
        if total > enough or n - left == top_k:
            break
    wanted, running = coin * total, np.float32(0.0)
    for i in range(n - 1, left - 1, -1):
        running += get_f32(weights, i)
        if wanted < running:
            left = i
            break
    return get_i64(ids, left)


@kernel
def is_greedy(sampler):
    """Whether the likeliest token is wanted as the logits say it, with nothing to adjust."""
    adjusts = sampler.n_bias > 0 or sampler.mask != 0 or sampler.repetition_penalty != np.float32(1.0)
    adjusts = adjusts or sampler.presence_penalty != np.float32(0.0) or sampler.frequency_penalty != np.float32(0.0)
    return sampler.temperature == np.float32(0.0) and not adjusts


@kernel
def remember_token(sampler, token):
    """Append a token that was drawn to the sequence's history."""
    if sampler.n_history >= 0:
        set_i64(sampler.history, sampler.n_history, token)
        sampler.n_history += 1


@kernel
def sample_row(sampler, logits, vocab_size, n_vectors, scratch, candidates, candidate_ids):
    """One token id for one row of logits float32[16 * n_vectors], which may be changed; appends it to the history.

    scratch, candidates: float32 buffers, candidate_ids: int64, all of that size; scratch may be the logits themselves.
    """
    hide_padding(logits, vocab_size, n_vectors)
    adjust(sampler, logits, candidates)
    if sampler.mask != 0:
        hide_forbidden(sampler.mask, logits, vocab_size)
    if sampler.temperature == np.float32(0.0):
        token = argmax(logits, n_vectors)
    else:
        coin = draw_coin(sampler)
        total = exponentiate(logits, scratch, n_vectors, sampler.temperature)
        nucleus = np.float32(0.0) < sampler.top_p < np.float32(1.0)
        if not nucleus and sampler.top_k == 0 and sampler.min_p == np.float32(0.0):
            token = pick_by_sum(scratch, n_vectors, coin * total)
        else:
            limit = sampler.min_p  # the largest weight is 1
            if nucleus and vocab_size > 1:
                # below this no token can be part of the nucleus (run.c)
                limit = max(limit, (np.float32(1.0) - sampler.top_p) / np.float32(vocab_size - 1) * total)
            n = gather(scratch, n_vectors, min(limit, np.float32(1.0)), candidates, candidate_ids)
            enough = sampler.top_p * total if nucleus else np.float32(np.inf)
            token = pick_of_top(candidates, candidate_ids, n, sampler.top_k, enough, coin)
    remember_token(sampler, token)
    return token
