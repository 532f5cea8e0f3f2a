"""read_model and its relatives: the tokenizer beside a model, folders, and what does not fit."""

import shutil

import pytest

from llamita.errors import LlamitaError, ModelError, ModelFileError, SettingError
from llamita.formats import read_model, read_tokenizer, write_model, write_tokenizer
from llamita.model import random_model
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer
from llamita.tokenizer.sentencepiece import BPE, CONTROL, NORMAL, UNKNOWN, Rules, SentencePieceTokenizer

TEXTS = [b"%d" % i for i in range(100)]


def pieces(n: int) -> Llama2cTokenizer:
    return Llama2cTokenizer([b"<unk>", BOS_PIECE, EOS_PIECE, *TEXTS[: n - 3]], [0.0] * n)


def sentence_pieces(n: int) -> SentencePieceTokenizer:
    texts = ["<unk>", "<s>", "</s>", *(text.decode() for text in TEXTS[: n - 3])]
    return SentencePieceTokenizer(texts, [0.0] * n, [UNKNOWN, CONTROL, CONTROL] + [NORMAL] * (n - 3), Rules(model_type=BPE))


@pytest.fixture
def folder(tmp_path, tiny_config):
    """A folder with a model of 40 tokens and no tokenizer."""
    write_model(random_model(tiny_config), tmp_path / "stories.bin", "llama2c-v0")
    return tmp_path


@pytest.mark.parametrize("name", ["tokenizer.bin", "tokenizer.model", "stories.model", "tok40.bin", "tokens.model"])
def test_a_tokenizer_beside_the_model_is_found(folder, name):
    write_tokenizer(pieces(40), folder / name)
    tokenizer = read_model(folder / "stories.bin").tokenizer
    assert tokenizer is not None
    assert tokenizer.vocab_size == 40
    assert isinstance(tokenizer, Llama2cTokenizer if name.endswith(".bin") else SentencePieceTokenizer)


def test_without_a_tokenizer_that_fits_there_is_none(folder):
    assert read_model(folder / "stories.bin").tokenizer is None
    write_tokenizer(pieces(41), folder / "tokenizer.bin")
    assert read_model(folder / "stories.bin").tokenizer is None


def test_one_of_another_size_is_passed_over_for_the_next_in_order(folder):
    write_tokenizer(pieces(41), folder / "tokenizer.bin")
    write_tokenizer(pieces(50), folder / "tok50.bin")
    write_tokenizer(pieces(40), folder / "tok40.bin")
    write_tokenizer(sentence_pieces(40), folder / "tok40.model")
    assert isinstance(read_model(folder / "stories.bin").tokenizer, Llama2cTokenizer)
    write_tokenizer(sentence_pieces(40), folder / "tokenizer.model")
    assert isinstance(read_model(folder / "stories.bin").tokenizer, SentencePieceTokenizer)


def test_two_that_fit_equally_well_are_refused(folder):
    write_tokenizer(pieces(40), folder / "tokA.bin")
    write_tokenizer(pieces(40), folder / "tokB.bin")
    with pytest.raises(ModelFileError, match=r"tokenizer: found tokA.bin and tokB.bin, expected one"):
        read_model(folder / "stories.bin")


def test_a_broken_tokenizer_beside_the_model_is_refused(folder):
    (folder / "tokenizer.bin").write_bytes(b"\4\0\0\0abc")
    with pytest.raises(ModelFileError, match=r"tokenizer.bin: entry 0"):
        read_model(folder / "stories.bin")


def test_other_files_named_like_tokenizers_are_passed_over(folder):
    (folder / "tokens.bin").write_bytes(bytes(range(200)))
    shutil.copy(folder / "stories.bin", folder / "tokyo.bin")
    assert read_model(folder / "stories.bin").tokenizer is None
    write_tokenizer(pieces(40), folder / "tok40.bin")
    assert read_model(folder / "stories.bin").tokenizer is not None


def test_a_model_named_like_a_tokenizer_is_not_taken_for_its_own(tmp_path, tiny_config):
    write_model(random_model(tiny_config), tmp_path / "token-model.bin", "llama2c-v0")
    assert read_model(tmp_path / "token-model.bin").tokenizer is None


