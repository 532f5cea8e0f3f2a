"""Special tokens written out in a text, and tokens that end one."""

import pytest

from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.marks import decode_marked, end_ids
from llamita.tokenizer.sentencepiece import BPE, CONTROL, NORMAL, UNKNOWN, Rules, SentencePieceTokenizer, parse_sentencepiece
from small_vocabularies import byte_level


@pytest.fixture(scope="module")
def toy(toy_sentencepiece_bytes) -> SentencePieceTokenizer:
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


@pytest.mark.parametrize("convert", [lambda tokenizer: tokenizer, to_llama2c], ids=["sentencepiece", "llama2c"])
def test_bos_and_eos_are_recognised_in_marked_text_only(toy, convert):
    tokenizer = convert(toy)
    assert tokenizer.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}
    text = "<s>Lily</s><s> and Tom"
    assert tokenizer.encode_marked(text) == [1, *tokenizer.encode("Lily"), 2, 1, *tokenizer.encode(" and Tom")]
    assert not {1, 2} & set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_without_marks_has_the_same_ids(toy):
    for text in ("", " ", "Lily <s", "s> and"):
        assert toy.encode_marked(text) == toy.encode(text)


def test_of_marks_that_begin_alike_the_longest_counts():
    pieces = ["<unk>", "[A", "[A]", "[", "A", "]", "▁"]
    types = [UNKNOWN, CONTROL, CONTROL] + [NORMAL] * 4
    tokenizer = SentencePieceTokenizer(pieces, [0.0] * 7, types, Rules(model_type=BPE, add_dummy_prefix=False))
    assert tokenizer.encode_marked("[A][A") == [2, 1]
    assert tokenizer.encode("[A]") == [3, 4, 5]


TEXTS = ["", " ", "Lily", "<s>Lily</s><s> and Tom", "<s><s>", " a <s> b ", "<|im_start|>user\nHi<|im_end|>\n", "<s>😀<s>"]


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_writes_special_tokens_out(toy, text: str):
    for tokenizer in (toy, to_llama2c(toy), LibraryTokenizer(byte_level())):
        assert decode_marked(tokenizer, tokenizer.encode_marked(text)) == text


def test_ends_of_texts_are_known_by_their_spelling(toy):
    assert end_ids(LibraryTokenizer(byte_level())) == (703, 701)  # <|im_end|>, <|end_of_text|>
    assert end_ids(toy) == ()
