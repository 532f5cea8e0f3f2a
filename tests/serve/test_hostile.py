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


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("response_format", {"type": "json_schema"}, "response_format.json_schema"),
        ("response_format", {"type": "json_schema", "json_schema": 5}, "response_format.json_schema"),
        ("response_format", {"type": "json_schema", "json_schema": {}}, "response_format.json_schema.schema"),
        ("response_format", {"type": "json_schema", "json_schema": {"schema": 5}}, "response_format.json_schema.schema"),
        ("response_format", {}, "response_format"),
        ("response_format", 5, "response_format"),
        ("tool_choice", {}, "tool_choice"),
        ("tool_choice", {"type": "function"}, "tool_choice"),
        ("tools", [{"type": "function", "function": {}}], "tools.0.function.name"),
        ("messages", [{"role": "user", "content": 5}], "messages.0.content"),
        ("messages", [{}], "messages.0.role"),
        ("stop", [5], "stop.0"),
        ("stop", "x" * 5000, "stop"),
        ("logit_bias", {"5": "x"}, "logit_bias.5"),
        ("repeat_penalty", -1, "repeat_penalty"),
        ("temperature", "warm", "temperature"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_error_names_the_place_as_the_client_wrote_it(web: Web, field: str, value: object, place: str):
    error = web.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]} | {field: value}).error
    assert error["message"].startswith(f"{place}: ")
    assert error["param"] == field


def test_an_error_repeats_only_the_beginning_of_what_was_sent(web: Web):
    answer = web.post("/v1/completions", {"prompt": "x", "temperature": "y" * 100_000})
    assert len(answer.data) < 500
