"""The server as a process: its lines, its port, its signals, its end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from llamita.errors import SettingError
from llamita.model import Model
from llamita.serve.app import build_app
from llamita.serve.server import bind, url_of
from llamita.serve.service import Service
from llamita.serve.settings import Settings

LONG = {"prompt": "Once upon a time", "n": 128, "max_tokens": 370, "ignore_eos": True}  # some seconds of work


@contextmanager
def llamita_serve(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`llamita serve --port 0`, ready: (process, port)."""
    command = [sys.executable, "-m", "llamita", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr
            line = process.stderr.readline()
            found = re.fullmatch(r"llamita: serving stories at http://127\.0\.0\.1:(\d+); Ctrl-C ends it\n", line)
            assert found, line
            port = int(found[1])
            while ask(port, "/health")[0] == 503:
                time.sleep(0.05)
            yield process, port
        finally:
            process.kill()


def ask(port: int, path: str, body: object = None) -> tuple[int, bytes]:
    """(status, body) of a request; status 0 where the answer breaks off."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if data is None else "POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, ConnectionError):
        return 0, b""
    finally:
        connection.close()


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list]:
    """Run something in a thread; its result will be in the list."""
    results: list = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def wait_until_running(port: int) -> None:
    while b"llamita_running_jobs 0" in ask(port, "/metrics")[1]:
        time.sleep(0.01)


def test_a_signal_lets_answers_end_and_refuses_new_ones():
    with llamita_serve("--threads", "1") as (process, port):
        thread, results = in_background(lambda: ask(port, "/v1/completions", LONG))
        wait_until_running(port)
        process.send_signal(signal.SIGTERM)
        while ask(port, "/health") == (200, b'{"status":"ok"}'):
            time.sleep(0.01)
        assert ask(port, "/health") == (503, b'{"status":"draining"}')
        status, data = ask(port, "/v1/completions", {"prompt": "x"})
        assert (status, json.loads(data)["error"]["code"]) == (503, "draining")
        assert process.wait(30) == 0
        thread.join()
        status, data = results[0]
        assert status == 200
        assert {choice["finish_reason"] for choice in json.loads(data)["choices"]} == {"length"}


def test_answers_that_do_not_end_in_time_are_ended():
    with llamita_serve("--threads", "1", "--drain", "0.1") as (process, port):
        thread, results = in_background(lambda: ask(port, "/v1/completions", LONG))
        wait_until_running(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        thread.join()
        assert results[0][0] == 503


def test_a_second_signal_ends_at_once():
    with llamita_serve("--threads", "1") as (process, port):
        thread, results = in_background(lambda: ask(port, "/v1/completions", LONG))
        wait_until_running(port)
        process.send_signal(signal.SIGINT)
        while b"draining" not in ask(port, "/health")[1]:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
        thread.join()
        assert results[0][0] == 0
        assert process.stderr
        assert [line.partition(";")[0] for line in process.stderr] == ["llamita: stopping", "llamita: ended at once\n"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], ["--api-key", "--insecure"]),
        (["nowhere.bin"], ["nowhere.bin"]),
        (["--template", "nowhere.jinja"], ["nowhere.jinja"]),
        (["--context", "100000"], ["context"]),
        (["--drain", "nan"], ["--drain", "86400"]),
        (["--cors-origin", "https://me.example/"], ["--cors-origin", "https://me.example"]),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments: list[str], words: list[str]):
    command = [sys.executable, "-m", "llamita", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in done.stderr.splitlines() if "serving" not in line]
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    assert all(word in lines[0] for word in words)


@pytest.mark.parametrize("arguments", [["nosuchmodel"], ["-z", "nowhere.model"], ["--adapter", "nowhere"]])
def test_no_address_is_told_for_files_that_are_not_there(arguments: list[str]):
    command = [sys.executable, "-m", "llamita", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        1, f"llamita: {arguments[-1]}: file: found No such file or directory, expected a readable file\n"
    )  # fmt: skip


def test_a_port_in_use_is_said_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=rf"127.0.0.1:{port}: .*in use.*--port") as refusal:
            bind("127.0.0.1", port)
    assert "\n" not in str(refusal.value)


def test_an_address_of_another_machine_is_said_in_one_line():
    with pytest.raises(SettingError, match="--host"):
        bind("192.0.2.1", 0)


def test_the_url_is_one_that_a_browser_takes():
    with bind("127.0.0.1", 0) as listener:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url_of(listener))
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110
        with bind("::1", 0) as listener:
            assert re.fullmatch(r"http://\[::1\]:\d+", url_of(listener))


def test_building_the_application_loads_nothing(toy_model: Model):
    def open_model():
        raise AssertionError(toy_model.name)

    service = Service(Settings("toy"), open_model)
    build_app(service)
    assert service.phase == "loading"
