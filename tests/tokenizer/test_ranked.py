"""A sentencepiece-style tokenizer.json back to pieces with scores: the same ids, or a refusal."""

import json
from typing import Any

import pytest

from llamita.errors import TokenizerError
from llamita.tokenizer.conversion import to_llama2c, to_sentencepiece
from llamita.tokenizer.huggingface import serialize_tokenizer_json
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.sentencepiece import CONTROL, UNKNOWN, USER_DEFINED, SentencePieceTokenizer, parse_sentencepiece
from mixed_text import mixed_text
from small_vocabularies import FLAGS, METASPACE, byte_level, unigram


@pytest.fixture(scope="module")
def toy(toy_sentencepiece_bytes) -> SentencePieceTokenizer:
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


@pytest.fixture
def content(toy) -> dict[str, Any]:
    return json.loads(serialize_tokenizer_json(toy))


def test_pieces_and_rules_come_back_and_scores_rank_alike(toy, content):
    scored = to_sentencepiece(LibraryTokenizer(content).with_ends(1, 2, adds_bos=True))
    assert (scored.pieces, scored.types, scored.rules) == (toy.pieces, toy.types, toy.rules)
    assert (scored.bos_id, scored.eos_id, scored.adds_bos) == (1, 2, True)
    text = mixed_text(20_000, seed=4)
    assert scored.encode(text) == toy.encode(text)


def test_the_order_of_pairs_that_make_one_piece_does_not_count(toy, content):
    merges = content["model"]["merges"]
    content["model"]["merges"] = sorted(merges, key=lambda pair: (-toy.scores[toy.pieces.index("".join(pair))], len(pair[0])))
    assert content["model"]["merges"] != merges
    assert to_sentencepiece(LibraryTokenizer(content)).encode("once upon a time") == toy.encode("once upon a time")


def test_spaces_may_be_written_by_the_pre_tokenizer(content):
    content |= {"normalizer": None, "pre_tokenizer": METASPACE, "decoder": METASPACE}
    assert to_sentencepiece(LibraryTokenizer(content)).rules.add_dummy_prefix
    content["pre_tokenizer"] = METASPACE | {"prepend_scheme": "never"}
    assert not to_sentencepiece(LibraryTokenizer(content)).rules.add_dummy_prefix


def test_added_tokens_keep_their_kind_and_padding_its_number(content):
    added = [{"id": 400 + i, "content": text, **FLAGS, "special": i == 0} for i, text in enumerate(("<|im_end|>", "<tool>"))]
    content["added_tokens"] += added
    tokenizer = LibraryTokenizer(content).with_padding(448)
    scored = to_sentencepiece(tokenizer)
    assert (scored.types[0], scored.types[400:]) == (UNKNOWN, [CONTROL, USER_DEFINED])
    assert scored.vocab_size == 448
    assert scored.encode_marked("a<tool><|im_end|>") == tokenizer.encode_marked("a<tool><|im_end|>")
    assert (scored.piece_bytes(401), scored.piece_bytes(447)) == (b"<tool>", b"")


def test_it_becomes_a_tokenizer_bin(toy, content):
    converted = to_llama2c(LibraryTokenizer(content).with_ends(1, 2, adds_bos=True))
    assert converted.pieces == to_llama2c(toy).pieces
    assert converted.encode("Tom said: play!") == to_llama2c(toy).encode("Tom said: play!")


def test_any_order_of_pieces_gives_scores(content):
    content["model"]["merges"] = content["model"]["merges"][::-1]
    tokenizer, text = LibraryTokenizer(content), mixed_text(5_000, seed=5)
    assert to_sentencepiece(tokenizer).encode(text) == tokenizer.encode(text)


def test_a_list_without_one_of_the_pairs_is_refused(content):
    del content["model"]["merges"][0]
    with pytest.raises(TokenizerError, match="merges: found an order that no scores of pieces give"):
        to_sentencepiece(LibraryTokenizer(content))


def test_pieces_that_take_turns_in_the_list_are_refused(content):
    merges = content["model"]["merges"]
    joined = list(map("".join, merges))
    first = next(i for i, piece in enumerate(joined) if joined.count(piece) == 2)
    merges.insert(first + 1, merges.pop(first + 2))
    with pytest.raises(TokenizerError, match=r"scores: found .* for both"):
        to_sentencepiece(LibraryTokenizer(content))


def test_other_kinds_are_refused_by_what_they_are(content):
    with pytest.raises(TokenizerError, match="tokenizer: found byte-level pieces, expected byte pairs"):
        to_sentencepiece(LibraryTokenizer(byte_level()))
    with pytest.raises(TokenizerError, match="tokenizer: found no byte pairs"):
        to_sentencepiece(LibraryTokenizer(unigram()))
    with pytest.raises(TokenizerError, match="normalizer or pre_tokenizer: found unusual ones"):
        to_sentencepiece(LibraryTokenizer(content | {"normalizer": {"type": "NFKC"}}))


@pytest.mark.parametrize("n_characters", [30_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_real_vocabulary_of_pairs_gives_the_same_ids_from_scores(shared_data, n_characters):
    path = shared_data / "tokenizers/mistral_hf_json/tokenizer.json"
    tokenizer = LibraryTokenizer(json.loads(path.read_text(encoding="utf-8")))
    text = mixed_text(n_characters)
    assert to_sentencepiece(tokenizer).encode(text) == tokenizer.encode(text)
