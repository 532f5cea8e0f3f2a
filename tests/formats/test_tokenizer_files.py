"""Tokenizers on disk: every kind is recognised by its content, found beside a model, padded for it, and written again."""

import base64
import json
from dataclasses import replace

import pytest

from llamita.errors import ModelError, ModelFileError, TokenizerError
from llamita.formats import read_model, read_tokenizer, write_model, write_tokenizer
from llamita.formats.tokenizer_files import find_tokenizer
from llamita.model import random_model
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.library_content import bos_template
from llamita.tokenizer.llama2c import Llama2cTokenizer
from llamita.tokenizer.sentencepiece import SentencePieceTokenizer, parse_sentencepiece
from mixed_text import mixed_text
from small_vocabularies import byte_level

TEXT = mixed_text(3_000, seed=8)
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture
def toy(toy_sentencepiece_bytes) -> SentencePieceTokenizer:
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


@pytest.fixture
def folder(tmp_path):
    """A folder with the tokenizer.json of 704 tokens."""
    write_json(tmp_path / "tokenizer.json", byte_level())
    return tmp_path


def write_json(path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def ends_of(tokenizer: Tokenizer) -> tuple[int, int, bool]:
    return tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos


def with_rows(tiny_config, vocab_size: int):
    return random_model(replace(tiny_config, vocab_size=vocab_size))


def test_a_tokenizer_json_is_read_whatever_its_name(folder):
    expected = LibraryTokenizer(byte_level()).encode(TEXT)
    assert read_tokenizer(folder / "tokenizer.json", 704).encode(TEXT) == expected
    (folder / "tokenizer.json").rename(folder / "t.model")
    assert read_tokenizer(folder / "t.model").encode(TEXT) == expected


def test_llama_3s_file_is_read_by_its_content(tmp_path):
    lines = [base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256)]
    (tmp_path / "tokenizer.model").write_bytes(b"\n".join(lines))
    tokenizer = read_tokenizer(tmp_path / "tokenizer.model")
    assert (tokenizer.vocab_size, tokenizer.bos_id) == (512, 256)
    assert tokenizer.encode("é") == [0xC3, 0xA9]


def test_a_json_by_itself_says_what_is_put_before_a_text_and_spellings_the_rest(folder):
    assert ends_of(read_tokenizer(folder / "tokenizer.json")) == (700, 701, False)
    write_json(folder / "tokenizer.json", byte_level() | {"post_processor": bos_template("<|im_start|>", 702)})
    assert ends_of(read_tokenizer(folder / "tokenizer.json")) == (702, 701, True)


