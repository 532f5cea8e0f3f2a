"""Fidelity: how far a model in another form is from the one that it was made of, on text that both read.

Two Models and ids in, numbers out, and which bound they pass. Both run in the engine as users will run them: quantized weights
with int8 activations, floats in float32. One is open at a time, so that large models fit. Knows no file and no tokenizer.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from llamita.engine import Engine
from llamita.errors import SettingError
from llamita.model import Model
from llamita.quant import FLOAT_DTYPES, GGML_DTYPES, ComputedTensor

MAX_TOKENS = 1024
MAX_LOGITS_BYTES = 256 << 20  # of the source, held until the other model has told its own
WINDOW_TOKENS = 256
ROWS_AT_ONCE = 32  # in float64


@dataclass(frozen=True)
class Bounds:
    """What may be lost; each number is the worst that passes."""

    logit_difference: float  # largest of any token at any position
    kl_divergence: float  # mean over positions, in nats
    top1_agreement: float
    cross_entropy_change: float  # nats per token, up or down


# By the coarsest form that a weight was brought to: three to five times what was measured on models of 0.3 to 135 million
# parameters (see benchmarks/results.md), as larger ones lose less. Rows in a wrong order, or layers exchanged, cost more.
BOUNDS = {
    "f32": Bounds(1e-3, 1e-6, 0.998, 1e-4),  # float32 sums in another order
    "f16": Bounds(0.2, 1e-5, 0.99, 5e-4),  # 11 bits of a weight
    "bf16": Bounds(1.0, 5e-4, 0.97, 3e-3),  # 8 bits
    "q8_0": Bounds(5.0, 0.015, 0.93, 0.01),  # 8 bits beside the largest of a group, of weights and of activations
    "q4_1": Bounds(30.0, 0.6, 0.55, 0.5),  # 4 bits between the least and the greatest of a group
    "q4_0": Bounds(
        30.0, 0.6, 0.55, 0.5
    ),  # 4 bits beside the largest; of weights that were 4 bits of another kind before, the worst
}


@dataclass(frozen=True)
class Fidelity:
    """What comparing two models found. Entropies in nats per token; those of `next` tokens of the text."""

    n_tokens: int
    logit_difference: float
    kl_divergence: float
    top1_agreement: float
    source_cross_entropy: float
    cross_entropy: float

    @property
    def cross_entropy_change(self) -> float:
        """How much worse the text is foretold."""
        return self.cross_entropy - self.source_cross_entropy

    def to_dict(self) -> dict[str, float | int]:
        """All numbers by name, for JSON."""
        return asdict(self) | {"cross_entropy_change": self.cross_entropy_change}


def measure(source: Model, other: Model, windows: list[list[int]], progress: Callable[[int], None] | None = None) -> Fidelity:
    """Run both models over windows of ids, each from an empty cache, and compare what they say behind every id.

    progress is told of the ids that a model has read: in the end twice those of the windows. Raises SettingError for windows
    that do not fit the context, ModelError for a broken model.
    """
    expected = list(_logits(source, windows, progress))
    largest, sums = 0.0, np.zeros(4)
    for window, before, after in zip(windows, expected, _logits(other, windows, progress), strict=True):
        next_ids = np.array([*window[1:], -1])
        for first in range(0, len(window), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            largest = np.maximum(largest, np.abs(after[rows] - before[rows]).max())  # NaN stays
            sums += _sums(before[rows], after[rows], next_ids[rows])
    n_tokens = sum(map(len, windows))
    divergence, agreement = (sums[:2] / n_tokens).tolist()
    return Fidelity(n_tokens, float(largest), divergence, agreement, *(sums[2:] / max(n_tokens - len(windows), 1)).tolist())


def split(ids: list[int], begin: list[int], model: Model) -> list[list[int]]:
    """Cut the ids of a text into windows for `measure`, each after the ids `begin`: as many as time and memory allow.

    Raises SettingError for a text of no ids, and for a context in which nothing can follow `begin`.
    """
    if not ids:
        raise SettingError("text to verify with: found nothing in it, expected a few kilobytes")
    length = min(WINDOW_TOKENS, model.config.context) - len(begin)
    if length < 1:
        raise SettingError(f"context: found {model.config.context}, expected room for a token behind the first")
    n_tokens = max(min(MAX_TOKENS, MAX_LOGITS_BYTES // (4 * model.config.vocab_size)), 1)
    ids = ids[:n_tokens]
    return [begin + ids[first : first + length] for first in range(0, len(ids), length)]


def coarsest_change(source: Model, other: Model) -> str:
    """The key of BOUNDS for two forms of one model: the coarsest dtype that a weight was brought to.

    Where a weight of either is quantized it is q8_0 at least: activations become int8 there, and only there. A weight that is
    computed for the source was brought to its dtype, too.
    """
    order = list(BOUNDS)
    changed = {
        tensor.dtype
        for name, tensor in other.tensors.items()
        if (tensor.dtype, tensor.group) != (source.tensors[name].dtype, source.tensors[name].group)
    }
    changed |= {tensor.dtype for tensor in source.tensors.values() if isinstance(tensor, ComputedTensor)}
    stored = {tensor.dtype for model in (source, other) for tensor in model.tensors.values()}
    if stored - {*FLOAT_DTYPES}:
        changed.add("q8_0")
    return max((dtype for dtype in changed if dtype not in GGML_DTYPES), key=order.index, default="f32")


def beyond(found: Fidelity, bounds: Bounds) -> list[str]:
    """What does not pass, one line each; NaN never passes."""
    limits = {
        "largest logit difference": (found.logit_difference, bounds.logit_difference),
        "mean KL divergence": (found.kl_divergence, bounds.kl_divergence),
        "change of cross entropy": (abs(found.cross_entropy_change), bounds.cross_entropy_change),
    }
    lines = [
        f"{name}: found {value:.3g}, expected at most {most:g}" for name, (value, most) in limits.items() if not value <= most
    ]
    if not found.top1_agreement >= bounds.top1_agreement:
        lines.append(f"top-1 agreement: found {found.top1_agreement:.2%}, expected at least {bounds.top1_agreement:.2%}")
    return lines


def _logits(model: Model, windows: list[list[int]], progress: Callable[[int], None] | None) -> Iterator[np.ndarray]:
    """float32 (T, V) of each window; the engine is gone when they are all told."""
    with Engine(model, context=max(map(len, windows))) as engine:
        for window in windows:
            yield engine.logits(window)
            if progress:
                progress(len(window))


def _sums(before: np.ndarray, after: np.ndarray, next_ids: np.ndarray) -> np.ndarray:
    """Sums over rows of logits (T, V): of divergences, of agreements, of both cross entropies where a next id (T) is not -1."""
    left, right = _log_softmax(before), _log_softmax(after)
    known = np.flatnonzero(next_ids >= 0)
    at_next = known, next_ids[known]
    divergence = (np.exp(left) * (left - right)).sum()
    agreement = (before.argmax(axis=1) == after.argmax(axis=1)).sum()
    return np.array([divergence, agreement, -left[at_next].sum(), -right[at_next].sum()])


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64 (T, V)"""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
