"""What the tokenizers library runs: ids and texts are the library's own, special tokens are only where they are asked for."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokenizers

from llamita.errors import TokenizerError
from llamita.tokenizer.byte_level import NAMES
from llamita.tokenizer.huggingface import serialize_tokenizer_json
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from mixed_text import mixed_text
from small_vocabularies import MARKS, byte_level, unigram

CHAT = "<|im_start|>user\n\nhi there<|im_end|>\n<|im_start|>"


def library_of(content: object) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@pytest.fixture(scope="module")
def small() -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(byte_level())
    return tokenizer.with_ends(tokenizer.token_id(MARKS[0]), tokenizer.token_id(MARKS[1]), adds_bos=True)


@pytest.mark.parametrize("rule", NAMES)
def test_mixed_text_has_the_librarys_ids_and_comes_back(rule):
    content = byte_level(rule)
    text = mixed_text(30_000, seed=1)
    ids = LibraryTokenizer(content).encode(text)
    assert ids == library_of(content).encode(text, add_special_tokens=False).ids
    assert LibraryTokenizer(content).decode(ids) == text


@pytest.mark.parametrize("make", [unigram, byte_level])
def test_any_content_gives_the_librarys_ids_and_texts(make):
    content = make()
    tokenizer, library = LibraryTokenizer(content), library_of(content)
    for text in ("", " ", "a", " a", "ab  a b", "aab\nab", "a </s> b", "é"):
        library.encode_special_tokens = True
        ids = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == library.decode(ids), text
        library.encode_special_tokens = False
        assert tokenizer.encode_marked(text) == library.encode(text, add_special_tokens=False).ids, text


def test_a_sentencepiece_vocabulary_by_way_of_the_library_gives_the_same_ids_and_texts(toy_sentencepiece_bytes):
    ours = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    tokenizer = LibraryTokenizer(json.loads(serialize_tokenizer_json(ours)))
    text = mixed_text(20_000, seed=2)
    assert tokenizer.adds_space
    assert tokenizer.encode(text) == ours.encode(text)
    assert tokenizer.decode(ours.encode(text)) == ours.decode(ours.encode(text))
    assert [tokenizer.piece_bytes(i) for i in range(400)] == [ours.piece_bytes(i) for i in range(400)]


def test_special_tokens_are_text_unless_the_text_is_marked(small):
    assert small.decode(small.encode(CHAT)) == CHAT
    assert not set(small.encode(CHAT)) & set(small.special_tokens.values())
    ids = small.encode_marked(CHAT)
    assert [i for i in ids if i in small.special_tokens.values()] == [702, 703, 702]
    assert small.decode(ids) == "user\n\nhi there\n"


def test_both_ways_of_encoding_may_go_on_at_once(small):
    plain, marked = small.encode(CHAT), small.encode_marked(CHAT)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(small.encode_marked if i % 2 else small.encode, CHAT) for i in range(400)]
        assert [job.result() for job in jobs] == [marked if i % 2 else plain for i in range(400)]


def test_the_ends_are_those_that_were_named(small):
    assert (small.bos_id, small.eos_id, small.adds_bos) == (700, 701, True)
    assert small.encode("a", bos=True, eos=True) == [700, *small.encode("a"), 701]
    without = small.with_ends(-1, 701, adds_bos=True)
    assert not without.adds_bos
    with pytest.raises(TokenizerError, match="BOS: found none"):
        without.encode("a", bos=True)
    with pytest.raises(TokenizerError, match="id of BOS or EOS: found 704, expected -1 to 703"):
        small.with_ends(704, 0, adds_bos=True)


def test_the_bytes_of_pieces_make_the_text_and_special_tokens_have_none(small):
    text = "naïve 日本 😀\n"
    assert b"".join(map(small.piece_bytes, small.encode(text))) == text.encode()
    assert [small.piece_bytes(i) for i in (700, 703)] == [b"", b""]
    assert sorted(small.piece_bytes(i) for i in range(256)) == [bytes([byte]) for byte in range(256)]
    with pytest.raises(TokenizerError, match="token id: found 704"):
        small.piece_bytes(704)


def test_an_added_token_that_is_not_special_is_found_in_every_text_and_decoded():
    content = byte_level(marks=("<tool>",))
    content["added_tokens"][0]["special"] = False
    tokenizer = LibraryTokenizer(content)
    assert tokenizer.encode("a<tool>") == [*tokenizer.encode("a"), 700]
    assert tokenizer.decode([700]) == "<tool>"
    assert not tokenizer.special_tokens


def test_padding_makes_ids_that_stand_for_nothing(small):
    padded = small.with_padding(768)
    assert (padded.vocab_size, small.vocab_size) == (768, 704)
    assert padded.piece_bytes(767) == b""
    assert padded.encode(CHAT) == small.encode(CHAT)
    with pytest.raises(TokenizerError, match="expected 0 to 767"):
        padded.piece_bytes(768)


def test_the_content_that_is_written_gives_the_same_ids_and_puts_bos_before_a_text(small):
    library = library_of(small.content())
    assert library.encode(CHAT).ids == [700, *small.encode_marked(CHAT)]
    assert library_of(small.with_ends(-1, -1, adds_bos=False).content()).encode(CHAT).ids == small.encode_marked(CHAT)


def test_padding_and_truncation_of_a_file_do_not_count():
    content = byte_level() | {"truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}}
    assert len(LibraryTokenizer(content).encode("one two three four")) > 2


def test_text_that_is_no_unicode_is_refused_in_one_line(small):
    with pytest.raises(TokenizerError, match="expected valid Unicode"):
        small.encode("\ud800")


def test_a_panic_of_the_library_is_an_error_of_ours():
    content = byte_level()
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a+)+$"  # takes ages on the text below
    with pytest.raises(TokenizerError, match="the tokenizers library refuses"):
        LibraryTokenizer(content).encode("a" * 40 + "b")


@pytest.mark.parametrize("n_characters", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_real_tokenizer_json_gives_the_librarys_ids(shared_data, n_characters):
    path = shared_data / "tokenizers/mistral_hf_json/tokenizer.json"
    content, library = json.loads(path.read_text(encoding="utf-8")), tokenizers.Tokenizer.from_file(str(path))
    tokenizer, text = LibraryTokenizer(content), mixed_text(n_characters)
    library.encode_special_tokens = True
    ids = tokenizer.encode(text)
    assert ids == library.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text.replace("▁", " ")