def test_the_folder_says_which_tokens_stand_around_a_text(folder):
    write_json(folder / "tokenizer_config.json", {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    assert ends_of(read_tokenizer(folder / "tokenizer.json")) == (702, 703, False)
    write_json(folder / "tokenizer_config.json", {"bos_token": None, "add_bos_token": True})
    assert ends_of(read_tokenizer(folder / "tokenizer.json")) == (-1, 701, False)
    write_json(folder / "tokenizer.json", byte_level() | {"post_processor": bos_template("<|begin_of_text|>", 700)})
    write_json(folder / "tokenizer_config.json", {"add_bos_token": False})
    assert ends_of(read_tokenizer(folder / "tokenizer.json")) == (700, 701, False)


def test_the_folder_counts_for_sentencepiece_too(tmp_path, toy_sentencepiece_bytes):
    (tmp_path / "tokenizer.model").write_bytes(toy_sentencepiece_bytes)
    assert ends_of(read_tokenizer(tmp_path / "tokenizer.model")) == (1, 2, True)
    write_json(tmp_path / "tokenizer_config.json", {"add_bos_token": False, "eos_token": "<s>"})
    assert ends_of(read_tokenizer(tmp_path / "tokenizer.model")) == (1, 1, False)


def test_a_broken_json_is_refused_in_one_line(folder):
    for content in (b'{"version": "1.0"}', b"{", b'{"a":' * 10_000, b'{"model": {"vocab": {"a": 0, "a": 1}}}', b"{\xff}"):
        (folder / "tokenizer.json").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"tokenizer.json: content: found") as caught:
            read_tokenizer(folder / "tokenizer.json")
        assert len(str(caught.value)) < 400
    (folder / "tokenizer.json").write_bytes(b'{"a":[' + b"[]," * 1_100_000 + b"[]]}")
    with pytest.raises(ModelFileError, match="brackets and commas, expected at most"):
        read_tokenizer(folder / "tokenizer.json")


def test_the_json_counts_where_it_has_the_models_size_and_tokenizer_model_has_not(folder, toy_sentencepiece_bytes):
    (folder / "tokenizer.model").write_bytes(toy_sentencepiece_bytes)
    assert isinstance(find_tokenizer(folder / "model.safetensors", 704), LibraryTokenizer)
    assert isinstance(find_tokenizer(folder / "model.safetensors", 400), SentencePieceTokenizer)
    assert find_tokenizer(folder / "model.safetensors", 710) is None


def test_a_model_with_more_rows_gets_the_largest_tokenizer_padded(folder, toy_sentencepiece_bytes):
    (folder / "tokenizer.model").write_bytes(toy_sentencepiece_bytes)
    for rows, expected in ((768, LibraryTokenizer), (412, SentencePieceTokenizer)):
        tokenizer = find_tokenizer(folder / "model.safetensors", rows, may_be_padded=True)
        assert isinstance(tokenizer, expected)
        assert tokenizer.vocab_size == rows
        assert tokenizer.piece_bytes(rows - 1) == b""
    for rows in (399, 500, 703, 1000):  # fewer rows than tokens, or so many that the tokenizer must be another model's
        assert find_tokenizer(folder / "model.safetensors", rows, may_be_padded=True) is None


def test_a_tokenizer_with_too_few_tokens_is_refused_for_llama2cs_files_only(folder, tiny_config):
    write_model(with_rows(tiny_config, 720), folder / "stories.bin", "llama2c-v0")
    assert read_model(folder / "stories.bin").tokenizer is None
    with pytest.raises(ModelError, match="the tokenizer has 704 tokens, the model 720"):
        read_model(folder / "stories.bin", folder / "tokenizer.json")
    write_model(with_rows(tiny_config, 720), folder / "hf", "safetensors")
    tokenizer = read_model(folder / "hf", folder / "tokenizer.json").tokenizer
    assert tokenizer is not None
    assert tokenizer.vocab_size == 720
    write_model(with_rows(tiny_config, 700), folder / "small", "safetensors")
    with pytest.raises(ModelError, match="the tokenizer has 704 tokens, the model 700"):
        read_model(folder / "small", folder / "tokenizer.json")


def test_a_folder_comes_back_with_tokenizer_template_and_ends(folder, tiny_config, tmp_path):
    write_model(with_rows(tiny_config, 720), folder, "safetensors")
    write_json(folder / "tokenizer.json", byte_level())
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    write_json(folder / "tokenizer_config.json", special)
    write_json(folder / "generation_config.json", {"eos_token_id": [703, 701]})
    model = read_model(folder)
    assert (model.chat_template, model.stop_ids) == (TEMPLATE, (703, 701))
    write_model(model, tmp_path / "again", "safetensors")
    again = read_model(tmp_path / "again")
    assert (again.chat_template, again.stop_ids) == (model.chat_template, model.stop_ids)
    assert isinstance(again.tokenizer, LibraryTokenizer)
    assert ends_of(again.tokenizer) == (702, 703, False)
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    config = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert (config["tokenizer_class"], config["bos_token"], config["unk_token"]) == (
        "PreTrainedTokenizerFast",
        "<|im_start|>",
        None,
    )


def test_both_kinds_go_through_gguf_and_come_back_from_there(tmp_path, tiny_config, toy):
    for tokenizer in (toy, LibraryTokenizer(byte_level()).with_ends(700, 701, adds_bos=True)):
        model = replace(with_rows(tiny_config, tokenizer.vocab_size), tokenizer=tokenizer, chat_template=TEMPLATE)
        write_model(model, tmp_path / "model.gguf", "gguf", dtype="f32")
        read = read_model(tmp_path / "model.gguf")
        write_model(read, tmp_path / "model", "safetensors")
        again = read_model(tmp_path / "model")
        assert read.chat_template == again.chat_template == TEMPLATE
        for found in (read.tokenizer, again.tokenizer):
            assert isinstance(found, LibraryTokenizer | SentencePieceTokenizer | Llama2cTokenizer)
            assert ends_of(found) == ends_of(tokenizer)
            assert found.encode(TEXT.replace("▁", "")) == tokenizer.encode(TEXT.replace("▁", ""))


def test_ends_of_turns_are_known_where_files_name_none(tmp_path, tiny_config):
    write_model(with_rows(tiny_config, 704), tmp_path / "chat.bin", "llama2c-v0")
    write_json(tmp_path / "tokenizer.json", byte_level())
    assert read_model(tmp_path / "chat.bin").stop_ids == (703, 701)  # <|im_end|>, <|end_of_text|>


def test_a_byte_level_vocabulary_is_written_as_json_only(tmp_path, folder):
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    write_tokenizer(tokenizer, tmp_path / "copy.json")
    assert read_tokenizer(tmp_path / "copy.json").encode(TEXT) == tokenizer.encode(TEXT)
    for name in ("copy.model", "copy.bin"):
        with pytest.raises(TokenizerError, match="tokenizer: found byte-level pieces, expected byte pairs"):
            write_tokenizer(tokenizer, tmp_path / name)
