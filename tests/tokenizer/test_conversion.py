"""tokenizer.model to tokenizer.bin as llama2.c does it, and back."""

import pytest
from sentencepiece import SentencePieceProcessor

from llamita.errors import TokenizerError
from llamita.tokenizer.conversion import to_llama2c, to_sentencepiece
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer, serialize_tokenizer_bin
from llamita.tokenizer.sentencepiece import (
    BPE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    Rules,
    SentencePieceTokenizer,
    parse_sentencepiece,
    serialize_sentencepiece,
)

TEXTS = ["Once upon a time, Lily saw a ball.", "  a  b ", "😀 日本語 café\n\n", "", "12,000"]


def test_both_kinds_give_the_same_ids_and_texts(toy_sentencepiece_bytes):
    model = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    converted = to_llama2c(model)
    for text in TEXTS:
        ids = model.encode(text)
        assert converted.encode(text) == ids
        assert converted.decode(ids) == model.decode(ids) == text


def test_the_way_back_gives_the_same_vocabulary(toy_sentencepiece_bytes):
    model = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    back = to_sentencepiece(to_llama2c(model))
    assert (back.pieces, back.scores, back.types) == (model.pieces, model.scores, model.types)
    library = SentencePieceProcessor(model_proto=serialize_sentencepiece(back))
    assert [library.encode(text) for text in TEXTS] == [model.encode(text) for text in TEXTS]


def test_a_tokenizer_of_the_wanted_kind_stays_as_it_is(toy_sentencepiece_bytes):
    model = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    converted = to_llama2c(model)
    assert to_sentencepiece(model) is model
    assert to_llama2c(converted) is converted


def test_a_vocabulary_without_all_bytes_becomes_one_without_byte_pieces():
    back = to_sentencepiece(Llama2cTokenizer([b"<unk>", BOS_PIECE, EOS_PIECE, b"<0x41>", b" "], [0.0] * 5))
    assert back.types == [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL]
    assert back.encode("b") == [4, 0]


@pytest.mark.parametrize(
    ("pieces", "types", "model_type", "message"),
    [
        (["<unk>", "<s>", "</s>"], [UNKNOWN, CONTROL, CONTROL], UNIGRAM, "without byte pairs"),
        (["<s>", "<unk>", "</s>"], [CONTROL, UNKNOWN, CONTROL], BPE, r"found \(1, 0, 2\), expected \(0, 1, 2\)"),
        (["<unk>", "a", "b"], [UNKNOWN, NORMAL, NORMAL], BPE, r"found \(0, -1, -1\)"),
    ],
)
def test_what_a_tokenizer_bin_cannot_hold_is_refused(pieces, types, model_type, message):
    with pytest.raises(TokenizerError, match=message):
        to_llama2c(SentencePieceTokenizer(pieces, [0.0] * 3, types, Rules(model_type=model_type)))


@pytest.mark.parametrize("pieces", [[b"a", b"a"], [b"\xff", b"a"], [b"", b"a"]])
def test_what_sentencepiece_cannot_hold_is_refused(pieces):
    with pytest.raises(TokenizerError):
        to_sentencepiece(Llama2cTokenizer([b"<unk>", BOS_PIECE, EOS_PIECE, *pieces], [0.0] * 5))


@pytest.mark.parametrize("name", ["models/stories260K/tok512", "tokenizers/llama2/tokenizer"])
def test_llama2_cs_own_files_are_reproduced_to_the_byte(shared_data, name):
    model = parse_sentencepiece((shared_data / f"{name}.model").read_bytes(), name)
    assert serialize_tokenizer_bin(to_llama2c(model)) == (shared_data / f"{name}.bin").read_bytes()
