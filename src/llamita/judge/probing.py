"""Probing: whether a model has its training text by heart. Samples are looked up in the training text, losses are compared.

Every text of a kind shares stretches with others of that kind, so the held-out text of the same shards is looked up too:
only what samples copy beyond that tells of memorization (as in Carlini et al., 2022). A Model and prepared shards in,
numbers out; findings.py says in words what they mean.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from llamita.data.shards import Dataset, TokenStream
from llamita.engine import Engine, Sampling
from llamita.errors import DataError, SettingError, one_line
from llamita.formats import read_tokenizer
from llamita.judge.copies import Copy, load_library, longest_copies
from llamita.judge.losses import LOGITS_BYTES, token_losses
from llamita.judge.resampling import Interval, interval_of
from llamita.judge.scoring import slots_for
from llamita.judge.windows import Window
from llamita.model import Model
from llamita.tokenizer import Tokenizer

HELD_OUT_PER_SAMPLE = 4  # so that a few samples beyond all of them are no chance
HELD_OUT_TOKENS = 1 << 22  # of the validation text, from which these come
LOSS_TOKENS = 32_768  # of either text
LONGEST_WINDOW = 512
FEWEST_WINDOWS = 5

RUN_FILE = "run.json"

Counted = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]  # a title and a total to a function to be told


@dataclass(frozen=True)
class ProbeOptions:
    """How to probe: n_samples texts of up to n_tokens tokens, drawn with the seeds seed, seed + 1, ... and a temperature."""

    n_samples: int = 32
    n_tokens: int = 256
    temperature: float = 1.0
    seed: int = 1

    def validate(self, context: int) -> "ProbeOptions":
        """Return the options; raise SettingError for those that cannot be."""
        for name, value, most in (("samples", self.n_samples, 1 << 16), ("tokens", self.n_tokens, context)):
            if not 1 <= value <= most:
                raise SettingError(f"{name}: found {value}, expected 1 to {most}")
        return self


@dataclass(frozen=True)
class Losses:
    """Nats per token on training and on held-out text, in windows of n_tokens; gap: the second less the first."""

    train: float
    held_out: float
    interval: Interval | None  # of the gap; None where there are few windows
    n_tokens: int
    n_windows: tuple[int, int]

    @property
    def gap(self) -> float:
        """How much better the training text is foretold."""
        return self.held_out - self.train


@dataclass(frozen=True)
class Probe:
    """What probing found. samples, held_out: the longest Copy of each; longest_text: of the longest of the samples."""

    options: ProbeOptions
    n_train_tokens: int
    samples: list[Copy]
    held_out: list[Copy]
    longest_text: str
    losses: Losses
    has_own_validation: bool  # held-out text came from files of its own, not by lot


def probe(
    model: Model, dataset: Dataset, options: ProbeOptions, n_threads: int | None, context: int | None, counted: Counted
) -> Probe:
    """Probe a model with the shards that it was trained on. n_threads, context: as the engine takes them.

    Raises SettingError for settings that cannot be, DataError for shards of another vocabulary or without held-out documents.
    """
    load_library()  # before time is spent
    tokenizer = check_vocabulary(model, dataset)
    bos_id = dataset.manifest.bos_id
    context = context or model.config.context
    options.validate(context)
    held_out = documents_of(dataset.validation, bos_id, HELD_OUT_PER_SAMPLE * options.n_samples, options.n_tokens)
    if not held_out:
        raise DataError(f"{dataset.folder}: found no document in the validation text, expected some to compare with")
    n_slots = min(options.n_samples, slots_for(model, context))
    with Engine(model, n_threads, context, n_slots, LOGITS_BYTES) as engine:
        with counted("telling", options.n_samples) as advance:
            samples = tell(engine, bos_id, {bos_id, dataset.manifest.eos_id, *model.stop_ids}, options, advance)
        windows = even_windows(dataset, min(engine.context, LONGEST_WINDOW))
        with counted("scoring", sum(map(len, windows))) as advance:
            losses = measure_losses(engine, *windows, advance)
    with counted("searching", dataset.train.n_tokens) as advance:
        copies = longest_copies([*samples, *held_out], dataset.train, bos_id, advance)
    longest = max(range(len(samples)), key=lambda i: copies[i].n_tokens)
    first, n_tokens = copies[longest].first, copies[longest].n_tokens
    return Probe(
        options,
        dataset.train.n_tokens,
        copies[: len(samples)],
        copies[len(samples) :],
        tokenizer.decode(samples[longest][first : first + n_tokens].tolist()),
        losses,
        bool(dataset.manifest.recipe.validation_sources),
    )


def data_of_run(path: Path) -> Path:
    """The folder of the tokens that a run was made from, by its run.json; raise SettingError where a path is no run's."""
    folder = path if path.is_dir() else path.parent
    try:
        return folder / json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        expected = "a folder that `llamita train` made; else name the tokens with --data"
        raise SettingError(one_line(f"{path}: found no {RUN_FILE} that names its tokens, expected {expected}")) from None


