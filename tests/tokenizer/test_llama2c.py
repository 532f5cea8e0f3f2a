"""tokenizer.bin: parsing, and encoding equal to run.c's."""

import json
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_tokenizer
from llamita.errors import LlamitaError, ModelFileError, TokenizerError
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer, parse_tokenizer_bin, serialize_tokenizer_bin

SPECIAL = [b"<unk>", BOS_PIECE, EOS_PIECE]
BYTES = [b"<0x%02X>" % byte for byte in range(256)]


def tokenizer_of(*pieces: str, scores: list[float] | None = None) -> Llama2cTokenizer:
    """Special tokens, bytes, then these pieces; without scores, the earlier piece is merged first."""
    scores = [-float(i) for i in range(len(pieces))] if scores is None else scores
    return Llama2cTokenizer(SPECIAL + BYTES + [piece.encode() for piece in pieces], [0.0] * 259 + scores)


def test_the_highest_score_is_merged_first_and_the_leftmost_of_equals():
    tokenizer = tokenizer_of(" ", "a", "b", "aa", "ab", " a", scores=[0.0, 0.0, 0.0, -1.0, -1.0, -2.0])
    texts = [tokenizer.pieces[token_id] for token_id in tokenizer.encode("aab")]
    assert texts == [b" ", b"aa", b"b"]


def test_a_text_begins_with_a_space_and_perhaps_bos_and_ends_perhaps_with_eos():
    tokenizer = tokenizer_of(" ", "a")
    assert tokenizer.encode("a", bos=True, eos=True) == [1, 259, 260, 2]
    assert tokenizer.encode("", bos=True) == [1]
    assert tokenizer.encode("") == []


def test_characters_outside_the_vocabulary_become_bytes():
    tokenizer = tokenizer_of(" ")
    assert tokenizer.encode("é") == [259, 0xC3 + 3, 0xA9 + 3]
    assert tokenizer.encode("\0") == [259, 3]
    assert tokenizer.decode(tokenizer.encode("😀 é\n")) == "😀 é\n"


def test_a_vocabulary_without_a_space_falls_back_to_its_byte():
    tokenizer = tokenizer_of("a")
    assert tokenizer.encode("a") == [0x20 + 3, 259]
    assert tokenizer.decode(tokenizer.encode("a a")) == "a a"


def test_a_vocabulary_without_bytes_gives_the_unknown_token():
    tokenizer = Llama2cTokenizer([*SPECIAL, b" ", b"a"], [0.0] * 5)
    assert tokenizer.encode("aé") == [3, 4, 0, 0]


def test_special_tokens_in_a_text_are_ordinary_text():
    tokenizer = tokenizer_of(" ", "<", "s", ">")
    assert tokenizer.encode("<s>") == [259, 260, 261, 262]
    assert tokenizer.decode([1, *tokenizer.encode("<s>"), 2]) == "<s>"


def test_pairs_at_run_cs_lowest_score_are_never_merged():
    tokenizer = tokenizer_of(" ", "a", "aa", scores=[0.0, 0.0, -1e10])
    assert tokenizer.encode("aa") == [259, 260, 260]


@pytest.mark.parametrize("token_id", [-1, 260, 1 << 40])
def test_ids_outside_the_vocabulary_are_refused(token_id):
    with pytest.raises(TokenizerError, match="token id: found"):
        tokenizer_of(" ").decode([token_id])


def test_text_that_is_no_unicode_is_refused_in_one_line():
    with pytest.raises(TokenizerError, match=r"at character 2, expected valid Unicode"):
        tokenizer_of(" ").encode("a\udc80")


PIECES = st.lists(st.text("ab é", min_size=2, max_size=4), unique=True, max_size=25)
SCORES = st.lists(st.sampled_from([-1.0, -2.0, -3.0, -1e10]), min_size=25, max_size=25)
TEXTS = st.one_of(st.text("ab é😀\n", max_size=40), st.text("abé", min_size=60, max_size=120))


@given(PIECES, SCORES, TEXTS)
@settings(max_examples=400, deadline=None)
def test_the_heap_gives_what_run_cs_loop_gives(pieces, scores, text):
    tokenizer = tokenizer_of(" ", "a", "b", "é", *pieces, scores=[0.0] * 4 + scores[: len(pieces)])
    expected = reference_tokenizer.encode(tokenizer.pieces, tokenizer.scores, text, bos=True, eos=True)
    assert tokenizer.encode(text, bos=True, eos=True) == expected
    assert tokenizer.encode(text, bos=True, eos=True) == expected  # from the cache of words
    assert tokenizer.decode(expected) == text


