"""Counters in Prometheus' text format: requests by route and status, how long they took, and the scheduler's own statistics.

The format is a line for each number, so it is written by hand. Everything here happens in the event loop.
Source: prometheus.io, exposition formats, text format 0.0.4.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from llamita.serve.statistics import Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# name: (kind, help); the value is the field of Statistics, or the function below
_SCHEDULER = {
    "running_jobs": ("gauge", "Texts that are being written.", lambda s: s.n_running),
    "waiting_jobs": ("gauge", "Texts that wait for a slot.", lambda s: s.n_waiting),
    "slots": ("gauge", "Texts that can be written at once.", lambda s: s.n_slots),
    "cache_used_ratio": ("gauge", "Share of the key/value cache that is in use.", lambda s: s.cache_used),
    "prompt_tokens_total": ("counter", "Tokens of prompts.", lambda s: s.n_prompt_tokens),
    "cached_tokens_total": ("counter", "Tokens of prompts that were not read again.", lambda s: s.n_cached_tokens),
    "generated_tokens_total": ("counter", "Tokens of answers.", lambda s: s.n_tokens),
    "passes_total": ("counter", "Forward passes of the engine.", lambda s: s.n_passes),
    "prompt_seconds_total": ("counter", "Seconds in passes that read prompts.", lambda s: s.prompt_seconds),
    "answer_seconds_total": ("counter", "Seconds in passes of answers alone.", lambda s: s.answer_seconds),
    "queue_seconds_total": ("counter", "Seconds that jobs waited for a slot.", lambda s: s.queue_seconds),
    "started_jobs_total": ("counter", "Jobs with a first token.", lambda s: s.n_first_tokens),
}


class Histogram:
    """How often a number of seconds was at most each of the bounds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, help_text: str) -> Iterator[str]:
        """The histogram as text."""
        yield from _head(name, "histogram", help_text)
        total = 0
        for bound, count in zip((*SECONDS, float("inf")), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{"+Inf" if bound == float("inf") else bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """What the server has counted since it started."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._request_seconds = Histogram()
        self._first_token_seconds = Histogram()

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that is over. route: the pattern of the path, of which there are few."""
        self._requests[route, status] += 1
        self._request_seconds.observe(seconds)

    def count_first_token(self, seconds: float) -> None:
        """Count how long an answer's first token took from its submission."""
        self._first_token_seconds.observe(seconds)

    def text(self, statistics: Statistics | None) -> str:
        """Everything, as Prometheus reads it; statistics: None while no model is there."""
        lines = [*_head("llamita_requests_total", "counter", "Requests that are over, by route and status.")]
        for (route, status), n in sorted(self._requests.items()):
            lines.append(f'llamita_requests_total{{route="{route}",status="{status}"}} {n}')
        lines += self._request_seconds.lines("llamita_request_seconds", "Seconds from a request to the end of its answer.")
        lines += self._first_token_seconds.lines("llamita_first_token_seconds", "Seconds from submission to the first token.")
        if statistics is not None:
            lines += _scheduler_lines(statistics)
        return "\n".join(lines) + "\n"


def _scheduler_lines(statistics: Statistics) -> Iterator[str]:
    for name, (kind, help_text, value_of) in _SCHEDULER.items():
        yield from _head(f"llamita_{name}", kind, help_text)
        yield f"llamita_{name} {value_of(statistics)}"
    yield from _head("llamita_jobs_total", "counter", "Jobs that are over, by how they ended.")
    for reason, n in sorted(statistics.n_jobs.items()):
        yield f'llamita_jobs_total{{reason="{reason}"}} {n}'


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
