"""A model quantized on opening: the copy in the cache folder."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.formats import read_model, write_model
from llamita.formats.quantized_copy import forget_oldest, quantized
from llamita.model import Model, random_model

CONFIG = ModelConfig(64, 2, 4, 2, 96, 100, 32, tied_embedding=False)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMITA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_model(random_model(CONFIG), tmp_path / "model.bin", "llama2c-v0")
    return tmp_path / "model.bin"


def matrices(model: Model) -> dict[str, np.ndarray]:
    return {name: tensor.dequantize() for name, tensor in model.tensors.items()}


@pytest.mark.parametrize(("dtype", "bound"), [("q8_0", 0.02), ("q4_0", 0.4)])
def test_matrices_are_quantized_once_and_then_mapped(path: Path, cache: Path, capfd, dtype: str, bound: float):
    source, first = read_model(path), read_model(path, dtype=dtype)
    assert "quantizing" in capfd.readouterr().err
    again = read_model(path, dtype=dtype)
    assert capfd.readouterr().err == ""
    assert len(list(cache.iterdir())) == 1
    assert {tensor.dtype for tensor in again.tensors.values() if len(tensor.shape) == 2} == {dtype}
    assert (again.config, again.name) == (source.config, source.name)
    for name, expected in matrices(source).items():
        assert np.array_equal(matrices(first)[name], matrices(again)[name])
        assert np.abs(matrices(again)[name] - expected).max() < bound


def test_a_changed_file_gets_a_new_copy(path: Path, cache: Path):
    read_model(path, dtype="q4_0")
    write_model(random_model(CONFIG, seed=1), path, "llama2c-v0")
    expected = read_model(path)
    assert np.abs(matrices(read_model(path, dtype="q4_0"))["head"] - matrices(expected)["head"]).max() < 0.4
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_copy_is_made_again(path: Path, cache: Path, capfd):
    good = matrices(read_model(path, dtype="q8_0"))
    [copy] = cache.iterdir()
    damaged = copy.read_bytes()[:1000]
    copy.unlink()  # the file that is mapped stays whole
    copy.write_bytes(damaged)
    capfd.readouterr()
    found = matrices(read_model(path, dtype="q8_0"))
    assert "quantizing" in capfd.readouterr().err
    assert all(np.array_equal(found[name], good[name]) for name in good)


def test_without_a_folder_the_model_is_converted_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llamita.formats.quantized_copy.cache_folder", lambda: None)
    assert read_model(path, dtype="q8_0").tensors["head"].dtype == "q8_0"


@pytest.mark.parametrize("folder", [None, Path("/dev/null/none")])
def test_rows_that_32_does_not_divide_become_f16_in_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder):
    monkeypatch.setattr("llamita.formats.quantized_copy.cache_folder", lambda: folder)
    model = random_model(ModelConfig(64, 1, 2, 2, 172, 64, 32))
    write_model(model, tmp_path / "m.bin", "llama2c-v1")
    made = quantized(model, "q8_0", [tmp_path / "m.bin"])
    dtypes = {name.rpartition(".")[2]: tensor.dtype for name, tensor in made.tensors.items() if len(tensor.shape) == 2}
    assert dtypes["up"] == "q8_0"
    assert dtypes["down"] == "f16"


def test_a_model_of_the_dtype_stays_as_it_is(path: Path, cache: Path):
    model = random_model(CONFIG, "q8_0", 32)
    assert quantized(model, "q8_0", [path]) is model
    with pytest.raises(SettingError, match="dtype: found q2_k, expected q8_0 or q4_0"):
        quantized(replace(model), "q2_k", [path])
    assert not cache.exists()


def test_the_copies_used_least_lately_go_first(tmp_path: Path):
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / f"{name}.gguf").write_bytes(bytes(1000))
        os.utime(tmp_path / f"{name}.gguf", (0, 1_000_000 - age))
    forget_oldest(tmp_path, limit_bytes=2500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle.gguf", "new.gguf"]
    forget_oldest(tmp_path, limit_bytes=10)
    assert [path.name for path in tmp_path.iterdir()] == ["new.gguf"]


@pytest.mark.parametrize("name", [b"bad\xff\xfe.bin", b"red\x1b[31m\nline.bin", b"n" * 235 + b".bin"])
def test_a_name_that_is_no_text_or_no_line_or_very_long_is_no_hindrance(path: Path, cache: Path, capfd, name: bytes):
    named = path.rename(path.with_name(os.fsdecode(name)))
    read_model(named, dtype="q8_0")
    said = capfd.readouterr().err
    assert "could not be kept" not in said
    assert said.isascii()
    assert said.replace("\n", "", 1).isprintable()
    read_model(named, dtype="q8_0")
    assert capfd.readouterr().err == ""
    [copy] = cache.iterdir()
    assert copy.name.isascii()
    assert len(copy.name) < 100


def test_a_cache_folder_that_cannot_be_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("LLAMITA_CACHE_DIR", "/dev/null")
    assert read_model(path, dtype="q8_0").tensors["head"].dtype == "q8_0"
    said = capfd.readouterr().err
    assert "found /dev/null, expected a folder that you alone may write; set LLAMITA_CACHE_DIR to another one" in said
