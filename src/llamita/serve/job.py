"""What a client of the scheduler says and hears: a Job is the wish, Token and Finish are the answer. Ids and text, no HTTP.

Knows neither the engine's steps nor who else is being served.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np

from llamita.engine.sampling import Sampling

MOST_ALTERNATIVES = 20  # OpenAI's limit


class TokenConstraint(Protocol):
    """What the next token may be, as a grammar says. Called by the engine's thread only, between steps.

    mask and accept take turns: mask before a token is drawn, accept with the id that was. A call that raises ends its own job
    with an error, and nobody else's.
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


@dataclass(frozen=True)
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
