"""What every route needs: the service behind it, and how errors stand in the schema."""

from typing import Any

from fastapi import APIRouter, Request

from llamita.serve.body import StrictRoute
from llamita.serve.errors import ErrorResponse
from llamita.serve.service import Service

_MEANINGS = {
    400: "The request is wrong, or does not fit the context.",
    401: "The API key is missing or wrong.",
    403: "The Host header names a machine that is not allowed.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: "Too many requests are waiting.",
    500: "The server failed.",
    503: "The model is being loaded, or the server shuts down.",
}


def service_of(request: Request) -> Service:
    """The service that the application was made for."""
    return request.app.state.service


def new_router() -> APIRouter:
    """A router for one kind of thing."""
    return APIRouter(route_class=StrictRoute)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route may refuse, for the schema."""
    return {status: {"model": ErrorResponse, "description": _MEANINGS[status]} for status in sorted({401, 403, *statuses})}


def generation_responses(what: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that writes text, whole or as a stream, for the schema."""
    success = {"description": f"{what}, whole or as a stream of such objects.", "content": {"text/event-stream": {}}}
    return errors(400, 404, 408, 413, 415, 429, 500, 503) | {200: success}


GET_ERRORS = errors(503)
POST_ERRORS = errors(400, 408, 413, 415, 500, 503)
