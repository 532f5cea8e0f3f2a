"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}, whatever went wrong.

An ApiError raised anywhere below a route is the answer. 422 is never used, because clients retry or hide it: bad input is 400.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llamita.errors import one_line

INVALID = "invalid_value"  # the code of what the schema forbids; what only the model can tell has others
ROUTE_NOT_FOUND = "route_not_found"
MAX_SHOWN = 60  # characters of a value that an error repeats


class ErrorBody(BaseModel):
    """What is wrong, for people (message) and programs (type, code, and param: the field of the request)."""

    message: str
    type: str
    param: str | None = Field(default=None)
    code: str | None = Field(default=None)


class ErrorResponse(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorBody


class ApiError(HTTPException):
    """A request that is refused or has failed: status and body of the answer."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None,
        code: str | None = None, headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(status, message, headers)
        self.body = {"error": {"message": one_line(message), "type": kind, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        """The answer to send."""
        return JSONResponse(self.body, self.status_code, self.headers)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the client must change its request."""
    return ApiError(400, message, param=param, code=code)


def context_exceeded(n_prompt: int, max_tokens: int, context: int, param: str) -> ApiError:
    """400 of a text that does not fit; both numbers let a client shorten it."""
    wanted = f"{n_prompt} in the {param} and {max_tokens} of the answer"
    message = f"This model's context has room for {context} tokens, but {n_prompt + max_tokens} were asked for: {wanted}."
    return bad_request(message + " Shorten either.", param, "context_length_exceeded")


def unauthorized() -> ApiError:
    """401: the key is missing or wrong."""
    message = "Found no valid API key, expected the header 'Authorization: Bearer KEY'."
    headers = {"WWW-Authenticate": "Bearer"}
    return ApiError(401, message, "authentication_error", code="invalid_api_key", headers=headers)


def model_not_found(name: str) -> ApiError:
    """404: no such model here."""
    return ApiError(404, f"Found no model {shown(name)}; GET /v1/models lists what is served.", "not_found_error", "model",
                    "model_not_found")  # fmt: skip


def overloaded(retry_seconds: float) -> ApiError:
    """429: the queue is full."""
    headers = {"Retry-After": str(max(1, math.ceil(retry_seconds)))}
    return ApiError(
        429, "Too many requests are waiting; try again soon.", "overloaded_error", code="queue_full", headers=headers
    )


def unavailable(why: Literal["loading", "draining", "failed"]) -> ApiError:
    """503: the model is not there yet, or not for much longer."""
    reasons = {
        "loading": "The model is being loaded; try again in a moment.",
        "draining": "The server is shutting down and takes no new requests.",
        "failed": "The engine has failed; see the server's own output.",
    }
    return ApiError(503, reasons[why], "unavailable_error", code=why, headers={"Retry-After": "1"})


def internal_error() -> ApiError:
    """500: a bug of ours, whose traceback is in the server's own output only."""
    return ApiError(500, "The server failed at this request.", "server_error", code="internal_error")


def from_status(error: HTTPException) -> ApiError:
    """The same for what the web framework refuses by itself: unknown routes and methods."""
    messages = {404: "Found no such route; GET /docs lists them.", 405: "This route does not take that method."}
    kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
    message = messages.get(error.status_code, str(error.detail))
    code = ROUTE_NOT_FOUND if error.status_code == 404 else None
    return ApiError(error.status_code, message, kind, code=code, headers=dict(error.headers or {}))


def from_validation(error: RequestValidationError) -> ApiError:
    """400 for fields of a wrong type or out of range; tells of the first."""
    first = error.errors()[0]
    place = place_of(first["loc"][1:], error.body, first["type"] == "missing")
    message = str(first["msg"]).removeprefix("Value error, ")
    if not place:
        found = "nothing" if first["type"] == "missing" else f"a {type(first['input']).__name__}"
        return bad_request(f"The body: found {found}, expected a JSON object.", code=INVALID)
    if first["type"] == "missing":
        return bad_request(f"{'.'.join(place)}: expected this field, found none.", place[0], INVALID)
    return bad_request(f"{'.'.join(place)}: found {shown(first['input'])}. {message}.", place[0], INVALID)


def place_of(steps: Sequence[str | int], body: Any, is_missing: bool) -> list[str]:
    """The steps from a body to what is wrong in it, without the names of alternatives, which no client wrote."""
    place, value = list[str](), body
    for i, step in enumerate(steps):
        if _has(value, step):
            value = value[step]
        elif not (is_missing and i == len(steps) - 1):
            continue
        place.append(str(step))
    return place


def _has(value: object, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)


def shown(value: object) -> str:
    """A value as it may stand in a message."""
    text = repr(value[:MAX_SHOWN] if isinstance(value, str | list) else value if not isinstance(value, dict) else "an object")
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
