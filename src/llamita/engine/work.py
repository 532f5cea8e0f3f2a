"""What every thread of the team runs: wait for a job, do its part, and the loop that makes several tokens in one call.

The whole engine is compiled as this one function of (address of the STATE record, rank), called without the GIL. Workers linger
in compiled code for a while after a job, since waking a thread through Python costs more than a token of a small model.
"""

import numpy as np

from llamita.engine.forward import forward
from llamita.engine.pack import pack
from llamita.engine.sampler import sample_row, sampler_at
from llamita.engine.state import (
    JOB_FORWARD,
    JOB_PACK,
    JOBS,
    LONG_WAITS,
    PARKED,
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
from llamita.simd.memory import get_i64, load, record_reader, set_i64
from llamita.simd.vectors import LANES, add, reduce_max, splat

state_at = record_reader(STATE)

LINGER = 30_000  # pauses before a worker parks: about a millisecond
SPINS = 4_000  # pauses before it offers its core to others


@piece
def sample_wanted(state, rank):
    """Sample the wanted rows, which belong to the spans in the same order; the threads take turns."""
    scratch = 4 * rank * state.logits_stride
    for i in range(rank, state.n_wanted, state.n_threads):
        slot = get_i64(state.spans + 8 * SPAN_FIELDS * i, SPAN_SLOT)
        token = sample_row(
            sampler_at(state.samplers, slot), state.logits + 4 * i * state.logits_stride, state.vocab_size,
            state.logits_stride // LANES, state.probabilities + scratch, state.candidates + scratch,
            state.candidate_ids + 2 * scratch,
        )  # fmt: skip
        set_i64(state.results, state.steps_done * state.n_wanted + i, token)


@kernel
def is_stop_id(state, token):
    """Whether a token ends the loop."""
    for i in range(state.n_stop_ids):
        if get_i64(state.stop_ids, i) == token:
            return True
    return False


@piece
def prepare_next_step(state):
    """Make the sampled tokens the rows of the next step; decide whether there is one."""
    done = state.steps_done
    for i in range(state.n_wanted):
        token, span = get_i64(state.results, done * state.n_wanted + i), state.spans + 8 * SPAN_FIELDS * i
        position = get_i64(span, SPAN_POSITION) + get_i64(span, SPAN_ROWS)
        set_i64(span, SPAN_FIRST_ROW, i)
        set_i64(span, SPAN_ROWS, np.int64(1))
        set_i64(span, SPAN_POSITION, position)
        set_i64(state.ids, i, token)
        set_i64(state.row_slots, i, get_i64(span, SPAN_SLOT))
        set_i64(state.row_positions, i, position)
        set_i64(state.wanted, i, i)
    state.n_rows = state.n_wanted
    state.steps_done = done + 1
    stopped = atomic_load(state.signals, STOP) != 0
    # a wait that was too long: go back to Python, where the team decides how to go on
    stopped = stopped or get_i64(state.meeting, LONG_WAITS) != state.long_waits
    if state.n_wanted == 1:
        stopped = stopped or is_stop_id(state, get_i64(state.results, done))
    state.go_on = np.int64(state.steps_done < state.n_steps and not stopped)


@piece
def generate(state, rank):
    """n_steps forward passes, each fed with the tokens that the one before chose; or one pass without sampling."""
    while True:
        forward(state, rank)
        barrier(state.meeting, state.n_threads)
        if state.sample == 0:
            break
        sample_wanted(state, rank)
        if state.n_wanted > 1:
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
