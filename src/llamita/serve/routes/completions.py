"""POST /v1/completions: go on with texts, or with ids; and with echo and logprobs: tell how likely each token of a text was."""

from fastapi import Request, Response

from llamita.serve.completion_reply import CompletionReply
from llamita.serve.errors import bad_request
from llamita.serve.job import Job
from llamita.serve.jobs import jobs_of, room_for
from llamita.serve.requests import CompletionRequest
from llamita.serve.responses import CompletionResponse
from llamita.serve.routes.common import generation, generation_responses, new_router
from llamita.serve.served_model import ServedModel

DEFAULT_TOKENS = 16  # OpenAI's

router = new_router()


@router.post("/completions", response_model=CompletionResponse, responses=generation_responses("The texts"))
async def create_completion(body: CompletionRequest, request: Request) -> Response:
    """Continue one or more texts."""
    return await generation(request, body, plan, CompletionReply)


def plan(body: CompletionRequest, model: ServedModel) -> list[Job]:
    """A job for each text to be written; raises ApiError for wishes that do not go together."""
    if body.best_of and body.best_of < body.n:
        raise bad_request(f"best_of: found {body.best_of}, expected at least n, {body.n}.", "best_of")
    if body.stream and body.best_of > body.n:
        raise bad_request("best_of: found more than n, expected the same in a stream, which must begin at once.", "best_of")
    prompts = [model.ids_of(prompt, "prompt", is_marked=True) for prompt in body.prompt]
    max_tokens = room_for(body.max_tokens, prompts, model.context, "prompt", DEFAULT_TOKENS)
    n_each, wants_logprobs = max(body.n, body.best_of), body.logprobs is not None
    return jobs_of(
        body, model, prompts, n_each, max_tokens, wants_logprobs or n_each > body.n, body.logprobs or 0,
        prompt_logprobs=body.echo and wants_logprobs,
    )  # fmt: skip
