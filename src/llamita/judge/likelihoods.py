"""Likelihoods: how probable continuations are behind their contexts. Many at once, in the slots of an engine.

Ids in, numbers out; knows no text and no harness. A context is read once for all of its continuations, and what contexts begin
with in common, such as the examples before a question, hardly more often. Only continuations cost logits.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many
from itertools import groupby
from typing import NamedTuple

import numpy as np

from llamita.engine import Engine, Reading, Sampling, Sequence
from llamita.errors import ModelError
from llamita.judge.beginnings import begin

GREEDY = Sampling(temperature=0)


class Question(NamedTuple):
    """How probable is the continuation behind the context? Each at least one id; the last one is never read."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def n_read(self) -> int:
        """Ids that have to be read; an engine's context holds at least as many."""
        return len(self.context) + len(self.continuation) - 1


class Likelihood(NamedTuple):
    """logprob: the sum over the continuation, in nats. is_greedy: whether each id of it is the likeliest one."""

    logprob: float
    is_greedy: bool


class _Ending(NamedTuple):
    """What is read of some continuations that differ in their last id only; askers: (index of the question, last id)."""

    read: tuple[int, ...]
    askers: tuple[tuple[int, int], ...]


class _Bundle(NamedTuple):
    """A context and what may follow it."""

    context: tuple[int, ...]
    endings: tuple[_Ending, ...]


def likelihoods(engine: Engine, questions: Many[Question], progress: Callable[[int], None] | None = None) -> list[Likelihood]:
    """Answer all questions, in their order; progress is told of each one that is done. Takes all slots for the time."""
    waiting = deque(_bundles(questions))
    answers = [Likelihood(0.0, True)] * len(questions)
    workers = [_Worker(engine.sequence(GREEDY)) for _ in range(engine.n_slots)]
    try:
        while plan := _plan(engine, workers, waiting):
            engine.run_pass([reading for _, reading in plan])
            rows, place = _Rows(engine, sum(reading.n_other_logits for _, reading in plan)), 0
            for worker, reading in plan:
                for index, answer in worker.take(rows, reading, place):
                    answers[index] = answer
                    if progress:
                        progress(1)
                place += reading.n_other_logits
    finally:
        for worker in workers:
            worker.sequence.close()
    return answers


def _bundles(questions: Many[Question]) -> list[_Bundle]:
    """Questions with one context together, and contexts that begin alike behind one another."""
    order = sorted(range(len(questions)), key=lambda i: (questions[i].context, questions[i].continuation[:-1]))
    bundles = []
    for context, same_context in groupby(order, key=lambda i: questions[i].context):
        endings = []
        for read, same_ending in groupby(same_context, key=lambda i: questions[i].continuation[:-1]):
            endings.append(_Ending(read, tuple((i, questions[i].continuation[-1]) for i in same_ending)))
        bundles.append(_Bundle(context, tuple(endings)))
    return bundles


def _plan(engine: Engine, workers: list["_Worker"], waiting: deque[_Bundle]) -> list[tuple["_Worker", Reading]]:
    """What the next pass reads: continuations first, then contexts; a new bundle begins only where rows are left.

    So the first of several contexts that begin alike is read before the others need that beginning.
    """
    n_rows, n_logits = engine.max_rows, engine.max_logits
    plan = []
    busy = sorted((worker for worker in workers if worker.is_busy), key=lambda worker: worker.n_context_left > 0)
    idle = [worker for worker in workers if not worker.is_busy]
    while n_rows and (busy or (idle and waiting)):
        if busy:
            worker = busy.pop(0)
        else:
            worker = idle.pop(0)
            worker.start(waiting.popleft(), [other.sequence for other in workers])
        if reading := worker.reading(n_rows, n_logits):
            plan.append((worker, reading))
            n_rows -= reading.n_ids
            n_logits -= reading.n_other_logits
    return plan


class _Worker:
    """A slot with the bundle that it is busy with: one ending after the other, each behind the context that was read once."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self._bundle = _Bundle((), ())
        self._left: list[_Ending] = []
        self._scores: list[tuple[float, bool]] = []  # of the ending in hand: log-probability, and whether it was the likeliest

    @property
    def is_busy(self) -> bool:
        """Whether there is something to be read."""
        return bool(self._left)

    @property
    def n_context_left(self) -> int:
        """Ids of the context to be read before the one whose logits are wanted: the last."""
        return len(self._bundle.context) - 1 - self.sequence.n_read

    def start(self, bundle: _Bundle, others: Many[Sequence]) -> None:
        """Begin with a bundle, behind what any sequence has read of its context."""
        self._bundle, self._left = bundle, list(reversed(bundle.endings))
        self._begin_ending(others)

    def _begin_ending(self, others: Many[Sequence] = ()) -> None:
        context = self._bundle.context
        ids = np.array(context + self._left[-1].read, np.int64)
        begin(self.sequence, ids, GREEDY, len(context) - 1, others)
        self.sequence.n_alternatives = 0  # the pass ranks what it makes logits of
        self._scores = []

    def reading(self, n_rows: int, n_logits: int) -> Reading | None:
        """What to read next in at most n_rows rows, n_logits of them with logits; None where they do not suffice."""
        if self.n_context_left > 0:
            return Reading(self.sequence, min(self.n_context_left, n_rows))
        n = min(len(self.sequence.pending), n_rows, n_logits)
        return Reading(self.sequence, n, wants_logits=True) if n else None

    def take(self, rows: "_Rows", reading: Reading, place: int) -> list[tuple[int, Likelihood]]:
        """Take what a pass found for a reading, whose first row of logits was `place`; the answers that are complete now."""
        if not reading.wants_logits:
            return []
        ending = self._left[-1]
        targets = ending.read[len(self._scores) : len(self._scores) + reading.n_ids]
        self._scores += [rows.score(place + i, target) for i, target in enumerate(targets)]
        if len(self.sequence.pending):
            return []
        last_place = place + reading.n_ids - 1
        answers = [(index, _total([*self._scores, rows.score(last_place, last_id)])) for index, last_id in ending.askers]
        self._left.pop()
        if self._left:
            self._begin_ending()
        return answers


class _Rows:
    """The rows of logits of the last pass: n of them."""

    def __init__(self, engine: Engine, n: int) -> None:
        self._logits = engine.logits_buffer[:n, : engine.config.vocab_size]
        self._likeliest = self._logits.argmax(axis=1)
        self._logprobs = engine.logprobs(self._likeliest)

    def score(self, place: int, token_id: int) -> tuple[float, bool]:
        """Log-probability of an id behind a row, and whether it is the likeliest one."""
        likeliest = self._likeliest[place]
        behind = float(self._logits[place, likeliest]) - float(self._logits[place, token_id])
        return float(self._logprobs[place]) - behind, bool(token_id == likeliest)


def _total(scores: Iterable[tuple[float, bool]]) -> Likelihood:
    logprobs, hits = zip(*scores, strict=True)
    if not math.isfinite(total := sum(logprobs)):
        raise ModelError("the model: found logits that are no numbers, expected numbers; its weights are broken")
    return Likelihood(total, all(hits))
