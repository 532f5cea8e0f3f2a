"""Vocabularies inside GGUF files, both kinds and both ways: ids are llama.cpp's, and what is broken is named."""

import json
from pathlib import Path

import pytest

from llamita.errors import ModelFileError, TokenizerError
from llamita.files import map_file
from llamita.formats.gguf_file import parse_header
from llamita.formats.gguf_vocabulary import read_vocabulary, vocabulary_metadata
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.byte_level import NAMES
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.llama2c import parse_tokenizer_bin
from llamita.tokenizer.sentencepiece import BPE, UNIGRAM, Rules, SentencePieceTokenizer, parse_sentencepiece
from mixed_text import mixed_text
from small_vocabularies import MARKS, byte_level
from smollm2 import smollm2_file

TEXT = mixed_text(5_000, seed=6)


def metadata_of(path: Path) -> dict[str, object]:
    """All metadata of a GGUF file; the gguf library, with which test_gguf_file.py compares, takes seconds for a vocabulary."""
    return dict(parse_header(path, map_file(path)).metadata)


def read(metadata: dict[str, object]) -> Tokenizer:
    tokenizer = read_vocabulary(metadata, "model.gguf")
    assert tokenizer is not None
    return tokenizer


def named(**fields: object) -> dict[str, object]:
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


@pytest.fixture(scope="module")
def toy(toy_sentencepiece_bytes) -> SentencePieceTokenizer:
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


@pytest.fixture(scope="module")
def bytes_tokenizer() -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(byte_level("smollm"))
    return tokenizer.with_ends(tokenizer.token_id(MARKS[2]), tokenizer.token_id(MARKS[3]), adds_bos=False)


def test_a_sentencepiece_vocabulary_comes_back(toy):
    again = read(vocabulary_metadata(toy, 400))
    assert isinstance(again, SentencePieceTokenizer)
    assert (again.pieces, again.scores, again.types) == (toy.pieces, toy.scores, toy.types)
    assert (again.bos_id, again.eos_id, again.adds_bos, again.adds_space) == (1, 2, True, True)
    assert again.encode(TEXT) == toy.encode(TEXT)


