"""Scoring: the numbers are those of their definitions, for every windowing and every kind of vocabulary."""

import math
from dataclasses import replace
from itertools import chain
from typing import cast

import numpy as np
import pytest

import llamita.judge
from judge.toys import TEXTS, byte_level_model, sentencepiece_model
from llamita.engine import Engine, Reading
from llamita.errors import DataError, ModelError, SettingError
from llamita.judge import score
from llamita.judge.windows import KINDS, Kind
from llamita.model import Model
from llamita.quant import Tensor
from llamita.tokenizer import Tokenizer
from reference import log_softmax, reference_logits


def naive(model: Model, sequences: list[list[int]], n_read: int, stride: int, begin: int | None) -> tuple[float, int]:
    """(nats, tokens) of sequences, every token foretold alone; begin: what stands first in windows that go on."""
    nats, n_tokens = 0.0, 0
    for ids in sequences:
        for place in range(1, len(ids)):
            start = max(0, -(-(place - n_read) // stride)) * stride
            read = ids[start:place]
            if start and begin is not None:
                read[0] = begin
            nats -= log_softmax(reference_logits(model, read))[-1, ids[place]]
            n_tokens += 1
    return nats, n_tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_the_numbers_are_those_of_their_definitions(kind: Kind, dtype: str, toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes, dtype=dtype)
    tokenizer = cast(Tokenizer, model.tokenizer)
    found = score(model, TEXTS, kind, stride=None if kind == "stream" else 30, n_threads=1)
    sequences = [tokenizer.encode(text, bos=True) for text in TEXTS]
    if kind != "documents":
        sequences = [list(chain(*sequences))]
    n_read, stride = (48, 48) if kind == "stream" else (47 if kind == "strided" else 48, 30)
    nats, n_tokens = naive(model, sequences, n_read, stride, tokenizer.bos_id if kind == "documents" else None)
    n_bytes = sum(len(text.encode()) for text in TEXTS)
    assert (found.n_tokens, found.n_bytes, found.n_documents) == (n_tokens, n_bytes, 4)
    assert found.cross_entropy == pytest.approx(nats / n_tokens, rel=1e-3 if dtype == "q8_0" else 1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.cross_entropy))
    assert found.bits_per_byte == pytest.approx(found.cross_entropy * n_tokens / n_bytes / math.log(2))


def test_without_bos_a_first_token_and_its_bytes_are_left_out():
    model = byte_level_model()
    tokenizer = cast(Tokenizer, model.tokenizer)
    texts = [*TEXTS[2:], TEXTS[1][:80]]
    found = score(model, texts, n_threads=1)
    sequences = [tokenizer.encode(text) for text in texts]
    nats, n_tokens = naive(model, sequences, 48, 24, None)
    assert n_tokens == sum(map(len, sequences)) - 3
    assert found.n_tokens == n_tokens
    n_first_bytes = sum(len(tokenizer.piece_bytes(ids[0])) for ids in sequences)
    assert found.n_bytes == sum(len(text.encode()) for text in texts) - n_first_bytes
    assert found.cross_entropy == pytest.approx(nats / n_tokens, rel=1e-5)


def test_bos_stands_where_it_is_asked_for(toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes)
    with_bos, without = (score(model, TEXTS, bos=bos, n_threads=1) for bos in (True, False))
    assert with_bos.n_tokens == score(model, TEXTS, n_threads=1).n_tokens == without.n_tokens + 4
    first_letters = 4  # "O", "T", "H", "H": the space before them is no text
    assert with_bos.n_bytes - without.n_bytes in range(first_letters, 4 * 5)
    with pytest.raises(SettingError, match="bos: found a vocabulary without BOS"):
        score(byte_level_model(), TEXTS, bos=True)


def test_losses_lie_in_the_kilobyte_of_text_that_they_belong_to(toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes)
    texts = ["Tom said: play, Lily! " * 120, "They were very happy."]
    losses = score(model, texts, n_threads=1).losses
    assert losses.n_bytes.tolist() == [1024, 1024, 592, 21]
    assert losses.documents.tolist() == [0, 0, 0, 1]
    tokenizer = cast(Tokenizer, model.tokenizer)
    ends = np.cumsum([len(tokenizer.piece_bytes(i)) for i in tokenizer.encode(texts[0])]) - 1
    starts = np.concatenate([[0], ends[:-1] + 1])
    expected = np.bincount(np.minimum(starts // 1024, 2)).tolist()
    assert losses.n_tokens.tolist() == [*expected, len(tokenizer.encode(texts[1]))]
    alone = score(model, texts[1:], n_threads=1)
    assert losses.nats[3] == pytest.approx(alone.losses.nats[0], rel=1e-6)


def test_many_short_documents_side_by_side_cost_what_each_costs_alone(toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes)
    texts = [f"{n} apples, {n * n} pears." + " She was happy." * (n % 7) for n in range(40)]
    together = score(model, texts, n_threads=2)
    alone = [score(model, [text], n_threads=1) for text in texts[::9]]
    nats = np.bincount(together.losses.documents, together.losses.nats)
    assert nats[::9].tolist() == pytest.approx([one.cross_entropy * one.n_tokens for one in alone], rel=1e-6)


def test_progress_is_told_of_all_bytes_that_are_counted(toy_sentencepiece_bytes: bytes):
    told: list[int] = []
    found = score(sentencepiece_model(toy_sentencepiece_bytes), TEXTS, n_threads=1, progress=told.append)
    assert sum(told) == found.n_bytes + len(TEXTS)  # and the space before each document


def test_texts_without_anything_to_count_are_refused(toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes)
    for texts in ([], [""], ["", ""]):
        with pytest.raises(DataError, match="text: found no token to count"):
            score(model, texts)
    with pytest.raises(DataError, match="text: found no token to count"):
        score(byte_level_model(), ["a"])


def test_a_model_without_tokenizer_or_numbers_is_refused(toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes)
    with pytest.raises(ModelError, match="found no tokenizer beside the model"):
        score(replace(model, tokenizer=None), TEXTS)
    broken = model.tensors | {"norm": Tensor.from_array(np.full(32, np.nan, np.float32))}
    with pytest.raises(ModelError, match="found logits that are no numbers"):
        score(replace(model, tensors=broken), TEXTS)


def test_the_public_names_are_there():
    assert {*llamita.judge.__all__} <= {*dir(llamita.judge)}


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_full_passes_give_the_numbers_of_small_ones(dtype: str, toy_sentencepiece_bytes: bytes, monkeypatch):
    model = sentencepiece_model(toy_sentencepiece_bytes, dtype=dtype)
    n_passes = 0

    def counting(engine: Engine, readings: list[Reading]) -> np.ndarray:
        nonlocal n_passes
        n_passes += 1
        return run_pass(engine, readings)

    run_pass = Engine.run_pass
    monkeypatch.setattr(Engine, "run_pass", counting)
    full = score(model, TEXTS * 8, n_threads=1)
    n_full, n_passes = n_passes, 0
    monkeypatch.setattr("llamita.judge.scoring.LOGITS_BYTES", 0)
    small = score(model, TEXTS * 8, n_threads=1)
    assert n_passes > 2 * n_full
    assert full.cross_entropy == pytest.approx(small.cross_entropy, rel=1e-6)
