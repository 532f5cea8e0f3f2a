"""One pass through the model for m rows: decode (one row), prefill (many rows of one sequence), a batch (of many sequences).

All threads of the team run `forward` with their rank. Few rows: every thread does the row-wise work itself, redundantly (norm
and quantization cost less than a barrier), and takes chunks of each matrix: 4 barriers a layer, 5 where heads do not divide
among threads. Many rows: every thread owns rows through all matrices; only attention, split by heads, needs the others.
A row's result does not depend on the rows beside it, to the last bit.
"""

import numpy as np

from llamita.engine.attention import attend, remember
from llamita.engine.matmul import fetch_early, matmul, matrix_at, n_panels, share, stored_row_bytes
from llamita.engine.rows import add_rows, embed_row, normalize, quantize_row, quantize_rows, quantized_bytes, rotate, tile_rows
from llamita.engine.sampler import MINUS_INFINITY, is_greedy, largest_between, sampler_at
from llamita.engine.state import (
    DOWN,
    FIRST_PANELS,
    GATE,
    KEY,
    MATRICES_PER_LAYER,
    OUTPUT,
    PAIR_FLOATS,
    QUERY,
    ROWS_PER_THREAD,
    SPAN_FIELDS,
    SPAN_FIRST_ROW,
    SPAN_POSITION,
    SPAN_ROWS,
    SPAN_SLOT,
    UP,
    VALUE,
)
from llamita.simd.atomics import atomic_add, barrier
from llamita.simd.kernel import kernel, piece
from llamita.simd.memory import get_f32, get_i64, load, set_f32, set_i64, store
from llamita.simd.vectors import LANES, silu_multiply

# Memory serves threads unequally, and the barrier waits for the last one: of a large matrix three quarters are shared by rank,
# in long streams, and the threads take the rest in turn, chunk by chunk. A small one is read before that would pay.
CHUNKS_PER_THREAD, SMALL_MATRIX_BYTES = 2, 1 << 18


@kernel
def quantized_group(state, first, count):
    """The group size that the integer matrices among these want their input in; 0 when there are none."""
    for i in range(first, first + count):
        matrix = matrix_at(state.matrices, i)
        if matrix.kind >= FIRST_PANELS:
            return matrix.group
    return np.int64(0)


@kernel
def wants_floats(state, first, count):
    """Whether one of these matrices takes its input as it is."""
    for i in range(first, first + count):
        if matrix_at(state.matrices, i).kind < FIRST_PANELS:
            return True
    return False


