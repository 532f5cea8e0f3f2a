"""The server as a process: its socket, its signals, its end. A first signal lets running answers end, a second ends at once."""

import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from llamita.errors import SettingError
from llamita.serve.app import build_app
from llamita.serve.limits import MAX_HEADER_READ_BYTES
from llamita.serve.protocol import TimedProtocol
from llamita.serve.service import Service

KEEP_ALIVE_SECONDS = 75  # longer than proxies keep theirs, so that it is they who close a connection
FLUSH_SECONDS = 5  # what clients have to take the rest of their answers in
Say = Callable[[str], None]


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at the address; port 0 takes any. Raises SettingError where that is not possible."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        remedy = "choose another with --port (0 takes any)" if port else "choose another --host"
        raise SettingError(f"{host}:{port}: {error.strerror or error}; {remedy}") from None


def url_of(listener: socket.socket) -> str:
    """Where a browser finds the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class DrainingServer(uvicorn.Server):
    """Serves until a signal ends it, and goes on listening while running answers end, so that new requests hear 503.

    say: prints a line for whoever started the server.
    """

    def __init__(self, service: Service, say: Say) -> None:
        super().__init__(
            uvicorn.Config(
                build_app(service),
                http=TimedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,  # anybody can send them
                h11_max_incomplete_event_size=MAX_HEADER_READ_BYTES,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=FLUSH_SECONDS,
            )
        )
        self._service, self._say = service, say
        self._is_asked = False

    def serve_at(self, listener: socket.socket) -> None:
        """Load the model and serve; raises what loading raised."""
        self.run(sockets=[listener])
        if self._service.failure is not None:
            raise self._service.failure

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take a signal."""
        if self._is_asked:
            self._say("ended at once")
            os._exit(128 + sig)  # threads in compiled code wait for nobody
        self._is_asked = True
        name = "Ctrl-C" if sig == signal.SIGINT else "signal"
        self._say(f"stopping; running answers have {self._service.settings.drain_seconds:g} s to end, another {name} ends them")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop listening."""
        if self._service.failure is not None:
            return True
        if self._is_asked:
            await self._service.drain(self._service.settings.drain_seconds)
            await self._service.close()
            return True
        return await super().on_tick(counter)
