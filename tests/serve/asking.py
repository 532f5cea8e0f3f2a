"""A client of the scheduler: it submits jobs and listens."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from llamita.engine import Sampling
from llamita.serve.job import Event, Finish, Job, Token
from llamita.serve.scheduler import Scheduler

PATIENCE_SECONDS = 30


class Heard:
    """All events of one job so far."""

    def __init__(self, scheduler: Scheduler, job: Job) -> None:
        self.job, self.events = job, list[Event]()
        self.n_calls = 0
        self._ended = threading.Event()
        self.ticket = scheduler.submit(job, self._deliver)

    def _deliver(self, events: list[Event]) -> None:
        assert events
        assert not self._ended.is_set()
        self.n_calls += 1
        self.events += events
        if isinstance(events[-1], Finish):
            self._ended.set()

    def wait(self) -> "Heard":
        assert self._ended.wait(PATIENCE_SECONDS), f"{len(self.events)} events, and no end"
        return self

    def wait_for_tokens(self, n: int) -> "Heard":
        wait_until(lambda: len(self.events) >= n)
        return self

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def finish(self) -> Finish:
        last = self.wait().events[-1]
        assert isinstance(last, Finish)
        return last

    @property
    def tokens(self) -> list[Token]:
        tokens = [event for event in self.events if isinstance(event, Token)]
        assert len(tokens) >= len(self.events) - 1
        return tokens

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events)

    @property
    def answer(self) -> tuple[Any, ...]:
        """All that must not depend on others: not times, not what was cached."""
        finish = self.finish
        return (
            self.tokens, finish.reason, finish.text, finish.usage.n_prompt_tokens, finish.usage.n_tokens, finish.prompt_tokens,
            finish.embedding.tobytes(), finish.error,
        )  # fmt: skip


def job_of(prompt: Iterable[int], max_tokens: int = 8, seed: int = 1, **fields: Any) -> Job:
    """A job at high temperature, where the model's least change would show."""
    return Job(tuple(prompt), Sampling(temperature=20.0, top_p=1.0, seed=seed), max_tokens, **fields)


def endless(prompt: Iterable[int], seed: int = 1, **fields: Any) -> Job:
    """A job that only the end of the context ends."""
    return replace(job_of(prompt, seed=seed, **fields), max_tokens=1 << 20)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look again and again, for a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.0005)
