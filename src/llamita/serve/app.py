"""The application: routes, errors and guards put together. It knows a Service, and nothing of sockets and signals.

app = build_app(Service(Settings("stories"), open_model))     # an ASGI application; its start loads the model
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamita import __version__
from llamita.serve.errors import ApiError, from_status, from_validation, internal_error
from llamita.serve.guards import HostGuard, KeyGuard
from llamita.serve.metrics import Metrics
from llamita.serve.routes import chat, completions, embeddings, models, page, status, tokens
from llamita.serve.schema import describe
from llamita.serve.service import Service
from llamita.serve.settings import Settings


def build_app(service: Service) -> FastAPI:
    """The application for a service."""
    app = FastAPI(
        title="llamita",
        version=__version__,
        summary="A little Llama behind OpenAI's API.",
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=guards_of(service.settings, service.metrics),
        exception_handlers={
            HTTPException: _answer_refusal,
            RequestValidationError: _answer_validation,
            Exception: _answer_bug,
        },
    )
    app.state.service = service
    app.openapi = lru_cache(lambda: describe(app, bool(service.settings.api_key)))  # FastAPI's way to another schema
    for router in (chat.router, completions.router, embeddings.router, models.router):
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)  # some clients leave /v1 out
    for router in (tokens.router, status.router, page.router):
        app.include_router(router)
    return app


def guards_of(settings: Settings, metrics: Metrics) -> list[Middleware]:
    """What stands before the routes, outermost first."""
    guards = [Middleware(HeadAnswers), Middleware(Meter, metrics=metrics), Middleware(HostGuard, settings=settings)]
    if settings.cors_origins:  # before the key, because a browser asks without it whether it may send it
        guards.append(Middleware(CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]))
    if settings.api_key:
        guards.append(Middleware(KeyGuard, key=settings.api_key))
    return guards


class HeadAnswers:
    """Answer HEAD as GET without a body: what curl -I and wget --spider ask, and checks of proxies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)


class Meter:
    """Count every request with its status and the seconds that it took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "other").removeprefix("/v1")  # not the path: strangers choose it
            self._metrics.count_request(route, status, time.perf_counter() - started)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model beside the first requests, which hear 503; free it at the end."""
    service: Service = app.state.service
    loading = asyncio.create_task(service.load())
    yield
    await loading
    await service.close()


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return (error if isinstance(error, ApiError) else from_status(error)).response()


async def _answer_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return from_validation(error).response()


async def _answer_bug(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return internal_error().response()
