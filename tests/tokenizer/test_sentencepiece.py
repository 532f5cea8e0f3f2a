"""tokenizer.model: our reader and writer of the file, and ids equal to the sentencepiece library's."""

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from llamita.errors import LlamitaError, ModelFileError, TokenizerError
from llamita.tokenizer.protobuf import field
from llamita.tokenizer.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    Rules,
    SentencePieceTokenizer,
    parse_sentencepiece,
    serialize_sentencepiece,
)

MIXED = [
    "Once upon a time, there was a little girl.",
    "  two  spaces   everywhere  ",
    "tabs\tand\nnewlines\r\n\n",
    "😀 日本語 café ﬁ Å",
    "<s> </s> <unk> <0x41>",
    "1234567890",
    "a\0b",
    "",
    " ",
]


@pytest.fixture(scope="module")
def toy(toy_sentencepiece_bytes) -> SentencePieceTokenizer:
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


@pytest.fixture(scope="module")
def library(toy_sentencepiece_bytes) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=toy_sentencepiece_bytes)


def test_the_reader_sees_what_the_library_sees(toy, library):
    assert toy.vocab_size == library.vocab_size() == 400
    assert (toy.bos_id, toy.eos_id) == (library.bos_id(), library.eos_id()) == (1, 2)
    assert toy.pieces == [library.id_to_piece(i) for i in range(400)]
    assert toy.scores == [library.get_score(i) for i in range(400)]
    assert [kind == BYTE for kind in toy.types] == [library.is_byte(i) for i in range(400)]


@pytest.mark.parametrize("text", MIXED)
def test_ids_and_texts_equal_the_librarys(toy, library, text):
    ids = library.encode(text)
    assert toy.encode(text) == ids
    assert toy.encode(text, bos=True, eos=True) == [1, *ids, 2]
    assert toy.decode(ids) == library.decode(ids) == text


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_and_has_the_librarys_ids(toy, library, text):
    text = text.replace("\u2581", "_")  # the one character that sentencepiece cannot tell from a space
    assert toy.encode(text) == library.encode(text)
    assert toy.decode(toy.encode(text)) == text


def test_a_written_model_is_loaded_by_the_library_with_the_same_ids(toy, library):
    data = serialize_sentencepiece(toy)
    written = SentencePieceProcessor(model_proto=data)
    assert [written.encode(text) for text in MIXED] == [library.encode(text) for text in MIXED]
    again = parse_sentencepiece(data, "written.model")
    assert (again.pieces, again.scores, again.types, again.rules) == (toy.pieces, toy.scores, toy.types, toy.rules)
    assert (written.bos_id(), written.eos_id(), written.unk_id(), written.pad_id()) == (1, 2, 0, -1)


