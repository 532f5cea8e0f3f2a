"""Scheduler: many jobs on one engine. One thread of its own steps the engine; everybody else only talks to it.

Each pass of the engine reads one token of every running text and some of the prompts that came new, so jobs join and leave
between passes and a long prompt stalls nobody. What a job is answered does not depend on the others. Knows no HTTP.
"""

from dataclasses import dataclass

from llamita.model import Model
from llamita.serve.job import Deliver, Job


class Ticket:
    """One submitted job; what Scheduler.cancel takes."""

    def __init__(self, job: Job, deliver: Deliver) -> None:
        self.job, self.deliver = job, deliver
        self.is_cancelled = False


@dataclass(frozen=True)
class Statistics:
    """Counters since the start, and how things stand now."""

    n_running: int
    n_waiting: int
    n_slots: int
    n_jobs: dict[str, int]  # finished, by reason; "refused" because the queue was full
    n_prompt_tokens: int  # of jobs that got a slot
    n_cached_tokens: int  # of those, not read again
    n_tokens: int  # of answers
    n_passes: int
    prompt_seconds: float  # in passes that read prompts, perhaps beside running texts
    answer_seconds: float  # in passes of running texts alone
    cache_used: float  # share of the positions of all slots that hold something, 0 to 1
    queue_seconds: float  # summed over jobs that got a slot
    first_token_seconds: float  # summed over jobs with a token
    n_first_tokens: int  # those jobs


class Scheduler:
    """A model that serves.

    n_threads, context: of the engine. n_slots: jobs that run at once; max_queue: jobs that may wait beyond them.
    Raises what LanguageModel raises.
    """

    def __init__(
        self, model: Model, n_threads: int | None = None, context: int | None = None, n_slots: int = 8, max_queue: int = 64
    ) -> None:
        raise NotImplementedError

    @property
    def is_alive(self) -> bool:
        """Whether jobs are taken on: not after drain or close, nor after a failure of the engine that repeats."""
        raise NotImplementedError

    @property
    def context(self) -> int:
        """Tokens of the longest prompt; prompt and answer together may have one more."""
        raise NotImplementedError

    def submit(self, job: Job, deliver: Deliver) -> Ticket:
        """Take on a job; deliver gets its events, from another thread, perhaps before this returns.

        Raises PromptTooLongError, SettingError for other wishes that cannot be met, QueueFullError, StoppedError.
        """
        raise NotImplementedError

    def cancel(self, ticket: Ticket) -> None:
        """End a job before the next pass; its Finish says so, unless it has ended already. From any thread, also repeatedly."""
        raise NotImplementedError

    def statistics(self) -> Statistics:
        """How things stand, from any thread."""
        raise NotImplementedError

    def drain(self, timeout_seconds: float) -> bool:
        """Take on nothing more and wait until all jobs have ended; whether they have in time. The rest is close's."""
        raise NotImplementedError

    def close(self) -> None:
        """Cancel what is left and end the engine. Closing twice is harmless."""
        raise NotImplementedError
