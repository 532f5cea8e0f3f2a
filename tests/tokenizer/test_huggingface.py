"""tokenizer.json: the `tokenizers` library gives sentencepiece's ids for any text, or we refuse to write the file."""

import io
import json
import random
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import llamita
from conftest import TOY_TEXT
from llamita.errors import TokenizerError
from llamita.formats import read_tokenizer, write_tokenizer
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.huggingface import serialize_tokenizer_json
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer
from llamita.tokenizer.merges import MAX_PIECE_CHARACTERS, merges_of
from llamita.tokenizer.sentencepiece import (
    BPE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Rules,
    SentencePieceTokenizer,
    parse_sentencepiece,
)

# sentencepiece's options: the vocabularies differ in what decides ids
OPTIONS = {
    "llama2.c's": {},
    "no bytes": {"byte_fallback": False},
    "no space in front": {"add_dummy_prefix": False},
    "squeezed spaces": {"remove_extra_whitespaces": True},
    "pieces across words": {"split_by_whitespace": False, "max_sentencepiece_length": 24},
    "digits and letters together": {"split_digits": False, "split_by_number": False, "split_by_unicode_script": False},
    "other special ids": {"unk_id": 3, "bos_id": 0, "eos_id": 1, "pad_id": 2},
    "no BOS": {"bos_id": -1},
}
REPEATING = ["aaaa aaaaaaa bababab abababbab", "   a  b    c     ", "1111 222222 1212121"]
SPECIAL = ("<s>", "</s>", "<unk>", "<pad>")

characters = st.one_of(st.sampled_from("ab  ▁1.é日😀\n"), st.characters(exclude_categories=["Cs"]))
words = st.sampled_from([*"".join(TOY_TEXT).split(), *REPEATING, " ", "  ", "\t", "<0x41>", "<", "▁▁", *"aAb12▁"])
texts = st.one_of(st.lists(characters).map("".join), st.lists(words).map("".join), st.lists(words).map(" ".join))


@cache
def learned(name: str) -> SentencePieceTokenizer:
    """A small vocabulary learned with these options."""
    from sentencepiece import SentencePieceTrainer

    options = {"remove_extra_whitespaces": False, "byte_fallback": True, "split_digits": True, **OPTIONS[name]}
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter((TOY_TEXT + REPEATING) * 4), model_writer=model, model_type="bpe", vocab_size=450,
        character_coverage=1.0, allow_whitespace_only_pieces=True, normalization_rule_name="identity", num_threads=1,
        minloglevel=2, hard_vocab_limit=False, **options,
    )  # fmt: skip
    return parse_sentencepiece(model.getvalue(), name)


