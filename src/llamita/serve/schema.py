"""The OpenAPI description of the server, as /openapi.json and /docs show it: FastAPI's, without what is never answered here."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

UNUSED = ("HTTPValidationError", "ValidationError")  # of the 422 that FastAPI would give, and we never do


def describe(app: FastAPI, wants_key: bool) -> dict[str, Any]:
    """The description of an application; wants_key: whether all routes but the health check want an API key."""
    schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            if wants_key and path != "/health":
                operation["security"] = [{"key": []}]
            else:
                operation["responses"].pop("401", None)
    for name in UNUSED:
        schema["components"]["schemas"].pop(name, None)
    if wants_key:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return schema