@kernel
def prepare_normed(state, x, n_rows, norm, first, count, normed, quants, factors, corrections):
    """Normalize n_rows rows of x for `count` matrices from `first` on: quantized, or as floats in `normed`, or both."""
    group, floats = quantized_group(state, first, count), wants_floats(state, first, count)
    width, stride = state.width, state.x_stride
    norm_weights = state.norms + 4 * norm * stride
    row = 0
    while row < n_rows:
        rows = tile_rows(n_rows - row)
        for r in range(rows):
            target = normed + 4 * (row + r) * stride if floats else normed
            normalize(x + 4 * (row + r) * stride, width, norm_weights, state.norm_epsilon, target)
            if group > 0:
                groups_at = 4 * row * (width // group)
                quantize_row(
                    target, width, group, quants + row * quantized_bytes(width, group),
                    factors + groups_at, corrections + groups_at, rows, r,
                )  # fmt: skip
        row += rows


@piece
def prepare(state, x, x_stride, n_rows, n, matrix, quants, factors, corrections):
    """Quantize n_rows rows of n columns for one matrix, if it wants that."""
    group = quantized_group(state, matrix, np.int64(1))
    if group > 0:
        quantize_rows(x, x_stride, n_rows, n, group, quants, factors, corrections)


@piece
def project_heads(state, layer, group_range, normed, quants, factors, corrections, row, n_rows):
    """Queries, keys and values of n_rows rows from `row` on, for the key/value groups (first, last) of this thread.

    first < 0 means a share of the panels instead: last is the rank then, and -first the number of threads.
    """
    first_group, last_group = group_range
    for which in range(QUERY, VALUE + 1):
        matrix = matrix_at(state.matrices, layer * MATRICES_PER_LAYER + which)
        if first_group < 0:
            first, last = share(n_panels(matrix), last_group, -first_group)
        else:
            heads = state.n_heads // state.n_kv_heads if which == QUERY else 1
            first = (first_group * heads * state.head_size) >> 4
            last = (last_group * heads * state.head_size + LANES - 1) >> 4
        out, stride = state.queries, state.query_stride
        if which == KEY:
            out, stride = state.new_keys, state.kv_stride
        elif which == VALUE:
            out, stride = state.new_values, state.kv_stride
        matmul(
            matrix, normed, state.x_stride, quants, factors, corrections, out + 4 * row * stride, stride, first, last, n_rows
        )


@piece
def cache_place(state, layer, slot, group):
    """Where the keys and values of a key/value head of a sequence lie, in numbers from the cache's beginning."""
    return ((layer * state.n_slots + slot) * state.n_kv_heads + group) * state.context * state.head_stride


@piece
def remember_rows(state, layer, first_head, last_head, row, row_end):
    """Rotate these query heads of these rows, and put the keys and values that they look at into the cache.

    Where a key/value head is shared by query heads of two threads, both write the same.
    """
    head_size, heads = state.head_size, state.n_heads // state.n_kv_heads
    for r in range(row, row_end):
        position, slot = get_i64(state.row_positions, r), get_i64(state.row_slots, r)
        angles = 4 * position * state.head_stride
        cosines, sines = state.cosines + angles, state.sines + angles
        for head in range(first_head, last_head):
            rotate(state.queries + 4 * (r * state.query_stride + head * head_size), head_size, cosines, sines)
        for g in range(first_head // heads, (last_head + heads - 1) // heads):
            cache, place = state.cache_bytes * cache_place(state, layer, slot, g), 4 * (r * state.kv_stride + g * head_size)
            remember(
                state.new_keys + place, state.new_values + place, head_size, state.head_stride, cosines, sines,
                state.keys + cache, state.values + cache, state.cache_bytes, position,
            )  # fmt: skip


@piece
def attend_heads(state, layer, first_head, last_head, rank):
    """Attention of these query heads for all spans."""
    head_size, heads = state.head_size, state.n_heads // state.n_kv_heads
    queries, mixed = state.tile_queries + 4 * rank * state.tile_private, state.tile_heads + 4 * rank * state.tile_private
    scores = state.scores + 4 * rank * state.scores_private
    for s in range(state.n_spans):
        span = state.spans + 8 * SPAN_FIELDS * s
        row, slot = get_i64(span, SPAN_FIRST_ROW), get_i64(span, SPAN_SLOT)
        next_slot = get_i64(state.spans + 8 * SPAN_FIELDS * min(s + 1, state.n_spans - 1), SPAN_SLOT)
        for head in range(first_head, last_head):
            cache, place = cache_place(state, layer, slot, head // heads), head * head_size
            if head + 1 < last_head:
                then = cache_place(state, layer, slot, (head + 1) // heads)
            else:
                then = cache_place(state, layer, next_slot, first_head // heads)
            attend(
                state.attended + 4 * (row * state.query_stride + place), state.query_stride,
                state.queries + 4 * (row * state.query_stride + place), state.query_stride,
                state.keys + state.cache_bytes * cache, state.values + state.cache_bytes * cache, state.cache_bytes,
                head_size, state.head_stride, state.score_scale,
                get_i64(span, SPAN_ROWS), get_i64(span, SPAN_POSITION), queries, mixed, scores, then - cache,
            )  # fmt: skip


@piece
def own_panels(matrix, n_parts):
    """Panels of a matrix that are each thread's own, by its rank; all of them where it is not shared."""
    n = n_panels(matrix)
    if n_parts > 1 and n * LANES * stored_row_bytes(matrix) > SMALL_MATRIX_BYTES:
        return n * 3 // (4 * n_parts)
    return (n + n_parts - 1) // n_parts


@piece
def own_range(n, own, part):
    """(first, end) of those of part `part`, of n panels."""
    first = min(part * own, n)
    return first, min(first + own, n)


@piece
def chunk_of(n, own, n_threads):
    """Panels of the others that a thread takes at a time."""
    return max((n - own * n_threads) // (n_threads * CHUNKS_PER_THREAD), np.int64(1))


@piece
def take_chunk(state, which, n, own):
    """(first, end) of the next panels that nobody has taken, behind those that are a thread's own; empty at the end."""
    begin = own * state.n_threads
    if begin >= n:
        return n, n
    chunk = chunk_of(n, own, state.n_threads)
    first = begin + atomic_add(state.tickets, 8 * which, chunk)
    return first, min(first + chunk, n)


@piece
def project(state, which, x, x_stride, quants, factors, corrections, out, n_rows, part, n_parts):
    """A whole matrix back to the model's width, for this thread's own rows (n_parts 1) or in turn with the other threads."""
    matrix = matrix_at(state.matrices, which)
    prepare(state, x, x_stride, n_rows, matrix.columns, which, quants, factors, corrections)
    n, own = n_panels(matrix), own_panels(matrix, n_parts)
    first, last = own_range(n, own, part)
    while first < last:
        matmul(matrix, x, x_stride, quants, factors, corrections, out, state.x_stride, first, last, n_rows)
        first, last = take_chunk(state, which, n, own)


@piece
def gated_units(state, layer, normed, quants, factors, corrections, pairs, row, n_rows, part, n_parts):
    """hidden = silu(gate x) * (up x): some panels of both at a time, joined while they are in the first-level cache."""
    gate = matrix_at(state.matrices, layer * MATRICES_PER_LAYER + GATE)
    up = matrix_at(state.matrices, layer * MATRICES_PER_LAYER + UP)
    n, which_gate = n_panels(gate), layer * MATRICES_PER_LAYER + GATE
    most = max(PAIR_FLOATS // (2 * LANES * n_rows), np.int64(2))
    own = own_panels(gate, n_parts)
    first, last = own_range(n, own, part)
    while first < last:
        panels = min(most, last - first)
        stride = panels * LANES
        gates, ups = pairs - 4 * first * LANES, pairs + 4 * (n_rows * stride - first * LANES)  # matmul adds first * LANES
        for which in range(2):
            matrix, out = (up, ups) if which else (gate, gates)
            matmul(matrix, normed, state.x_stride, quants, factors, corrections, out, stride, first, first + panels, n_rows)
        columns = min(stride, state.hidden_stride - first * LANES)
        for r in range(n_rows):
            target = state.hidden + 4 * ((row + r) * state.hidden_stride + first * LANES)
            for i in range(0, columns, LANES):
                at = r * stride + i
                store(target, i, silu_multiply(load(pairs, at), load(pairs, n_rows * stride + at)))
        first += panels
        if first == last:
            first, last = take_chunk(state, which_gate, n, own)


@piece
def forget_largest(state, rank):
    """Begin to look for the largest logits of the rows that a token is drawn from."""
    largest = state.largest + 4 * rank * state.largest_private
    for i in range(state.n_drawn):
        set_f32(largest, i, MINUS_INFINITY)
        set_i64(state.largest_ids + 8 * rank * state.largest_private, i, np.int64(0))


@piece
def find_largest(state, rank, first, last):
    """Look through the logits of these panels while they are in this core's cache, where that is all that drawing takes."""
    largest = state.largest + 4 * rank * state.largest_private
    ids = state.largest_ids + 8 * rank * state.largest_private
    for i in range(state.n_drawn):
        if is_greedy(sampler_at(state.samplers, get_i64(state.spans + 8 * SPAN_FIELDS * i, SPAN_SLOT))):
            value, token = largest_between(state.logits + 4 * i * state.logits_stride, first, last, state.vocab_size)
            if value > get_f32(largest, i) or (value == get_f32(largest, i) and token < get_i64(ids, i)):
                set_f32(largest, i, value)
                set_i64(ids, i, token)


@kernel
def largest_of(state, row):
    """The id of the largest logit of a greedy row, of equals the lowest."""
    best, token = MINUS_INFINITY, np.int64(0)
    for rank in range(state.n_threads):
        place = rank * state.largest_private + row
        value, other = get_f32(state.largest, place), get_i64(state.largest_ids, place)
        if value > best or (value == best and other < token):
            best, token = value, other
    return token


@piece
def classify(state, x, row, row_end, by_rows, rank, normed, quants, factors, corrections):
    """Final activations of the wanted rows, [n_wanted][x_stride], and the logits of the first n_logits of them.

    The activations are those before the last norm; every thread makes a part of the vocabulary.
    """
    stride = state.x_stride
    for i in range(state.n_wanted):
        r = get_i64(state.wanted, i)
        if row <= r < row_end and (by_rows or rank == 0):
            source = x + 4 * (r - row) * stride
            for k in range(0, stride, LANES):
                store(state.last, i * stride + k, load(source, k))
    if rank == 0:
        set_i64(state.tickets, 8 * state.n_layers * MATRICES_PER_LAYER, np.int64(0))
    barrier(state.meeting, state.n_threads)
    head, n = state.n_layers * MATRICES_PER_LAYER, state.n_logits
    if n > 0:
        prepare_normed(state, state.last, n, 2 * state.n_layers, head, np.int64(1), normed, quants, factors, corrections)
        matrix = matrix_at(state.matrices, head)
        own, n_vectors = own_panels(matrix, state.n_threads), n_panels(matrix)
        first, last = own_range(n_vectors, own, rank)
        forget_largest(state, rank)
        while first < last:
            matmul(matrix, normed, stride, quants, factors, corrections, state.logits, state.logits_stride, first, last, n)
            find_largest(state, rank, first, last)
            first, last = take_chunk(state, head, n_vectors, own)


@kernel
def forward(state, rank):
    """Read ids at their positions into the cache; fill the logits of the wanted rows. Ends without a barrier."""
    stride, n_rows, n_threads, meeting = state.x_stride, state.n_rows, state.n_threads, state.meeting
    x, normed = state.x + 4 * rank * state.x_private, state.normed + 4 * rank * state.normed_private
    quants = state.quants + rank * state.quants_private
    factors, corrections = (
        state.factors + 4 * rank * state.factors_private,
        state.corrections + 4 * rank * state.factors_private,
    )
    pairs = state.pairs + 4 * rank * state.pairs_private

    by_rows = n_rows >= ROWS_PER_THREAD * n_threads
    row, row_end = share(n_rows, rank, n_threads) if by_rows else (np.int64(0), n_rows)  # rows and panels of this thread
    part, n_parts = (np.int64(0), np.int64(1)) if by_rows else (rank, n_threads)
    mine = row_end - row
    owns_heads = state.owns_heads == 1 and not by_rows
    first_group, last_group = share(state.n_kv_heads, rank, n_threads)
    first_head, last_head = share(state.n_heads, rank, n_threads)
    if owns_heads:
        heads = state.n_heads // state.n_kv_heads
        first_head, last_head = first_group * heads, last_group * heads
        groups = (first_group, last_group)
    else:
        groups = (-n_parts, part)

    embedding = matrix_at(state.embedding, 0)
    for r in range(mine):
        embed_row(embedding, get_i64(state.ids, row + r), x + 4 * r * stride)
    for layer in range(state.n_layers):
        first = layer * MATRICES_PER_LAYER
        prepare_normed(state, x, mine, 2 * layer, first + QUERY, np.int64(3), normed, quants, factors, corrections)
        project_heads(state, layer, groups, normed, quants, factors, corrections, row, mine)
        if by_rows:
            remember_rows(state, layer, np.int64(0), state.n_heads, row, row_end)
            barrier(meeting, n_threads)
        else:
            if not owns_heads:
                barrier(meeting, n_threads)
            remember_rows(state, layer, first_head, last_head, row, row_end)
        attend_heads(state, layer, first_head, last_head, rank)
        output = matrix_at(state.matrices, first + OUTPUT)
        fetch_early(output, rank * own_panels(output, n_threads))
        barrier(meeting, n_threads)

        attended, projected = state.attended + 4 * row * state.query_stride, state.projected + 4 * row * stride
        project(
            state, first + OUTPUT, attended, state.query_stride, quants, factors, corrections, projected, mine, part, n_parts
        )  # fmt: skip
        if not by_rows:
            gate = matrix_at(state.matrices, first + GATE)
            fetch_early(gate, rank * own_panels(gate, n_threads))
            barrier(meeting, n_threads)
            if rank == 0:
                set_i64(state.tickets, 8 * (first + OUTPUT), np.int64(0))

        add_rows(x, projected, mine * stride)
        prepare_normed(state, x, mine, 2 * layer + 1, first + GATE, np.int64(2), normed, quants, factors, corrections)
        gated_units(state, layer, normed, quants, factors, corrections, pairs, row, mine, part, n_parts)
        down = matrix_at(state.matrices, first + DOWN)
        if not by_rows:
            fetch_early(down, rank * own_panels(down, n_threads))
            barrier(meeting, n_threads)
            if rank == 0:
                set_i64(state.tickets, 8 * (first + GATE), np.int64(0))

        hidden = state.hidden + 4 * row * state.hidden_stride
        project(
            state, first + DOWN, hidden, state.hidden_stride, quants, factors, corrections, projected, mine, part, n_parts
        )  # fmt: skip
        if not by_rows:
            following = matrix_at(state.matrices, first + MATRICES_PER_LAYER)  # the next layer's queries, or the classifier
            fetch_early(following, share(n_panels(following), part, n_parts)[0])
            barrier(meeting, n_threads)
            if rank == 0:
                set_i64(state.tickets, 8 * (first + DOWN), np.int64(0))
        add_rows(x, projected, mine * stride)
    if state.n_wanted > 0:
        classify(state, x, row, row_end, by_rows, rank, normed, quants, factors, corrections)
