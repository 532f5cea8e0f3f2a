"""Hostile requests: refused in OpenAI's shape, never with 5xx, and the server goes on."""

import resource
import time

import pytest
from hostile_requests import cases
from web import Web

CASES = cases()


def test_there_are_more_than_250():
    assert len({(case.path, case.body) for case in CASES}) > 250


@pytest.mark.parametrize("path", sorted({case.path for case in CASES}))
def test_hostile_requests_are_refused_one_after_the_other(web: Web, path: str):
    slowest, before = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = []
    for case in CASES:
        if case.path == path:
            started = time.process_time()  # the server is a thread of this process
            answer = web.post(path, case.body)
            slowest = max(slowest, time.process_time() - started)
            if not 400 <= answer.status < 500 or answer.status == 422 or not answer.error["message"]:
                wrong.append((case.name, answer.status, answer.data[:200]))
    assert not wrong
    assert slowest < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
    assert web.n_busy == 0
    assert web.complete(prompt="Hello", max_tokens=1)


def test_an_error_repeats_only_the_beginning_of_what_was_sent(web: Web):
    answer = web.post("/v1/completions", {"prompt": "x", "temperature": "y" * 100_000})
    assert len(answer.data) < 500
