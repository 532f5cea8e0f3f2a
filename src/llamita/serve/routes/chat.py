"""POST /v1/chat/completions: answer the last of some messages."""

from fastapi import Request, Response

from llamita.serve.chat_reply import ChatReply, wants_logprobs
from llamita.serve.errors import bad_request
from llamita.serve.job import Job
from llamita.serve.jobs import jobs_of, room_for
from llamita.serve.requests import ChatRequest
from llamita.serve.responses import ChatResponse
from llamita.serve.routes.common import generation, generation_responses, new_router
from llamita.serve.served_model import ServedModel

router = new_router()


@router.post("/chat/completions", response_model=ChatResponse, responses=generation_responses("The answers"))
async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
    """Answer a chat."""
    return await generation(request, body, plan, ChatReply)


def plan(body: ChatRequest, model: ServedModel) -> list[Job]:
    """A job for each answer."""
    if body.tool_choice not in (None, "none", "auto"):
        raise bad_request("tool_choice: expected none or auto; a call cannot be forced here.", "tool_choice")
    if body.function_call != "none" and (body.functions or body.function_call not in (None, "auto")):
        raise bad_request("functions, function_call: not supported; use tools.", "functions")
    tools = () if body.tool_choice == "none" else body.tools
    prompt = model.chat_ids(body.messages, tools, body.add_generation_prompt, body.chat_template_kwargs)
    if body.answer_ids and body.prescribes_form:
        raise bad_request("answer_ids: found it beside response_format, which begins with the answer.", "answer_ids")
    prompt = [*prompt, *model.checked_ids(body.answer_ids, "answer_ids")]
    wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    max_tokens = room_for(wanted, [prompt], model.context, "messages")
    return jobs_of(
        body, model, [prompt], body.n, max_tokens, wants_logprobs(body), body.top_logprobs,
        stop_texts=model.template.stop_texts,
    )  # fmt: skip
