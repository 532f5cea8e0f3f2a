"""Training and validation text: drawn by the text itself, without duplicates, of a sensible size."""

import random

import pytest

from llamita.data import split
from llamita.data.sources import Document
from llamita.data.split import Batch, Splitter, validation_bytes
from llamita.errors import DataError
from stories import story


def as_documents(texts: list[str]) -> list[Document]:
    return [Document(text, "a.txt", i) for i, text in enumerate(texts, 1)]


def sides_of(texts: list[str]) -> tuple[list[str], list[str], Splitter]:
    splitter = Splitter(sum(len(text.encode()) for text in texts))
    batches = list(splitter.batches(as_documents(texts)))
    return texts_in(batches, "train"), texts_in(batches, "validation"), splitter


def texts_in(batches: list[Batch], side: str) -> list[str]:
    return [document.text for batch in batches if batch.side == side for document in batch.documents]


STORIES = [story(i) for i in range(1000)]


def test_each_text_stands_on_one_side_and_in_order():
    train, validation, _ = sides_of(STORIES)
    assert sorted(train + validation) == sorted(STORIES)
    assert [text for text in STORIES if text in set(train)] == train
    assert 0.05 < len(validation) / len(STORIES) < 0.15


def test_the_side_of_a_text_depends_on_no_order():
    shuffled = random.Random(1).sample(STORIES, len(STORIES))
    assert set(sides_of(STORIES)[1]) == set(sides_of(shuffled)[1])


def test_batches_of_other_sizes_hold_the_same(monkeypatch):
    whole = sides_of(STORIES)[:2]
    monkeypatch.setattr(split, "BATCH_BYTES", 1000)
    monkeypatch.setattr(split, "_DIGESTED_BYTES", 300)
    assert sides_of(STORIES)[:2] == whole


def test_duplicates_are_left_out_and_counted():
    train, validation, splitter = sides_of(STORIES + STORIES[:70] + STORIES[:70])
    assert sorted(train + validation) == sorted(STORIES)
    assert splitter.n_duplicates == 140


@pytest.mark.parametrize(
    ("n_text_bytes", "expected"), [(10_000, 1000), (5 << 20, 256 << 10), (100 << 20, 1 << 20), (1 << 40, 4 << 20)]
)
def test_a_small_text_gives_more_of_it(n_text_bytes: int, expected: int):
    assert validation_bytes(n_text_bytes) == pytest.approx(expected, rel=0.05)


def test_the_end_of_a_single_text_validates_from_a_paragraph_on():
    paragraphs = [f"Paragraph {i}. " + "Some words. " * 10 for i in range(100)]
    train, validation, _ = sides_of(["\n\n".join(paragraphs).strip()])
    assert len(train) == len(validation) == 1
    assert validation[0].startswith("Paragraph ")
    assert f"{train[0]}\n\n{validation[0]}".split() == " ".join(paragraphs).split()
    assert 0.05 < len(validation[0]) / (len(train[0]) + len(validation[0])) < 0.15


@pytest.mark.parametrize("texts", [["one two"], ["ab"], ["word " * 99 + "end", "the last"], ["a b c", "d"]])
def test_the_smallest_texts_are_divided(texts: list[str]):
    train, validation, _ = sides_of(texts)
    assert "".join([*train, *validation]).replace(" ", "") == "".join(texts).replace(" ", "")
    assert train
    assert validation


def test_one_character_is_too_little():
    with pytest.raises(DataError, match="too little to be divided"):
        sides_of(["a"])


def test_no_text_is_no_batch():
    assert sides_of([])[:2] == ([], [])


def test_given_validation_text_is_counted_where_the_training_text_holds_it():
    splitter = Splitter(0)
    validation = list(splitter.batches_of("validation", as_documents(STORIES[:10] + STORIES[:3])))
    train = list(splitter.batches_of("train", as_documents(STORIES[8:50] + STORIES[8:9])))
    assert texts_in(validation, "validation") == STORIES[:10]
    assert texts_in(train, "train") == STORIES[8:50]
    assert (splitter.n_shared, splitter.n_duplicates) == (2, 4)
