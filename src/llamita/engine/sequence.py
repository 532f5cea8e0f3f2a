"""Sequence: one text in the making. It holds a slot of the engine's cache, its sampling settings and its ids."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llamita.engine.memory import address_of, aligned
from llamita.engine.sampling import Sampling, seed_of_sample
from llamita.errors import SettingError

if TYPE_CHECKING:
    from llamita.engine.engine import Engine

PATIENCE_SECONDS = 0.05  # compiled code returns to Python this often, so that Ctrl-C is heard
LEAST_TO_COPY = 16  # ids: fewer are read sooner than taken over from another sequence, or waited for
BURST_SECONDS = 0.002  # what `stream` waits for at once: nobody sees it


class Sequence:
    """Made by Engine.sequence. `append` what is to be read, then `next` or `run` for what follows; `close` when done.

    A token at index i is read into the cache at position i; `n_read` of them have been, the rest is pending.
    """

    def __init__(self, engine: Engine, slot: int, sampling: Sampling) -> None:
        self._engine, self.slot, self.sampling = engine, slot, sampling.validate()
        self.n_read = 0
        self._history = aligned(engine.context + 1, np.int64)
        self._sampler = engine.sampler_record(slot)
        self._sampler["history"], self._sampler["n_history"] = address_of(self._history), 0
        self._stop_ids, self._mask = np.zeros(0, np.int64), aligned(-(-engine.config.vocab_size // 32), np.uint32)
        self.n_alternatives = -1  # how many likeliest ids Engine.score tells of each token; -1: it tells nothing
        self._apply(sampling)

    def _apply(self, sampling: Sampling) -> None:
        sampling.check_ids(self._engine.config.vocab_size)
        self._bias_ids = np.array(list(sampling.logit_bias), np.int64)
        self._bias_values = np.array(list(sampling.logit_bias.values()), np.float32)
        record = self._sampler
        record["rng"] = np.uint64(sampling.seed % (1 << 64))
        record["temperature"] = 0.0 if sampling.is_greedy else sampling.temperature
        record["top_p"], record["min_p"] = sampling.top_p, sampling.min_p
        record["top_k"] = sampling.top_k
        record["repetition_penalty"], record["penalty_window"] = sampling.repetition_penalty, sampling.repetition_window
        record["presence_penalty"], record["frequency_penalty"] = sampling.presence_penalty, sampling.frequency_penalty
        record["n_bias"] = len(self._bias_ids)
        record["bias_ids"], record["bias_values"] = address_of(self._bias_ids), address_of(self._bias_values)

    @property
    def position(self) -> int:
        """Number of ids: read ones and pending ones."""
        return int(self._sampler["n_history"])

    @property
    def ids(self) -> list[int]:
        """All ids so far: appended and sampled."""
        return self._history[: self.position].tolist()

    @property
    def history(self) -> np.ndarray:
        """The same as a view, int64: it changes with the sequence."""
        return self._history[: self.position]

    @property
    def pending(self) -> np.ndarray:
        """Ids that the next step reads, int64."""
        return self._history[self.n_read : self.position]

    @property
    def is_full(self) -> bool:
        """Whether the last id lies beyond the context: nothing can follow it."""
        return self.position > self._engine.context

    def append(self, ids: Iterable[int]) -> None:
        """Add ids to be read before the next token is chosen. Raises SettingError when they do not fit the context."""
        new = np.fromiter(ids, np.int64)
        position, config = self.position, self._engine.config
        if position + len(new) > self._engine.context:
            raise SettingError(
                f"the text has {position + len(new)} tokens, the context has room for {self._engine.context}; shorten the text"
            )
        if len(new) and not 0 <= new.min() <= new.max() < config.vocab_size:
            raise SettingError(f"token ids: found {new.min()} to {new.max()}, expected 0 to {config.vocab_size - 1}")
        self._history[position : position + len(new)] = new
        self._sampler["n_history"] = self._sampler["n_prompt"] = position + len(new)

    def next(self) -> int:
        """Read what is pending and choose one id, which becomes pending. Raises SettingError when the context is full."""
        return self._engine.step([self])[0]

    def run(self, n: int, stop_ids: Iterable[int] = ()) -> list[int]:
        """`next` up to n times, in compiled code; ends after a stop id or where the context does."""
        self.stop_after(stop_ids)
        ids = []
        for made in self._bursts(n, PATIENCE_SECONDS):
            ids += made
        return ids

    def stream(self, n: int, stop_ids: Iterable[int] = ()) -> Iterator[int]:
        """The same, one id after the other.

        A call of the engine costs a share of a fast model's token, so each asks for as many as a burst takes.
        """
        self.stop_after(stop_ids)
        for made in self._bursts(n, BURST_SECONDS):
            yield from made

    def _bursts(self, n: int, seconds: float) -> Iterator[list[int]]:
        """Up to n ids, as many at once as take so long."""
        stop, n_steps = set(self._stop_ids.tolist()), 1
        while n > 0 and not self.is_full:
            started = time.perf_counter()
            ids = self._engine.run_steps(self, min(n_steps, n, self._engine.context - self.position + 1))
            n_steps = max(1, int(seconds * len(ids) / max(time.perf_counter() - started, 1e-6)))
            n -= len(ids)
            yield ids
            if ids[-1] in stop:
                return

    def stop_after(self, stop_ids: Iterable[int]) -> None:
        """Let calls that make several tokens end after one of these."""
        self._stop_ids = np.array(list(stop_ids), np.int64)
        self._sampler["stop_ids"], self._sampler["n_stop_ids"] = address_of(self._stop_ids), len(self._stop_ids)

    def allow(self, mask: np.ndarray | None) -> None:
        """Draw the following tokens among the ids of a mask: bits, id i in bit i % 32 of word i // 32; None: among all.

        Raises SettingError when it allows no id of the vocabulary, or has another size.
        """
        self._sampler["mask"] = 0
        if mask is None:
            return
        if mask.shape != self._mask.shape or mask.dtype.itemsize != 4:
            raise SettingError(f"mask: found {mask.dtype}{list(mask.shape)}, expected uint32{list(self._mask.shape)}")
        self._mask[:] = mask.view(np.uint32)
        if (spare := -self._engine.config.vocab_size % 32) > 0:
            self._mask[-1] &= np.uint32((1 << 32 - spare) - 1)
        if not self._mask.any():
            raise SettingError("mask: found no allowed id, expected at least one")
        self._sampler["mask"] = address_of(self._mask)

    def read(self) -> None:
        """Read pending ids into the cache but the last, so that a fork need not read them again."""
        self._engine.read_prompt(self)

    def skip_coins(self, n: int) -> None:
        """Draw n random numbers and forget them, as llama2.c's chat does at positions of the prompt; none at temperature 0."""
        if self.sampling.is_greedy:
            return
        state, mask = int(self._sampler["rng"]), (1 << 64) - 1
        for _ in range(n):
            state ^= state >> 12
            state = (state ^ state << 25) & mask
            state ^= state >> 27
        self._sampler["rng"] = np.uint64(state)

    def rewind(self, position: int) -> None:
        """Forget all ids from `position` on, to go on with others. Raises SettingError outside 0 to self.position."""
        if not 0 <= position <= self.position:
            raise SettingError(f"position: found {position}, expected 0 to {self.position}")
        self._sampler["n_history"] = position
        self._sampler["n_prompt"] = min(int(self._sampler["n_prompt"]), position)
        self.n_read = min(self.n_read, max(position - 1, 0))  # the last id is read again, for its logits

    def reuse(self, sampling: Sampling, n_kept: int) -> None:
        """Begin another text in this slot, of which the first n_kept ids are those that were read here. `append` the others."""
        assert n_kept <= self.n_read
        self.sampling = sampling.validate()
        self._sampler["n_history"] = self._sampler["n_prompt"] = self.n_read = n_kept
        self.n_alternatives = -1
        self.stop_after(())
        self.allow(None)
        self._apply(sampling)

    def take_over(self, other: Sequence, n: int) -> None:
        """Copy the first n ids, which `other` has read, with their place in the cache; for those ids here, read or pending."""
        assert n <= other.n_read
        self._engine.copy_cache(other.slot, self.slot, n)
        self._history[:n] = other._history[:n]
        self.n_read = n

    def fork(self, n: int) -> list[Sequence]:
        """n new sequences that go on from here, the i-th with seed + i + 1; what was read is copied, not read again."""
        self.read()
        with ExitStack() as undo:
            forks = []
            for i in range(n):
                sampling = replace(self.sampling, seed=seed_of_sample(self.sampling.seed, i + 1))
                forks.append(fork := self._engine.sequence(sampling))
                undo.callback(fork.close)
                fork.take_over(self, self.n_read)
                fork._history[: self.position] = self._history[: self.position]
                fork._sampler["n_history"], fork._sampler["n_prompt"] = self.position, self._sampler["n_prompt"]
            undo.pop_all()
            return forks

    def close(self) -> None:
        """Give the slot back. Ids and position can still be read; whatever runs the model raises SettingError from now on."""
        if self.slot >= 0:
            self._sampler = self._sampler.copy()  # the record is the slot's, and so the next sequence's
            self._engine.release(self.slot)
            self.slot = -1