@cache
def library_of(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(serialize_tokenizer_json(tokenizer).decode())


def assert_agrees(tokenizer: Tokenizer, text: str) -> None:
    """The library's ids of a text and its text of the ids are ours; a text that spells a special token is not compared."""
    if any(piece in text for piece in SPECIAL):
        return
    ids = tokenizer.encode(text, bos=tokenizer.bos_id >= 0)
    library = library_of(tokenizer)
    assert library.encode(text).ids == ids, repr(text)
    assert library.decode(ids) == tokenizer.decode(ids), repr(text)


def of_pieces(scores: dict[str, float], kind: int = NORMAL, rules: Rules | None = None) -> SentencePieceTokenizer:
    """A vocabulary of special tokens, the characters a, b and c, and these pieces, the last of which is of the given kind."""
    rules = rules or Rules(model_type=BPE, remove_extra_whitespaces=False)
    entries = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    entries += [(character, -100.0 - i, NORMAL) for i, character in enumerate("▁abc")]
    entries += [(piece, score, NORMAL) for piece, score in scores.items()]
    entries[-1] = (*entries[-1][:2], kind)
    pieces, values, types = map(list, zip(*entries, strict=True))
    return SentencePieceTokenizer(pieces, values, types, rules)


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_any_text_has_the_ids_of_sentencepiece(name, text):
    assert_agrees(learned(name), text)


@settings(max_examples=150, deadline=None)
@given(text=texts.filter(lambda text: "▁" not in text))
def test_any_text_has_the_ids_of_run_c(text):
    assert_agrees(converted(), text)


@cache
def converted() -> Llama2cTokenizer:
    return to_llama2c(learned("llama2.c's"))


@settings(max_examples=300, deadline=None)
@given(text=st.text("ab ", max_size=40))
def test_pieces_that_overlap_themselves_are_merged_from_the_left(text):
    assert_agrees(learned("llama2.c's"), text)
    assert_agrees(learned("pieces across words"), text)


def test_pieces_in_any_order_and_of_any_score_merge_alike():
    rng = random.Random(0)
    for _ in range(50):
        pieces = sorted({"".join(rng.choices("▁abc", k=rng.randrange(2, 6))) for _ in range(12)})
        scores = rng.sample(range(-90, 0), len(pieces))
        vocabulary = of_pieces(dict(zip(pieces, map(float, scores), strict=True)))
        for _ in range(20):
            assert_agrees(vocabulary, "".join(rng.choices(" abc", k=rng.randrange(20))))


@pytest.mark.parametrize("name", ["bundled", "tokenizers/llama2/tokenizer.model", "models/stories260K/tok512.model"])
def test_real_text_has_the_ids_of_sentencepiece(shared_data, name):
    bundled = Path(llamita.__file__).parent / "bundled/stories/tokenizer.model"
    tokenizer = read_tokenizer(bundled if name == "bundled" else shared_data / name)
    for path in ("tinystories/toyrnn.txt", "grimm/stories.jsonl", "tinyshakespeare/input.txt"):
        text = next(iter((shared_data / "text").glob(path.replace("toyrnn.txt", "*toyrnn*")))).read_text(encoding="utf-8")
        for start in range(0, 200_000, 20_000):
            assert_agrees(tokenizer, text[start : start + 20_000])
    for n in range(1, 70):  # Llama 2's runs of spaces have equal scores
        assert_agrees(tokenizer, f"a{' ' * n}b" + " " * n)


def test_the_vocabulary_of_llama_2_is_written_in_two_seconds(shared_data):
    tokenizer = read_tokenizer(shared_data / "tokenizers/llama2/tokenizer.model")
    started = time.process_time()
    serialize_tokenizer_json(tokenizer)
    assert time.process_time() - started < 2


def test_the_file_is_written_by_its_name(tmp_path, toy_sentencepiece_bytes):
    tokenizer = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    write_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.get_vocab_size() == tokenizer.vocab_size
    assert all(library.id_to_token(i) == piece for i, piece in enumerate(tokenizer.pieces))


def test_special_tokens_are_known_as_such(toy_sentencepiece_bytes):
    library = library_of(parse_sentencepiece(toy_sentencepiece_bytes, "toy.model"))
    assert library.encode("<s>").ids == [1, 1]  # where sentencepiece reads the characters; see serialize_tokenizer_json
    assert library.encode("a", "b").ids == [1, *library.encode("a").ids[1:], 1, *library.encode("b").ids[1:]]
    assert library.decode([1, 2, 0]) == ""


def test_pairs_stand_in_the_order_of_their_pieces_scores():
    vocabulary = of_pieces({"ab": -2.0, "bc": -1.0, "abc": -3.0, "cab": -0.5})
    assert merges_of(vocabulary) == [("c", "ab"), ("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]


def test_special_and_byte_pieces_take_no_part_in_merging():
    byte_pieces = {f"<0x{byte:02X}>": 0.0 for byte in range(256)}
    vocabulary = of_pieces({"ab": -1.0, **byte_pieces})
    types = [6 if piece in byte_pieces else kind for piece, kind in zip(vocabulary.pieces, vocabulary.types, strict=True)]
    rules = replace(vocabulary.rules, byte_fallback=True)
    assert merges_of(SentencePieceTokenizer(vocabulary.pieces, vocabulary.scores, types, rules)) == [("a", "b")]


def test_runs_of_one_character_may_have_equal_scores():
    assert len(merges_of(of_pieces({"▁▁": -9.0, "▁▁▁▁": -9.0, "▁a": -3.0}))) == 3
    assert_agrees(of_pieces({"aa": -9.0, "aaaa": -9.0, "ab": -3.0}), "aaaaaaab aaa aaaaaa")


REFUSED = {
    "equal scores": (of_pieces({"ab": -1.0, "bc": -1.0}), "scores: found -1 for both ab and bc"),
    "runs of two characters with equal scores": (of_pieces({"aa": -1.0, "bb": -1.0}), "scores: found -1 for both"),
    "user-defined pieces": (of_pieces({"ab": 0.0}, USER_DEFINED), "piece ab: found a user-defined one"),
    "unused pieces": (of_pieces({"ab": 0.0}, UNUSED), "piece ab: found an unused one"),
    "a character without a piece": (of_pieces({"ad": -1.0}), "piece ad: found no piece for its character 'd'"),
    "an endless piece": (of_pieces({"a" * (MAX_PIECE_CHARACTERS + 1): -1.0}), "piece: found 1025 characters"),
    "no byte pairs": (of_pieces({"ab": -1.0}, rules=Rules(model_type=UNIGRAM)), "without byte pairs"),
    "suffixes": (of_pieces({"ab": -1.0}, rules=Rules(BPE, whitespace_as_suffix=True)), "text that is normalized first"),
    "bytes that are no text": (Llama2cTokenizer([b"<unk>", BOS_PIECE, EOS_PIECE, b"\xff"], [0.0] * 4), "expected UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_vocabulary_that_pairs_cannot_express_is_refused(name):
    vocabulary, message = REFUSED[name]
    with pytest.raises(TokenizerError, match=message):
        serialize_tokenizer_json(vocabulary)


def test_the_same_vocabulary_gives_the_same_bytes(toy_sentencepiece_bytes):
    first, second = (parse_sentencepiece(toy_sentencepiece_bytes, "toy.model") for _ in range(2))
    assert serialize_tokenizer_json(first) == serialize_tokenizer_json(second)
    assert json.loads(serialize_tokenizer_json(first))["version"] == "1.0"
