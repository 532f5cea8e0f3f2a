"""Running: a job that has a slot, and what came of it so far. Ids, scores and hidden states go in, events come out.

Belongs to the scheduler's thread. Knows no engine.
"""

import time

import numpy as np

from llamita.engine import Score
from llamita.language_model import Telling
from llamita.serve.job import Event, Finish, Reason, Ticket, Timings, Token, Usage
from llamita.tokenizer import Tokenizer

NO_SCORE = Score(0.0, ())  # of the first id of a prompt, before which there is nothing


class Running:
    """reason: why it has ended, None while it has not. n_cached: ids of its prompt that were not read again.

    knows_mask: whether its constraint has been asked what the next token may be.
    """

    def __init__(self, ticket: Ticket, tokenizer: Tokenizer) -> None:
        self.ticket, self.job = ticket, ticket.job
        self.reason: Reason | None = None
        self.n_tokens = self.n_cached = 0
        self.knows_mask = False
        self.events: list[Event] = []
        self._telling = Telling(tokenizer, [self.job.prompt_ids[-1]], self.job.stop_texts, self.job.stop_ids)
        self._hidden = np.zeros(0)  # the sum of all positions so far
        self._started_at, self._first_token_at = time.perf_counter(), 0.0

    @property
    def draws(self) -> bool:
        """Whether it wants tokens, not only what its prompt says."""
        return self.job.max_tokens > 0

    def take(self, token_id: int, score: Score = NO_SCORE) -> None:
        """Go on with an id that was drawn."""
        if self.n_tokens == 0:
            self._first_token_at = time.perf_counter()
        self.n_tokens += 1
        self.knows_mask = False
        self.events.append(Token(token_id, self._telling.take(token_id), *score))
        constraint = self.job.constraint
        if self._telling.ended:
            self.reason = Reason.STOP
            return
        if constraint is not None:
            constraint.accept(token_id)
            if constraint.is_finished:
                self.reason = Reason.STOP
                return
        if self.n_tokens == self.job.max_tokens:
            self.reason = Reason.LENGTH

    def add_hidden(self, states: np.ndarray) -> None:
        """Add the hidden states (n, D) of the next positions: one by one, so that the sum does not depend on the chunks."""
        if not len(self._hidden):
            self._hidden = np.zeros(states.shape[1])
        for state in states:
            self._hidden += state

    def finish(self, scores: list[Score], error: str = "") -> Finish:
        """End with `reason`; scores: of the prompt's ids, as far as they are known."""
        now, submitted_at = time.perf_counter(), self.ticket.submitted_at
        assert self.reason is not None
        job, went_well = self.job, self.reason in (Reason.STOP, Reason.LENGTH)
        finish = Finish(
            self.reason,
            self._telling.finish(),
            Usage(len(job.prompt_ids), self.n_tokens, self.n_cached),
            Timings(
                self._started_at - submitted_at,
                self._first_token_at - submitted_at if self.n_tokens else 0.0,
                now - submitted_at,
            ),
            error,
            self._prompt_tokens(scores) if job.prompt_logprobs and went_well else (),
            (self._hidden / len(job.prompt_ids)).astype(np.float32) if went_well else np.zeros(0, np.float32),
        )
        self.events.append(finish)
        return finish

    def _prompt_tokens(self, scores: list[Score]) -> tuple[Token, ...]:
        """A score may have been made for an earlier job, which wanted more alternatives."""
        n = self.job.n_alternatives
        pairs = zip(self.job.prompt_ids, scores, strict=False)
        return tuple(Token(token_id, "", score.logprob, score.alternatives[:n]) for token_id, score in pairs)


def unstarted(ticket: Ticket, reason: Reason, error: str = "") -> Finish:
    """The Finish of a job that never got a slot."""
    seconds = time.perf_counter() - ticket.submitted_at
    return Finish(reason, "", Usage(len(ticket.prompt), 0, 0), Timings(seconds, 0.0, seconds), error)
