"""What every route needs: the service behind it, how errors stand in the schema, and how texts are made and sent."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from llamita.serve.body import StrictRoute
from llamita.serve.errors import ErrorResponse
from llamita.serve.job import Job
from llamita.serve.metrics import Metrics
from llamita.serve.reply import Reply
from llamita.serve.requests import ChatRequest, CompletionRequest
from llamita.serve.served_model import ServedModel
from llamita.serve.service import Service

_Body = TypeVar("_Body", ChatRequest, CompletionRequest)

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


async def generation(
    request: Request,
    body: _Body,
    plan: Callable[[_Body, ServedModel], list[Job]],
    reply_to: Callable[[_Body, ServedModel, Metrics, Sequence[Job]], Reply],
) -> Response:
    """The answer to a request for text, whole or as a stream, from the jobs that plan makes of it; raises ApiError."""
    service = service_of(request)
    model = service.model_for(body.model)
    jobs = await asyncio.to_thread(plan, body, model)
    reply = reply_to(body, model, service.metrics, jobs)
    if body.stream:
        return reply.stream()
    await reply.collect(request.receive)
    return JSONResponse(reply.whole())


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
