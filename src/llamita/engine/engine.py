"""Engine: a Model made ready to run. It holds weights, cache and buffers, and runs steps of sequences on a team of threads.

Ids in, ids or logits out. It gets a Model, never a path, and knows no text. Threads that call it wait for one another; a
sequence belongs to one of them, and so does what a pass leaves behind (logits_buffer, score, logprobs, hidden_states).
A forked process goes on with one thread; places that other threads held at that moment stay taken in it.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Iterable
from functools import cache
from types import TracebackType

import numpy as np

from llamita.engine.compiled import load_work
from llamita.engine.memory import address_of, aligned
from llamita.engine.rotary import rotary_tables
from llamita.engine.sampling import Sampling
from llamita.engine.scores import Reading, Score, score_of
from llamita.engine.sequence import Sequence
from llamita.engine.state import (
    JOB_FORWARD,
    JOB_PACK,
    JOB_READ,
    MATRICES_PER_LAYER,
    MOST_RANKED,
    PAIR_FLOATS,
    PARKED,
    RANK_LARGEST,
    RANK_SUM,
    RANKING_FLOATS,
    SAMPLER,
    SPAN_FIELDS,
    STATE,
    STOP,
)
from llamita.engine.team import Team, default_threads
from llamita.engine.weights import Weights, padded
from llamita.errors import SettingError
from llamita.model import Model
from llamita.simd.isa import INSTRUCTION_SETS, LANES, detect_isa

LOGIT_ROWS = 32  # rows of logits held at least, beside those of one token of each sequence
MAX_THREADS = 60  # which of them sleep are bits of one int64
CLOSED = "the sequence: found it closed, expected it open; make another"
LARGE_MODEL = 2_000_000_000  # parameters from which a prompt is read in smaller pieces, so that Ctrl-C is heard


class Engine:
    """A model that runs.

    n_threads: default one per processor core. context: positions to make room for, at most (and by default) the model's.
    n_slots: sequences at once. logits_bytes: memory for the logits of a pass, for who wants those of most rows that it reads.
    cache_itemsize: bytes of a number in the cache, 4 or (where the processor has float16) 2; by default as the model's.
    Raises SettingError for numbers that make no sense, ModelError for a model that does not fit.

    >>> engine = Engine(model, context=256)                                         # doctest: +SKIP
    >>> sequence = engine.sequence(Sampling(temperature=0)); sequence.append([1])    # doctest: +SKIP
    >>> sequence.run(10)                                                             # doctest: +SKIP
    """

    def __init__(
        self,
        model: Model,
        n_threads: int | None = None,
        context: int | None = None,
        n_slots: int = 1,
        logits_bytes: int = 0,
        cache_itemsize: int | None = None,
    ) -> None:
        self.config = model.validate().config
        self.context = _checked("context", context, self.config.context, self.config.context)
        self.n_threads = _checked("n_threads", n_threads, min(default_threads(), MAX_THREADS), MAX_THREADS)
        self.n_slots = _checked("n_slots", n_slots, 1, 4096)
        self.isa = detect_isa()
        pass_rows = 256 if self.config.n_parameters < LARGE_MODEL else 64
        logit_rows = min(pass_rows - self.n_slots, logits_bytes // (4 * self.config.vocab_size))
        self.max_logits = self.n_slots + max(logit_rows, LOGIT_ROWS)
        self.max_rows = max(pass_rows, self.max_logits)
        self._free_slots = list(range(self.n_slots))
        self._lock = threading.RLock()  # of the state, the team and the buffers
        self._first_hidden = 0  # of the last pass: rows of `last` before those whose hidden states were wanted
        self._buffers: dict[str, np.ndarray] = {}
        self._state = aligned(STATE.itemsize, np.uint8).view(STATE)
        self._set_sizes()
        self._state["cache_bytes"] = self._cache_itemsize(model.cache_itemsize, cache_itemsize)
        self._team = Team(load_work(), self._state, self._buffers["meeting"], self.n_threads)
        # an engine that nobody closes: its threads must end before its memory goes
        self._finalizer = weakref.finalize(self, Team.close, self._team)
        self._team.keep_alive += [model, self._state, self._buffers]
        _watch_forks()
        _ENGINES.add(self)
        try:
            self.weights = Weights(model, self._pack)
            self._team.keep_alive.append(self.weights)
            self._state["matrices"], self._state["embedding"] = (
                address_of(self.weights.table),
                address_of(self.weights.embedding),
            )
            self._state["norms"] = address_of(self.weights.norms)
            self._make_buffers()
        except BaseException:
            self.close()
            raise

    # ---- setting up -------------------------------------------------------------------------------------------------

    def _set_sizes(self) -> None:
        config, n = self.config, self.n_threads
        heads = config.n_heads // config.n_kv_heads
        first_groups = [config.n_kv_heads * rank // n for rank in range(n)]
        # a thread can own heads only where its slices of the query, key and value rows begin on whole vectors
        owns = config.n_kv_heads % n == 0 and all(
            g * config.head_size * m % LANES == 0 for g in first_groups for m in (1, heads)
        )
        sizes = {
            "width": config.width, "x_stride": padded(config.width), "n_heads": config.n_heads, "n_kv_heads": config.n_kv_heads,
            "head_size": config.head_size, "head_stride": padded(config.head_size), "mlp_width": config.mlp_width,
            "hidden_stride": padded(config.mlp_width), "query_stride": padded(config.query_width),
            "kv_stride": padded(config.kv_width), "n_layers": config.n_layers, "vocab_size": config.vocab_size,
            "logits_stride": padded(config.vocab_size), "context": padded(self.context), "n_slots": self.n_slots,
            "max_rows": self.max_rows, "owns_heads": int(owns), "n_threads": n,
            "norm_epsilon": config.norm_epsilon, "score_scale": 1 / math.sqrt(config.head_size),
        }  # fmt: skip
        for name, value in sizes.items():
            self._state[name] = value
        self._buffer("meeting", LANES, np.int64)
        self._buffer("tickets", 8 * (MATRICES_PER_LAYER * config.n_layers + 1), np.int64)
        self._buffer("signals", PARKED + 8 * (n + 1), np.int64)[PARKED::8] = 1  # all workers are parked
        for rank in range(n + 1):
            self._buffers["signals"][PARKED + 8 * rank + 1] = 0

    def _cache_itemsize(self, default: int, wanted: int | None) -> int:
        possible = (4, 2) if INSTRUCTION_SETS[self.isa].has_half_cache else (4,)
        if wanted is None:
            return default if default in possible else 4
        if wanted not in possible:
            raise SettingError(f"cache_itemsize: found {wanted}, expected {' or '.join(map(str, possible))}")
        return wanted

    def _buffer(self, name: str, n: int, dtype: type = np.float32) -> np.ndarray:
        """Make a buffer of n elements and put its address into the state."""
        self._buffers[name] = buffer = aligned(n, dtype)
        self._state[name] = address_of(buffer)
        return buffer

    def _pack(self, source: np.ndarray, target: np.ndarray) -> None:
        self._state["job"], self._state["source"], self._state["target"] = JOB_PACK, address_of(source), address_of(target)
        self._team.run()

    def _make_buffers(self) -> None:
        s, config, n, rows = self._state[0], self.config, self.n_threads, self.max_rows
        cosines, sines = rotary_tables(config, padded(self.context))
        self._buffers |= {"cosines": cosines, "sines": sines}
        self._state["cosines"], self._state["sines"] = address_of(cosines), address_of(sines)
        cache = config.n_layers * self.n_slots * config.n_kv_heads * int(s["context"]) * int(s["head_stride"])
        dtype = np.float16 if self._state["cache_bytes"][0] == 2 else np.float32
        self._buffer("keys", cache, dtype)
        self._buffer("values", cache, dtype)
        x, query, kv, hidden = (int(s[name]) for name in ("x_stride", "query_stride", "kv_stride", "hidden_stride"))
        shared = {"queries": query, "new_keys": kv, "new_values": kv, "attended": query, "hidden": hidden, "projected": x}
        for name, stride in shared.items():
            self._buffer(name, rows * stride + LANES)
        self._last = self._buffer("last", rows * x).reshape(rows, -1)
        logits = self._buffer("logits", self.max_logits * int(s["logits_stride"]))
        self.logits_buffer = logits.reshape(self.max_logits, -1)
        self._make_thread_buffers()
        self._ids, self._row_slots, self._row_positions = (
            self._buffer(name, rows, np.int64) for name in ("ids", "row_slots", "row_positions")
        )
        self._spans = self._buffer("spans", SPAN_FIELDS * self.n_slots, np.int64).reshape(-1, SPAN_FIELDS)
        self._wanted, self._n_ranked, self._targets = (
            self._buffer(name, rows, np.int64) for name in ("wanted", "n_ranked", "targets")
        )
        self.max_results = max(self.context + 1, rows, 8 * n)
        self._results = self._buffer("results", self.max_results, np.int64)
        self._rankings = self._buffer("rankings", RANKING_FLOATS * self.max_results).reshape(-1, RANKING_FLOATS)
        self._ranking_ids = self._buffer("ranking_ids", MOST_RANKED * self.max_results, np.int64).reshape(-1, MOST_RANKED)
        self._buffers["samplers"] = memory = aligned(self.n_slots * SAMPLER.itemsize, np.uint8)
        self._samplers = memory.view(SAMPLER)
        self._state["samplers"] = address_of(self._samplers)

    def _make_thread_buffers(self) -> None:
        """Each thread's own: rows of activations, scores of attention, numbers of the vocabulary for drawing."""
        s, n, rows = self._state[0], self.n_threads, self.max_rows
        tile, planes = INSTRUCTION_SETS[self.isa].query_tile, INSTRUCTION_SETS[self.isa].planes
        longest, most_groups = self.weights.widest_input()
        private = {
            "x": rows * int(s["x_stride"]), "normed": rows * int(s["x_stride"]), "quants": planes * rows * longest,
            "factors": rows * most_groups, "pairs": max(PAIR_FLOATS, 4 * LANES * rows) + LANES,
            "scores": tile * int(s["context"]),
        }  # fmt: skip
        for name, size in private.items():
            size = padded(size) + LANES
            self._buffer(name, n * size, np.int8 if name == "quants" else np.float32)
            self._state[f"{name}_private"] = size
        self._buffer("corrections", n * int(self._state["factors_private"][0]), np.int32)
        self._state["tile_private"] = tile_size = tile * int(s["head_stride"]) + LANES
        self._buffer("tile_queries", n * tile_size)
        self._buffer("tile_heads", n * tile_size)
        vocabulary = n * int(s["logits_stride"])
        self._buffer("probabilities", vocabulary)
        self._buffer("candidates", vocabulary)
        self._buffer("candidate_ids", vocabulary, np.int64)
        self._state["largest_private"] = per_thread = padded(self.n_slots) + LANES
        self._buffer("largest", n * per_thread)
        self._buffer("largest_ids", n * per_thread, np.int64)

    # ---- sequences --------------------------------------------------------------------------------------------------

    def sequence(self, sampling: Sampling | None = None) -> Sequence:
        """A new sequence in a free slot. Raises SettingError when all slots are taken."""
        try:
            slot = self._free_slots.pop(0)
        except IndexError:
            remedy = "close one, or make room for more (Engine's n_slots, load's n_sequences)"
            raise SettingError(f"sequences: found {self.n_slots} in use, expected fewer; {remedy}") from None
        try:
            return Sequence(self, slot, sampling or Sampling())
        except BaseException:
            self._free_slots.insert(0, slot)
            raise

    def sampler_record(self, slot: int) -> np.ndarray:
        """The SAMPLER record of a slot, cleared."""
        record = self._samplers[slot : slot + 1]
        record.view(np.uint8)[:] = 0
        return record[0]

    def release(self, slot: int) -> None:
        """Make a slot free; called by Sequence.close."""
        self._free_slots.append(slot)

    def copy_cache(self, source: int, target: int, n_positions: int) -> None:
        """Copy keys and values of the first n_positions from one slot to another."""
        if source < 0 or target < 0:
            raise SettingError(CLOSED)
        config, s = self.config, self._state[0]
        blocks, stride = -(-n_positions // LANES), int(s["head_stride"])
        shape = (config.n_layers, self.n_slots, config.n_kv_heads, int(s["context"]) // LANES, LANES * stride)
        for name in ("keys", "values"):
            cache = self._buffers[name].reshape(shape)
            cache[:, target, :, :blocks] = cache[:, source, :, :blocks]

    # ---- running ----------------------------------------------------------------------------------------------------

    def step(self, sequences: list[Sequence]) -> list[int]:
        """One forward pass for several sequences: read what is pending of each, choose one id for each.

        Prompts longer than a pass are read first. Raises SettingError when a sequence is full or has nothing pending.
        """
        self._check_ready(sequences)
        for s in sequences:
            while len(s.pending) > 1 and sum(len(other.pending) for other in sequences) > self.max_rows:
                self.run_pass([Reading(s, min(len(s.pending) - 1, self.max_rows))])
        return self.run_pass([Reading(s, len(s.pending), draws=True) for s in sequences])[0].tolist()

    def run_steps(self, sequence: Sequence, n_steps: int) -> list[int]:
        """n_steps steps of one sequence in one call of compiled code, fewer where a stop id comes, or threads must wait."""
        self._check_ready([sequence])
        while len(sequence.pending) > self.max_rows:
            self.run_pass([Reading(sequence, self.max_rows)])
        return self.run_pass([Reading(sequence, len(sequence.pending), draws=True)], n_steps)[:, 0].tolist()

    def read_prompt(self, sequence: Sequence) -> None:
        """Read what is pending of a sequence but its last id, in pieces of max_rows."""
        while (n := min(len(sequence.pending) - 1, self.max_rows)) > 0:
            self.run_pass([Reading(sequence, n)])

    def logits(self, ids: Iterable[int]) -> np.ndarray:
        """Logits float32 (T, V) behind each of T ids, from an empty cache. Takes a free slot for the time."""
        sequence = self.sequence(Sampling(temperature=0))
        try:
            sequence.append(ids)
            rows = [np.zeros((0, self.config.vocab_size), np.float32)]
            while n := min(len(sequence.pending), self.max_logits - self.n_slots):
                with self._lock:
                    self.run_pass([Reading(sequence, n, wants_logits=True)])
                    rows.append(self.logits_buffer[:n, : self.config.vocab_size].copy())
            return np.concatenate(rows)
        finally:
            sequence.close()

    def run_pass(self, readings: list[Reading], n_steps: int = 1) -> np.ndarray:
        """One forward pass over some pending ids of several sequences; the ids that were drawn (steps, sequences that draw).

        Those that draw come first. n_steps > 1 goes on with them alone, in compiled code, until one meets a stop id, `stop` is
        called or threads must wait. Sizes are the caller's business: max_rows ids, max_logits rows of logits, max_results drawn
        ids, room in the context.
        """
        with self._lock:
            n_drawn = self._describe(readings)
            state = self._state
            state["job"], state["n_steps"], state["steps_done"] = JOB_FORWARD, n_steps, 0
            self._buffers["signals"][STOP] = 0
            self._team.run()
            for reading in readings:
                sequence = reading.sequence
                sequence.n_read = sequence.position - 1 if reading.draws else sequence.n_read + reading.n_ids
            return self._results[: int(state["steps_done"][0]) * n_drawn].reshape(-1, max(n_drawn, 1)).copy()

    def score(self, place: int, n_alternatives: int) -> Score:
        """How likely a token of the last pass was. place: of a drawn one its index in what run_pass returned, flattened; those
        of other rows with logits come behind them, in order, and tell of the id that follows. Not without ranking.
        """
        return score_of(self._rankings[place], self._ranking_ids[place], n_alternatives)

    def logprobs(self, ids: np.ndarray) -> np.ndarray:
        """Log-probability of one id for each row of logits of the last pass, in order: float64 (n,). Not without ranking.

        NaN where the model made no numbers.
        """
        rankings = self._rankings[: len(ids)].astype(np.float64)
        logits = self.logits_buffer[np.arange(len(ids)), ids]
        with np.errstate(divide="ignore"):  # a sum of 0 is one of no numbers
            return logits - rankings[:, RANK_LARGEST] - np.log(rankings[:, RANK_SUM])

    def hidden_states(self, first: int, n: int) -> np.ndarray:
        """Final hidden states, behind the last norm, of the last pass's rows that wanted them, from `first`: float64 (n, D)."""
        first += self._first_hidden
        x = self._last[first : first + n, : self.config.width].astype(np.float64)
        scale = np.sqrt((x * x).mean(1, keepdims=True) + self.config.norm_epsilon)
        return x / scale * self.weights.norms[-1, : self.config.width]

    def read_bandwidth(self) -> float:
        """Bytes a second at which all threads read the weights of a token, as they lie, and do nothing else."""
        n_bytes, seconds = 0, 0.0
        for address, size in self.weights.regions():
            with self._lock:
                self._state["job"], self._state["read_from"], self._state["read_bytes"] = JOB_READ, address, size
                started = time.perf_counter()
                self._team.run()
                seconds += time.perf_counter() - started
            n_bytes += size
        return n_bytes / seconds

    def stop(self) -> None:
        """Ask a running call to end after the current token; may be called from another thread."""
        self._buffers["signals"][STOP] = 1

    def close(self) -> None:
        """End the threads; the engine cannot be used afterwards. Closing twice is harmless."""
        with self._lock:
            self._finalizer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _go_on_alone(self) -> None:
        """In a process that was forked, perhaps in the middle of a pass: its caller is the only thread there is."""
        self._lock = threading.RLock()
        self._buffers["meeting"][:] = 0
        self._team.go_on_alone()

    def _check_ready(self, sequences: list[Sequence]) -> None:
        for s in sequences:
            if s.is_full:
                raise SettingError(f"the context of {self.context} tokens is full")
            if s.n_read >= s.position:
                raise SettingError("nothing to read: append at least one id first")

    def _describe(self, readings: list[Reading]) -> int:
        """Describe the rows of a pass in the state; how many ids it draws."""
        ids, slots, positions, spans = [], [], [], []  # lists: filling arrays item by item would take longer
        drawn, n_ranked, others, hidden = [], [], [], []
        for reading in readings:
            s, n, row = reading.sequence, reading.n_ids, len(ids)
            if s.slot < 0:
                raise SettingError(CLOSED)
            ids += s.pending[:n].tolist()
            slots += [s.slot] * n
            positions += range(s.n_read, s.n_read + n)
            spans.append((row, n, s.slot, s.n_read))
            if reading.draws:
                drawn.append(row + n - 1)
                n_ranked.append(s.n_alternatives)
            if reading.wants_logits:
                others.append((reading, row))
            if reading.wants_hidden:
                hidden += range(row, row + n)
        n_rows, n_drawn = len(ids), len(drawn)
        assert n_rows <= self.max_rows
        assert all(reading.draws for reading in readings[:n_drawn])
        self._ids[:n_rows], self._row_slots[:n_rows], self._row_positions[:n_rows] = ids, slots, positions
        self._spans[: len(spans)], self._wanted[:n_drawn], self._n_ranked[:n_drawn] = spans, drawn, n_ranked
        n_logits = self._first_hidden = self._describe_others(others, n_drawn)
        self._wanted[n_logits : n_logits + len(hidden)] = hidden
        state = self._state
        state["n_rows"], state["n_spans"], state["n_drawn"] = n_rows, len(spans), n_drawn
        state["n_logits"], state["n_wanted"] = n_logits, n_logits + len(hidden)
        return n_drawn

    def _describe_others(self, others: list[tuple[Reading, int]], n_logits: int) -> int:
        """Ask for logits of rows that draw nothing, behind the n_logits that do; how many there are then."""
        for reading, row in others:
            n, sequence = reading.n_other_logits, reading.sequence
            place = slice(n_logits, n_logits + n)
            self._wanted[place], self._n_ranked[place] = np.arange(row, row + n), sequence.n_alternatives
            targets = sequence.pending[1 : n + 1]  # the last of all has none
            self._targets[place] = 0
            self._targets[n_logits : n_logits + len(targets)] = targets
            n_logits += n
        assert n_logits <= self.max_logits
        return n_logits


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_go_on_alone)


def _go_on_alone() -> None:
    for engine in list(_ENGINES):
        engine._go_on_alone()


def _checked(name: str, value: int | None, default: int, most: int) -> int:
    value = default if value is None else value
    if not isinstance(value, int | np.integer) or not 1 <= value <= most:
        raise SettingError(f"{name}: found {value}, expected 1 to {most}")
    return value
