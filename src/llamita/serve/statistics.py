"""Statistics of the scheduler: its thread counts, and others get a copy."""

from collections import Counter
from dataclasses import dataclass, field, replace

from llamita.serve.job import Finish

FORGETTING = 0.1  # weight of the newest job in the mean duration


@dataclass
class Statistics:
    """How things stand now, and counters since the start."""

    n_slots: int
    n_running: int = 0
    n_waiting: int = 0
    cache_used: float = 0.0  # share of the positions of all slots that hold something, 0 to 1
    n_jobs: Counter[str] = field(default_factory=Counter)  # that ended, by reason; "refused" because the queue was full
    n_prompt_tokens: int = 0  # of jobs that had a slot
    n_cached_tokens: int = 0  # of those, not read again
    n_tokens: int = 0  # of answers
    n_passes: int = 0
    prompt_seconds: float = 0.0  # in passes that read prompts, perhaps beside running texts
    answer_seconds: float = 0.0  # in passes of running texts alone
    queue_seconds: float = 0.0  # summed over jobs that had a slot
    first_token_seconds: float = 0.0  # summed over jobs with a token
    n_first_tokens: int = 0  # those jobs
    mean_seconds: float = 1.0  # that a job has held its slot, lately

    def count_pass(self, seconds: float, reads_prompts: bool) -> None:
        """Count a call of the engine."""
        self.n_passes += 1
        if reads_prompts:
            self.prompt_seconds += seconds
        else:
            self.answer_seconds += seconds

    def count_job(self, finish: Finish, had_slot: bool) -> None:
        """Count a job that has ended; its tokens have been counted as they came."""
        self.n_jobs[finish.reason.value] += 1
        if not had_slot:
            return
        usage, timings = finish.usage, finish.timings
        self.n_prompt_tokens += usage.n_prompt_tokens
        self.n_cached_tokens += usage.n_cached_tokens
        self.queue_seconds += timings.queue_seconds
        if usage.n_tokens:
            self.n_first_tokens += 1
            self.first_token_seconds += timings.first_token_seconds
        seconds = timings.total_seconds - timings.queue_seconds
        self.mean_seconds += FORGETTING * (seconds - self.mean_seconds)

    def copy(self, n_running: int, n_waiting: int, cache_used: float) -> "Statistics":
        """The counters, with how things stand now."""
        return replace(self, n_running=n_running, n_waiting=n_waiting, cache_used=cache_used, n_jobs=Counter(self.n_jobs))
