"""What every thread of the team runs: wait for a job, do its part, and the loop that makes several tokens in one call.

The whole engine is compiled as this one function of (address of the STATE record, rank), called without the GIL. Workers linger
in compiled code for a while after a job, since waking a thread through Python costs more than a token of a small model.
"""

import numpy as np

from llamita.engine.forward import forward, largest_of
from llamita.engine.pack import pack
from llamita.engine.ranking import rank_row
from llamita.engine.sampler import is_greedy, remember_token, sample_row, sampler_at
from llamita.engine.state import (
    JOB_FORWARD,
    JOB_PACK,
    JOBS,
    LONG_WAITS,
    MOST_RANKED,
    PARKED,
    RANK_LOGIT,
    RANKING_FLOATS,
    SPAN_FIELDS,
    SPAN_FIRST_ROW,
    SPAN_POSITION,
    SPAN_ROWS,
    SPAN_SLOT,
    STATE,
    STOP,
)
from llamita.simd.atomics import atomic_add, atomic_exchange, atomic_load, barrier, let_others_run, pause
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import get_f32, get_i64, load, record_reader, set_f32, set_i64
from llamita.simd.vectors import LANES, add, reduce_max, splat

state_at = record_reader(STATE)

LINGER = 30_000  # pauses before a worker parks: about a millisecond
SPINS = 4_000  # pauses before it offers its core to others


@piece
def use_logits(state, rank):
    """Rank rows of logits where that is wanted; draw a token of the first n_drawn, whose spans come in the same order.

    The threads take turns.
    """
    size, n_vectors, scratch = state.vocab_size, state.logits_stride // LANES, 4 * rank * state.logits_stride
    probabilities, candidates = state.probabilities + scratch, state.candidates + scratch
    for i in range(rank, state.n_logits, state.n_threads):
        logits, place = state.logits + 4 * i * state.logits_stride, state.steps_done * state.n_drawn + i
        ranking, n_best = state.rankings + 4 * RANKING_FLOATS * place, get_i64(state.n_ranked, i)
        row, token = logits, get_i64(state.targets, i)
        if n_best >= 0:
            rank_row(logits, size, n_vectors, n_best, probabilities, ranking, state.ranking_ids + 8 * MOST_RANKED * place)
            row = probabilities  # a copy: the logits stay as they are
        if i < state.n_drawn:
            sampler = sampler_at(state.samplers, get_i64(state.spans + 8 * SPAN_FIELDS * i, SPAN_SLOT))
            if is_greedy(sampler):
                token = largest_of(state, i)
                remember_token(sampler, token)
            else:
                token = sample_row(sampler, row, size, n_vectors, probabilities, candidates, state.candidate_ids + 2 * scratch)
            set_i64(state.results, place, token)
        if n_best >= 0:
            set_f32(ranking, RANK_LOGIT, get_f32(logits, token))


@kernel
def is_stop_id(sampler, token):
    """Whether a token ends the loop."""
    for i in range(sampler.n_stop_ids):
        if get_i64(sampler.stop_ids, i) == token:
            return True
    return False


@piece
def prepare_next_step(state):
    """Make the drawn tokens the rows of the next step; decide whether there is one."""
    done, n = state.steps_done, state.n_drawn
    stopped = atomic_load(state.signals, STOP) != 0
    # a wait that was too long: go back to Python, where the team decides how to go on
    stopped = stopped or get_i64(state.meeting, LONG_WAITS) != state.long_waits
    for i in range(n):
        token, span = get_i64(state.results, done * n + i), state.spans + 8 * SPAN_FIELDS * i
        position, slot = get_i64(span, SPAN_POSITION) + get_i64(span, SPAN_ROWS), get_i64(span, SPAN_SLOT)
        set_i64(span, SPAN_FIRST_ROW, i)
        set_i64(span, SPAN_ROWS, np.int64(1))
        set_i64(span, SPAN_POSITION, position)
        set_i64(state.ids, i, token)
        set_i64(state.row_slots, i, slot)
        set_i64(state.row_positions, i, position)
        set_i64(state.wanted, i, i)
        stopped = stopped or is_stop_id(sampler_at(state.samplers, slot), token)
    state.n_rows, state.n_spans, state.n_wanted, state.n_logits = n, n, n, n
    state.steps_done = done + 1
    state.go_on = np.int64(state.steps_done < state.n_steps and not stopped)


