"""TextDecoder: whole characters only, nothing lost, one space dropped at the beginning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamita.errors import TokenizerError
from llamita.tokenizer.decoder import TextDecoder
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer

WORDS = [b" ", b" a", b"b", "é".encode(), b"  c"]
TOKENIZER = Llama2cTokenizer([b"<unk>", BOS_PIECE, EOS_PIECE, *[b"<0x%02X>" % i for i in range(256)], *WORDS], [0.0] * 264)
SPACE, A, B, E_ACUTE, C = range(259, 264)


def byte_ids(text: str) -> list[int]:
    return [byte + 3 for byte in text.encode("utf-8")]


def test_bytes_wait_until_they_make_a_character():
    decoder = TextDecoder(TOKENIZER)
    assert [decoder.feed(token_id) for token_id in byte_ids("😀é")] == ["", "", "", "😀", "", "é"]
    assert decoder.flush() == ""


def test_a_broken_character_becomes_a_replacement_and_the_rest_stays():
    decoder = TextDecoder(TOKENIZER)
    assert decoder.feed(0xF0 + 3) == ""
    assert decoder.feed(B) == "\ufffdb"
    assert decoder.feed(0xE2 + 3) == ""
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""


def test_a_special_token_inside_a_character_does_not_break_it():
    first, second = byte_ids("é")
    decoder = TextDecoder(TOKENIZER)
    assert [decoder.feed(token_id) for token_id in (first, 2, second)] == ["", "", "é"]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([A, A], "a a"),
        ([1, A, A], "a a"),
        ([C], " c"),  # one space, not all
        ([B, 1, A], "ba"),  # after every BOS
        ([2, A], " a"),  # not after EOS
        ([SPACE, B], "b"),
        ([], ""),
    ],
)
def test_one_space_is_dropped_at_the_beginning_and_after_bos(ids, text):
    assert TOKENIZER.decode(ids) == text


def test_decoding_that_goes_on_in_a_text_keeps_the_space():
    assert TextDecoder(TOKENIZER, previous_id=B).feed(A) == " a"
    assert TextDecoder(TOKENIZER, previous_id=1).feed(A) == "a"


def test_special_tokens_add_nothing():
    assert TOKENIZER.decode([1, B, 2, 0, B]) == "bb"


def test_an_id_outside_the_vocabulary_is_refused():
    with pytest.raises(TokenizerError):
        TextDecoder(TOKENIZER).feed(264)


@given(st.lists(st.integers(0, 263)))
def test_streaming_gives_the_text_of_all_bytes_together(ids):
    decoder = TextDecoder(TOKENIZER, previous_id=B)
    parts = [decoder.feed(token_id) for token_id in ids]
    data = b""
    previous_id = B
    for token_id in ids:
        piece = TOKENIZER.piece_bytes(token_id)
        data += piece[1:] if previous_id == 1 and piece.startswith(b" ") else piece
        previous_id = token_id
    assert "".join(parts) + decoder.flush() == data.decode("utf-8", "replace")
