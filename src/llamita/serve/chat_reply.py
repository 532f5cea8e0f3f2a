"""The shape of /v1/chat/completions: messages of an assistant, whole or as deltas."""

import secrets
from collections.abc import Sequence
from typing import Any

from llamita.serve.choice import Choice, Piece, TokenRecord
from llamita.serve.job import Job
from llamita.serve.logprobs import chat_logprobs
from llamita.serve.metrics import Metrics
from llamita.serve.reply import Reply
from llamita.serve.requests import ChatRequest
from llamita.serve.served_model import ServedModel
from llamita.serve.tool_calls import Call, ToolText, form_of


class ChatReply(Reply):
    """The answers to one request: a job for each."""

    id_prefix, stream_kind = "chatcmpl", "chat.completion.chunk"

    def __init__(self, body: ChatRequest, model: ServedModel, metrics: Metrics, jobs: Sequence[Job]) -> None:
        super().__init__(model, metrics, jobs, len(jobs), body.stream_options.include_usage)
        self._wants_logprobs = wants_logprobs(body)
        form = form_of(model.template_source) if may_call(body) else None
        names = {tool.function.name for tool in body.tools}
        self._tool_texts = [ToolText(form, names) for _ in jobs] if form else []

    def whole(self) -> dict[str, Any]:
        """The body of an answer that is no stream."""
        return self.envelope("chat.completion", [self._whole_choice(c) for c in self.choices]) | {"usage": self.usage()}

    def first_chunks(self) -> list[dict[str, Any]]:
        """Who speaks."""
        return [_chunk(choice.index, {"role": "assistant", "content": ""}, None) for choice in self.choices]

    def chunks_of(self, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
        """New text, at the end perhaps calls, and the reason for the end."""
        text, calls = self._told(choice, piece.text)
        chunks = []
        if text or piece.records:
            chunks.append(_chunk(choice.index, {"content": text}, self._logprobs_of(piece.records)))
        if calls:
            numbered = [{"index": i} | call for i, call in enumerate(calls)]
            chunks.append(_chunk(choice.index, {"tool_calls": numbered}, None))
        if piece.finish_reason:
            chunks.append(_chunk(choice.index, {}, None, _reason(piece.finish_reason, calls)))
        return chunks

    def _whole_choice(self, choice: Choice) -> dict[str, Any]:
        text, calls = self._told(choice, choice.text)
        message = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        logprobs, reason = self._logprobs_of(choice.records), _reason(choice.finish_reason or "stop", calls)
        return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def _told(self, choice: Choice, text: str) -> tuple[str, list[dict[str, Any]]]:
        """What of a new text is to be told, and the calls where the choice has ended with some."""
        if not self._tool_texts:
            return text, []
        tool_text = self._tool_texts[choice.index]
        text = tool_text.feed(text)
        if choice.finish is None:
            return text, []
        rest, calls = tool_text.finish()
        return text + rest, [_call(call) for call in calls]

    def _logprobs_of(self, records: Sequence[TokenRecord]) -> dict[str, Any] | None:
        return chat_logprobs(records) if self._wants_logprobs else None


def wants_logprobs(body: ChatRequest) -> bool:
    """Whether a request wants logprobs; asking for alternatives is asking for them."""
    return body.logprobs or body.top_logprobs > 0


def may_call(body: ChatRequest) -> bool:
    """Whether what looks like a call in an answer is one: never where the form of the answer is prescribed."""
    return bool(body.tools) and body.tool_choice != "none" and not body.prescribes_form


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _reason(finish_reason: str, calls: list[dict[str, Any]]) -> str:
    return "tool_calls" if calls and finish_reason == "stop" else finish_reason


def _chunk(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish_reason: str | None = None
) -> dict[str, Any]:  # fmt: skip
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
