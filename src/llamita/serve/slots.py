"""Slots: the places of the engine's cache, and who gets which. A slot keeps what was read in it for prompts that begin alike.

A prompt starts from the longest beginning that it shares with what some slot has read, running or not; where another prompt
that begins alike is just being read, it waits for that. The slot that was used least recently is the first to be overwritten.
What is taken over is what reading would give, bit for bit.
"""

from typing import NamedTuple

import numpy as np

from llamita.engine import Engine, Sampling, Score
from llamita.engine.sequence import LEAST_TO_COPY
from llamita.serve.job import Job, Ticket
from llamita.serve.running import NO_SCORE, Running
from llamita.tokenizer import Tokenizer


class Leader(NamedTuple):
    """A slot whose job is reading a prompt that begins alike; worth waiting for until it has read n_ids."""

    slot: "Slot"
    running: Running
    n_ids: int


class Slot:
    """A sequence of the engine, the job that runs in it, and the scores of the ids that it has read, if a job asked for them.

    scores[i]: of id i. leader: whom this one waits for.
    """

    def __init__(self, engine: Engine) -> None:
        self.sequence = engine.sequence()
        self.running: Running | None = None
        self.scores: list[Score] = []
        self.n_alternatives = -1
        self.used_at = 0
        self.leader: Leader | None = None

    @property
    def n_left(self) -> int:
        """Ids that must still be read: all for a token or an embedding; the last one has no score."""
        running = self.running
        if running is None:
            return 0
        n = self.sequence.position - self.sequence.n_read
        return n if running.draws or running.job.wants_embedding else n - 1

    def shared(self, prompt: np.ndarray, job: Job, later: bool = False) -> int:
        """How many ids at the beginning of a prompt need not be read for a job; later: once this slot has read its own."""
        if job.wants_embedding or (job.prompt_logprobs and self.n_alternatives < job.n_alternatives):
            return 0
        known = self.sequence.history
        n_read = len(known) if later else self.sequence.n_read
        n_scored = len(known) if later else len(self.scores)
        n = min(len(known), len(prompt))
        differs = np.flatnonzero(known[:n] != prompt[:n])
        n = int(differs[0]) if len(differs) else n
        if job.prompt_logprobs:  # the score of the id that is read next must be known too
            n = min(n, n_scored) - 1
        return max(0, min(n, n_read, len(prompt) - 1))  # the last one is read again, for its logits

    def begin(self, running: Running, source: "Slot", n: int) -> None:
        """Start a job, whose first n ids `source` has read."""
        job, kept = running.job, n if source is self else 0
        self.scores = source.scores[: n + 1] if job.prompt_logprobs and n else [NO_SCORE]
        self.n_alternatives = job.n_alternatives if job.prompt_logprobs else -1
        self.sequence.reuse(job.sampling, kept)
        self.sequence.append(running.ticket.prompt[kept:])
        self.sequence.stop_after(job.stop_ids)
        self.sequence.n_alternatives = job.n_alternatives if job.logprobs or job.prompt_logprobs else -1
        if n > kept:
            self.sequence.take_over(source.sequence, n)
        running.n_cached = n
        self.running = running

    def forget(self) -> None:
        """Let no prompt start from here."""
        self.sequence.reuse(Sampling(), 0)
        self.scores = []


class Slots:
    """All slots of an engine."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._slots = [Slot(engine) for _ in range(engine.n_slots)]
        self._tokenizer = tokenizer
        self._clock = 0
        self._n_positions = engine.n_slots * engine.context

    @property
    def running(self) -> list[Slot]:
        """Those with a job, the oldest first."""
        return sorted((slot for slot in self._slots if slot.running), key=lambda slot: slot.used_at)

    @property
    def n_running(self) -> int:
        """How many have a job."""
        return sum(slot.running is not None for slot in self._slots)

    @property
    def cache_used(self) -> float:
        """Share of all positions that hold something."""
        return sum(slot.sequence.n_read for slot in self._slots) / self._n_positions

    def start(self, ticket: Ticket) -> None:
        """Give a free slot to a job."""
        n, source = self._best_source(ticket)
        goes_on = source.running is None and 2 * n >= source.sequence.n_read  # the rest is hardly worth keeping
        if goes_on:
            slot = source
        else:
            slot = min((slot for slot in self._slots if slot.running is None), key=lambda slot: slot.used_at)
            n = n if n >= LEAST_TO_COPY or slot is source else 0
        slot.begin(Running(ticket, self._tokenizer), source, n)
        slot.leader = self._leader_of(slot, n)
        self._touch(slot)

    def catch_up(self, slot: Slot) -> bool:
        """Take over what a slot's leader has read, once that is enough; whether the slot can go on."""
        if slot.leader is None:
            return True
        leader, running = slot.leader, slot.running
        if leader.slot.running is leader.running and leader.slot.sequence.n_read < leader.n_ids:
            return False
        assert running is not None
        slot.leader = None
        n, source = self._best_source(running.ticket)
        if source is not slot and n > slot.sequence.n_read:
            slot.begin(running, source, n)
        return True

    def free(self, slot: Slot) -> None:
        """End the job of a slot; what it has read stays."""
        slot.running = slot.leader = None
        self._touch(slot)

    def forget(self) -> None:
        """Let no prompt start from what was read so far."""
        for slot in self._slots:
            slot.forget()

    def _best_source(self, ticket: Ticket) -> tuple[int, Slot]:
        """How many ids at the beginning of a prompt have been read already, and where: best in a free slot with little else."""
        shared = [(slot.shared(ticket.prompt, ticket.job), slot) for slot in self._slots]
        return max(shared, key=lambda pair: (pair[0], pair[1].running is None, -pair[1].sequence.n_read))

    def _leader_of(self, slot: Slot, n: int) -> Leader | None:
        """Whom a slot that has n ids of its prompt should wait for: who is just reading most of the others."""
        running = slot.running
        assert running is not None
        leader = None
        for other in self._slots:
            if other.running is not None and other is not slot and other.n_left > 1:
                n_later = other.shared(running.ticket.prompt, running.job, later=True)
                if n_later >= n + LEAST_TO_COPY:
                    leader, n = Leader(other, other.running, n_later), n_later
        return leader

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.used_at = self._clock