@pytest.mark.parametrize("text", ["ab" * 50_000, "a b " * 50_000, " " * 100_000, "日" * 50_000])
def test_long_texts_of_any_kind_take_no_square_of_their_length(text):
    tokenizer = tokenizer_of(" ", "a", "b", "ab", "abab", "  ", "    ", " a")
    start = time.process_time()
    ids = tokenizer.encode(text)
    assert time.process_time() - start < 20  # run.c's loop needs hours
    assert tokenizer.decode(ids) == text


def test_a_written_file_is_read_back_to_the_bit():
    tokenizer = tokenizer_of(" ", "a", "é", scores=[-0.0, 1e-20, -3.4e38])
    data = serialize_tokenizer_bin(tokenizer)
    again = parse_tokenizer_bin(data, "t.bin")
    assert again.pieces == tokenizer.pieces
    assert serialize_tokenizer_bin(again) == data
    assert struct.unpack_from("<I", data)[0] == max(map(len, tokenizer.pieces))


def entry(piece: bytes, score: float = 0.0, n_bytes: int | None = None) -> bytes:
    return struct.pack("<fI", score, len(piece) if n_bytes is None else n_bytes) + piece


GOOD = struct.pack("<I", 4) + entry(b"aaaa") * 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found 0 bytes"),
        (b"\1\0\0", "found 3 bytes"),
        (GOOD[:4], "entries: found 0, expected 3 to"),
        (GOOD[:-12], "entries: found 2, expected 3 to"),
        (GOOD[:-1], "length of entry 2: found 4, expected at most 3"),
        (GOOD + b"\0", "entry 3: found 1 bytes, expected a score and a length"),
        (GOOD + entry(b"", n_bytes=0xFFFFFFFF), "length of entry 3: found 4294967295, expected at most 0"),
        (GOOD + entry(b"aaaaa"), "length of entry 3: found 5, expected at most 4"),
        (GOOD + entry(b"a", float("nan")), "scores: found infinity or not a number"),
        (GOOD + entry(b"a", float("-inf")), "scores: found infinity or not a number"),
    ],
)
def test_a_broken_file_is_refused_with_the_entry_named(data, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        parse_tokenizer_bin(data, "t.bin")
    assert str(caught.value).startswith("t.bin: ")
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_refused_or_a_shorter_vocabulary():
    data = serialize_tokenizer_bin(tokenizer_of(" ", "a"))
    n_read = 0
    for end in range(len(data)):
        try:
            n_read += parse_tokenizer_bin(data[:end], "t.bin").vocab_size < 261
        except LlamitaError:
            continue
    assert n_read == 258  # the format has no count: a cut between two entries shows only beside a model


def test_llama_2_encodes_as_the_examples_of_meta(shared_data):
    data = (shared_data / "tokenizers/llama2/tokenizer.bin").read_bytes()
    tokenizer = parse_tokenizer_bin(data, "tokenizer.bin")
    assert tokenizer.vocab_size == 32000
    assert serialize_tokenizer_bin(tokenizer) == data
    examples = {
        "": [1],
        "I believe the meaning of life is": [1, 306, 4658, 278, 6593, 310, 2834, 338],
        "Simply put, the theory of relativity states that ": [
            *(1, 3439, 17632, 1925, 29892, 278, 6368, 310, 14215, 537, 5922, 393, 29871)
        ],
    }
    for text, ids in examples.items():
        assert tokenizer.encode(text, bos=True) == ids


def test_llama_2_encodes_and_decodes_as_sentencepiece_did(shared_data):
    tokenizer = parse_tokenizer_bin((shared_data / "tokenizers/llama2/tokenizer.bin").read_bytes(), "tokenizer.bin")
    cases = json.loads((shared_data / "reference/sentencepiece_vectors.json").read_text(encoding="utf-8"))["cases"]["llama2"]
    for case in cases:
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]


def test_llama_2_encodes_a_story_as_run_cs_loop_does(shared_data):
    tokenizer = parse_tokenizer_bin((shared_data / "tokenizers/llama2/tokenizer.bin").read_bytes(), "tokenizer.bin")
    story = (shared_data / "text/tinyshakespeare/input.txt").read_text(encoding="utf-8")[5000:5600]
    for text in (story, story.replace(" ", ""), "  日本語 😀  " + story[:100]):
        assert tokenizer.encode(text) == reference_tokenizer.encode(tokenizer.pieces, tokenizer.scores, text)
