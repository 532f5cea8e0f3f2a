"""A server in a thread of this process, and a client made of the standard library alone: what tests of serve/ talk through."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from signal import SIGTERM
from typing import Any

from llamita.model import Model
from llamita.serve.scheduler import Scheduler
from llamita.serve.served_model import ServedModel, open_served
from llamita.serve.server import DrainingServer, bind
from llamita.serve.service import Service
from llamita.serve.settings import Settings

CONTEXT = 128  # of the model that tests serve
JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    data: bytes

    @cached_property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def error(self) -> dict[str, Any]:
        """The error, in OpenAI's shape and no other."""
        assert set(self.json) == {"error"}, self.json
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        assert "\n" not in self.json["error"]["message"]
        return self.json["error"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a whole stream."""
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        *events, done, rest = self.data.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        return [json.loads(event.removeprefix(b"data: ")) for event in events if event != b": ping"]


class Web:
    """A client of one server; each request has a connection of its own."""

    def __init__(self, port: int, service: Service) -> None:
        self.port, self.service = port, service

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.send("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), JSON | headers)

    def complete(self, **body: object) -> dict[str, Any]:
        """A completion that must succeed."""
        answer = self.post("/v1/completions", body)
        assert answer.status == 200, answer.data
        return answer.json

    def chat(self, *contents: str, **body: object) -> dict[str, Any]:
        """A chat completion that must succeed; user and assistant speak in turn."""
        answer = self.post("/v1/chat/completions", {"messages": talk(*contents)} | body)
        assert answer.status == 200, answer.data
        return answer.json

    def connect(self, path: str, body: object) -> socket.socket:
        """Send a request and read nothing."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        connection.sendall(head.encode() + data)
        return connection

    @property
    def scheduler(self) -> "SlowScheduler":
        opened = self.service.opened
        assert opened is not None
        assert isinstance(opened.scheduler, SlowScheduler)
        return opened.scheduler

    @property
    def n_busy(self) -> int:
        """Jobs that run or wait."""
        statistics = self.scheduler.statistics()
        return statistics.n_running + statistics.n_waiting


def talk(*contents: str) -> list[dict[str, str]]:
    """Messages in which user and assistant speak in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


class SlowScheduler(Scheduler):
    """Gives a test time to look at what is under way."""

    seconds_per_pass = 0.0
    n_passes = 0

    def _turn(self) -> None:
        time.sleep(self.seconds_per_pass)
        self.n_passes += 1
        super()._turn()


@contextmanager
def serving(
    model: Model, n_slots: int = 4, max_queue: int = 16, seconds_per_pass: float = 0.0, **settings: Any
) -> Iterator[Web]:
    """A server in a thread, ready; it ends with the block."""

    def open_model() -> ServedModel:
        scheduler = SlowScheduler(model, n_threads=1, n_slots=n_slots, max_queue=max_queue)
        scheduler.seconds_per_pass = seconds_per_pass
        return open_served(model, checked, scheduler)

    checked = Settings(**{"name": "toy", "port": 0, "drain_seconds": 0.1} | settings).validate()
    service = Service(checked, open_model)
    with bind(checked.host, 0) as listener:
        web = Web(listener.getsockname()[1], service)
        server = DrainingServer(service, say=lambda _: None)
        thread = threading.Thread(target=server.serve_at, args=[listener])
        thread.start()
        try:
            while web.get("/health").status != 200:
                assert thread.is_alive()
            yield web
        finally:
            server.handle_exit(SIGTERM, None)
            thread.join()
