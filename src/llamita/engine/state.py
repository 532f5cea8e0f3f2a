"""The records through which Python and the compiled step share everything: sizes, addresses of buffers, the job to do.

Python fills them (engine.py), the kernels read them by address. A field called like a buffer is its address; *_stride counts
elements from one row to the next, padded to whole vectors. Letters as in model.py. Knows no Numba.
"""

import numpy as np

# kinds of a stored matrix: rows as in the file, or small integers packed in panels of 16 rows, which come last
ROWS_F32, ROWS_F16, ROWS_BF16, ROWS_Q8, ROWS_Q4_0, ROWS_Q4_1, PANELS_Q8, PANELS_Q4_0, PANELS_Q4_1 = range(9)
KIND_OF_DTYPE = {
    "f32": ROWS_F32, "f16": ROWS_F16, "bf16": ROWS_BF16, "q8_0": ROWS_Q8, "q4_0": ROWS_Q4_0, "q4_1": ROWS_Q4_1,
}  # fmt: skip
FIRST_PANELS = PANELS_Q8  # this kind and those behind it are in panels
PANELS_OF_ROWS = {ROWS_Q8: PANELS_Q8, ROWS_Q4_0: PANELS_Q4_0, ROWS_Q4_1: PANELS_Q4_1}

JOB_FORWARD, JOB_PACK, JOB_READ = range(3)

# places of a layer's matrices in the table; the classifier comes after the last layer
QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = range(7)
MATRICES_PER_LAYER = 7


def _fields(integers: str, floats: str) -> list[tuple[str, type]]:
    return [(name, np.int64) for name in integers.split()] + [(name, np.float32) for name in floats.split()]


def _record(integers: str, floats: str = "") -> np.dtype:
    return np.dtype(_fields(integers, floats), align=True)


# ROWS_*: rows[columns] row_bytes apart; of integers: groups group_bytes apart, each of `group` weights (quant.py tells how they
# lie) with a scale and in q4_1 an offset (float16 if scale_is_half), all groups' scale_group_bytes apart. PANELS_*: see
# pack.py; padded_group is what a group of activations takes there, panel_row_bytes what a row of weights does; scales and
# offsets are divided by `multiplier`.
MATRIX = _record(
    "kind rows columns weights row_bytes group padded_group n_groups group_bytes panel_row_bytes "
    "scales offsets scale_row_bytes scale_group_bytes scale_is_half",
    "multiplier",
)

# One of each sequence: how its next token is drawn. rng is the xorshift state; history holds all its ids, from n_prompt on
# those that were drawn. mask: 0, or the address of one bit for each id that may be drawn. stop_ids end a call after them.
_SAMPLER_INTEGERS = "top_k penalty_window n_bias bias_ids bias_values history n_history n_prompt mask stop_ids n_stop_ids"
_SAMPLER_FLOATS = "temperature top_p min_p repetition_penalty presence_penalty frequency_penalty"
SAMPLER = np.dtype([("rng", np.uint64), *_fields(_SAMPLER_INTEGERS, _SAMPLER_FLOATS)], align=True)

STATE = _record(
    # sizes
    "width x_stride n_heads n_kv_heads head_size head_stride mlp_width hidden_stride query_stride kv_stride "
    "n_layers vocab_size logits_stride context n_slots max_rows owns_heads "
    # the model
    "matrices embedding norms cosines sines "
    # the cache, of numbers of cache_bytes: keys [L][slot][G][context/16][head_stride][16], values
    # [L][slot][G][context][head_stride]
    "keys values cache_bytes "
    # buffers that all threads share, one row a token
    "queries new_keys new_values attended hidden projected last logits "
    # buffers of one thread each, and their elements per thread
    "x x_private normed normed_private quants quants_private factors corrections factors_private pairs pairs_private "
    "tile_queries tile_heads tile_private scores scores_private probabilities candidates candidate_ids "
    # [thread][largest_private]: of each greedy row the largest of the logits that a thread made, and its id
    "largest largest_ids largest_private "
    # the team: meeting = barrier memory, signals = see work.py
    "n_threads meeting signals long_waits tickets "
    # the job
    "job published n_rows ids row_slots row_positions n_spans spans "
    # rows whose final activations are wanted: of the first n_drawn (the first spans' last) the next token is drawn, of the
    # first n_logits the logits are made; n_ranked says of each of those how many likeliest ids are wanted, or -1
    "n_wanted wanted n_logits n_drawn n_ranked targets rankings ranking_ids "
    "samplers n_steps steps_done go_on results "
    # jobs besides the forward pass
    "source target read_from read_bytes",
    "norm_epsilon score_scale",
)

# fields of a span, int64[4]: consecutive rows that belong to one sequence
SPAN_FIRST_ROW, SPAN_ROWS, SPAN_SLOT, SPAN_POSITION, SPAN_FIELDS = range(5)

# what is kept of the logits of a ranked row, float32: the largest, the sum of exp(logit - largest), the logit of the token that
# was drawn (of a prompt: that follows, its target), and the largest ones, whose ids are in ranking_ids
RANK_LARGEST, RANK_SUM, RANK_LOGIT, RANK_BEST = range(4)
MOST_RANKED = 20
RANKING_FLOATS = RANK_BEST + MOST_RANKED

# signals, int64, a cache line (8) each: number of jobs so far; wish to stop; of each rank: whether it is parked, jobs it has
# seen
JOBS, STOP, PARKED = 0, 8, 16
LONG_WAITS = 1  # place in the barrier's memory, see simd/atomics.py

BLOCK = 32  # bytes of one activation row that lie together, when the group is a multiple of it
SMALL_BLOCK = 4  # otherwise: what one product takes

# What a sum of activations is multiplied by where it is kept: weights stored as w + 128 need -128 times the sum, halves stored
# as w + 8 a sixteenth of that
SUM_FACTOR = -128

ROWS_PER_THREAD = 24  # from here on a thread takes rows of its own through all matrices: two barriers a layer
PAIR_FLOATS = 8192  # gate and up outputs held at once: they should stay in the first-level cache
