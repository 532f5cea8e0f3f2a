"""uvicorn's HTTP protocol with patience: a connection must send whole headers in time, which uvicorn would await for ever."""

from asyncio import BaseTransport, TimerHandle
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from llamita.serve.limits import HEADER_SECONDS


class TimedProtocol(H11Protocol):
    """One connection. A clock runs from its beginning, and from the first byte of each later request, until the headers end."""

    _clock: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Start the clock."""
        super().connection_made(transport)  # pyright: ignore[reportArgumentType]
        self._clock = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a request has begun, start it where only a part of one is there."""
        super().data_received(data)
        is_waiting = self.cycle is None or self.cycle.response_complete
        if not is_waiting:
            self._stop_clock()
        elif self._clock is None:
            self._clock = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """A request that was answered at once has stopped no clock yet."""
        self._stop_clock()
        super().on_response_complete()

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        self._clock = None
        cast(BaseTransport, self.transport).close()