def test_the_metadata_are_those_of_llama_cpps_conversion(toy):
    metadata = vocabulary_metadata(to_llama2c(toy), 402)
    assert metadata.pop("tokenizer.ggml.tokens") == [*toy.pieces, "[PAD400]", "[PAD401]"]
    assert metadata.pop("tokenizer.ggml.scores") == [*toy.scores, -10000.0, -10000.0]
    assert metadata.pop("tokenizer.ggml.token_type") == [2, 3, 3] + [6] * 256 + [1] * 141 + [5, 5]
    assert metadata == named(
        model="llama", pre="default", unknown_token_id=0, add_space_prefix=True, add_bos_token=True, add_eos_token=False,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def test_squeezed_spaces_are_said(toy):
    rules = Rules(BPE, byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=True)
    squeezing = SentencePieceTokenizer(toy.pieces, toy.scores, toy.types, rules, adds_bos=False)
    again = read(vocabulary_metadata(squeezing, 400))
    assert (again.adds_space, again.adds_bos) == (False, False)
    assert again.encode("a   b ") == squeezing.encode("a b") == squeezing.encode("a   b ")


def test_what_llama_cpp_cannot_merge_is_not_written(toy):
    types = [kind if kind != 6 else 1 for kind in toy.types]
    with pytest.raises(TokenizerError, match="found one without byte pairs"):
        vocabulary_metadata(SentencePieceTokenizer(toy.pieces, toy.scores, types, Rules(UNIGRAM)), 400)
    with pytest.raises(TokenizerError, match="found a text that is normalized first"):
        vocabulary_metadata(SentencePieceTokenizer(toy.pieces, toy.scores, types, Rules(BPE, whitespace_as_suffix=True)), 400)


def test_types_and_special_ids_may_be_missing(toy):
    metadata = vocabulary_metadata(toy, 400)
    for name in ("token_type", "unknown_token_id", "bos_token_id", "add_bos_token", "add_space_prefix", "pre"):
        del metadata[f"tokenizer.ggml.{name}"]
    metadata["tokenizer.ggml.eos_token_id"] = 2
    again = read(metadata)
    assert isinstance(again, SentencePieceTokenizer)
    assert again.types[:4] == [2, 1, 3, 6]  # no type says that id 1 is BOS, which llama.cpp supposes
    assert again.encode(TEXT) == toy.encode(TEXT)


def test_a_special_id_outside_the_vocabulary_counts_as_none(toy):
    absent = named(padding_token_id=4294967295, bos_token_id=400, eos_token_id=4294967295)
    again = read(vocabulary_metadata(toy, 400) | absent)
    assert (again.bos_id, again.eos_id) == (1, 2)  # llama.cpp's defaults


@pytest.mark.parametrize("rule", NAMES)
def test_a_byte_level_vocabulary_comes_back(rule):
    tokenizer = LibraryTokenizer(byte_level(rule)).with_ends(700, 701, adds_bos=True)
    metadata = vocabulary_metadata(tokenizer, 704)
    again = read(metadata)
    assert metadata["tokenizer.ggml.pre"] == rule
    assert (again.bos_id, again.eos_id, again.adds_bos) == (700, 701, True)
    assert again.special_tokens == tokenizer.special_tokens
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert vocabulary_metadata(again, 704) == metadata


def test_an_alias_is_read_as_the_same_rule(bytes_tokenizer):
    metadata = vocabulary_metadata(bytes_tokenizer, 704) | named(pre="starcoder")
    assert read(metadata).encode(TEXT) == bytes_tokenizer.encode(TEXT)


def test_unused_tokens_at_the_end_are_padding(bytes_tokenizer):
    metadata = vocabulary_metadata(bytes_tokenizer, 768)
    assert metadata["tokenizer.ggml.tokens"][-1] == "[PAD767]"  # pyright: ignore[reportIndexIssue]
    again = read(metadata)
    assert again.vocab_size == 768
    assert again.piece_bytes(767) == b""
    assert again.encode_marked("<|im_start|>a") == bytes_tokenizer.encode_marked("<|im_start|>a")
    assert vocabulary_metadata(again, 768) == metadata


def test_special_tokens_may_come_first_and_user_defined_ones_are_text():
    content = byte_level("gpt-2", marks=())
    pieces = {"<|endoftext|>": 0, "<tool>": 1} | {piece: i + 2 for piece, i in content["model"]["vocab"].items()}
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    tokenizer = read(
        named(
            model="gpt2", pre="gpt-2", tokens=list(pieces), token_type=[3, 4] + [1] * 700, merges=merges,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    plain = LibraryTokenizer(content)
    assert tokenizer.encode("a<tool><|endoftext|>")[:2] == [plain.encode("a")[0] + 2, 1]
    assert tokenizer.encode_marked("<|endoftext|><tool>b") == [0, 1, plain.encode("b")[0] + 2]
    assert tokenizer.decode([0, 1]) == "<tool>"


def test_llama_3s_rule_puts_bos_before_a_text_unless_the_file_says_no():
    metadata = vocabulary_metadata(LibraryTokenizer(byte_level()).with_ends(700, 701, adds_bos=False), 704)
    assert not read(metadata).adds_bos
    del metadata["tokenizer.ggml.add_bos_token"]
    assert read(metadata).adds_bos


def test_another_way_of_cutting_or_normalizing_is_not_written():
    content = byte_level()
    content["normalizer"] = {"type": "NFC"}
    with pytest.raises(TokenizerError, match="pre_tokenizer or normalizer: found unusual ones, expected those of llama-bpe, "):
        vocabulary_metadata(LibraryTokenizer(content), 704)


def test_no_vocabulary_is_none():
    assert read_vocabulary({}, "model.gguf") is None
    assert read_vocabulary(named(model="no_vocab"), "model.gguf") is None


HOSTILE = {
    "model": ["bert", 3, None, ["llama"]],
    "pre": ["deepseek-llm", "default", None, 7, ["llama-bpe"]],
    "tokens": [[], None, "abc", [1, 2], ["a", b"b"], ["a"] * 704, ["\ud800"] * 704],
    "token_type": [[1] * 703, [1.0] * 704, [True] * 704, 5, [9] * 704, [5] * 704],
    "merges": [[], None, ["a b c"], ["ab"], [["a", "b"]], ["zz zz"], [""]],
    "add_bos_token": [1, "yes", None],
}
HOSTILE_SENTENCEPIECE = {
    "tokens": [[], ["a"] * 400, [""] * 400, ["\ud800"] + ["a"] * 399, 7],
    "scores": [[0.0] * 399, [1] * 400, [float("nan")] * 400, None, ["0"] * 400],
    "token_type": [[1] * 399, [7] * 400, [2] * 400, [6] * 400, [-1] * 400, "x"],
    "add_space_prefix": [0, None, "no"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in HOSTILE.items() for value in values])
def test_a_broken_byte_level_vocabulary_is_refused_in_one_line(bytes_tokenizer, name, value, capfd):
    assert_refused(vocabulary_metadata(bytes_tokenizer, 704) | named(**{name: value}), capfd)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in HOSTILE_SENTENCEPIECE.items() for value in values]
)
def test_a_broken_sentencepiece_vocabulary_is_refused_in_one_line(toy, name, value, capfd):
    assert_refused(vocabulary_metadata(toy, 400) | named(**{name: value}), capfd)


def assert_refused(metadata: dict[str, object], stderr: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelFileError, match=r"^model.gguf: tokenizer.ggml.\w+: found ") as caught:
        read_vocabulary(metadata, "model.gguf")
    assert len(str(caught.value)) < 400
    assert stderr.readouterr().err == ""


def test_the_real_story_model_has_the_ids_of_its_tokenizer_bin(shared_data):
    folder = shared_data / "models/stories260K"
    metadata = metadata_of(folder / "stories260K.gguf")  # its padding id is -1
    tokenizer = read(metadata)
    expected = parse_tokenizer_bin((folder / "tok512.bin").read_bytes(), "tok512.bin")
    text = TEXT.replace("\u2581", "")  # of which sentencepiece makes a space, and run.c does not
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (512, 1, 2, True)
    assert tokenizer.encode(text) == expected.encode(text)
    for name in ("tokens", "scores", "token_type"):
        assert vocabulary_metadata(expected, 512)[f"tokenizer.ggml.{name}"] == metadata[f"tokenizer.ggml.{name}"], name


def test_llama_cpps_own_vocabulary_gives_its_ids_and_is_written_as_it_is(shared_data):
    path = shared_data / "tokenizers/llamacpp_vocab/ggml-vocab-llama-spm.gguf"
    metadata = metadata_of(path)
    tokenizer = read(metadata)
    texts = path.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text(encoding="utf-8").split("\n")
    assert len(texts) == len(lines) > 40
    for text, line in zip(texts, lines, strict=True):
        assert tokenizer.encode(text) == list(map(int, line.split())), text
    written = vocabulary_metadata(tokenizer, 32000)
    assert written.pop("tokenizer.ggml.add_space_prefix") is True
    assert written == {name: metadata[name] for name in written}


def test_smollm2_has_the_ids_of_llama_cpp_and_is_written_as_it_is(shared_data):
    metadata = metadata_of(smollm2_file())
    tokenizer = read(metadata)
    for vector in json.loads((shared_data / "reference/smollm2_llamacpp_tokenize.json").read_text(encoding="utf-8")):
        assert tokenizer.encode(vector["text"]) == vector["ids"]
        assert tokenizer.encode_marked(vector["text"]) == vector["ids_special"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (1, 2, False)
    written = vocabulary_metadata(tokenizer, 49152)
    assert written.pop("tokenizer.ggml.add_eos_token") is False
    assert written == {name: metadata[name] for name in written}