def test_importing_and_decoding_do_without_the_library():
    program = (
        "import sys; from llamita.tokenizer.sentencepiece import SentencePieceTokenizer as T, Rules;"
        "t = T(['<unk>', '\\u2581a'], [0.0, 0.0], [2, 1], Rules()); assert t.decode([1, 1]) == 'a a';"
        "assert 'sentencepiece' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_bos_is_refused_where_the_vocabulary_has_none():
    tokenizer = SentencePieceTokenizer(["<unk>", "a"], [0.0, 0.0], [UNKNOWN, NORMAL], Rules())
    assert (tokenizer.bos_id, tokenizer.eos_id) == (-1, -1)
    with pytest.raises(TokenizerError, match="BOS: found none"):
        tokenizer.encode("a", bos=True)


def test_a_piece_named_like_bos_that_is_no_control_piece_is_no_bos():
    assert SentencePieceTokenizer(["<unk>", "<s>"], [0.0, 0.0], [UNKNOWN, NORMAL], Rules()).bos_id == -1
    assert SentencePieceTokenizer(["<unk>", "<s>"], [0.0, 0.0], [UNKNOWN, CONTROL], Rules()).bos_id == 1


def test_text_that_is_no_unicode_is_refused_in_one_line(toy):
    with pytest.raises(TokenizerError, match="expected valid Unicode"):
        toy.encode("\ud800")


@pytest.mark.parametrize("token_id", [-1, 400])
def test_ids_outside_the_vocabulary_are_refused(toy, token_id):
    with pytest.raises(TokenizerError, match="token id: found"):
        toy.piece_bytes(token_id)


def piece(text: str, kind: int = NORMAL, score: float = 0.0) -> bytes:
    return field(1, field(1, text) + field(2, score) + field(3, kind))


UNK = piece("<unk>", UNKNOWN)


def test_a_piece_with_fields_of_a_later_version_is_read_field_by_field():
    later = field(1, field(1, "a") + field(9, b"") + field(2, 1.5)) + field(1, field(2, 2.5) + field(1, "b")) + field(9, b"?")
    tokenizer = parse_sentencepiece(UNK + later, "later.model")
    assert tokenizer.pieces == ["<unk>", "a", "b"]
    assert tokenizer.scores == [0.0, 1.5, 2.5]
    assert tokenizer.types == [UNKNOWN, NORMAL, NORMAL]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "pieces: found 0"),
        (piece("a"), "unknown piece: found 0, expected exactly 1"),
        (UNK + piece("<u>", UNKNOWN), "unknown piece: found 2"),
        (UNK + piece("a") + piece("a"), "pieces: found an empty one or one twice"),
        (UNK + piece(""), "content behind piece 1: found a piece without text"),
        (UNK + piece("a", kind=7), "piece types: found 7"),
        (UNK + piece("a", score=float("nan")), "scores: found infinity or not a number"),
        (UNK + piece("<0x00>", BYTE), "byte pieces: found 1, expected 0"),
        (UNK + field(2, field(35, True)), "byte pieces: found 0, expected 256"),
        (UNK + field(2, field(3, 9)), "model type: found 9"),
        (UNK + field(2, field(3, b"x")), "wire type 2 in field model_type"),
        (UNK + field(3, field(2, b"\0\4\0\0")), "charsmap: found a trie of 1024 bytes in 4"),
        (UNK + field(1, field(1, b"\xff")), "content behind piece 1: found 'utf-8'"),
        (UNK + b"\x0a\x05abc", "a field of 5 bytes at byte 18, where 3 are left"),
        (UNK + b"\xff" * 11, "an integer without an end"),
        (UNK + b"\x00\x00", "field number 0"),
        (UNK + b"\x0b", "wire type 3"),
    ],
)
def test_a_broken_model_is_refused_before_the_library_sees_it(data, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        parse_sentencepiece(data, "broken.model")
    assert str(caught.value).startswith("broken.model: ")
    assert "\n" not in str(caught.value)


def test_cuts_of_a_file_are_refused_or_shorter_vocabularies(toy_sentencepiece_bytes):
    for end in range(0, len(toy_sentencepiece_bytes), 7):
        try:
            assert parse_sentencepiece(toy_sentencepiece_bytes[:end], "cut.model").vocab_size <= 400
        except LlamitaError:
            continue


@pytest.mark.parametrize(
    ("name", "case"),
    [("models/stories260K/tok512.model", "tok512"), ("tokenizers/llama2/tokenizer.model", "llama2")],
)
def test_real_models_give_the_recorded_ids(shared_data, name, case):
    tokenizer = parse_sentencepiece((shared_data / name).read_bytes(), name)
    vectors = json.loads((shared_data / "reference/sentencepiece_vectors.json").read_text(encoding="utf-8"))["cases"][case]
    for vector in vectors:
        assert tokenizer.encode(vector["text"]) == vector["ids"]
        assert tokenizer.decode(vector["ids"]) == vector["decoded"]


def test_a_unigram_model_with_a_normalizer_gives_the_librarys_ids(shared_data):
    data = (shared_data / "tokenizers/sentencepiece_test/test_model.model").read_bytes()
    tokenizer, library = parse_sentencepiece(data, "test_model.model"), SentencePieceProcessor(model_proto=data)
    assert len(tokenizer.rules.charsmap) > 100_000
    for text in [*MIXED, "ⅳ ﬁ ① Å ｆｕｌｌ"]:
        assert tokenizer.encode(text) == library.encode(text)
