"""Probing: a model that was overfitted on few documents is found out, a fresh one is not; losses are what they say."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydivsufsort", reason="the library of suffix arrays comes with llamita[probe]")
from llamita.config import ModelConfig
from llamita.data.prepare import PrepareOptions, prepare
from llamita.data.shards import Dataset, open_dataset
from llamita.engine import Engine
from llamita.errors import DataError, SettingError
from llamita.judge import findings
from llamita.judge.probing import Probe, ProbeOptions, data_of_run, documents_of, even_windows, measure_losses, probe, tell
from llamita.language_model import LanguageModel
from llamita.model import Model, random_model
from llamita.quant import Tensor
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from reference import log_softmax, reference_logits

CONFIG = ModelConfig(64, 2, 4, 2, 128, 400, context=160)
OPTIONS = ProbeOptions(n_samples=12, n_tokens=120)
WORDS = [
    "she",
    "he",
    "saw",
    "a",
    "big",
    "red",
    "ball",
    "the",
    "dog",
    "park",
    "they",
    "play",
    "too",
    "high",
    "day",
    "said",
    "time",
    "girl",
    "little",
    "loved",
    "to",
    "go",
    "home",
    "happy",
]


@contextmanager
def counted(_title: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@pytest.fixture(scope="module")
def dataset(toy_sentencepiece_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight documents of words in no order to train on, and 40 of the same language to compare with."""
    folder, rng = tmp_path_factory.mktemp("probe"), np.random.default_rng(0)
    (folder / "toy.model").write_bytes(toy_sentencepiece_bytes)
    for name, n_documents in (("train", 8), ("held_out", 40)):
        lines = [" ".join(rng.choice(WORDS, 60)) for _ in range(n_documents)]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    options = PrepareOptions(validation=(str(folder / "held_out.txt"),), workers=1)
    prepare([str(folder / "train.txt")], folder / "toy.model", folder / "tokens", options)
    return open_dataset(folder / "tokens")


def untrained(toy_sentencepiece_bytes: bytes) -> Model:
    return replace(random_model(CONFIG), tokenizer=parse_sentencepiece(toy_sentencepiece_bytes, "toy.model"))


