"""Reply: the answers to one request on their way out, whole or as a stream. What both kinds of completion have in common.

completion_reply.py and chat_reply.py give it the shapes that clients read.
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from starlette.types import Receive

from llamita.serve.answers import Answers, failure_of
from llamita.serve.choice import Choice, Piece
from llamita.serve.connection import while_connected
from llamita.serve.errors import ApiError
from llamita.serve.job import Job
from llamita.serve.metrics import Metrics
from llamita.serve.served_model import ServedModel
from llamita.serve.stream import DONE, PING, EventStream, event


class Reply(ABC):
    """Submits the jobs of a request; n_each of them belong to one prompt. tells_usage: whether a stream ends with the usage.

    Raises ApiError when the jobs are not taken on.
    """

    id_prefix: ClassVar[str]
    stream_kind: ClassVar[str]

    def __init__(
        self, model: ServedModel, metrics: Metrics, jobs: Sequence[Job], n_each: int, tells_usage: bool
    ) -> None:  # fmt: skip
        self._id, self._created = f"{self.id_prefix}-{secrets.token_hex(12)}", int(time.time())
        self._model, self._metrics, self._n_each, self._tells_usage = model, metrics, n_each, tells_usage
        self.choices = [Choice(i, model, job) for i, job in enumerate(jobs)]
        self._answers = Answers(model.scheduler, jobs)

    @abstractmethod
    def whole(self) -> dict[str, Any]:
        """The body of an answer that is no stream."""

    @abstractmethod
    def first_chunks(self) -> list[dict[str, Any]]:
        """Choices of the events with which a stream begins."""

    @abstractmethod
    def chunks_of(self, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
        """Choices of the events that tell of a piece."""

    def last_chunks(self) -> list[dict[str, Any]]:
        """Choices of the events that come when all choices are whole."""
        return []

    async def collect(self, receive: Receive) -> None:
        """Wait until all choices are whole. Raises ApiError for one that broke off, and when the client has gone."""
        try:
            await while_connected(self._take_all(), receive)
        finally:
            self._end()

    def stream(self) -> EventStream:
        """The response that streams the choices."""
        return EventStream(self._events(), self._end)

    def envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The outermost object of an answer, or of an event."""
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model.name, "choices": choices}

    def usage(self) -> dict[str, Any]:
        """Tokens read and written, of all choices."""
        prompts = [choice.finish.usage for choice in self.choices[:: self._n_each] if choice.finish]
        n_prompt = sum(usage.n_prompt_tokens for usage in prompts)
        n_written = sum(choice.finish.usage.n_tokens for choice in self.choices if choice.finish)
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_written,
            "total_tokens": n_prompt + n_written,
            "prompt_tokens_details": {"cached_tokens": sum(usage.n_cached_tokens for usage in prompts)},
        }

    async def _take_all(self) -> None:
        async for _ in self._pieces():
            pass

    async def _pieces(self) -> AsyncIterator[list[tuple[Choice, Piece]]]:
        """Yield what is new of the choices; nothing when nothing came for a while. Raises ApiError for one that broke off."""
        async for batch in self._answers.batches():
            pieces = [(self.choices[index], self.choices[index].take(events)) for index, events in batch.items()]
            for choice, _ in pieces:
                if choice.finish and (failure := failure_of(choice.job, choice.finish)):
                    raise failure
            yield pieces

    async def _events(self) -> AsyncIterator[bytes]:
        """The bytes of a stream, with an error event where it breaks."""
        if first := self._written(self.first_chunks()):
            yield first
        try:
            async for pieces in self._pieces():
                data = b"".join([self._written(self.chunks_of(*pair)) for pair in pieces]) if pieces else PING
                if data:
                    yield data
        except ApiError as failure:
            yield event(failure.body)
        else:
            usage = self.envelope(self.stream_kind, []) | {"usage": self.usage()}
            yield self._written(self.last_chunks()) + (event(usage) if self._tells_usage else b"") + DONE

    def _written(self, chunks: list[dict[str, Any]]) -> bytes:
        """An event for each choice; where the usage comes at the end, the others say so."""
        more = {"usage": None} if self._tells_usage else {}
        return b"".join([event(self.envelope(self.stream_kind, [chunk]) | more) for chunk in chunks])

    def _end(self) -> None:
        """Free what is still running, and count."""
        self._answers.cancel()
        for choice in self.choices:
            if choice.finish and choice.n_tokens:
                self._metrics.count_first_token(choice.finish.timings.first_token_seconds)
