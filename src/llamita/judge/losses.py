"""Losses: what each token of a text cost a model, in nats, summed up for every kilobyte of the text.

Windows go through the engine, several side by side in each pass, so that short documents cost no more than long ones. Quantized
models count as they run: with int8 activations. Knows no tokenizer and no text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from llamita.engine import Engine, Reading, Sampling, Sequence
from llamita.errors import ModelError
from llamita.judge.windows import Window

LOGITS_BYTES = 64 << 20  # of a pass: with few rows of logits it would read few rows


def token_losses(engine: Engine, windows: Iterable[Window]) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield every window, as it is done, with the loss of each counted token: -log p, float64 (n,).

    The engine must have room for the longest window, all its slots free, and for speed LOGITS_BYTES. Raises ModelError where
    there come no numbers.
    """
    waiting, going = iter(windows), []
    free = [engine.sequence(Sampling(temperature=0)) for _ in range(engine.n_slots)]
    try:
        while True:
            while free and (window := next(waiting, None)) is not None:
                going.append(_Going(free.pop(), window))
            if not going:
                return
            _read_some(engine, going)
            for one in going:
                if not one.n_left:
                    free.append(one.sequence)
                    yield one.window, np.concatenate(one.losses)
            going = [one for one in going if one.n_left]
    finally:
        for sequence in (*free, *(one.sequence for one in going)):
            sequence.close()


@dataclass
class _Going:
    """A window that is being read: how many of its tokens are still to be counted, and what the others lost."""

    sequence: Sequence
    window: Window
    n_left: int = field(init=False)
    losses: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n_left = len(self.window.rows)
        self.sequence.rewind(0)
        self.sequence.append(self.window.ids[:-1])
        self.sequence.n_alternatives = 0  # the pass ranks what it makes logits of


def _read_some(engine: Engine, going: list[_Going]) -> None:
    """One pass of the engine, as full as it may be; what is only read and not counted makes no logits."""
    rows_left, logits_left, readings, counting = engine.max_rows, engine.max_logits, [], []
    for one in going:
        n_pending = len(one.sequence.pending)
        counts = n_pending == one.n_left
        n = min(n_pending, rows_left, logits_left) if counts else min(n_pending - one.n_left, rows_left)
        if n:
            readings.append(Reading(one.sequence, n, wants_logits=counts))
            rows_left -= n
        if n and counts:
            counting.append((one, n))
            logits_left -= n
    engine.run_pass(readings)
    targets = [one.window.ids[-one.n_left :][:n] for one, n in counting]
    if not targets:
        return
    losses = -engine.logprobs(np.concatenate(targets))
    if not np.isfinite(losses).all():
        raise ModelError("the model: found logits that are no numbers, expected numbers; its weights are broken")
    for (one, n), its_losses in zip(counting, np.split(losses, np.cumsum([n for _, n in counting])[:-1]), strict=True):
        one.losses.append(its_losses)
        one.n_left -= n
