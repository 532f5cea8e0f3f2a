"""POST /tokenize and /detokenize, GET /tokenizer_info: a tokenizer for clients without one, in vLLM's and llama.cpp's words."""

import asyncio
from typing import Any

from fastapi import Request

from llamita.serve.errors import bad_request
from llamita.serve.logprobs import spelled
from llamita.serve.requests import DetokenizeRequest, TokenizeRequest
from llamita.serve.responses import DetokenizeResponse, TokenizeResponse, TokenizerInfo
from llamita.serve.routes.common import GET_ERRORS, POST_ERRORS, new_router, service_of
from llamita.serve.served_model import ServedModel

router = new_router()


@router.post("/tokenize", response_model=TokenizeResponse, responses=POST_ERRORS, response_model_exclude_none=True)
async def tokenize(body: TokenizeRequest, request: Request) -> dict[str, Any]:
    """Turn a text, in which special tokens may be written out, or the messages of a chat, into ids."""
    model = service_of(request).model
    ids = await asyncio.to_thread(ids_of, body, model)
    strings = [spelled(model.token_bytes(token_id)) for token_id in ids] if body.return_token_strs else None
    return {"count": len(ids), "max_model_len": model.context, "tokens": ids, "token_strs": strings}


@router.post("/detokenize", response_model=DetokenizeResponse, responses=POST_ERRORS)
async def detokenize(body: DetokenizeRequest, request: Request) -> dict[str, Any]:
    """Turn ids into text with special tokens written out."""
    model = service_of(request).model
    text = await asyncio.to_thread(model.decode_marked, model.checked_ids(body.tokens, "tokens"))
    return {"prompt": text, "content": text}


@router.get("/tokenizer_info", response_model=TokenizerInfo, responses=GET_ERRORS)
async def tokenizer_info(request: Request) -> dict[str, Any]:
    """Describe the tokenizer."""
    model = service_of(request).model
    names = {name: model.special_text(token_id) for name, token_id in _special_ids(model).items()}
    return names | {
        "tokenizer_class": type(model.tokenizer).__name__,
        "vocab_size": model.tokenizer.vocab_size,
        "pad_token": None,
        "chat_template": model.template_source or None,
    }


def ids_of(body: TokenizeRequest, model: ServedModel) -> list[int]:
    """The ids that a request asks for."""
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("prompt, messages: expected one of the two.", "prompt")
    if body.messages is not None:
        return model.chat_ids(body.messages, (), body.add_generation_prompt)
    return model.encode_marked(body.prompt or "", "prompt", body.add_special_tokens)


def _special_ids(model: ServedModel) -> dict[str, int]:
    return {"bos_token": model.tokenizer.bos_id, "eos_token": model.tokenizer.eos_id}