def test_a_named_tokenizer_counts_and_must_fit(folder):
    write_tokenizer(pieces(40), folder / "tokenizer.bin")
    write_tokenizer(sentence_pieces(40), folder / "other.model")
    write_tokenizer(pieces(41), folder / "wrong.bin")
    assert isinstance(read_model(folder / "stories.bin", folder / "other.model").tokenizer, SentencePieceTokenizer)
    with pytest.raises(ModelError, match=r"stories.bin: the tokenizer has 41 tokens, the model 40"):
        read_model(folder / "stories.bin", tokenizer=folder / "wrong.bin")
    with pytest.raises(ModelFileError, match=r"wrong.bin: vocabulary: found 41 tokens, expected 40"):
        read_tokenizer(folder / "wrong.bin", 40)


def test_a_folder_with_a_model_bin_is_a_model(folder):
    with pytest.raises(ModelFileError, match=r"folder: found no model, expected config.json or params.json"):
        read_model(folder)
    shutil.copy(folder / "stories.bin", folder / "model.bin")
    write_tokenizer(pieces(40), folder / "tokenizer.bin")
    model = read_model(folder)
    assert model.name == str(folder / "model.bin")
    assert model.tokenizer is not None


@pytest.mark.parametrize("content", [b"IQ==\t0\n", b"IQ== -1\n", b"\x1f\x8b\x08\x00", b"x", b"[]"])
def test_a_tokenizer_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"expected a tokenizer.bin, a tokenizer.model of .* or a tokenizer.json"):
        read_tokenizer(tmp_path / "tokenizer.model")


def test_the_content_decides_not_the_name(tmp_path):
    write_tokenizer(pieces(13), tmp_path / "t.bin")  # its longest piece has 6 bytes
    (tmp_path / "t.bin").rename(tmp_path / "t.model")
    assert isinstance(read_tokenizer(tmp_path / "t.model"), Llama2cTokenizer)
    write_tokenizer(Llama2cTokenizer([b"<unk>", BOS_PIECE, b"a" * 10], [0.0] * 3), tmp_path / "ten.bin")
    assert (tmp_path / "ten.bin").read_bytes()[:1] == b"\x0a"  # as every protobuf of pieces begins
    assert isinstance(read_tokenizer(tmp_path / "ten.bin"), Llama2cTokenizer)


def test_unknown_formats_and_names_are_refused(tmp_path, tiny_config):
    with pytest.raises(SettingError, match="format: found llama2c-v3, expected llama2c-v0, "):
        write_model(random_model(tiny_config), tmp_path / "m.bin", "llama2c-v3")
    with pytest.raises(ModelFileError, match=r"name: found ending '.txt'"):
        write_tokenizer(pieces(5), tmp_path / "tokenizer.txt")
    assert list(tmp_path.iterdir()) == []


def test_the_real_model_finds_its_tokenizer(shared_data):
    model = read_model(shared_data / "models/stories260K/stories260K.bin")
    assert isinstance(model.tokenizer, Llama2cTokenizer)
    assert model.tokenizer.vocab_size == 512
    with pytest.raises(LlamitaError, match="32000 tokens, the model 512"):
        read_model(shared_data / "models/stories260K/stories260K.bin", shared_data / "tokenizers/llama2/tokenizer.model")


def test_the_tokenizer_of_the_working_directory_counts_for_llama2cs_models(folder, tmp_path, monkeypatch, tiny_config):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_tokenizer(pieces(41), "tokenizer.bin")
    assert read_model(folder / "stories.bin").tokenizer is None
    write_tokenizer(pieces(40), "tokenizer.bin")
    assert read_model(folder / "stories.bin").tokenizer is not None
    write_model(random_model(tiny_config), "folder", "safetensors")
    assert read_model("folder").tokenizer is None
    shutil.copy(folder / "stories.bin", "tokenizer.bin")  # whatever is called so
    assert read_model(folder / "stories.bin").tokenizer is None


def test_the_tokenizer_beside_a_model_comes_before_that_of_the_working_directory(folder, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_tokenizer(pieces(40), "tokenizer.bin")
    write_tokenizer(sentence_pieces(40), folder / "tokenizer.model")
    assert isinstance(read_model(folder / "stories.bin").tokenizer, SentencePieceTokenizer)
