"""Tensors in pieces: together they are the tensor, whatever its order of rows, and none of the source stays in memory."""

import mmap
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.formats import huggingface, huggingface_writer, pieces, write_model
from llamita.formats.pieces import write_array
from llamita.model import random_model
from llamita.quant import Tensor, convert


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    """Pieces of a few rows, where those of a tiny model would be whole tensors."""
    monkeypatch.setattr(pieces, "WEIGHTS_AT_ONCE", 60)


def joined(parts) -> np.ndarray:
    return np.concatenate([part.dequantize() for part in parts])


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
@pytest.mark.parametrize("stored", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
def test_pieces_of_any_dtype_are_the_converted_tensor(stored, dtype):
    weights = np.random.default_rng(0).standard_normal((7, 64), np.float32)
    tensor = convert(Tensor.from_array(weights), stored, group=32)
    parts = list(pieces.pieces(tensor, dtype, group=16))
    assert [part.shape for part in parts] == [(1, 64)] * 7
    np.testing.assert_array_equal(joined(parts), convert(tensor, dtype, group=16).dequantize())


@pytest.mark.parametrize(("stored", "dtype"), [(a, b) for a in ("f16", "bf16") for b in ("f32", "f16", "bf16") if a != b])
def test_every_16_bit_number_becomes_what_convert_makes_of_it(stored, dtype):
    bits = np.arange(1 << 16, dtype=np.uint16)
    every = Tensor(stored, bits.shape, bits.view(np.float16) if stored == "f16" else bits)
    with np.errstate(all="ignore"):
        expected = convert(every, dtype).data
    kept = np.isfinite(expected.astype(np.float32)) if dtype == "f16" else np.ones(bits.shape, bool)
    finite = Tensor(stored, (int(kept.sum()),), every.data[kept])
    (piece,) = pieces.pieces(finite, dtype)
    np.testing.assert_array_equal(piece.data.view(f"u{piece.data.itemsize}"), expected[kept].view(f"u{piece.data.itemsize}"))


@pytest.mark.parametrize("stored", ["f32", "bf16"])
def test_a_number_too_large_for_f16_is_said_and_infinity_is_none(stored):
    numbers = np.array([1, 65519, -np.inf, np.nan], np.float32)
    (piece,) = pieces.pieces(convert(Tensor.from_array(numbers[[0, 2, 3]]), stored), "f16")
    np.testing.assert_array_equal(piece.data, numbers[[0, 2, 3]].astype(np.float16))
    with pytest.raises(OverflowError, match="a weight too large for f16"):
        list(pieces.pieces(convert(Tensor.from_array(np.array([1, -70000], np.float32)), stored), "f16"))


@pytest.mark.usefixtures("small_pieces")
def test_a_piece_has_whole_units_and_the_last_one_the_rest():
    tensor = Tensor.from_array(np.arange(80, dtype=np.float32).reshape(20, 4))
    assert [part.shape[0] for part in pieces.pieces(tensor, "f32")] == [15, 5]
    assert [part.shape[0] for part in pieces.pieces(tensor, "f32", unit=4)] == [12, 8]
    assert [part.shape[0] for part in pieces.pieces(tensor, "f32", unit=20)] == [20]
    assert [part.shape for part in pieces.pieces(Tensor.from_array(np.zeros(70, np.float32)), "f16")] == [(60,), (10,)]


@pytest.mark.usefixtures("small_pieces")
def test_heads_in_another_order_are_cut_between_heads(tmp_path, tiny_config):
    model = random_model(replace(tiny_config, n_heads=8, n_kv_heads=4, head_size=2))
    huggingface_writer.write(model, tmp_path / "model")
    read = huggingface.read(tmp_path / "model").tensors["layers.0.attention.query"]
    assert read.data.shape == (8, 1, 2, 16)  # a view of heads
    parts = list(pieces.pieces(read, "f32"))
    assert [part.shape for part in parts] == [(2, 16)] * 8
    np.testing.assert_array_equal(joined(parts), model.tensors["layers.0.attention.query"].data)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("stored", ["f32", "bf16", "q8_0"])
def test_a_folder_in_pieces_is_that_of_whole_tensors(tmp_path, tiny_config, stored, monkeypatch):
    model = random_model(tiny_config, stored, group=8)
    huggingface_writer.write(model, tmp_path / "pieces", "f16")
    monkeypatch.setattr(pieces, "WEIGHTS_AT_ONCE", 1 << 20)
    huggingface_writer.write(model, tmp_path / "whole", "f16")
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert all((tmp_path / "pieces" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_numbers_are_written_in_the_order_of_rows_and_counted(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    counts: list[int] = []
    with (tmp_path / "file").open("wb") as file:
        write_array(file, array.T, "<f4", counts.append)
        write_array(file, array, "<f2", counts.append)
    expected = np.ascontiguousarray(array.T).tobytes() + array.astype("<f2").tobytes()
    assert (tmp_path / "file").read_bytes() == expected
    assert counts == [48, 24]


@pytest.mark.parametrize("to", ["llama2c-v0", "llama2c-v1", "llama2c-v2", "safetensors"])
def test_progress_is_told_of_all_bytes_but_the_header(tmp_path, tiny_config, to):
    told: list[int] = []
    write_model(random_model(tiny_config), tmp_path / "model", to, progress=told.append)
    path = tmp_path / "model" / "model.safetensors" if to == "safetensors" else tmp_path / "model"
    n_bytes = path.read_bytes()[:8]
    header = {"llama2c-v0": 28, "safetensors": 8 + int.from_bytes(n_bytes, "little")}.get(to, 256)
    assert sum(told) == path.stat().st_size - header


def resident_bytes(path: Path) -> int:
    """Memory of this process that is pages of a file."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if line.endswith(str(path))]
    return sum(int(line.split()[1]) * 1024 for i in starts for line in lines[i + 1 : i + 5] if line.startswith("Rss:"))


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(mmap, "MADV_DONTNEED"), reason="pages are counted in Linux's /proc")
def test_writing_a_mapped_model_neither_maps_nor_copies_all_of_it(tmp_path, tiny_config):
    config = replace(tiny_config, width=1024, mlp_width=4096, n_layers=1, vocab_size=8192, head_size=256)
    huggingface_writer.write(random_model(config), tmp_path / "source", "f16")
    source = tmp_path / "source" / "model.safetensors"
    assert source.stat().st_size > 45e6
    model = huggingface.read(tmp_path / "source")
    for to in ("llama2c-v0", "safetensors"):
        resident: list[int] = []
        tracemalloc.start()
        write_model(model, tmp_path / to, to, progress=lambda _, told=resident: told.append(resident_bytes(source)))
        allocated = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0 < max(resident) < 8e6
        assert resident_bytes(source) < 1e6
        assert allocated < 16e6  # a third of the embedding in float32
