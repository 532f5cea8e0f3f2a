"""GET /health and /metrics: whether requests are served, and how it goes."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from llamita.serve.metrics import CONTENT_TYPE
from llamita.serve.responses import Health
from llamita.serve.routes.common import GET_ERRORS, new_router, service_of

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
