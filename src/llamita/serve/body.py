"""The body of a request: read within bounds of size and time, and parsed as strict JSON.

FastAPI would take NaN, wait for ever, and keep any amount of memory. Knows no field of any request.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from llamita.serve.errors import ApiError, bad_request
from llamita.serve.limits import BODY_SECONDS, MAX_BODY_BYTES


class StrictRequest(Request):
    """A request whose body is JSON of bounded size; raises ApiError 400, 408, 413 or 415."""

    async def body(self) -> bytes:
        """All bytes of the body."""
        if not hasattr(self, "_body"):
            self._body = await self._read()
        return self._body

    async def json(self) -> Any:
        """The value that the body spells."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise bad_request(f"The body is no valid JSON: {error}.", code="invalid_json") from None

    async def _read(self) -> bytes:
        declared = self.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > MAX_BODY_BYTES:
            raise _too_large()
        self._check_content_type()
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in self.stream():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise _too_large()
        except TimeoutError:
            raise ApiError(408, f"Found no end of the body within {BODY_SECONDS:g} seconds.") from None
        return bytes(body)

    def _check_content_type(self) -> None:
        """Only JSON: what a form of a foreign page may send without asking (text/plain) must not start any work."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            message = f"Content-Type: found {kind or 'none'}, expected application/json."
            raise ApiError(415, message, code="unsupported_media_type")


def _too_large() -> ApiError:
    return ApiError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", code="request_too_large")


class StrictRoute(APIRoute):
    """A route whose request is a StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that FastAPI makes, behind the stricter request."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly
