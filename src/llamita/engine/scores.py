"""What the engine is asked to do with a sequence in one pass, and what a pass says about tokens: their log-probabilities.

Reads the buffers that the compiled ranking.py fills. Knows no text.
"""

import math
from typing import NamedTuple

import numpy as np

from llamita.engine.sequence import Sequence
from llamita.engine.state import RANK_BEST, RANK_LARGEST, RANK_LOGIT, RANK_SUM


class Reading(NamedTuple):
    """What one pass does with one sequence: read the next n_ids of its pending ids.

    draws: the last pending id is among them, and the next one is drawn. wants_logits: make the logits of the other rows too,
    and rank them where the sequence has n_alternatives. wants_hidden: keep the final hidden states of all rows.
    """

    sequence: Sequence
    n_ids: int
    draws: bool = False
    wants_logits: bool = False
    wants_hidden: bool = False

    @property
    def n_other_logits(self) -> int:
        """Rows of logits besides the one that a token is drawn from."""
        return self.n_ids - self.draws if self.wants_logits else 0


class Score(NamedTuple):
    """How likely a token was to the model, before temperature, penalties and all else: log-softmax of the raw logits.

    alternatives: (id, logprob) of the likeliest, with the very number of the token itself where it is among them.
    """

    logprob: float
    alternatives: tuple[tuple[int, float], ...]


def score_of(numbers: np.ndarray, ids: np.ndarray, n_alternatives: int) -> Score:
    """The Score of one ranking: float32 [RANKING_FLOATS] and int64 [MOST_RANKED]."""
    values = numbers[: RANK_BEST + n_alternatives].tolist()
    log_sum = values[RANK_LARGEST] + math.log(values[RANK_SUM])
    best = zip(ids[:n_alternatives].tolist(), values[RANK_BEST:], strict=True)
    return Score(values[RANK_LOGIT] - log_sum, tuple((token_id, logit - log_sum) for token_id, logit in best))
