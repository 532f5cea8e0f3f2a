"""GET /health, /metrics and /docs: whether requests are served, how it goes, and what may be asked for."""

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from llamita.serve.metrics import CONTENT_TYPE
from llamita.serve.reference_page import reference_page
from llamita.serve.responses import Health
from llamita.serve.routes.common import GET_ERRORS, new_router, service_of

# the page of /docs has a style and nothing else
DOCS_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}

router = new_router()


@router.get("/health", response_model=Health, responses={503: {"model": Health, "description": "Not yet, or no more."}})
async def health(request: Request) -> Response:
    """Say whether requests are served."""
    phase = service_of(request).phase
    return JSONResponse({"status": "ok" if phase == "ready" else phase}, 200 if phase == "ready" else 503)


@router.get("/metrics", response_class=Response, responses=GET_ERRORS | {200: {"content": {CONTENT_TYPE: {}}}})
async def metrics(request: Request) -> Response:
    """Tell what was counted, as Prometheus reads it."""
    service = service_of(request)
    statistics = service.opened.scheduler.statistics() if service.opened else None
    return Response(service.metrics.text(statistics), media_type=CONTENT_TYPE)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """Show all routes and their fields."""
    return HTMLResponse(reference_page(request.app.openapi()), headers=DOCS_HEADERS)
