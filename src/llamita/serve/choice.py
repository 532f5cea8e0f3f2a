"""Choice: one answer of a request in the making: its text, and what is known of each of its tokens.

Takes the scheduler's events; the shapes that clients read are made of it in logprobs.py and the routes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from llamita.serve.job import Event, Finish, Job, Reason, Token
from llamita.serve.served_model import ServedModel
from llamita.tokenizer.decoder import TextDecoder


@dataclass(frozen=True)
class TokenRecord:
    """A token of the text and the likeliest others in its place; offset: characters of the text before it.

    logprob is None for the first token of a prompt, before which there is nothing that could tell.
    """

    id: int
    data: bytes
    offset: int
    logprob: float | None
    alternatives: tuple[tuple[int, bytes, float], ...]


@dataclass
class Piece:
    """What is new of a choice: text, records of its tokens (where they were asked for), and how it ended, if it has."""

    text: str
    records: list[TokenRecord]
    finish_reason: str | None = None


class Choice:
    """index: its place among the request's choices. finish: None until it has ended."""

    def __init__(self, index: int, model: ServedModel, job: Job) -> None:
        self.index, self.job = index, job
        self.finish: Finish | None = None
        self.n_tokens = 0
        self.total_logprob = 0.0
        self.last_id = -1
        self._model = model
        self._decoder = TextDecoder(model.tokenizer, job.prompt_ids[-1])
        self._n_characters = 0  # of all tokens so far, also those that are held back
        self._n_certain = 0
        self._held: list[TokenRecord] = []
        self._texts: list[str] = []
        self._records: list[TokenRecord] = []

    @property
    def text(self) -> str:
        """All of the text that is certain."""
        return "".join(self._texts)

    @property
    def records(self) -> list[TokenRecord]:
        """The records of the text's tokens."""
        return self._records

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, in OpenAI's word."""
        return self.finish.reason.value if self.finish else None

    @property
    def mean_logprob(self) -> float:
        """By which the best of several is found."""
        return self.total_logprob / max(self.n_tokens, 1)

    def take(self, events: Iterable[Event]) -> Piece:
        """Go on with some events; returns what has become certain with them."""
        text = ""
        for event in events:
            text += event.text
            if isinstance(event, Finish):
                self.finish = event
            else:
                self._note(event)
        self._n_certain += len(text)
        piece = Piece(text, self._release(), self.finish_reason)
        self._texts.append(piece.text)
        self._records += piece.records
        return piece

    def _note(self, token: Token) -> None:
        self.n_tokens, self.last_id = self.n_tokens + 1, token.id
        self.total_logprob += token.logprob
        if self.job.logprobs:
            self._held.append(record_of(self._model, token, self._n_characters))
            self._n_characters += len(self._decoder.feed(token.id))

    def _release(self) -> list[TokenRecord]:
        """The records of held tokens whose text has begun to come out; at a stop text, the tokens behind it are dropped."""
        n = len(self._held)
        if self.finish is None or self._ended_by_text():
            n = sum(record.offset < self._n_certain for record in self._held)
        released, self._held = self._held[:n], self._held[n:]
        return released

    def _ended_by_text(self) -> bool:
        return self.finish is not None and self.finish.reason is Reason.STOP and self.last_id not in self.job.stop_ids

    def prompt_records(self, hides_bos: bool) -> list[TokenRecord]:
        """The records of the prompt's tokens, where the job asked for them; the first has no logprob.

        hides_bos: whether a BOS before all is no part of the prompt's text, in which other special tokens are written out.
        """
        tokens, tokenizer = self.finish.prompt_tokens if self.finish else (), self._model.tokenizer
        decoder, n_characters, records = TextDecoder(tokenizer), 0, []
        for i, token in enumerate(tokens):
            records.append(record_of(self._model, token, n_characters, has_logprob=i > 0))
            mark = self._model.special_text(token.id)
            if mark is None:
                n_characters += len(decoder.feed(token.id))
            elif not (hides_bos and i == 0 and token.id == tokenizer.bos_id):
                n_characters += len(decoder.flush() + mark)
                decoder = TextDecoder(tokenizer)
        return records


def record_of(model: ServedModel, token: Token, offset: int, has_logprob: bool = True) -> TokenRecord:
    """The record of a token."""
    alternatives = tuple((token_id, model.token_bytes(token_id), logprob) for token_id, logprob in token.alternatives)
    return TokenRecord(token.id, model.token_bytes(token.id), offset, token.logprob if has_logprob else None, alternatives)
