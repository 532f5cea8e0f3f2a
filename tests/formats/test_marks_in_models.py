"""A model that has learned new marks of a chat keeps them, its template and its ends in every format it is exported to."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.engine import Engine
from llamita.errors import TokenizerError
from llamita.formats import read_model, write_model
from llamita.formats.target import write_tokenizer_beside
from llamita.model import Model, random_model, with_more_rows
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import missing_marks, with_special_tokens
from llamita.tokenizer.chat_template import open_template
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.marks import end_ids
from llamita.tokenizer.published_templates import jinja_of
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from small_vocabularies import byte_level

TALK = [
    {"role": "system", "content": "Be <|im_end|> kind."},
    {"role": "user", "content": "Once upon a time, 日本?"},
    {"role": "assistant", "content": "They played.\n"},
    {"role": "user", "content": " So?"},
]
FORMATS = {
    "safetensors": ("folder", ("f32", "bf16")),
    "gguf": ("model.gguf", ("f32", "f16", "q8_0", "q4_0")),
    "llama2c-v0": ("model.bin", ("f32",)),
    "llama2c-v2": ("model.bin", ("q8_0",)),
}
CASES = [(to, dtype) for to, (_, dtypes) in FORMATS.items() for dtype in dtypes]


@pytest.fixture(scope="module", params=["sentencepiece", "llama2c", "byte-level"])
def model(request, toy_sentencepiece_bytes: bytes) -> Model:
    """A model whose vocabulary was grown by the marks of ChatML, with the template in it."""
    toy = parse_sentencepiece(toy_sentencepiece_bytes, "toy")
    library = LibraryTokenizer(byte_level(marks=("<s>", "</s>")))
    plain: Tokenizer = {
        "sentencepiece": toy,
        "llama2c": to_llama2c(toy),
        "byte-level": library.with_ends(library.token_id("<s>"), library.token_id("</s>"), adds_bos=True),
    }[request.param]
    tokenizer = with_special_tokens(plain, missing_marks("chatml", plain))
    template = open_template("chatml", tokenizer)
    base = random_model(ModelConfig(64, 1, 2, 2, 64, plain.vocab_size, 64), seed=3)
    grown = with_more_rows(replace(base, tokenizer=plain), tokenizer.vocab_size)
    stop_ids = tuple(sorted(template.stop_ids))
    return replace(grown, tokenizer=tokenizer, chat_template=jinja_of(template), stop_ids=stop_ids).validate()


def formats_for(tokenizer: Tokenizer) -> list[str]:
    """Where a vocabulary can go to: a tokenizer.bin holds no byte-level one."""
    return [to for to in FORMATS if not (to.startswith("llama2c") and isinstance(tokenizer, LibraryTokenizer))]


def written_and_read(model: Model, folder: Path, to: str, dtype: str | None = None) -> Model:
    path = folder / FORMATS[to][0]
    write_model(model, path, to, dtype=dtype)
    if to.startswith("llama2c"):
        write_tokenizer_beside(cast(Tokenizer, model.tokenizer), path)
    return read_model(path)


@pytest.mark.parametrize(("to", "dtype"), CASES)
def test_marks_template_and_ends_survive(model: Model, to: str, dtype: str, tmp_path: Path):
    tokenizer = cast(Tokenizer, model.tokenizer)
    if to not in formats_for(tokenizer):
        with pytest.raises(TokenizerError, match="found byte-level pieces"):
            write_tokenizer_beside(tokenizer, tmp_path / "model.bin")
        return
    again = written_and_read(model, tmp_path, to, dtype)
    found = cast(Tokenizer, again.tokenizer)
    assert again.config.vocab_size == found.vocab_size == tokenizer.vocab_size
    assert found.encode_marked("<|im_start|>") == tokenizer.encode_marked("<|im_start|>") == [tokenizer.vocab_size - 2]
    if not to.startswith("llama2c"):  # which has no place for a template
        assert again.chat_template == model.chat_template
    template = open_template(again.chat_template or "chatml", found)
    assert template.encode(TALK) == open_template("chatml", tokenizer).encode(TALK)
    assert template.encode_answers(TALK) == open_template("chatml", tokenizer).encode_answers(TALK)
    assert {*again.stop_ids} | template.stop_ids == {*model.stop_ids}
    assert "<|im_end|>" in {text for text, i in found.special_tokens.items() if i in {*again.stop_ids}}
    assert found.decode(template.encode(TALK)) == tokenizer.decode(template.encode(TALK))


def test_they_survive_the_way_through_any_two_formats(model: Model, tmp_path: Path):
    tokenizer = cast(Tokenizer, model.tokenizer)
    expected = open_template("chatml", tokenizer).encode(TALK)
    for first in formats_for(tokenizer):
        (tmp_path / first).mkdir()
        between = written_and_read(model, tmp_path / first, first)
        for second in formats_for(tokenizer):
            (tmp_path / first / second).mkdir()
            last = cast(Tokenizer, written_and_read(between, tmp_path / first / second, second).tokenizer)
            assert open_template("chatml", last).encode(TALK) == expected
            assert {*end_ids(last)} == {*end_ids(tokenizer)}


def test_the_engine_runs_the_grown_model_and_new_tokens_are_as_likely_as_an_average_one(model: Model):
    engine = Engine(model, n_threads=1)
    logits = engine.logits([1, 5, model.config.vocab_size - 1])
    engine.close()
    assert logits.shape == (3, model.config.vocab_size)
    np.testing.assert_allclose(logits[:, -1], logits[:, :-2].mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(logits[:, -2], logits[:, -1])
