"""Log-probabilities of tokens in the two shapes that OpenAI's clients read. Numbers in, JSON values out.

A token that is a part of a character is spelled with backslashes (\\xe2), so that different tokens stay different.
"""

from collections.abc import Sequence
from typing import Any

from llamita.serve.choice import TokenRecord


def spelled(data: bytes) -> str:
    """The bytes of a token as a text."""
    return data.decode("utf-8", errors="backslashreplace")


def completion_logprobs(records: Sequence[TokenRecord], n_before: int = 0) -> dict[str, Any]:
    """The shape of /v1/completions: parallel lists, and for each token a dictionary of the likeliest, itself among them.

    n_before: characters of the choice's text before the records' own, as of an echoed prompt. The first token of a prompt has
    no logprob: null.
    """
    return {
        "tokens": [spelled(record.data) for record in records],
        "token_logprobs": [record.logprob for record in records],
        "top_logprobs": [_top(record) for record in records],
        "text_offset": [n_before + record.offset for record in records],
    }


def _top(record: TokenRecord) -> dict[str, float] | None:
    """Different tokens may be spelled alike; the likelier counts."""
    if record.logprob is None:
        return None
    top: dict[str, float] = {}
    for _, data, logprob in (*record.alternatives, (record.id, record.data, record.logprob)):
        text = spelled(data)
        top[text] = max(logprob, top.get(text, logprob))
    return top


def chat_logprobs(records: Sequence[TokenRecord]) -> dict[str, Any]:
    """The shape of /v1/chat/completions: a list of tokens with their bytes, and with their ids, as llama.cpp has them."""
    content = [
        _chat_token(record.id, record.data, record.logprob or 0.0)
        | {"top_logprobs": [_chat_token(*alternative) for alternative in record.alternatives]}
        for record in records
    ]
    return {"content": content, "refusal": None}


def _chat_token(token_id: int, data: bytes, logprob: float) -> dict[str, Any]:
    return {"id": token_id, "token": spelled(data), "logprob": logprob, "bytes": list(data)}
