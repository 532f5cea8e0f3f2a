"""POST /v1/embeddings: one vector for each text, the mean of its tokens' final hidden states."""

import asyncio
import base64
from typing import Any

import numpy as np
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from llamita.serve.answers import Answers, failure_of
from llamita.serve.connection import while_connected
from llamita.serve.errors import bad_request
from llamita.serve.job import Finish, Job
from llamita.serve.jobs import room_for
from llamita.serve.requests import EmbeddingRequest
from llamita.serve.responses import EmbeddingResponse
from llamita.serve.routes.common import errors, new_router, service_of
from llamita.serve.served_model import ServedModel

router = new_router()


@router.post("/embeddings", response_model=EmbeddingResponse, responses=errors(400, 404, 408, 413, 415, 429, 500, 503))
async def create_embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """Embed one or more texts."""
    model = service_of(request).model_for(body.model)
    if body.dimensions not in (None, model.width):
        raise bad_request(f"dimensions: found {body.dimensions}, expected {model.width}, which the model has.", "dimensions")
    jobs = await asyncio.to_thread(plan, body, model)
    finishes = await while_connected(embed(jobs, model), request.receive)
    n_tokens = sum(finish.usage.n_prompt_tokens for finish in finishes)
    written = in_base64 if body.encoding_format == "base64" else np.ndarray.tolist
    data = [{"object": "embedding", "index": i, "embedding": written(finish.embedding)} for i, finish in enumerate(finishes)]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": usage})


def plan(body: EmbeddingRequest, model: ServedModel) -> list[Job]:
    """A job for each text."""
    prompts = [model.ids_of(text, "input") for text in body.input]
    room_for(0, prompts, model.context, "input")
    return [Job(prompt, max_tokens=0, wants_embedding=True) for prompt in prompts]


async def embed(jobs: list[Job], model: ServedModel) -> list[Finish]:
    """The ends of all jobs; no more at once than the engine has slots, so that a long list leaves room for others."""
    finishes: list[Finish] = []
    n_at_once = model.scheduler.statistics().n_slots
    for i in range(0, len(jobs), n_at_once):
        finishes += await finishes_of(model, jobs[i : i + n_at_once])
    return finishes


async def finishes_of(model: ServedModel, jobs: list[Job]) -> list[Finish]:
    """The ends of some jobs, in their order; raises ApiError for one that broke off."""
    answers, finishes = Answers(model.scheduler, jobs), dict[int, Finish]()
    try:
        async for batch in answers.batches():
            for index, events in batch.items():
                if isinstance(finish := events[-1], Finish):
                    finishes[index] = finish
                    if failure := failure_of(jobs[index], finish):
                        raise failure
    finally:
        answers.cancel()
    return [finishes[i] for i in sorted(finishes)]


def in_base64(vector: np.ndarray) -> Any:
    """A vector as openai-python asks for it: little-endian float32."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
