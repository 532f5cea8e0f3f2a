"""Answers: texts that go on from prompts. Many at once, in the slots of an engine; who ends makes room for the next.

Ids in, texts out; knows no harness. A text is decoded by itself, as if nothing stood before it, and without the special
tokens in it: so Hugging Face's tokenizers decode an answer.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import NamedTuple

import numpy as np

from llamita.engine import Engine, Reading, Sampling, Sequence
from llamita.judge.beginnings import begin
from llamita.language_model import Telling
from llamita.tokenizer import Tokenizer


class Wish(NamedTuple):
    """An answer to be made, of 1 to max_tokens tokens; stop_ids end it unseen, stop_texts cut it before they begin."""

    prompt: tuple[int, ...]
    max_tokens: int
    stop_texts: tuple[str, ...]
    stop_ids: frozenset[int]
    sampling: Sampling


def answers(
    engine: Engine, tokenizer: Tokenizer, wishes: Many[Wish], progress: Callable[[int], None] | None = None
) -> list[str]:
    """The texts of all wishes, in their order; progress is told of each one that is done. Takes all slots for the time.

    The context of the engine has room for each prompt with its answer.
    """
    texts = [""] * len(wishes)
    # prompts that begin alike follow one another
    waiting = deque((i, wishes[i]) for i in sorted(range(len(wishes)), key=lambda i: wishes[i].prompt))
    workers = [_Worker(engine.sequence(), tokenizer) for _ in range(engine.n_slots)]
    try:
        while plan := _plan(engine, workers, waiting):
            ids = engine.run_pass([reading for _, reading in plan])[0].tolist()
            drawing = [worker for worker, reading in plan if reading.draws]
            for worker, token_id in zip(drawing, ids, strict=True):
                worker.take(token_id)
                if not worker.is_busy:
                    texts[worker.index] = worker.text
                    if progress:
                        progress(1)
    finally:
        for worker in workers:
            worker.sequence.close()
    return texts


def _plan(engine: Engine, workers: list["_Worker"], waiting: deque[tuple[int, Wish]]) -> list[tuple["_Worker", Reading]]:
    """What the next pass reads, those that draw first: a token of each text that runs, and of prompts what else fits.

    A new prompt begins only where rows are left: so the first of several that begin alike is read before the others need it.
    """
    n_rows, plan = engine.max_rows, []
    busy = sorted((worker for worker in workers if worker.is_busy), key=lambda worker: len(worker.sequence.pending))
    idle = [worker for worker in workers if not worker.is_busy]
    while n_rows and (busy or (idle and waiting)):
        if busy:
            worker = busy.pop(0)
        else:
            worker = idle.pop(0)
            worker.start(*waiting.popleft(), [other.sequence for other in workers])
        n_left = len(worker.sequence.pending)
        n = min(n_left, n_rows)
        plan.append((worker, Reading(worker.sequence, n, draws=n == n_left)))
        n_rows -= n
    return sorted(plan, key=lambda pair: not pair[1].draws)


class _Worker:
    """A slot with the answer that is being made in it. index: of its wish."""

    def __init__(self, sequence: Sequence, tokenizer: Tokenizer) -> None:
        self.sequence, self.index, self.is_busy = sequence, -1, False
        self._tokenizer = tokenizer
        self._special_ids = set(tokenizer.special_tokens.values())
        self._n_left = 0

    def start(self, index: int, wish: Wish, others: Many[Sequence]) -> None:
        """Begin with an answer, behind what any sequence has read of its prompt."""
        self.index, self.is_busy, self._n_left, self._stop_ids = index, True, wish.max_tokens, wish.stop_ids
        prompt = np.array(wish.prompt, np.int64)
        begin(self.sequence, prompt, wish.sampling, len(prompt) - 1, others)
        self._telling = Telling(self._tokenizer, [self._tokenizer.bos_id], wish.stop_texts, wish.stop_ids)

    def take(self, token_id: int) -> None:
        """Go on with an id that was drawn."""
        self._n_left -= 1
        if token_id in self._stop_ids or token_id not in self._special_ids:
            self._telling.take(token_id)
        if self._telling.ended or self._n_left == 0:
            self._telling.finish()
            self.is_busy = False

    @property
    def text(self) -> str:
        """The answer, once it has ended."""
        return self._telling.text
