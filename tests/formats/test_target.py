"""Where an export may go: the format that a name asks for, what is never written over, and the tokenizer beside a file."""

from dataclasses import replace
from pathlib import Path

import pytest

from llamita.errors import ModelFileError, SettingError, TokenizerError
from llamita.formats import (
    huggingface_writer,
    llama2c_writer,
    read_model,
    read_tokenizer,
    weight_paths,
    write_model,
    write_tokenizer,
)
from llamita.formats.target import check_target, format_of, source_paths, write_tokenizer_beside
from llamita.model import random_model
from llamita.tokenizer.sentencepiece import SentencePieceTokenizer, parse_sentencepiece


@pytest.fixture
def toy(toy_sentencepiece_bytes: bytes) -> SentencePieceTokenizer:
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


@pytest.mark.parametrize(
    ("name", "dtype", "to"),
    [
        ("model.bin", None, "llama2c-v0"),
        ("a.b/model.bin", "f32", "llama2c-v0"),
        ("model.bin", "q8_0", "llama2c-v2"),
        ("model.gguf", "q8_0", "gguf"),
        ("Llama-3.1-8B", None, "safetensors"),
        ("folder", "f16", "safetensors"),
        ("folder.bin/", None, "safetensors"),
    ],
)
def test_a_name_asks_for_a_format(name, dtype, to):
    assert format_of(name, dtype) == to


def test_a_folder_that_is_there_is_a_folder_whatever_its_name(tmp_path):
    (tmp_path / "old.bin").mkdir()
    assert format_of(tmp_path / "old.bin") == "safetensors"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "found the ending .safetensors, expected NAME.bin, NAME.gguf or a folder; name a folder"),
        ("model.pth", "found the ending .pth, .*; say which format with --to"),
    ],
)
def test_a_name_that_asks_for_nothing_we_write_is_refused(name, message):
    with pytest.raises(SettingError, match=message):
        format_of(name)


def test_the_source_is_never_the_target(tmp_path, tiny_config):
    huggingface_writer.write(random_model(tiny_config), tmp_path / "folder")
    llama2c_writer.write(random_model(tiny_config), tmp_path / "model.bin", 0)
    (tmp_path / "link.bin").symlink_to(tmp_path / "model.bin")
    folder, file = (weight_paths(read_model(tmp_path / name)) for name in ("folder", "model.bin"))
    for path, to, sources in (
        (tmp_path / "folder", "safetensors", folder),
        (tmp_path / "folder" / "model.safetensors", "llama2c-v0", folder),
        (tmp_path / "model.bin", "llama2c-v1", file),
        (tmp_path / "link.bin", "llama2c-v1", file),
        (tmp_path, "safetensors", file),
    ):
        with pytest.raises(ModelFileError, match="target: found the model itself, expected another name"):
            check_target(path, to, sources)
    check_target(tmp_path / "folder" / "model.bin", "llama2c-v0", folder)
    check_target(tmp_path / "other.bin", "llama2c-v0", file)


def test_a_folder_of_other_things_is_no_target_and_one_of_a_model_is(tmp_path, tiny_config):
    model = random_model(tiny_config)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", "safetensors", [])
    huggingface_writer.write(model, tmp_path / "folder")
    check_target(tmp_path / "folder", "safetensors", [])
    (tmp_path / "folder" / "notes.txt").touch()
    with pytest.raises(ModelFileError, match=r"found a folder with notes\.txt, expected a new name, an empty folder or one of"):
        check_target(tmp_path / "folder", "safetensors", [])


def test_a_folder_is_no_place_for_a_file_and_a_file_none_for_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match="target: found a file, expected a folder, or a new name, for safetensors"):
        check_target(tmp_path / "file", "safetensors", [])
    with pytest.raises(ModelFileError, match="target: found a folder, expected a file, or a new name, for gguf"):
        check_target(tmp_path, "gguf", [])
    check_target(tmp_path / "file", "gguf", [])


def test_a_tokenizer_is_written_beside_a_model_and_never_over_another(tmp_path: Path, toy):
    path, state = write_tokenizer_beside(toy, tmp_path / "model.bin")
    assert (path, state) == (tmp_path / "tokenizer.bin", "written")
    assert read_tokenizer(path).encode("Once upon a time") == toy.encode("Once upon a time")
    assert write_tokenizer_beside(toy, tmp_path / "other.bin") == (path, "there already")
    path.write_bytes(b"mine")
    assert write_tokenizer_beside(toy, tmp_path / "model.bin") == (path, "another")
    assert path.read_bytes() == b"mine"


def test_a_vocabulary_that_tokenizer_bin_cannot_hold_is_refused(tmp_path):
    class Foreign:
        vocab_size = 40

    with pytest.raises(TokenizerError, match="found Foreign"):
        write_tokenizer_beside(Foreign(), tmp_path / "model.bin")  # pyright: ignore[reportArgumentType]
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_of_an_export_is_found_with_it(tmp_path, tiny_config, toy):
    model = random_model(replace(tiny_config, vocab_size=toy.vocab_size))
    write_model(model, tmp_path / "model.bin", "llama2c-v0")
    write_tokenizer_beside(toy, tmp_path / "model.bin")
    assert read_model(tmp_path / "model.bin").tokenizer is not None


def test_what_a_model_was_read_from_is_never_the_target(tmp_path, tiny_config, toy, monkeypatch):
    model = replace(random_model(replace(tiny_config, vocab_size=toy.vocab_size)), tokenizer=toy)
    huggingface_writer.write(model, tmp_path / "folder")
    (tmp_path / "here").mkdir()
    write_model(model, tmp_path / "here" / "stories.bin", "llama2c-v0")
    for name in ("stories.model", "tok400.bin", "tokenizer.json"):
        write_tokenizer(toy, tmp_path / "here" / name)
    write_tokenizer(toy, tmp_path / "tokenizer.bin")
    (tmp_path / "here" / "tokyo.bin").write_bytes(b"an older export")
    monkeypatch.chdir(tmp_path)
    folder, file = read_model("folder"), read_model("here/stories.bin")
    folders = [f"folder/{path.name}" for path in (tmp_path / "folder").iterdir() if path.name != "model.safetensors"]
    assert {"folder/config.json", "folder/tokenizer.bin", "folder/tokenizer_config.json"} <= {*folders}
    files = ["here/stories.model", "here/tok400.bin", "here/tokenizer.json"]
    (tmp_path / "bare").mkdir()
    write_model(model, tmp_path / "bare" / "stories.bin", "llama2c-v0")
    for read, names in ((folder, folders), (file, files), (read_model("bare/stories.bin"), ["tokenizer.bin"])):
        for name in names:
            said = f"target: found {Path(name).name}, which must stay, expected another name"
            with pytest.raises(ModelFileError, match=said):
                check_target(name, "gguf", weight_paths(read), source_paths(read))
    check_target("here/tokyo.bin", "llama2c-v0", weight_paths(file), source_paths(file))
    for other in (folder, file):
        check_target("tokenizer.bin", "llama2c-v0", weight_paths(other), source_paths(other))


def test_what_the_command_line_names_is_never_the_target(tmp_path):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "tokenizer.model"
    path.touch()
    for target, to in ((path, "gguf"), (tmp_path / "folder", "safetensors")):
        with pytest.raises(ModelFileError, match=r"target: found tokenizer\.model, which must stay"):
            check_target(target, to, [], [str(path)])
