"""Server-sent events: a response that goes on while an answer is made, and notices at once when its reader has gone.

Written by hand because its end matters most: whoever leaves must cost nothing more. Knows no field of any answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamita.serve.connection import ClientGoneError, while_connected
from llamita.serve.limits import SEND_SECONDS

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"  # a comment: keeps proxies from giving up
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(data: dict[str, Any]) -> bytes:
    """One event. All but ASCII is escaped: some clients take U+2028 for the end of a line."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode("ascii") + b"\n\n"


class EventStream(Response):
    """events: what to send, ready as bytes. on_end: called once when the stream is over, whole or not."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events until they end or the reader has gone."""
        try:
            await while_connected(self._send_all(send), receive)
        except (ClientGoneError, TimeoutError):
            pass  # a reader that takes nothing has gone as well
        finally:
            self._on_end()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for data in self._events:
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
