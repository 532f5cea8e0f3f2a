"""What a client of the scheduler says and hears: a Job is the wish, Token and Finish are the answer. Ids and texts, no HTTP.

Knows neither the engine's steps nor who else is being served.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np

from llamita.config import ModelConfig
from llamita.engine.sampling import Sampling
from llamita.engine.state import MOST_RANKED
from llamita.errors import PromptTooLongError, SettingError


class TokenConstraint(Protocol):
    """What the next token may be, as a grammar says. Called by the engine's thread only, between steps.

    mask and accept take turns: mask before a token is drawn, accept with the id that was, unless that ended the text (a stop
    id). A call that raises ends its own job with an error, and nobody else's.
    """

    @property
    def is_finished(self) -> bool:
        """Whether the text is complete and nothing may follow; the job then ends as after a stop id."""
        ...

    def mask(self) -> np.ndarray:
        """The allowed ids (at least one), uint32 or int32 [ceil(vocab_size / 32)]: id i is bit i % 32 of word i // 32."""
        ...

    def accept(self, token_id: int) -> None:
        """Go on behind this id, which the last mask allowed."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """One text to be continued, or only scored or embedded.

    The distribution that logprobs tell of is the model's own: the log-softmax of the raw logits, before temperature, penalties,
    bias and constraint. Equal jobs give equal answers, byte for byte, whoever else is being served.

    prompt_ids: at least one. max_tokens: 0 or more; where the context ends first, the answer ends with reason "length".
    stop_ids end the text unseen, stop_texts cut it before they begin. logprobs: of each token of the answer, with its
    n_alternatives likeliest ids (0 to 20). prompt_logprobs: the same of the prompt's tokens. wants_embedding: the mean of the
    final hidden states (behind the last norm) of the prompt's positions; takes max_tokens = 0.
    """

    prompt_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 16
    stop_texts: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    logprobs: bool = False
    n_alternatives: int = 0
    prompt_logprobs: bool = False
    constraint: TokenConstraint | None = None
    wants_embedding: bool = False

    def validate(self, config: ModelConfig, context: int) -> "Job":
        """Return the job; raise PromptTooLongError, or SettingError for another wish that cannot be met."""
        if not self.prompt_ids:
            raise SettingError("prompt: found no tokens, expected at least one")
        if len(self.prompt_ids) > context:
            raise PromptTooLongError(len(self.prompt_ids), context)
        last_id = config.vocab_size - 1
        for name, ids in (("prompt", self.prompt_ids), ("logit_bias", self.sampling.logit_bias)):
            if unknown := [i for i in ids if not 0 <= i <= last_id]:
                raise SettingError(f"{name}: found token id {unknown[0]}, expected 0 to {last_id}")
        self.sampling.validate()
        if self.max_tokens < 0:
            raise SettingError(f"max_tokens: found {self.max_tokens}, expected 0 or more")
        if not 0 <= self.n_alternatives <= MOST_RANKED:
            raise SettingError(f"n_alternatives: found {self.n_alternatives}, expected 0 to {MOST_RANKED}")
        if self.wants_embedding and (self.max_tokens or self.prompt_logprobs):
            raise SettingError(
                "embedding: found a job that also wants tokens or logprobs, expected one for the embedding alone"
            )
        return self


class Token(NamedTuple):
    """One id of the answer. text: what became certain with it, perhaps "": a character or a stop text may still become whole.

    The last one may be a stop id, whose text is "". logprob is 0 and alternatives are empty unless the job asked for them;
    alternatives are (id, logprob), likeliest first, with exactly the logprob of the token where it is among them.
    """

    id: int
    text: str
    logprob: float = 0.0
    alternatives: tuple[tuple[int, float], ...] = ()


class Reason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # a stop id, a stop text, or the constraint is finished
    LENGTH = "length"  # max_tokens, or the end of the context
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True)
class Usage:
    """Tokens of a job. n_cached_tokens of the prompt were not read again, because an earlier text began alike."""

    n_prompt_tokens: int
    n_tokens: int  # of the answer, a stop id and the tokens of a stop text included
    n_cached_tokens: int


@dataclass(frozen=True)
class Timings:
    """Seconds of a job, from its submission: until it got a slot, until its first token (0 without one), until its end."""

    queue_seconds: float
    first_token_seconds: float
    total_seconds: float


@dataclass(frozen=True)
class Finish:
    """The last event of every job. text: what was still held back. error: one line, where the reason is an error.

    prompt_tokens: of jobs with prompt_logprobs, one Token for each id of the prompt (text ""); the first has no logprob: 0.
    embedding: float32 (D,), not normalized; empty unless wanted.
    """

    reason: Reason
    text: str
    usage: Usage
    timings: Timings
    error: str = ""
    prompt_tokens: tuple[Token, ...] = ()
    embedding: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


Event = Token | Finish
# Called by the engine's thread with what is new of one job: any number of Tokens, and at the end one Finish, which is the last
# event of all. It must return at once (put the events into a queue); when it raises, its job is cancelled.
Deliver = Callable[[list[Event]], None]


class Ticket:
    """One submitted job; what Scheduler.cancel takes."""

    def __init__(self, job: Job, deliver: Deliver) -> None:
        self.job, self.deliver = job, deliver
        self.prompt = np.array(job.prompt_ids, np.int64)
        self.submitted_at = time.perf_counter()
        self.is_cancelled = False
