"""Scheduler: many jobs on one engine. One thread of its own steps the engine; everybody else only talks to it.

Each pass of the engine reads one token of every running text and some of the prompts that came new, so jobs join and leave
between passes and a long prompt stalls nobody. What a job is answered does not depend on the others. Knows no HTTP.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import cast

import numpy as np

from llamita.engine import Engine
from llamita.errors import ModelError, QueueFullError, StoppedError, one_line
from llamita.model import Model
from llamita.serve.job import Deliver, Event, Job, Reason, Ticket
from llamita.serve.planner import Plan, Planner
from llamita.serve.running import Running, unstarted
from llamita.serve.slots import Slot, Slots
from llamita.serve.statistics import Statistics
from llamita.tokenizer import Tokenizer

MOST_FAILURES = 3  # passes of the engine that fail one after the other before it is given up
LONGEST_WAIT_SECONDS = 120  # that a client is asked to stay away
logger = logging.getLogger(__name__)


class Scheduler:
    """A model that serves.

    n_threads, context: of the engine. n_slots: jobs that run at once; max_queue: jobs that may wait beyond them.
    Raises SettingError for numbers that make no sense, ModelError for a model without a tokenizer.

    When a pass of the engine fails, all running jobs end with an error and nothing that was read is used again; waiting jobs go
    on. After three failures without a pass that went well in between, waiting jobs get the error too and is_alive is false.
    """

    def __init__(
        self, model: Model, n_threads: int | None = None, context: int | None = None, n_slots: int = 8, max_queue: int = 64
    ) -> None:
        if model.tokenizer is None:
            raise ModelError(f"{model.name}: found no tokenizer beside the model; name one with -z")
        self._engine = Engine(model, n_threads=n_threads, context=context, n_slots=n_slots)
        self._slots = Slots(self._engine, cast(Tokenizer, model.tokenizer))
        self._planner, self._statistics = Planner(self._engine), Statistics(n_slots)
        self._max_queue = max_queue
        self._n_failures = 0
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Ticket] = deque()
        self._n_unfinished = 0  # jobs that run or wait
        self._is_open, self._is_closing = True, False
        self._thread = threading.Thread(target=self._serve, name="llamita-scheduler", daemon=True)
        self._thread.start()

    # ---- for other threads ------------------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        """Whether jobs are taken on: not after drain or close, nor after a failure of the engine that repeats."""
        return self._is_open

    @property
    def context(self) -> int:
        """Tokens of the longest prompt; prompt and answer together may have one more."""
        return self._engine.context

    def submit(self, job: Job, deliver: Deliver) -> Ticket:
        """Take on a job; deliver gets its events, from another thread, perhaps before this returns.

        Raises PromptTooLongError, SettingError for other wishes that cannot be met, QueueFullError, StoppedError.
        """
        return self.submit_all([(job, deliver)])[0]

    def submit_all(self, wishes: Sequence[tuple[Job, Deliver]]) -> list[Ticket]:
        """Take on several jobs or, raising what submit raises, none. The last ones may exceed the queue, unless it is full."""
        config = self._engine.config
        tickets = [Ticket(job.validate(config, self.context), deliver) for job, deliver in wishes]
        with self._changed:
            if not self._is_open:
                raise StoppedError("the server is stopping, and takes no more requests")
            if self._n_unfinished >= self._engine.n_slots + self._max_queue:
                self._statistics.n_jobs["refused"] += len(tickets)
                raise QueueFullError(len(self._waiting), self._wait_seconds())
            self._waiting.extend(tickets)
            self._n_unfinished += len(tickets)
            self._changed.notify_all()
        self._engine.stop()  # so that they join soon
        return tickets

    def cancel(self, ticket: Ticket) -> None:
        """End a job before the next pass; its Finish says so, unless it has ended already. From any thread, also repeatedly."""
        ticket.is_cancelled = True
        with self._changed:
            self._changed.notify_all()
        self._engine.stop()

    def statistics(self) -> Statistics:
        """How things stand, from any thread."""
        return self._statistics.copy(self._slots.n_running, len(self._waiting), self._slots.cache_used)

    def drain(self, timeout_seconds: float) -> bool:
        """Take on nothing more and wait until all jobs have ended; whether they have in time. The rest is close's."""
        with self._changed:
            self._is_open = False
            return self._changed.wait_for(self._is_idle, timeout_seconds)

    def close(self) -> None:
        """Cancel what is left and end the engine. Closing twice is harmless."""
        with self._changed:
            self._is_open, self._is_closing = False, True
            self._changed.notify_all()
        self._engine.stop()
        self._thread.join()
        self._engine.close()

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _is_idle(self) -> bool:
        return self._n_unfinished == 0

    def _wait_seconds(self) -> int:
        seconds = (len(self._waiting) + 1) * self._statistics.mean_seconds / self._engine.n_slots
        return min(max(math.ceil(seconds), 1), LONGEST_WAIT_SECONDS)

    # ---- the scheduler's thread -------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while self._has_work():
                try:
                    self._turn()
                except Exception as error:
                    logger.exception("a pass of the engine failed")
                    self._fail(f"the engine failed: {said(error)}")
            self._end_all(Reason.CANCELLED)
        finally:
            self._is_open = False  # whatever happened: nobody would answer

    def _has_work(self) -> bool:
        """Wait for something to do; false at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or not self._is_idle())
            return not self._is_closing

    def _turn(self) -> None:
        """One pass of the engine, with all that comes before and after it."""
        self._drop_cancelled()
        self._start_waiting()
        slots = [slot for slot in self._slots.running if self._slots.catch_up(slot)]
        for slot in slots:
            self._prepare(slot)
        if ready := [slot for slot in slots if slot.running]:
            plan = self._planner.plan(ready)
            started = time.perf_counter()
            ids = self._engine.run_pass(plan.readings, plan.n_steps)
            seconds = time.perf_counter() - started
            self._planner.learn(plan, len(ids), seconds)
            self._statistics.count_pass(seconds, plan.reads_prompts)
            self._digest(plan, ids)
            self._n_failures = 0
        for slot in slots:
            if (running := slot.running) and running.events:
                self._deliver(running)

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = [ticket for ticket in self._waiting if ticket.is_cancelled]
            if gone:
                self._waiting = deque(ticket for ticket in self._waiting if not ticket.is_cancelled)
        for ticket in gone:
            self._answer_unstarted(ticket, Reason.CANCELLED)
        for slot in self._slots.running:
            if slot.running and slot.running.ticket.is_cancelled:
                self._end(slot, Reason.CANCELLED)

    def _start_waiting(self) -> None:
        while self._waiting and self._slots.n_running < self._engine.n_slots:
            with self._changed:
                ticket = self._waiting.popleft()
            try:
                self._slots.start(ticket)
            except Exception as error:
                self._answer_unstarted(ticket, Reason.ERROR, said(error))
                raise

    def _prepare(self, slot: Slot) -> None:
        """End a job that has nothing to be read for, and ask a constraint what may follow."""
        running = slot.running
        assert running is not None
        if slot.n_left == 0 or not (running.draws or running.job.prompt_logprobs or running.job.wants_embedding):
            self._end(slot, Reason.LENGTH)
        elif running.job.constraint is not None and not running.knows_mask:
            try:
                slot.sequence.allow(running.job.constraint.mask())
                running.knows_mask = True
            except Exception as error:
                self._end(slot, Reason.ERROR, said(error))

    def _digest(self, plan: Plan, ids: np.ndarray) -> None:
        """Give each job what a pass found out for it; ids (steps, slots that draw)."""
        n_hidden, n_scores = 0, ids.size
        for i, (slot, reading) in enumerate(zip(plan.slots, plan.readings, strict=True)):
            running = slot.running
            assert running is not None
            if reading.wants_logits:
                n, n_alternatives = reading.n_other_logits, running.job.n_alternatives
                slot.scores += [self._engine.score(n_scores + k, n_alternatives) for k in range(n)]
                n_scores += n
            if reading.wants_hidden:
                running.add_hidden(self._engine.hidden_states(n_hidden, reading.n_ids))
                n_hidden += reading.n_ids
            if reading.draws:
                self._take(slot, running, ids, i)
            elif slot.n_left == 0:
                self._end(slot, Reason.LENGTH)

    def _take(self, slot: Slot, running: Running, ids: np.ndarray, column: int) -> None:
        """Go on with the ids that were drawn for a job, up to where it ends."""
        job, n_before, error = running.job, running.n_tokens, ""
        try:
            for step, token_id in enumerate(ids[:, column].tolist()):
                if job.logprobs:
                    running.take(token_id, self._engine.score(step * ids.shape[1] + column, job.n_alternatives))
                else:
                    running.take(token_id)
                if running.reason is not None:
                    break
        except Exception as failure:
            running.reason, error = Reason.ERROR, said(failure)
        self._statistics.n_tokens += running.n_tokens - n_before
        if running.reason is None and slot.sequence.is_full:
            running.reason = Reason.LENGTH
        if running.reason is not None:
            self._end(slot, running.reason, error)

    def _end(self, slot: Slot, reason: Reason, error: str = "") -> None:
        """Finish a job and free its slot."""
        running = slot.running
        assert running is not None
        running.reason = reason
        self._statistics.count_job(running.finish(slot.scores, error), had_slot=True)
        self._slots.free(slot)
        self._deliver(running)
        self._count_finished()

    def _deliver(self, running: Running) -> None:
        events, running.events = running.events, []
        deliver(running.ticket, events)

    def _answer_unstarted(self, ticket: Ticket, reason: Reason, error: str = "") -> None:
        finish = unstarted(ticket, reason, error)
        self._statistics.count_job(finish, had_slot=False)
        deliver(ticket, [finish])
        self._count_finished()

    def _count_finished(self) -> None:
        with self._changed:
            self._n_unfinished -= 1
            self._changed.notify_all()

    def _fail(self, error: str) -> None:
        """Answer all running jobs with an error; after too many in a row the waiting ones too, and take on no more."""
        for slot in self._slots.running:
            self._end(slot, Reason.ERROR, error)
        self._slots.forget()
        self._n_failures += 1
        if self._n_failures >= MOST_FAILURES:
            self._end_all(Reason.ERROR, error)

    def _end_all(self, reason: Reason, error: str = "") -> None:
        """End every job, running or waiting, and take on no more."""
        with self._changed:
            self._is_open = False
            waiting, self._waiting = self._waiting, deque()
        for slot in self._slots.running:
            self._end(slot, reason, error)
        for ticket in waiting:
            self._answer_unstarted(ticket, reason, error)


def said(error: Exception) -> str:
    """What an exception says, in one line."""
    return one_line(str(error) or repr(error))


def deliver(ticket: Ticket, events: list[Event]) -> None:
    """Hand events to whoever submitted a job; one who does not take them loses the job."""
    try:
        ticket.deliver(events)
    except Exception:
        logger.exception("a client's deliver failed; its job is cancelled")
        ticket.is_cancelled = True
