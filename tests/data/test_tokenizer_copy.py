"""The tokenizer of a data set: copied with all that decides its ids."""

import json

import pytest

from llamita.data.tokenizer_copy import copy_tokenizer, find_tokenizer
from llamita.errors import DataError, TokenizerError
from llamita.formats import read_tokenizer
from small_vocabularies import byte_level


@pytest.fixture
def folder(tmp_path):
    """A folder with a tokenizer.json, and what it says of BOS beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(byte_level()), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|im_start|>"}), encoding="utf-8")
    return folder


def test_what_the_folder_says_of_bos_comes_along(folder, tmp_path):
    (tmp_path / "data").mkdir()
    path, tokenizer = copy_tokenizer(find_tokenizer(folder), tmp_path / "data")
    assert tokenizer.bos_id == 702
    assert read_tokenizer(path).encode("a b", bos=True) == tokenizer.encode("a b", bos=True)
    assert sorted(file.name for file in path.parent.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_a_vocabulary_without_bos_is_refused(folder, tmp_path):
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None}), encoding="utf-8")
    with pytest.raises(TokenizerError, match="BOS: found none in this vocabulary"):
        copy_tokenizer(find_tokenizer(folder), tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"found no tokenizer, expected tokenizer.model, tokenizer.bin, tokenizer.json"):
        find_tokenizer(tmp_path)