@piece
def generate(state, rank):
    """n_steps forward passes, each fed with the tokens that the one before drew; or one pass that draws none."""
    while True:
        forward(state, rank)
        barrier(state.meeting, state.n_threads)
        use_logits(state, rank)
        if state.n_drawn == 0:
            break
        if state.n_logits > 1:
            barrier(state.meeting, state.n_threads)
        if rank == 0:
            prepare_next_step(state)
        barrier(state.meeting, state.n_threads)
        if state.go_on == 0:
            break


@piece
def read_memory(state, rank):
    """Read this thread's share of a stretch of memory, nothing else: the bandwidth that decode is measured against."""
    n = state.read_bytes // 64
    first, last = n * rank // state.n_threads, n * (rank + 1) // state.n_threads
    start = state.read_from + 64 * first
    a = b = c = d = splat(np.float32(0.0))
    for i in range(0, (last - first) & ~3, 4):
        a, b = add(a, load(start, i * LANES)), add(b, load(start, i * LANES + 16))
        c, d = add(c, load(start, i * LANES + 32)), add(d, load(start, i * LANES + 48))
    state_sum = reduce_max(add(add(a, b), add(c, d)))
    set_i64(state.results, rank * 8, np.int64(state_sum > 0))


@piece
def do_job(state, rank):
    """This thread's part of the current job."""
    if state.job == JOB_FORWARD:
        generate(state, rank)
    elif state.job == JOB_PACK:
        pack(state.source, state.target, rank, state.n_threads)
    else:
        read_memory(state, rank)
    barrier(state.meeting, state.n_threads)


@piece
def publish(state):
    """Rank 0: make the job known. Returns the set of parked workers, which Python must wake before it calls again."""
    parked = np.int64(0)
    if state.published == 0 and state.n_threads > 1:
        state.published = 1
        atomic_add(state.signals, JOBS, np.int64(1))
        for rank in range(1, state.n_threads):
            parked |= atomic_exchange(state.signals, PARKED + 8 * rank, np.int64(0)) << rank
    return parked


@piece
def wait_for_job(state, seen):
    """Other ranks: whether a job newer than `seen` came while we lingered."""
    found = False
    for spins in range(LINGER):
        if atomic_load(state.signals, JOBS) != seen:
            found = True
            break
        pause(seen)
        if spins > SPINS and spins & 15 == 0:
            let_others_run(seen)
    return found


@piece
def park(state, rank, seen):
    """Say that this worker goes to sleep; whether it may. A job may have come meanwhile: then it must not."""
    set_i64(state.signals, PARKED + 8 * rank + 1, seen)
    atomic_exchange(state.signals, PARKED + 8 * rank, np.int64(1))
    is_idle = atomic_load(state.signals, JOBS) == seen
    if not is_idle:
        # 0: the leader saw us parked and wakes us once too often, which is harmless
        atomic_exchange(state.signals, PARKED + 8 * rank, np.int64(0))
    return is_idle


@kernel
def work(state_address, rank):
    """The entry point. Rank 0 does one job and returns 0, or the workers to wake first; the others return when idle."""
    state = state_at(state_address, np.int64(0))
    seen = get_i64(state.signals, PARKED + 8 * rank + 1)
    if rank == 0:
        parked = publish(state)
        if parked != 0:
            return parked
    while True:
        if rank != 0 and not wait_for_job(state, seen):
            if park(state, rank, seen):
                return np.int64(0)
            continue
        if rank == 0:
            state.long_waits = get_i64(state.meeting, LONG_WAITS)
        do_job(state, rank)
        seen += 1
        if rank == 0:
            state.published = 0
            return np.int64(0)
