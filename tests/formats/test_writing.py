"""write_model: which dtype a file gets, how large it becomes, and a disk without room is said before anything is written."""

import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from llamita.errors import ModelFileError, SettingError
from llamita.formats import read_model, write_model
from llamita.formats.writing import DTYPES, FORMATS, check_dtype, default_dtype, expected_bytes
from llamita.model import random_model

WIDE = {"width": 32, "mlp_width": 64, "head_size": 8}  # rows of whole groups of 32


@pytest.mark.parametrize("to", FORMATS)
def test_a_dtype_that_the_format_has_no_place_for_is_refused(tmp_path, tiny_config, to):
    for dtype in {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "int8"} - {*DTYPES[to]}:
        with pytest.raises(SettingError, match=f"dtype: found {dtype}, expected {', '.join(DTYPES[to])}: {to} has no place"):
            write_model(random_model(tiny_config), tmp_path / "model", to, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path, tiny_config):
    with pytest.raises(SettingError, match="format: found onnx, expected llama2c-v0, "):
        write_model(random_model(tiny_config), tmp_path / "model", "onnx")
    with pytest.raises(SettingError, match="format: found onnx"):
        check_dtype("onnx", "f32")


@pytest.mark.parametrize(
    ("stored", "to", "dtype"),
    [
        ("bf16", "safetensors", "bf16"),
        ("q8_0", "safetensors", "f32"),
        ("f16", "llama2c-v0", "f32"),
        ("q4_0", "llama2c-v2", "q8_0"),
        ("q8_0", "gguf", None),
    ],
)
def test_the_dtype_is_the_models_own_where_the_format_has_it(tiny_config, stored, to, dtype):
    assert default_dtype(random_model(replace(tiny_config, **WIDE), stored, group=8), to) == dtype


def test_a_model_of_several_dtypes_gets_the_formats_own(tiny_config):
    model, other = random_model(tiny_config, "f16"), random_model(tiny_config, "bf16")
    mixed = replace(model, tensors=model.tensors | {"embedding": other.tensors["embedding"]})
    assert default_dtype(mixed, "safetensors") == "f32"


def test_gguf_holds_each_matrix_as_it_is(tmp_path, tiny_config):
    config = replace(tiny_config, **WIDE)
    models = [random_model(config, dtype, group=32) for dtype in ("q4_1", "q8_0", "bf16")]
    mixed = replace(models[0], tensors=models[0].tensors | {"embedding": models[1].tensors["embedding"]})
    mixed.tensors["layers.0.mlp.up"] = models[2].tensors["layers.0.mlp.up"]
    write_model(mixed, tmp_path / "model.gguf", "gguf")
    read = read_model(tmp_path / "model.gguf").tensors
    assert [read[name].dtype for name in ("layers.0.mlp.down", "embedding", "layers.0.mlp.up")] == ["q4_1", "q8_0", "bf16"]
    for name, tensor in mixed.tensors.items():
        error = 2**-11 if name == "embedding" else 0  # the scales of random_model's q8_0 are float32
        np.testing.assert_allclose(read[name].dequantize(), tensor.dequantize(), rtol=error, atol=0, err_msg=name)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("to", "dtype"), [(to, dtype) for to in FORMATS for dtype in DTYPES[to]])
def test_the_size_is_known_before(tmp_path, tiny_config, to, dtype, tied):
    config = replace(tiny_config, **WIDE, vocab_size=20_000, tied_embedding=tied)
    model = random_model(config, "q8_0", group=16)
    write_model(model, tmp_path / "model", to, dtype=dtype)
    paths = [tmp_path / "model"] if (tmp_path / "model").is_file() else (tmp_path / "model").glob("*.safetensors")
    n_bytes = sum(path.stat().st_size for path in paths)
    assert n_bytes * 0.99 < expected_bytes(model, to, dtype) <= n_bytes
    assert read_model(tmp_path / "model").config == config


@pytest.mark.parametrize("to", FORMATS)
def test_a_disk_without_room_is_said_with_both_numbers_and_nothing_is_written(tmp_path, tiny_config, to, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    with pytest.raises(ModelFileError, match=r"free space: found 1,000 bytes, expected [\d,]+; make room") as caught:
        write_model(random_model(tiny_config), tmp_path / "model", to)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", FORMATS)
def test_a_disk_that_fills_up_leaves_nothing_new_and_the_old_as_it_was(tmp_path, tiny_config, to):
    def fill(n_bytes: int) -> None:
        nonlocal room
        room -= n_bytes
        if room < 0:
            raise OSError(28, "No space left on device")

    for old in (False, True):
        room = 5000
        if old:
            write_model(random_model(tiny_config), tmp_path / "model", to)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(ModelFileError, match="writing: found No space left on device, expected a folder with room"):
            write_model(random_model(tiny_config, seed=1), tmp_path / "model", to, progress=fill)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_missing_folder_is_said(tmp_path, tiny_config):
    with pytest.raises(ModelFileError, match=r"nowhere: folder: found No such file or directory, expected one that is there"):
        write_model(random_model(tiny_config), tmp_path / "nowhere" / "model.bin", "llama2c-v0")
