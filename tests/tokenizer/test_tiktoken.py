"""Llama 3's tokenizer.model: ids as tiktoken gives them, and Meta's special tokens behind the ranks."""

import base64
import hashlib
import json
import struct

import pytest

from llamita.errors import ModelFileError
from llamita.tokenizer.byte_level import bytes_of
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.tiktoken import is_tiktoken, parse_tiktoken
from mixed_text import mixed_text
from small_vocabularies import learned

# SHA-256 of the ids that tiktoken 0.14.0 gives for mixed_text, each id four bytes
TIKTOKENS_IDS = {
    50_000: "e9056ef231da9c52c18af6d35bee0310afc4b2701e7bb03df8ef5f5292c9427f",
    1_000_000: "3dfe0c8dfa0707d4e319e8e6b988b1b095d2fd110e9125b712e7c07ff526696c",
}


def small_file() -> bytes:
    """The small vocabulary as tiktoken writes one."""
    pieces, _ = learned()
    return b"".join(
        base64.b64encode(bytes_of(piece)) + b" %d\n" % rank for rank, piece in enumerate(sorted(pieces, key=pieces.__getitem__))
    )


def merged(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's merging, plainly: of all neighbours those whose bytes have the lowest rank, until none have any."""
    if word in ranks:
        return [ranks[word]]
    parts = [bytes([byte]) for byte in word]
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(map(bytes.__add__, parts, parts[1:])) if pair in ranks]
        if not found:
            return [ranks[part] for part in parts]
        i = min(found)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.fixture(scope="module")
def small() -> LibraryTokenizer:
    return parse_tiktoken(small_file(), "small.model")


@pytest.fixture(scope="module")
def llama3(shared_data) -> LibraryTokenizer:
    return parse_tiktoken((shared_data / "tokenizers/llama3/tokenizer.model").read_bytes(), "tokenizer.model")


def test_words_are_merged_by_rank(small):
    ranks = {bytes_of(piece): rank for piece, rank in learned()[0].items()}
    for word in set(mixed_text(20_000, seed=3).split()) | {"aaaaaaa", "anananananana", "hahahaha", "======"}:
        if word.isascii() and word.isalpha():
            assert small.encode(word) == merged(word.encode(), ranks), word


def test_special_tokens_stand_behind_the_ranks(small):
    assert small.vocab_size == 700 + 256
    assert (small.bos_id, small.eos_id, small.adds_bos) == (700, 701, True)
    assert small.encode_marked("<|start_header_id|>a<|end_header_id|><|eot_id|>") == [706, *small.encode("a"), 707, 709]
    assert small.special_tokens["<|reserved_special_token_245|>"] == 955


def test_the_content_may_be_recognised_and_lines_may_end_as_on_windows(small):
    windows = small_file().replace(b"\n", b"\r\n")
    assert is_tiktoken(windows)
    assert parse_tiktoken(windows, "small.model").encode("a b c") == small.encode("a b c")
    assert not is_tiktoken(b"\x0a\x0e")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"IQ== 0\nIg== 2\n", 2),
        (b"IQ== 0\nIg=== 1\n", 2),
        (b"IQ== 0\nI 1\n", 2),
        (b"IQ== 0\n\n", 2),
        (b"IQ== 0 0\n", 1),
        (b"IQ== 0\nIg== 1" + b"x" * 100, 2),
        (b"IQ== 00000000\n", 1),
        (base64.b64encode(bytes(2000)) + b" 0\n", 1),
    ],
)
def test_a_line_that_is_no_token_and_its_rank_is_named(content, line):
    with pytest.raises(ModelFileError, match=rf"small.model: line {line}: found b'.*expected a token in base64 and the rank"):
        parse_tiktoken(content, "small.model")


def test_a_token_twice_is_refused():
    with pytest.raises(ModelFileError, match=r"small.model: content: "):
        parse_tiktoken(b"IQ== 0\nIQ== 1\n", "small.model")


def test_llama_3_gives_the_recorded_ids(shared_data, llama3):
    cases = json.loads((shared_data / "reference/hf_tokenizers_vectors.json").read_text(encoding="utf-8"))["cases"]
    for vector in cases["llama3_1_hf"]:
        assert llama3.encode_marked(vector["text"]) == vector["ids_nospecial"]
        assert [llama3.bos_id, *llama3.encode_marked(vector["text"])] == vector["ids"]
    assert llama3.vocab_size == 128256


@pytest.mark.parametrize("n_characters", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_llama_3_gives_the_ids_of_tiktoken(llama3, n_characters):
    text = mixed_text(n_characters)
    ids = llama3.encode(text)
    assert hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest() == TIKTOKENS_IDS[n_characters]
    assert llama3.decode(ids) == text
