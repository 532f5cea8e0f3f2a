"""Clients that leave, and more clients than there is room for: nobody else notices, and slots are free long before the end."""

import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from web import Web, serving, talk

from llamita.model import Model

LONG = {"prompt": "Tom", "max_tokens": 100, "ignore_eos": True, "seed": 1}  # at least 100 passes
SECONDS_PER_PASS = 0.1
PATIENCE_SECONDS = 8.0  # fewer than a hundred slow passes
SOON_PASSES = 10  # a second, if the machine lets a pass begin when it may


@pytest.fixture
def slow(toy_model: Model):
    with serving(toy_model, n_slots=2, max_queue=2, seconds_per_pass=SECONDS_PER_PASS) as web:
        yield web


def until(condition) -> None:
    """Wait for something that must come true before a long answer would be whole."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def until_free(web: Web) -> None:
    """Wait until nobody is served, which must be soon: a busy machine makes passes late, but not more of them."""
    before = web.scheduler.n_passes
    until(lambda: web.n_busy == 0)
    assert web.scheduler.n_passes - before <= SOON_PASSES


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(slow: Web, stream: bool):
    connection = slow.connect("/v1/completions", LONG | {"stream": stream})
    until(lambda: slow.n_busy == 1)
    if stream:
        assert connection.recv(10)
    connection.close()
    until_free(slow)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue_is_never_run(slow: Web, stream: bool):
    running = [slow.connect("/v1/completions", LONG) for _ in range(2)]
    until(lambda: slow.n_busy == 2)
    waiting = slow.connect("/v1/chat/completions", {"messages": talk("Hi"), "stream": stream})
    until(lambda: slow.n_busy == 3)
    waiting.close()
    until(lambda: slow.n_busy == 2)
    for connection in running:
        connection.close()
    until_free(slow)


def test_embeddings_are_not_made_for_nobody(slow: Web):
    connection = slow.connect("/v1/embeddings", {"input": ["a text " * 10] * 500})
    until(lambda: slow.n_busy > 0)
    connection.close()
    until_free(slow)


def test_who_stays_reads_the_same_text_whoever_leaves(toy_model: Model):
    stay = LONG | {"seed": 77, "max_tokens": 90}
    with serving(toy_model, n_slots=8, max_queue=1000) as web:
        alone = web.complete(**stay)["choices"]

        def come_and_go(i: int) -> None:
            chance = random.Random(i)
            connection = web.connect("/v1/completions", LONG | {"stream": chance.random() < 0.5, "seed": i, "n": 2})
            time.sleep(chance.random() * 0.03)
            connection.close()

        with ThreadPoolExecutor(8) as pool:
            going = [pool.submit(come_and_go, i) for i in range(200)]
            together = [web.complete(**stay)["choices"] for _ in range(10)]
            assert all(future.result() is None for future in going)
        assert together == [alone] * 10
        until(lambda: web.n_busy == 0)


def test_beyond_the_queue_clients_are_told_when_to_come_again(slow: Web):
    taken = [slow.connect("/v1/completions", LONG) for _ in range(4)]
    until(lambda: slow.n_busy == 4)
    for path, body in (("/v1/completions", LONG), ("/v1/embeddings", {"input": "Tom"})):
        answer = slow.post(path, body)
        assert answer.status == 429
        assert answer.error["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
    assert slow.get("/health").status == 200
    assert slow.n_busy == 4, "nobody's end was waited for"
    for connection in taken:
        assert connection.recv(15).startswith(b"HTTP/1.1 200 OK")
        connection.close()


def test_a_stream_that_breaks_ends_with_an_error(toy_model: Model):
    with serving(toy_model, seconds_per_pass=0.1, drain_seconds=0) as web:
        connection = web.connect("/v1/completions", LONG | {"stream": True})
        assert connection.recv(10)
    data = b"".join(iter(lambda: connection.recv(10_000), b""))  # the server has gone
    connection.close()
    last = [line for line in data.split(b"\r\n") if line.startswith(b"data: ")][-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "draining"
    assert b"[DONE]" not in data


def test_a_stream_that_waits_says_so_in_comments(toy_model: Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llamita.serve.answers.PING_SECONDS", 0.02)
    with serving(toy_model, seconds_per_pass=0.2) as web:
        answer = web.post("/v1/completions", LONG | {"stream": True, "max_tokens": 2})
    assert b"\n\n: ping\n\n" in b"\n\n" + answer.data
    assert "".join(event["choices"][0]["text"] for event in answer.events)


def test_a_request_that_never_comes_whole_is_given_up(toy_model: Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llamita.serve.protocol.HEADER_SECONDS", 1.0)
    monkeypatch.setattr("llamita.serve.body.BODY_SECONDS", 0.2)
    with serving(toy_model) as web:
        for head in (b"", b"POST /v1/completions HTTP/1.1\r\nHost: x", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", web.port), timeout=5) as connection:
                connection.sendall(head)
                if head.endswith(b"\r\n\r\n"):
                    assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                    connection.sendall(b"GET /hea")
                while connection.recv(1000):
                    pass  # it must end in time
        head = (
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        with socket.create_connection(("127.0.0.1", web.port), timeout=5) as connection:
            connection.sendall(head)
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
