"""GET /v1/models and /v1/models/{id}: what is served."""

from typing import Any

from fastapi import Request

from llamita.serve.errors import model_not_found
from llamita.serve.responses import ModelBody, ModelList
from llamita.serve.routes.common import GET_ERRORS, errors, new_router, service_of
from llamita.serve.served_model import ServedModel

router = new_router()


@router.get("/models", response_model=ModelList, responses=GET_ERRORS)
async def list_models(request: Request) -> dict[str, Any]:
    """List the model."""
    return {"object": "list", "data": [described(service_of(request).model)]}


@router.get("/models/{model:path}", response_model=ModelBody, responses=errors(404, 503))
async def retrieve_model(model: str, request: Request) -> dict[str, Any]:
    """Describe the model; names may hold slashes."""
    served = service_of(request).model
    if model != served.name:
        raise model_not_found(model)
    return described(served)


def described(model: ServedModel) -> dict[str, Any]:
    """A model in OpenAI's words, its context as vLLM calls it, its chat template and the tokens that end its texts."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "llamita",
        "max_model_len": model.context,
        "template": model.template.name,
        "stop_ids": sorted(model.stop_ids),
    }