@pytest.fixture(scope="module")
def overfitted(dataset: Dataset, toy_sentencepiece_bytes: bytes) -> Model:
    """The same network, trained on the eight documents until it knows them."""
    torch = pytest.importorskip("torch")
    from llamita.train.network import Llama

    torch.manual_seed(0)
    model = untrained(toy_sentencepiece_bytes)
    network = Llama(CONFIG)
    network.load_state_dict({name: torch.from_numpy(t.dequantize().copy()) for name, t in model.tensors.items()})
    documents = documents_of(dataset.train, 1, 8, 159)
    rows = np.zeros((8, 161), np.int64)
    rows[:, 0] = 1
    for row, document in zip(rows, documents, strict=True):
        row[1 : len(document) + 1], row[len(document) + 1 :] = document, 1  # then BOS for ever: the document has ended
    ids = torch.from_numpy(rows)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(150):
        loss = network(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tensors = {name: Tensor.from_array(t.detach().numpy()) for name, t in network.state_dict().items()}
    return replace(model, tensors=tensors)


@pytest.fixture(scope="module")
def found_out(overfitted: Model, dataset: Dataset) -> Probe:
    return probe(overfitted, dataset, OPTIONS, 1, None, counted)


@pytest.fixture(scope="module")
def fresh(dataset: Dataset, toy_sentencepiece_bytes: bytes) -> Probe:
    return probe(untrained(toy_sentencepiece_bytes), dataset, OPTIONS, 1, None, counted)


def test_a_model_that_was_overfitted_on_few_documents_is_found_out(found_out: Probe):
    assert findings.copies_text(found_out)
    assert findings.longest(found_out.samples) > 3 * findings.longest(found_out.held_out)
    assert findings.foretells_too_well(found_out)
    said = findings.paragraph(found_out)
    assert "the model tells training text by heart" in said
    assert "nothing suggests" not in said
    assert "a sign that it has learned part of it by heart" in said
    assert " ".join(found_out.longest_text.split()[1:20]) in said


def test_a_fresh_model_is_not(fresh: Probe):
    assert not findings.copies_text(fresh)
    assert not findings.foretells_too_well(fresh)
    assert "nothing suggests that the model tells training text by heart" in findings.paragraph(fresh)


def test_held_out_text_is_no_copy(fresh: Probe):
    assert len(fresh.held_out) == 40
    assert findings.longest(fresh.held_out) < 30


def test_what_is_quoted_stands_in_the_training_text(found_out: Probe, dataset: Dataset):
    text = (dataset.folder.parent / "train.txt").read_text(encoding="utf-8")
    assert found_out.longest_text.strip() in text


def test_samples_are_what_the_model_tells_with_these_seeds(overfitted: Model):
    options = ProbeOptions(n_samples=5, n_tokens=20, temperature=0.8, seed=7)
    told: list[int] = []
    with Engine(overfitted, 1, n_slots=2) as engine:
        samples = tell(engine, 1, {1, 2}, options, told.append)
    with LanguageModel(overfitted, 1) as model:
        for i, ids in enumerate(samples):
            assert model.tokenizer.decode([1, *ids.tolist()]) == model.generate("", 20, seed=7 + i, temperature=0.8, top_p=0.0)
    assert told == [2, 2, 1]


def test_losses_are_those_of_the_reference_on_both_texts(dataset: Dataset, toy_sentencepiece_bytes: bytes):
    model = untrained(toy_sentencepiece_bytes)
    windows = even_windows(dataset, 48)
    with Engine(model, 1) as engine:
        found = measure_losses(engine, *windows, lambda _: None)
    for value, rows in zip((found.train, found.held_out), windows, strict=True):
        nats = [-log_softmax(reference_logits(model, row[:-1]))[np.arange(48), row[1:]] for row in rows]
        assert value == pytest.approx(np.mean(nats), rel=1e-5)
    assert found.n_windows == tuple(map(len, windows))
    assert found.interval
    assert found.interval.low < found.gap < found.interval.high


def test_windows_lie_evenly_over_a_text_and_fit_the_shorter_one(dataset: Dataset):
    train, held_out = even_windows(dataset, 100_000)
    assert train.shape == (1, min(dataset.train.n_tokens, dataset.validation.n_tokens))
    assert len(held_out) == (dataset.validation.n_tokens - 1) // (train.shape[1] - 1)


def test_held_out_documents_are_whole_or_cut_to_the_length(dataset: Dataset):
    documents = documents_of(dataset.validation, 1, 40, 50)
    assert len(documents) == 40
    assert all(len(document) == 50 and 1 not in document for document in documents)
    few = documents_of(dataset.validation, 1, 3, 10_000)
    assert len(few) == 3
    stream = dataset.validation.windows(np.zeros(1, int), dataset.validation.n_tokens)[0]
    assert few[0].tolist() == stream[1 : len(few[0]) + 1].tolist()
    assert few[-1].tolist() == stream[-len(few[-1]) :].tolist()


def test_shards_of_another_vocabulary_are_refused(dataset: Dataset):
    with pytest.raises(DataError, match="found tokens of another vocabulary"):
        probe(random_model(replace(CONFIG, vocab_size=399)), dataset, OPTIONS, 1, None, counted)
    other = replace(random_model(CONFIG), tokenizer=None)
    assert probe(other, dataset, replace(OPTIONS, n_samples=1, n_tokens=4), 1, 32, counted).options.n_tokens == 4


@pytest.mark.parametrize(("name", "value"), [("n_samples", 0), ("n_tokens", 161), ("n_tokens", 0)])
def test_settings_that_cannot_be_are_refused(dataset: Dataset, toy_sentencepiece_bytes: bytes, name: str, value: int):
    with pytest.raises(SettingError, match=f"{name.removeprefix('n_')}: found {value}, expected 1 to"):
        probe(untrained(toy_sentencepiece_bytes), dataset, replace(OPTIONS, **{name: value}), 1, None, counted)


def test_a_run_knows_its_tokens(tmp_path: Path):
    (tmp_path / "run.json").write_text('{"data": "/tokens"}')
    assert data_of_run(tmp_path) == data_of_run(tmp_path / "model.safetensors") == Path("/tokens")
    for broken in ("{}", "[1]", "{", '{"data": 3}'):
        (tmp_path / "run.json").write_text(broken)
        with pytest.raises(SettingError, match=r"found no run\.json that names its tokens"):
            data_of_run(tmp_path)
