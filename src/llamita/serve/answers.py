"""Answers: the jobs of one request in the scheduler, and their events as they come, from the engine's thread into the loop.

Events that come close together are handed over together: on few cores every waking of the loop takes time from the engine.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial

from llamita.errors import LlamitaError, PromptTooLongError, QueueFullError, StoppedError
from llamita.serve.errors import ApiError, bad_request, context_exceeded, overloaded, unavailable
from llamita.serve.job import Event, Finish, Job, Reason
from llamita.serve.scheduler import Scheduler
from llamita.serve.structure import Grammar

PAUSE_SECONDS = 0.01  # between two deliveries; nobody sees it
PING_SECONDS = 10.0

Batch = dict[int, list[Event]]  # events by the index of their job


class Answers:
    """Submits jobs and collects their events. Raises ApiError when one of them is not taken on; then none is."""

    def __init__(self, scheduler: Scheduler, jobs: Sequence[Job]) -> None:
        self._scheduler, self._loop = scheduler, asyncio.get_running_loop()
        self._inbox: deque[tuple[int, list[Event]]] = deque()
        self._arrived = asyncio.Event()
        self._is_called, self._last_seconds = False, 0.0
        self._n_open = len(jobs)
        try:
            self._tickets = scheduler.submit_all([(job, partial(self._deliver, i)) for i, job in enumerate(jobs)])
        except LlamitaError as error:
            raise refusal(error) from None

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield what is new until every job has finished; an empty batch when nothing came for a while."""
        while self._n_open:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                yield {}
                continue
            self._arrived.clear()
            self._last_seconds = self._loop.time()
            self._is_called = False  # before the inbox is emptied, so that no event is forgotten
            batch: Batch = {}
            while self._inbox:
                index, events = self._inbox.popleft()
                batch.setdefault(index, []).extend(events)
                self._n_open -= isinstance(events[-1], Finish)
            yield batch

    def cancel(self) -> None:
        """End all jobs that still run; their slots are free before the next pass of the engine."""
        for ticket in self._tickets:
            self._scheduler.cancel(ticket)

    def _deliver(self, index: int, events: list[Event]) -> None:
        """Called by the engine's thread."""
        self._inbox.append((index, events))
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        wait_seconds = self._last_seconds + PAUSE_SECONDS - self._loop.time()
        if wait_seconds > 0:
            self._loop.call_later(wait_seconds, self._arrived.set)
        else:
            self._arrived.set()


def refusal(error: LlamitaError) -> ApiError:
    """What a client is told when the scheduler does not take a job on."""
    if isinstance(error, QueueFullError):
        return overloaded(error.wait_seconds)
    if isinstance(error, StoppedError):
        return unavailable("draining")
    if isinstance(error, PromptTooLongError):
        return context_exceeded(error.n_prompt_tokens, 0, error.context, "prompt")
    return bad_request(f"{error}.")


def failure_of(job: Job, finish: Finish) -> ApiError | None:
    """What a client is told of an answer that broke off; None for one that ended well."""
    if isinstance(job.constraint, Grammar) and job.constraint.error:
        return bad_request(f"response_format: {job.constraint.error}.", "response_format", "unsupported_schema")
    if finish.reason is Reason.CANCELLED:
        return unavailable("draining")
    if finish.reason is Reason.ERROR:
        return ApiError(500, f"The answer broke off: {finish.error}", "server_error", code="generation_failed")
    return None