def check_vocabulary(model: Model, dataset: Dataset) -> Tokenizer:
    """The tokenizer of the shards; raise DataError where the model has another one."""
    shards, own = read_tokenizer(dataset.folder / dataset.manifest.tokenizer), cast(Tokenizer | None, model.tokenizer)
    n = dataset.manifest.vocab_size
    if n > model.config.vocab_size or (own and any(own.piece_bytes(i) != shards.piece_bytes(i) for i in range(n))):
        raise DataError(
            f"{dataset.folder}: found tokens of another vocabulary than the model's, expected those of its training"
        )
    return shards


def documents_of(stream: TokenStream, bos_id: int, most: int, n_tokens: int) -> list[np.ndarray]:
    """Up to `most` documents, evenly from all of a stream, without BOS and cut to n_tokens; none that are empty."""
    ids = stream.windows(np.zeros(1, np.int64), min(stream.n_tokens, HELD_OUT_TOKENS))[0]
    starts = np.flatnonzero(ids == bos_id) + 1
    ends = np.append(starts[1:] - 1, len(ids))
    is_whole = (ends > starts) & ((ends < len(ids)) | (len(ids) == stream.n_tokens))
    chosen = np.flatnonzero(is_whole)
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(int))]
    return [ids[starts[i] : min(ends[i], starts[i] + n_tokens)] for i in chosen]


def tell(
    engine: Engine, bos_id: int, stop_ids: set[int], options: ProbeOptions, advance: Callable[[int], None]
) -> list[np.ndarray]:
    """Sample texts, as many side by side as the engine has slots: the ids behind BOS of each, up to a stop id."""
    samples = []
    for first in range(0, options.n_samples, engine.n_slots):
        seeds = range(options.seed + first, options.seed + min(first + engine.n_slots, options.n_samples))
        with ExitStack() as stack:
            sequences = [engine.sequence(Sampling(options.temperature, top_p=0.0, seed=seed)) for seed in seeds]
            for sequence in sequences:
                stack.callback(sequence.close)
                sequence.append([bos_id])
            going = sequences
            for _ in range(options.n_tokens):
                drawn = engine.step(going)
                going = [one for one, token_id in zip(going, drawn, strict=True) if token_id not in stop_ids]
                if not going:
                    break
            for sequence in sequences:
                ids = sequence.ids[1:]
                samples.append(np.array(ids[:-1] if ids[-1] in stop_ids else ids, np.int64))
        advance(len(seeds))
    return samples


def even_windows(dataset: Dataset, n_read: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of n_read tokens and the one that follows, evenly from the training and the held-out text: int64 (N, T)."""
    streams = (dataset.train, dataset.validation)
    n_read = min(n_read, *(stream.n_tokens - 1 for stream in streams))
    windows = []
    for stream in streams:
        n_all = (stream.n_tokens - 1) // n_read
        n = min(n_all, max(LOSS_TOKENS // n_read, 1))
        windows.append(stream.windows(np.arange(n) * n_all // n * n_read, n_read + 1))
    return windows[0], windows[1]


def measure_losses(engine: Engine, train: np.ndarray, held_out: np.ndarray, advance: Callable[[int], None]) -> Losses:
    """Losses on windows (N, T) of either text, each of which begins with what stands there, as in training."""
    n_read = train.shape[1] - 1
    nats = np.zeros(len(train) + len(held_out))
    made = (Window(ids, np.full(n_read, i)) for i, ids in enumerate((*train, *held_out)))
    for window, losses in token_losses(engine, made):
        nats[window.rows[0]] = losses.sum()
        advance(1)
    is_train = np.arange(len(nats)) < len(train)
    columns = np.stack([nats * is_train, is_train * n_read, nats * ~is_train, ~is_train * n_read])
    enough = min(len(train), len(held_out)) >= FEWEST_WINDOWS
    return Losses(
        train=float(nats[is_train].sum() / (len(train) * n_read)),
        held_out=float(nats[~is_train].sum() / (len(held_out) * n_read)),
        interval=interval_of(_gap, columns, np.arange(len(nats))) if enough else None,
        n_tokens=n_read,
        n_windows=(len(train), len(held_out)),
    )


def _gap(sums: np.ndarray) -> np.ndarray:
    """(N,) from sums (4, N): nats and tokens of the training text and of the held-out text."""
    return sums[2] / np.maximum(sums[3], 1) - sums[0] / np.maximum(sums[1], 1)
