"""Many documents at once: the same ids as one text after the other, and as the sentencepiece library."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from llamita.data.encode import DocumentEncoder, token_dtype, word_rules
from llamita.errors import TokenizerError
from llamita.formats import read_tokenizer
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.learn import learn
from llamita.tokenizer.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Rules,
    SentencePieceTokenizer,
    serialize_sentencepiece,
)

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# what merging, spaces and line ends could stumble over, beside any character at all
NASTY = [
    "\n",
    "\n\n",
    " \n",
    "\n ",
    " ",
    "  ",
    "   ",
    "\t",
    "\r\n",
    "▁",
    "a▁b",
    "\0",
    "<s>",
    "</s>",
    "<unk>",
    "<0x0A>",
    "\u00a0",
]
WORDS = ["Once", "upon", "a", "time", "the", "girl", ".", "1000", "😀", "日本", "é", "\u2028", "ab", "abc", "cab"]
TEXTS = st.lists(st.one_of(st.sampled_from(NASTY + WORDS), st.text(max_size=3)), max_size=30).map("".join)


def hand_made(pieces: list[str], kinds: dict[str, int] | None = None, **rules) -> SentencePieceTokenizer:
    """A vocabulary of bytes, these pieces, and nothing else; the earlier, the likelier merged."""
    kinds = kinds or {}
    names = ["<unk>", "<s>", "</s>", *BYTES, *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[kinds.get(piece, NORMAL) for piece in pieces]]
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    settings_ = {"model_type": 2, "byte_fallback": True, "remove_extra_whitespaces": False} | rules
    return SentencePieceTokenizer(names, scores, types, Rules(**settings_))


@cache
def vocabularies() -> dict[str, Tokenizer]:
    text = ["Once upon a time the girl said 1000 words.", "  a cab  at the  time", "abc é 日本", "\ttabs\tand more"]
    learned = learn(text, 300)
    characters = list("▁abc\n.")
    return {
        "learned": learned,
        "tokenizer.bin": to_llama2c(learned),
        "squeezing": hand_made(["▁a", "ab", "▁▁", *characters], remove_extra_whitespaces=True),
        "with runs of spaces": hand_made(["▁▁", "▁▁▁", "▁▁a", "▁a", "▁▁▁▁", *characters]),
        "with pieces over line ends": hand_made([".\n", "\n\n", "▁\n", "\na", *characters]),
        "with line ends at beginnings": hand_made(["\na", "\nab", *characters]),
        "with pieces over words": hand_made(["a▁", "b▁a", *characters]),
        "without a space": hand_made(["ab", "bc", *list("abc\n.")]),
        "with pieces to be taken whole": hand_made(["ab▁c", "▁ab", *characters], {"ab▁c": USER_DEFINED}),
        "without a space in front": hand_made(["▁a", "ab", *characters], add_dummy_prefix=False),
        "with spaces behind words": hand_made(["a▁", *characters], whitespace_as_suffix=True),
    }


def plain(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return [token_id for text in texts for token_id in tokenizer.encode(text, bos=True)]


@pytest.mark.parametrize("name", list(vocabularies()))
@given(texts=st.lists(TEXTS, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nasty_texts_get_the_ids_that_each_gets_alone(name: str, texts: list[str]):
    tokenizer = vocabularies()[name]
    assert DocumentEncoder(tokenizer).encode(texts).tolist() == plain(tokenizer, texts)


@pytest.mark.parametrize("name", list(vocabularies()))
def test_blanks_of_every_kind_get_the_ids_that_each_text_gets_alone(name: str):
    tokenizer = vocabularies()[name]
    blanks = ["", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "  \n  ", "\t", "▁", " ▁"]
    texts = [f"{before}a{blank}b{after}" for before in blanks for blank in blanks for after in blanks] + blanks
    assert DocumentEncoder(tokenizer).encode(texts).tolist() == plain(tokenizer, texts)


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_nasty_texts_get_sentencepieces_own_ids(texts: list[str]):
    tokenizer = vocabularies()["learned"]
    assert isinstance(tokenizer, SentencePieceTokenizer)
    library = SentencePieceProcessor(model_proto=serialize_sentencepiece(tokenizer))
    expected = [token_id for text in texts for token_id in [library.bos_id(), *library.encode(text)]]
    assert DocumentEncoder(tokenizer).encode(texts).tolist() == expected


def test_words_are_remembered_only_where_no_piece_crosses_them():
    cut = {name: word_rules(tokenizer) for name, tokenizer in vocabularies().items()}
    uncut = {"with pieces over words", "without a space", "with pieces to be taken whole"}
    uncut |= {"without a space in front", "with spaces behind words"}
    assert {name for name, rules in cut.items() if rules is None} == uncut
    over_lines = {name for name, rules in cut.items() if rules and not rules.cuts_lines}
    assert over_lines == {"with pieces over line ends"}


def test_forgetting_words_changes_no_id(monkeypatch):
    monkeypatch.setattr("llamita.data.encode._CACHED_WORDS", 10)
    monkeypatch.setattr("llamita.data.encode._KEYS_AT_ONCE", 7)
    tokenizer = vocabularies()["learned"]
    texts = ["Once upon a time\n\nthe girl said  more", "", "a\nb", "Once upon a time"] * 3
    assert DocumentEncoder(tokenizer).encode(texts).tolist() == plain(tokenizer, texts)


def test_no_documents_are_no_tokens():
    assert DocumentEncoder(vocabularies()["learned"]).encode([]).tolist() == []
    assert DocumentEncoder(vocabularies()["without a space"]).encode([]).tolist() == []


def test_ids_take_two_bytes_while_they_can():
    assert (token_dtype(65536), token_dtype(65537)) == (np.dtype("<u2"), np.dtype("<u4"))


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(TokenizerError, match="expected valid Unicode"):
        DocumentEncoder(vocabularies()["learned"]).encode(["a\ud800"])


@pytest.mark.parametrize(
    "name",
    ["tokenizers/llama2/tokenizer.model", "tokenizers/llama2/tokenizer.bin", "models/stories260K/tok512.model"],
)
def test_real_text_gets_the_ids_that_each_story_gets_alone(name: str, shared_data: Path):
    tokenizer = read_tokenizer(shared_data / name)
    stories = (shared_data / "text/tinystories/toyrnn_tinystories_sample.txt").read_text().split("<|endoftext|>")[:150]
    plays = (shared_data / "text/tinyshakespeare/input.txt").read_text()[:20_000]
    texts = [*stories, plays]
    encoder = DocumentEncoder(tokenizer)
    assert encoder.encode(texts).tolist() == encoder.encode(texts).tolist() == plain(tokenizer, texts)
