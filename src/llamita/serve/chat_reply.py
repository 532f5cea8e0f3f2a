"""The shape of /v1/chat/completions: messages of an assistant, whole or as deltas."""

from collections.abc import Sequence
from typing import Any

from llamita.serve.choice import Choice, Piece, TokenRecord
from llamita.serve.job import Job
from llamita.serve.logprobs import chat_logprobs
from llamita.serve.metrics import Metrics
from llamita.serve.reply import Reply
from llamita.serve.requests import ChatRequest
from llamita.serve.served_model import ServedModel


class ChatReply(Reply):
    """The answers to one request: a job for each."""

    id_prefix, stream_kind = "chatcmpl", "chat.completion.chunk"

    def __init__(self, body: ChatRequest, model: ServedModel, metrics: Metrics, jobs: Sequence[Job]) -> None:
        super().__init__(model, metrics, jobs, len(jobs), body.stream_options.include_usage)
        self._wants_logprobs = wants_logprobs(body)

    def whole(self) -> dict[str, Any]:
        """The body of an answer that is no stream."""
        return self.envelope("chat.completion", [self._whole_choice(c) for c in self.choices]) | {"usage": self.usage()}

    def first_chunks(self) -> list[dict[str, Any]]:
        """Who speaks."""
        return [_chunk(choice.index, {"role": "assistant", "content": ""}, None) for choice in self.choices]

    def chunks_of(self, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
        """New text, and at the end the reason for it."""
        text = []
        if piece.text or piece.records:
            text = [_chunk(choice.index, {"content": piece.text}, self._logprobs_of(piece.records))]
        return text + ([_chunk(choice.index, {}, None, piece.finish_reason)] if piece.finish_reason else [])

    def _whole_choice(self, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        logprobs = self._logprobs_of(choice.records)
        return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def _logprobs_of(self, records: Sequence[TokenRecord]) -> dict[str, Any] | None:
        return chat_logprobs(records) if self._wants_logprobs else None


def wants_logprobs(body: ChatRequest) -> bool:
    """Whether a request wants logprobs; asking for alternatives is asking for them."""
    return body.logprobs or body.top_logprobs > 0


def _chunk(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish_reason: str | None = None
) -> dict[str, Any]:  # fmt: skip
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
