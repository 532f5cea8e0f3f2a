"""The shape of /v1/completions: texts behind their prompts, which may be echoed, with the logprobs of both."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llamita.serve.choice import Choice, Piece, TokenRecord
from llamita.serve.fields import TokenIds
from llamita.serve.job import Job
from llamita.serve.logprobs import completion_logprobs
from llamita.serve.metrics import Metrics
from llamita.serve.reply import Reply
from llamita.serve.requests import CompletionRequest
from llamita.serve.served_model import ServedModel


class Echo(NamedTuple):
    """A prompt as it is echoed. hides_bos: whether a BOS that stands before it is no part of the text."""

    text: str = ""
    hides_bos: bool = True


class CompletionReply(Reply):
    """The answers to one request; jobs are n or best_of for each of its prompts."""

    id_prefix, stream_kind = "cmpl", "text_completion"

    def __init__(self, body: CompletionRequest, model: ServedModel, metrics: Metrics, jobs: Sequence[Job]) -> None:
        super().__init__(model, metrics, jobs, len(jobs) // len(body.prompt), body.stream_options.include_usage)
        self._n, self._wants_logprobs = body.n, body.logprobs is not None
        self._echoes = [echo_of(prompt, model) if body.echo else Echo() for prompt in body.prompt]
        # what is known of the prompt's tokens comes with the end of an answer, so such a stream has one event for each
        self._is_whole_only = body.echo and self._wants_logprobs

    def whole(self) -> dict[str, Any]:
        """The body of an answer that is no stream: of each prompt the likeliest n, likeliest first where there are more."""
        choices = self.choices
        if self._n_each > self._n:
            prompts = [choices[i : i + self._n_each] for i in range(0, len(choices), self._n_each)]
            choices = [c for prompt in prompts for c in sorted(prompt, key=lambda c: -c.mean_logprob)[: self._n]]
        whole = [self._whole_choice(i, choice) for i, choice in enumerate(choices)]
        return self.envelope(self.stream_kind, whole) | {"usage": self.usage()}

    def first_chunks(self) -> list[dict[str, Any]]:
        """The prompts, where they are echoed."""
        if self._is_whole_only:
            return []
        return [_chunk(choice.index, echo, None) for choice in self.choices if (echo := self._echo_of(choice).text)]

    def chunks_of(self, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
        """New text, and at the end the reason for it."""
        if self._is_whole_only:
            return []
        text = []
        if piece.text or piece.records:
            text = [_chunk(choice.index, piece.text, self._logprobs_of(choice, piece.records))]
        return text + ([_chunk(choice.index, "", None, piece.finish_reason)] if piece.finish_reason else [])

    def last_chunks(self) -> list[dict[str, Any]]:
        """All choices, where none could be told before."""
        return [self._whole_choice(choice.index, choice) for choice in self.choices] if self._is_whole_only else []

    def _echo_of(self, choice: Choice) -> Echo:
        return self._echoes[choice.index // self._n_each]

    def _logprobs_of(self, choice: Choice, records: Sequence[TokenRecord]) -> dict[str, Any] | None:
        return completion_logprobs(records, len(self._echo_of(choice).text)) if self._wants_logprobs else None

    def _whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        echo, logprobs = self._echo_of(choice), self._logprobs_of(choice, choice.records)
        if logprobs is not None:
            first = self.choices[choice.index - choice.index % self._n_each]  # only this one asked about the prompt
            told = completion_logprobs(first.prompt_records(echo.hides_bos))
            logprobs = {name: told[name] + logprobs[name] for name in told}
        return _chunk(index, echo.text + choice.text, logprobs, choice.finish_reason)


def _chunk(index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def echo_of(prompt: str | TokenIds, model: ServedModel) -> Echo:
    """A text as it came; of ids the text with special tokens written out, but for a BOS before all."""
    if isinstance(prompt, str):
        return Echo(prompt, not model.begins_with_bos(prompt))
    return Echo(model.decode_marked(prompt[1:] if prompt[0] == model.tokenizer.bos_id else prompt))
