"""Scoring: how well a model foretells a text. Model and texts in; cross entropy, perplexity and bits per byte out.

Here the stages meet: documents.py encodes, windows.py cuts, losses.py reads. Which tokens were counted is part of the result.
Opens no file and prints nothing.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from llamita.engine import Engine
from llamita.errors import DataError, ModelError, SettingError
from llamita.judge.documents import Rows, TextEncoder
from llamita.judge.losses import LOGITS_BYTES, token_losses
from llamita.judge.resampling import Interval, interval_of
from llamita.judge.windows import Kind, Windowing
from llamita.model import Model
from llamita.tokenizer import Tokenizer

MOST_SLOTS = 8
CACHE_BYTES = 256 << 20  # for keys and values of all slots


@dataclass(frozen=True)
class Losses:
    """What a text cost a model, one row for each kilobyte of it; all (R,).

    nats: sum of -log p of the counted tokens, n_tokens of them; n_bytes: of their text in UTF-8; documents: which one, from 0.
    """

    nats: np.ndarray
    n_tokens: np.ndarray
    n_bytes: np.ndarray
    documents: np.ndarray


@dataclass(frozen=True)
class Score:
    """How well a model foretells a text. cross_entropy: nats per counted token.

    n_tokens: those that are counted; n_bytes: UTF-8 bytes of their text. n_read: tokens that the model read for it, more where
    windows overlap. interval: of the cross entropy, None where the text is short. losses: all of it by kilobytes.
    """

    model: str
    windowing: Windowing
    n_tokens: int
    n_bytes: int
    n_documents: int
    cross_entropy: float
    bits_per_byte: float
    interval: Interval | None
    n_read: int
    seconds: float
    losses: Losses
    ids_digest: str

    @property
    def perplexity(self) -> float:
        """e to the power of the cross entropy."""
        return math.exp(min(self.cross_entropy, 700.0))

    @property
    def tokens_per_second(self) -> float:
        """How fast the model read."""
        return self.n_read / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name, for JSON."""
        return {
            "model": self.model,
            "cross_entropy": self.cross_entropy,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "n_tokens": self.n_tokens,
            "n_bytes": self.n_bytes,
            "n_documents": self.n_documents,
            "cross_entropy_interval": self.interval and asdict(self.interval),
            "windowing": asdict(self.windowing) | {"description": self.windowing.describe()},
            "n_read": self.n_read,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }


def score(
    model: Model,
    texts: Iterable[str],
    windows: Kind = "documents",
    *,
    context: int | None = None,
    stride: int | None = None,
    bos: bool | None = None,
    n_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Score:
    """Measure how well a model foretells texts, each of them a document.

    windows: how they are cut, see llamita.judge.windows; context: tokens of a window, the model's own when left out; stride:
    tokens from one window to the next. bos: whether BOS stands before each document, as the tokenizer does it when left out.
    progress is told of the bytes of each text that was read. Raises SettingError for settings that cannot be, ModelError for a
    model without a tokenizer or without numbers, DataError where no token is left to count.

    >>> score(read_model("stories260K.bin"), ["Once upon a time, ..."]).bits_per_byte  # doctest: +SKIP
    """
    tokenizer = cast(Tokenizer, model.tokenizer)
    if tokenizer is None:
        raise ModelError(f"{model.name}: found no tokenizer beside the model; name one (-z, or tokenizer= in Python)")
    windowing = Windowing.choose(windows, context or model.config.context, stride, bos_of(tokenizer, bos))
    encoder = TextEncoder(tokenizer)
    documents = encoder.encode(texts, windowing.counts_first)
    tally, n_read = _Tally(), 0
    n_slots = slots_for(model, windowing.context)
    with Engine(model, n_threads, windowing.context, n_slots, LOGITS_BYTES) as engine:
        started = time.perf_counter()
        for window, losses in token_losses(engine, windowing.windows(documents)):
            tally.add(window.rows, losses)
            n_read += len(window.ids) - 1
            if progress:
                progress(encoder.n_bytes_of(window.ids[-len(losses) :]))
        seconds = time.perf_counter() - started
    return _score_of(model, windowing, tally.losses(encoder.rows), encoder.digest.hexdigest(), n_read, seconds)


def bos_of(tokenizer: Tokenizer, wanted: bool | None) -> int | None:
    """The id that begins a document, None for nothing. Raises SettingError where BOS is wanted and the vocabulary has none."""
    if wanted and tokenizer.bos_id < 0:
        raise SettingError("bos: found a vocabulary without BOS, expected none to be asked for")
    return tokenizer.bos_id if (tokenizer.adds_bos if wanted is None else wanted) else None


def slots_for(model: Model, context: int) -> int:
    """How many texts are read side by side: as many as fill a pass, and as memory allows."""
    return max(1, min(MOST_SLOTS, CACHE_BYTES // (context * model.cache_bytes_per_token)))


class _Tally:
    """Sums of losses by rows, as windows come in."""

    def __init__(self) -> None:
        self._sums = np.zeros((2, 1024))  # nats, tokens

    def add(self, rows: np.ndarray, losses: np.ndarray) -> None:
        first, n = int(rows[0]), int(rows[-1]) + 1 - int(rows[0])  # they ascend
        while first + n > self._sums.shape[1]:
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], axis=1)
        self._sums[0, first : first + n] += np.bincount(rows - first, losses)
        self._sums[1, first : first + n] += np.bincount(rows - first)

    def losses(self, rows: Rows) -> Losses:
        n = len(rows.documents)
        return Losses(
            self._sums[0, :n], self._sums[1, :n], np.array(rows.n_bytes, np.float64), np.array(rows.documents, np.int64)
        )


def _score_of(model: Model, windowing: Windowing, losses: Losses, ids_digest: str, n_read: int, seconds: float) -> Score:
    n_tokens, n_bytes, nats = int(losses.n_tokens.sum()), int(losses.n_bytes.sum()), float(losses.nats.sum())
    if not n_tokens:
        raise DataError("text: found no token to count, expected some text")
    return Score(
        model=model.name,
        windowing=windowing,
        n_tokens=n_tokens,
        n_bytes=n_bytes,
        n_documents=int(losses.documents[-1]) + 1,
        cross_entropy=nats / n_tokens,
        bits_per_byte=nats / math.log(2) / n_bytes,
        interval=interval_of(lambda sums: sums[0] / sums[1], np.stack([losses.nats, losses.n_tokens]), losses.documents),
        n_read=n_read,
        seconds=seconds,
        losses=losses,
        ids_digest=ids_digest,
    )
